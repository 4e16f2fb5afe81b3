"""The deferred and periodic work on money. Each task finds by itself what is due."""

from billing.tasks import promotions, receipts

__all__ = ["promotions", "receipts"]

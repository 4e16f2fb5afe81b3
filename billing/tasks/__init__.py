"""The deferred and periodic work on money. Each task finds by itself what is due."""

from billing.tasks import auto_topups, low_balance, payments, promotions, receipts, refunds

__all__ = ["auto_topups", "low_balance", "payments", "promotions", "receipts", "refunds"]

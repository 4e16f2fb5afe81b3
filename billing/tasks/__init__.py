"""The deferred and periodic work on money. Each task finds by itself what is due."""

from billing.tasks import auto_topups, budget_alerts, low_balance, payments, promotions, receipts, refunds

__all__ = ["auto_topups", "budget_alerts", "low_balance", "payments", "promotions", "receipts", "refunds"]

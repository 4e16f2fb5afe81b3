"""Money for the operator: everything to read, nothing to edit, and a few things to do, each with its reason."""

from billing.admin import ledger, promotions, topups, upstream_health, wallets

__all__ = ["ledger", "promotions", "topups", "upstream_health", "wallets"]

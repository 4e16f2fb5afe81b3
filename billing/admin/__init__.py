"""Money for the operator: everything to read, nothing to edit, and a few things to do, each with its reason."""

from billing.admin import (
    auto_topups,
    budgets,
    disputes,
    ledger,
    promotions,
    refunds,
    topups,
    unmatched,
    upstream_health,
    wallets,
    webhooks,
)

__all__ = [
    "auto_topups",
    "budgets",
    "disputes",
    "ledger",
    "promotions",
    "refunds",
    "topups",
    "unmatched",
    "upstream_health",
    "wallets",
    "webhooks",
]

"""Wallets against the ledger and against what is held of them."""

from usage.auditing.check import Check

CHECKS = (
    Check(
        "account {subject}: its wallet says {found}, its ledger less what is not posted yet says {expected}",
        """
        SELECT id::text, balance, credits - to_post - to_roll_up, true
        FROM by_account WHERE balance <> credits - to_post - to_roll_up
        """,
    ),
    Check(
        "account {subject}: its wallet holds {found}, its open holds and what is still to take are {expected}",
        "SELECT id::text, held, holds + to_take, true FROM by_account WHERE held <> holds + to_take",
    ),
    Check(
        "account {subject}: its wallet says {found} is still to take, its disputes and refunds say {expected}",
        "SELECT id::text, wallet_to_take, to_take, true FROM by_account WHERE wallet_to_take <> to_take",
    ),
)

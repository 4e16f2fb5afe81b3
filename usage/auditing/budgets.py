"""Budgets against what is held of them."""

from usage.auditing.check import Check

CHECKS = (
    Check(
        "key {subject}: its budget holds {found}, its open holds of the period are {expected}",
        """
        SELECT b.key_id::text, b.held_nanousd, coalesce(sum(h.amount_nanousd), 0), true
        FROM billing_budget b
        LEFT JOIN billing_hold h ON h.key_id = b.key_id AND h.budget_period_start = b.period_start
        GROUP BY b.id HAVING b.held_nanousd <> coalesce(sum(h.amount_nanousd), 0)
        """,
    ),
)

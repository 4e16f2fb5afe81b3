"""What every table says of each account, one row an account: `by_account` of the checks.

Each table is summed up once, over all accounts, and the sums are laid over each other: nothing is looked up account by
account. What a look-up costs is for PostgreSQL to guess, from statistics that know nothing of the last minute. Where it
took the records of one busy account for all there are, it read the whole backlog again for each of a thousand others.
"""

# Figures, and the statement that gives them: an account and its figures, in this order. An account may come in several.
_SUMS = (
    (
        ("balance", "held", "wallet_to_take", "attributed"),
        "SELECT account_id, balance_nanousd, held_nanousd, to_take_nanousd, attributed_nanousd FROM billing_wallet",
    ),
    (("holds",), "SELECT account_id, sum(amount_nanousd) FROM billing_hold GROUP BY 1"),
    (
        ("to_take",),
        "SELECT account_id, sum(to_take_nanousd) FROM billing_dispute WHERE to_take_nanousd > 0 GROUP BY 1",
    ),
    (
        ("to_take",),
        "SELECT account_id, sum(to_take_nanousd) FROM billing_refund WHERE to_take_nanousd > 0 GROUP BY 1",
    ),
    (
        ("credits", "usage_posted"),
        """
        SELECT l.account_id, sum(p.amount_nanousd), -sum(p.amount_nanousd) FILTER (WHERE t.kind = 'usage')
        FROM billing_posting p
        JOIN billing_ledgeraccount l ON l.id = p.ledger_account_id
        JOIN billing_ledgertransaction t ON t.id = p.transaction_id
        WHERE l.kind = 'customer_credits' GROUP BY 1
        """,
    ),
    (
        ("losses_posted",),
        """
        SELECT t.account_id, -sum(p.amount_nanousd)
        FROM billing_posting p
        JOIN billing_ledgeraccount l ON l.id = p.ledger_account_id
        JOIN billing_ledgertransaction t ON t.id = p.transaction_id
        WHERE l.kind = 'platform_loss' AND t.kind = 'loss' GROUP BY 1
        """,
    ),
    (
        ("posted", "to_post"),
        """
        SELECT account_id, sum(posted_nanousd), sum(charged_nanousd - posted_nanousd)
        FROM usage_hourlyusage GROUP BY 1
        """,
    ),
    (
        ("to_roll_up", "losses"),
        """
        SELECT account_id, sum(charged_nanousd) FILTER (WHERE NOT is_rolled_up),
            sum(loss_nanousd) FILTER (WHERE is_rolled_up)
        FROM usage_usagerecord WHERE NOT is_rolled_up OR loss_nanousd > 0 GROUP BY 1
        """,
    ),
    (
        ("lots",),
        "SELECT account_id, sum(remaining_nanousd) FROM billing_promotionalcredit WHERE closed_at IS NULL GROUP BY 1",
    ),
)
_FIGURES = tuple(dict.fromkeys(figure for figures, _ in _SUMS for figure in figures))


def _laid_out(figures: tuple[str, ...], sums: str) -> str:
    """The sums in the columns of all figures, with nothing in the others."""
    columns = ", ".join(figure if figure in figures else f"NULL::bigint AS {figure}" for figure in _FIGURES)
    return f"SELECT account_id, {columns} FROM ({sums}) AS sums (account_id, {', '.join(figures)})"  # noqa: S608


BY_ACCOUNT = (
    f"SELECT account_id AS id, {', '.join(f'coalesce(sum({figure}), 0) AS {figure}' for figure in _FIGURES)}"  # noqa: S608
    f" FROM ({' UNION ALL '.join(_laid_out(*sums) for sums in _SUMS)}) AS laid_out GROUP BY 1 ORDER BY 1"
)

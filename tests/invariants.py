"""What must hold after every test that moves money. `check_books()` at its end; it needs no fixture."""

import datetime as dt

from billing import verifying
from billing.models import Hold
from usage import auditing


def check_books(*, idle: bool = False) -> None:
    """Wallets, ledger, chain, holds, budgets, allowances and usage agree; with `idle`, no request still runs."""
    report = auditing.audit_ledger(at=dt.datetime.now(dt.UTC))
    assert not report.discrepancies, "\n".join(report.discrepancies)
    broken = verifying.verify_chain().broken
    assert broken is None, broken
    if idle:
        assert not Hold.objects.exists(), "holds are still open"

"""The ledger for an accountant: every posting of the days asked for, in a form that a spreadsheet cannot run."""

import csv
import datetime as dt
import io
from decimal import Decimal
from pathlib import Path

import pytest
import time_machine
from django.core.management import CommandError, call_command

from accounts.models import Account
from billing import crediting, ledger_export, topping_up
from tests import factories
from tests.invariants import check_books
from tests.usage import rows
from usage import posting, rollups

pytestmark = pytest.mark.django_db
NOVEMBER = ("--from", "2026-11-01", "--to", "2026-11-30")


def grant(account: Account, *, at: dt.datetime, reason: str = "for a test") -> None:
    crediting.grant(
        account=account,
        amount_nanousd=1,
        reason=reason,
        actor=None,
        at=at,
        reference=f"grant:{at.isoformat()}",
    )


def exported(*options: str) -> list[dict[str, str]]:
    out = io.StringIO()
    call_command("export_ledger", *options, stdout=out)
    return list(csv.DictReader(io.StringIO(out.getvalue())))


def test_each_posting_is_a_row() -> None:
    account, at = factories.make_account(), dt.datetime(2026, 11, 3, 9, 5, 7, tzinfo=dt.UTC)
    topup = topping_up.start(
        account=account, actor=None, credit_nanousd=20 * 10**9, provider="sandbox", at=at
    )
    topping_up.finish(
        provider="sandbox", reference=topup.provider_reference, paid_total_nanousd=topup.total_nanousd, at=at
    )
    exports = exported(*NOVEMBER)
    common = {
        "date": "2026-11-03",
        "time_utc": "09:05:07",
        "transaction": "1",
        "reference": f"topup:{topup.pk}",
        "kind": "topup",
        "account_id": str(account.pk),
        "account": account.name,
        "description": f"Top-up {topup.pk}",
    }
    legs = {row["ledger_account"]: (row["debit_usd"], row["credit_usd"]) for row in exports}
    assert legs == {
        "cash_clearing:sandbox": ("25.000000000", ""),
        f"customer_credits:{account.pk}": ("", "20.000000000"),
        "fee_revenue": ("", "5.000000000"),
    }
    for row in exports:
        assert row.items() >= common.items()
    assert sum(Decimal(row["debit_usd"] or 0) - Decimal(row["credit_usd"] or 0) for row in exports) == 0


def test_both_days_are_included_and_no_others() -> None:
    account = factories.make_account()
    first, after = dt.datetime(2026, 11, 1, tzinfo=dt.UTC), dt.datetime(2026, 12, 1, tzinfo=dt.UTC)
    moment = dt.timedelta(microseconds=1)
    for at in (first - moment, first, after - moment, after):
        grant(account, at=at)
    assert {row["transaction"] for row in exported(*NOVEMBER)} == {"2", "3"}


def test_a_month_that_was_exported_does_not_change_and_none_misses_what_came_late() -> None:
    """A request of November that the journal brings back in December has used more than there was."""
    late, december = dt.datetime(2026, 11, 30, 23, 30, tzinfo=dt.UTC), dt.datetime(2026, 12, 2, tzinfo=dt.UTC)
    account = factories.make_account()
    grant(account, at=late)
    november = exported(*NOVEMBER)
    rows.make_record(
        account=account,
        key=factories.make_key(account).key,
        model=factories.make_model(),
        at=late,
        cost_nanousd=3,
        charged_nanousd=1,
        loss_nanousd=2,
    )
    rollups.roll_up(at=december)
    posting.post_hours(at=december)
    assert exported(*NOVEMBER) == november
    parts = november + exported("--from", "2026-12-01", "--to", "2026-12-31")
    assert {row["kind"] for row in parts} == {"promotion", "loss", "usage"}
    assert parts == exported("--from", "2026-01-01", "--to", "2026-12-31")
    check_books(idle=True)


@pytest.mark.parametrize(("minutes", "is_early"), [(-60, True), (59, True), (60, False)])
def test_who_exports_too_early_is_told(minutes: int, is_early: bool) -> None:
    err = io.StringIO()
    with time_machine.travel(
        dt.datetime(2026, 12, 1, tzinfo=dt.UTC) + dt.timedelta(minutes=minutes), tick=False
    ):
        call_command("export_ledger", *NOVEMBER, stdout=io.StringIO(), stderr=err)
    assert ("2026-11-30 has not been over for an hour" in err.getvalue()) == is_early


def test_a_month_in_which_nothing_moved_is_its_heading() -> None:
    out = io.StringIO()
    call_command("export_ledger", *NOVEMBER, stdout=out)
    assert out.getvalue() == ",".join(ledger_export.COLUMNS) + "\r\n"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_what_people_wrote_is_no_formula(start: str) -> None:
    account = factories.make_account()
    Account.objects.filter(pk=account.pk).update(name=f'{start}HYPERLINK("evil")')
    grant(account, at=dt.datetime(2026, 11, 3, tzinfo=dt.UTC), reason=f"{start}1+1")
    for row in exported(*NOVEMBER):
        assert row["account"] == f'\'{start}HYPERLINK("evil")'
        assert row["description"] == f"'{start}1+1"


def test_it_goes_into_a_file(tmp_path: Path) -> None:
    grant(factories.make_account(), at=dt.datetime(2026, 11, 3, tzinfo=dt.UTC), reason="Füße, “quoted”")
    path, out = tmp_path / "november.csv", io.StringIO()
    call_command("export_ledger", *NOVEMBER, "--output", str(path), stdout=out)
    assert f"2 postings from 2026-11-01 to 2026-11-30 UTC written to {path}." in out.getvalue()
    with path.open(newline="", encoding="utf-8") as file:
        assert [row["description"] for row in csv.DictReader(file)] == ["Füße, “quoted”"] * 2


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--from", "2026-11-31", "--to", "2026-12-01"), "--from 2026-11-31 is not a date like 2026-11-30"),
        (("--from", "2026-11-01", "--to", "yesterday"), "--to yesterday is not a date like 2026-11-30"),
        (("--from", "2026-11-02", "--to", "2026-11-01"), "--from 2026-11-02 is after --to 2026-11-01"),
        ((*NOVEMBER, "--output", "/nowhere/at/all.csv"), "--output /nowhere/at/all.csv: No such file"),
        (("--from", "2026-11-01"), "--to"),
    ],
)
def test_what_cannot_be_exported_says_why(options: tuple[str, ...], problem: str) -> None:
    with pytest.raises(CommandError, match=problem):
        exported(*options)

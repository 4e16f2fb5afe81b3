"""Books with one of everything for the audit to prove, and what no code of ours would do to them."""

import datetime as dt
import uuid
from dataclasses import dataclass

from django.db import connection
from django.db.models import F
from pytest_django import Settings

from accounts.models import Account, Plan
from billing import topping_up, wallets
from billing.models import Hold
from catalog.models import Model
from keys.models import ApiKey
from tests import factories
from tests.usage import rows
from usage import auditing, posting, rollups
from usage.models import DailyAllowance

AT = dt.datetime(2026, 3, 4, 15, 30, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Books:
    account: Account
    key: ApiKey
    model: Model
    other: Account


def make_books(settings: Settings) -> Books:
    """An account with one of everything: a grant, a payment, usage at each stage, open holds, a budget, a loss."""
    settings.TOPUP_PROVIDERS = ["sandbox"]
    account = factories.make_account(plan=Plan.PAY_AS_YOU_GO, credit="10")
    key = factories.make_key(account).key
    model = factories.make_model()
    topup = topping_up.start(
        account=account, actor=None, credit_nanousd=20 * 10**9, provider="sandbox", at=AT
    )
    topping_up.finish(
        provider="sandbox", reference=topup.provider_reference, paid_total_nanousd=topup.total_nanousd, at=AT
    )
    topping_up.start(account=account, actor=None, credit_nanousd=7 * 10**9, provider="sandbox", at=AT)
    rows.make_record(account=account, key=key, model=model, at=AT - 2 * HOUR)
    rows.make_record(
        account=account,
        key=key,
        model=model,
        at=AT - 2 * HOUR,
        cost_nanousd=9,
        charged_nanousd=5,
        loss_nanousd=4,
    )
    rollups.roll_up(at=AT)
    posting.post_hours(at=AT)
    rows.make_record(account=account, key=key, model=model, at=AT - HOUR)
    rows.make_record(account=account, key=key, model=None, at=AT - HOUR, outcome="refused", cost_nanousd=0)
    rows.make_record(
        account=account, key=key, model=model, at=AT - HOUR, charged_nanousd=0, allowance_tokens=120
    )
    rollups.roll_up(at=AT)
    rows.make_record(account=account, key=key, model=model, at=AT)
    _place_holds(account, key)
    return Books(account, key, model, factories.make_account())


def plant(statement: str, **parameters: int | uuid.UUID | dt.datetime) -> None:
    """Run what no code of ours would, past the triggers that would refuse it."""
    tables = (
        "billing_posting",
        "billing_ledgertransaction",
        "billing_promotionalcredit",
        "billing_paymentreport",
        "billing_refundreport",
        "billing_paymentclosing",
        "billing_auditedhead",
        "billing_unmatchedpayment",
        "billing_webhookevent",
        "usage_usagerecord",
        "usage_hourlyusage",
    )
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in tables:
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        cursor.execute(statement, parameters)
        for table in tables:
            cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
        cursor.execute("SET CONSTRAINTS ALL DEFERRED")


def of_budget(books: Books, *, figure: str, found: str, expected: str) -> str:
    budget = books.key.budgets.get()
    return (
        f"budget {budget.pk} of account {books.account.pk}, {figure}, from 2026-03-04: it says {found} USD, "
        f"its requests and open holds of the period say {expected} USD"
    )


def found() -> list[str]:
    return auditing.audit_ledger(at=AT).discrepancies


def _place_holds(account: Account, key: ApiKey) -> None:
    borrowed = wallets.borrowed_connection()
    locked = wallets.lock(borrowed, [account.pk])
    locked[account.pk].hold(300)
    wallets.write(borrowed, locked.values())
    DailyAllowance.objects.filter(account=account, day=AT.date()).update(
        requests=F("requests") + 1, held_tokens=50
    )
    common = {"account": account, "key": key, "process_id": uuid.uuid4()}
    Hold.objects.create(request_id=uuid.uuid4(), amount_nanousd=300, placed_at=AT, **common)
    Hold.objects.create(
        request_id=uuid.uuid4(), amount_nanousd=0, allowance_day=AT.date(), allowance_tokens=50, **common
    )
    factories.make_budget(key, period="day", limit_nanousd=10**9, at=AT)

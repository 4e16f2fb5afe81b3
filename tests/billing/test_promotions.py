"""Which credit is promotional, and what is left of each lot."""

import datetime as dt
import importlib
import itertools
from dataclasses import dataclass, field

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.migrations.loader import MigrationLoader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts.models import Account
from billing import crediting, expiring, ledger, promotions, topping_up, wallets
from billing.ledger import Leg
from billing.models import LedgerAccount, LedgerTransaction, PromotionalCredit, Wallet
from keys.models import ApiKey
from tests import factories
from tests.invariants import check_books
from tests.usage import rows
from usage import posting, rollups

AT = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
USD = 10**9
_numbers = itertools.count()


def give(account: Account, amount_nanousd: int, *, days: int | None = None, at: dt.datetime = AT) -> None:
    crediting.grant(
        account=account,
        amount_nanousd=amount_nanousd,
        reason=f"{days} days" if days else "no date",
        actor=None,
        at=at,
        reference=f"lot:{next(_numbers)}",
        expires_at=at + days * DAY if days else None,
    )


def buy(account: Account, credit_nanousd: int) -> None:
    topup = topping_up.start(
        account=account, actor=None, credit_nanousd=credit_nanousd, provider="sandbox", at=AT
    )
    topping_up.finish(
        provider="sandbox", reference=topup.provider_reference, paid_total_nanousd=topup.total_nanousd, at=AT
    )


def take_away(account: Account, amount_nanousd: int) -> None:
    """As a dispute or an adjustment does."""
    with transaction.atomic():
        borrowed = wallets.borrowed_connection()
        wallet = wallets.lock(borrowed, [account.pk])[account.pk]
        promotions.attribute(account_id=account.pk, at=AT)
        wallet.charge(amount_nanousd)
        wallets.write(borrowed, [wallet])
        ledger.post(
            reference=f"taken:{next(_numbers)}",
            kind=LedgerTransaction.Kind.LOSS,
            account=account,
            description="",
            legs=[
                Leg(LedgerAccount.Kind.CUSTOMER_CREDITS, -amount_nanousd, owner_id=account.pk),
                Leg(LedgerAccount.Kind.PROMOTIONS, amount_nanousd),
            ],
            at=AT,
        )
        promotions.attribute(account_id=account.pk, at=AT)


def left(account: Account) -> list[tuple[str, int]]:
    standing = promotions.standing(account_id=account.pk)
    return [(lot.reason, lot.left_nanousd) for lot in standing.lots]


@pytest.fixture
def account(db: None) -> Account:
    return factories.make_account()


@pytest.fixture
def key(account: Account) -> ApiKey:
    return factories.make_key(account).key


def charge(key: ApiKey, amount_nanousd: int) -> None:
    rows.make_record(account=key.account, key=key, model=None, at=AT, cost_nanousd=amount_nanousd)


def test_the_soonest_to_expire_is_spent_first_and_paid_credit_last(account: Account, key: ApiKey) -> None:
    buy(account, 10 * USD)
    give(account, 3)
    give(account, 3, days=9)
    give(account, 3, days=2)
    charge(key, 4)
    assert left(account) == [("2 days", 0), ("9 days", 2), ("no date", 3)]
    charge(key, 4)
    assert left(account) == [("2 days", 0), ("9 days", 0), ("no date", 1)]
    charge(key, 4)
    standing = promotions.standing(account_id=account.pk)
    assert (standing.promotional_nanousd, standing.paid_nanousd) == (0, 10 * USD - 3)
    check_books()


def test_what_was_spent_before_a_grant_is_not_taken_from_it(account: Account, key: ApiKey) -> None:
    give(account, 5)
    charge(key, 5)
    give(account, 7, days=1)
    assert left(account) == [("1 days", 7)]
    closed = PromotionalCredit.objects.get(amount_nanousd=5)
    assert (closed.remaining_nanousd, closed.expired_nanousd, closed.closed_at) == (0, 0, AT)
    check_books()


def test_a_read_writes_nothing(account: Account, key: ApiKey) -> None:
    give(account, 5)
    charge(key, 2)
    assert left(account) == [("no date", 3)]
    assert PromotionalCredit.objects.get().remaining_nanousd == 5
    assert Wallet.objects.get(account=account).attributed_nanousd == 0


def test_a_second_look_finds_nothing_new(account: Account, key: ApiKey) -> None:
    give(account, 5)
    charge(key, 2)
    first = promotions.attribute(account_id=account.pk, at=AT)
    second = promotions.attribute(account_id=account.pk, at=AT)
    assert [lot.left_nanousd for lot in (*first.lots, *second.lots)] == [3, 3]
    assert Wallet.objects.get(account=account).attributed_nanousd == 2


def test_posting_usage_to_the_ledger_changes_nothing(account: Account, key: ApiKey) -> None:
    give(account, 5)
    buy(account, 5 * USD)
    charge(key, 2)
    rollups.roll_up(at=AT)
    assert posting.post_hours(at=AT + DAY) == 1
    assert left(account) == [("no date", 3)]


def test_only_paid_credit_that_nothing_holds_can_be_given_back(account: Account, key: ApiKey) -> None:
    assert promotions.paid_available_nanousd(account_id=account.pk, at=AT) == 0
    buy(account, 5 * USD)
    give(account, 3 * USD)
    charge(key, USD)
    assert promotions.paid_available_nanousd(account_id=account.pk, at=AT) == 5 * USD
    Wallet.objects.filter(account=account).update(held_nanousd=4 * USD)
    assert promotions.paid_available_nanousd(account_id=account.pk, at=AT) == 3 * USD


def test_what_is_taken_away_takes_paid_credit_first(account: Account) -> None:
    buy(account, 5 * USD)
    give(account, 3 * USD)
    take_away(account, 4 * USD)
    assert left(account) == [("no date", 3 * USD)]
    take_away(account, 2 * USD)
    assert left(account) == [("no date", 2 * USD)]
    buy(account, 5 * USD)
    assert promotions.paid_available_nanousd(account_id=account.pk, at=AT) == 5 * USD
    check_books(idle=True)


def test_an_account_without_a_wallet_has_nothing(account: Account) -> None:
    standing = promotions.standing(account_id=account.pk)
    assert (standing.balance_nanousd, standing.unspent_lots, standing.paid_available_nanousd) == (0, [], 0)


def test_credit_cannot_be_granted_for_a_time_that_has_passed(account: Account) -> None:
    with pytest.raises(ValueError, match="cannot expire at"):
        crediting.grant(
            account=account, amount_nanousd=1, reason="", actor=None, at=AT, reference="x", expires_at=AT
        )
    assert not LedgerTransaction.objects.exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"remaining_nanousd": 6},
        {"remaining_nanousd": -1},
        {"remaining_nanousd": 0},
        {"closed_at": AT},
        {"remaining_nanousd": 4, "expired_nanousd": 1},
        {"remaining_nanousd": 4, "expired_nanousd": 2, "expires_at": AT},
    ],
)
def test_the_database_refuses_a_lot_that_makes_no_sense(account: Account, fields: dict[str, object]) -> None:
    give(account, 5)
    with pytest.raises(IntegrityError, match="promotion"), transaction.atomic():
        PromotionalCredit.objects.update(**fields)


def test_grants_from_before_lots_become_lots_without_a_date(account: Account, key: ApiKey) -> None:
    give(account, 3)
    give(account, 4)
    buy(account, 5 * USD)
    charge(key, 5)
    other = factories.make_account(credit="1")
    Wallet.objects.update(attributed_nanousd=0)
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE billing_promotionalcredit DISABLE TRIGGER promotion_stays")
        PromotionalCredit.objects.all().delete()
        cursor.execute("ALTER TABLE billing_promotionalcredit ENABLE TRIGGER promotion_stays")
        cursor.execute(importlib.import_module(f"billing.migrations.{_the_migration()}").LOTS)
    lots = PromotionalCredit.objects.order_by("pk").values_list(
        "account", "amount_nanousd", "remaining_nanousd"
    )
    assert list(lots) == [(account.pk, 3, 0), (account.pk, 4, 2), (other.pk, USD, USD)]
    assert left(account) == [("no date", 2)]
    assert promotions.standing(account_id=account.pk).paid_nanousd == 5 * USD
    check_books()


def _the_migration() -> str:
    """The migration that makes the lots, whatever its number."""
    names = MigrationLoader(None).disk_migrations
    return next(name for app, name in names if app == "billing" and name.endswith("_promotional_credit"))


@dataclass
class Model:
    """What every lot must be, charged at once in the order of spending: the date, then the age."""

    lots: list[list[int]] = field(default_factory=list)
    paid: int = 0

    def spend(self, amount: int) -> None:
        for lot in sorted(self.lots, key=lambda lot: lot[0]):
            taken = min(lot[1], amount)
            lot[1] -= taken
            amount -= taken
        self.paid -= amount

    def take_away(self, amount: int) -> None:
        from_paid = min(amount, self.paid)
        self.paid -= from_paid
        self.spend(amount - from_paid)

    def expire(self, days: int) -> None:
        self.lots = [lot for lot in self.lots if lot[0] > days]

    @property
    def balance(self) -> int:
        return self.paid + sum(lot[1] for lot in self.lots)


NEVER = 10**6
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("grant"), st.integers(1, 50), st.none() | st.integers(1, 20)),
        st.tuples(st.just("buy"), st.integers(1, 3), st.none()),
        st.tuples(st.just("charge"), st.integers(1, 60), st.none()),
        st.tuples(st.just("spend all but"), st.integers(0, 40), st.none()),
        st.tuples(st.just("take away"), st.integers(1, 60), st.none()),
        st.tuples(st.just("expire"), st.integers(0, 25), st.none()),
        st.tuples(st.just("look"), st.none(), st.none()),
        st.tuples(st.just("post"), st.none(), st.none()),
    ),
    max_size=14,
)


@given(acts=ACTS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.django_db
def test_lots_are_what_charging_at_once_would_leave(acts: list[tuple[str, int | None, int | None]]) -> None:
    key = factories.make_key().key
    model = Model()
    for act, amount, days in acts:
        perform(act, amount or 0, days, key=key, model=model)
        standing = promotions.standing(account_id=key.account_id)
        assert standing.balance_nanousd == model.balance
        assert standing.paid_nanousd == model.paid
        expected = sorted(lot[1] for lot in model.lots if lot[1])
        assert sorted(lot.left_nanousd for lot in standing.unspent_lots) == expected
    check_books()


def perform(act: str, amount: int, days: int | None, *, key: ApiKey, model: Model) -> None:
    if act == "grant":
        give(key.account, amount, days=days)
        model.lots.append([days or NEVER, amount])
    elif act == "buy":
        buy(key.account, amount * 5 * USD)
        model.paid += amount * 5 * USD
    elif act == "expire":
        expiring.expire_due(at=AT + amount * DAY)
        model.expire(amount)
    elif act == "look":
        promotions.attribute(account_id=key.account_id, at=AT)
    elif act == "post":
        rollups.roll_up(at=AT)
        posting.post_hours(at=AT + DAY)
    else:
        left_over = max(model.balance - amount, 0) if act == "spend all but" else amount
        amount = min(left_over, model.balance)
        if amount and act == "take away":
            take_away(key.account, amount)
            model.take_away(amount)
        elif amount:
            charge(key, amount)
            model.spend(amount)

"""Ended hours into the ledger, once; the wallet stays as it is and keeps its identity with the ledger."""

import datetime as dt
import threading
from typing import Any

import pytest
from django.db import connection, transaction

from accounts.models import Account
from billing import ledger
from billing.models import LedgerTransaction, Posting, Wallet
from tests import factories
from tests.usage.rows import assert_wallet_is_ledger_less_unposted, make_record, unposted
from usage import posting, rollups
from usage.models import HourlyUsage

HOUR = dt.datetime(2026, 3, 4, 10, tzinfo=dt.UTC)
LATER = HOUR + dt.timedelta(hours=1)


def spend(account: Account, *, at: dt.datetime = HOUR, keys: int = 2) -> None:
    model = factories.make_model()
    for _ in range(keys):
        make_record(account=account, key=factories.make_key(account).key, model=model, at=at)


@pytest.mark.django_db
def test_an_ended_hour_is_one_transaction_per_account() -> None:
    accounts = [factories.make_account(credit="1") for _ in range(2)]
    for account in accounts:
        spend(account)
    rollups.roll_up(at=factories.now())
    balances = list(Wallet.objects.order_by("pk").values_list("balance_nanousd", flat=True))

    assert posting.post_hours(at=LATER) == 2
    assert posting.post_hours(at=LATER) == 0

    for account in accounts:
        booked = LedgerTransaction.objects.get(account=account, kind="usage")
        assert booked.reference == f"usage:{account.pk}:2026-03-04T10:0"
        assert booked.description == "Usage from 2026-03-04 10:00 to 11:00 UTC"
        legs = Posting.objects.filter(transaction=booked).values_list(
            "ledger_account__kind", "amount_nanousd"
        )
        assert dict(legs) == {"customer_credits": -2_000_000, "usage_revenue": 2_000_000}
        assert unposted(account) == 0
        assert_wallet_is_ledger_less_unposted(account)
    assert list(Wallet.objects.order_by("pk").values_list("balance_nanousd", flat=True)) == balances


@pytest.mark.django_db
def test_the_running_hour_is_left_alone() -> None:
    account = factories.make_account(credit="1")
    spend(account)
    rollups.roll_up(at=factories.now())
    assert posting.post_hours(at=LATER - dt.timedelta(microseconds=1)) == 0
    assert_wallet_is_ledger_less_unposted(account)


@pytest.mark.django_db
def test_a_late_record_makes_a_second_transaction_of_its_hour() -> None:
    account = factories.make_account(credit="1")
    for _ in range(2):
        spend(account, keys=1)
        rollups.roll_up(at=factories.now())
        assert posting.post_hours(at=LATER) == 1
        assert_wallet_is_ledger_less_unposted(account)
    references = (
        LedgerTransaction.objects.filter(kind="usage").order_by("id").values_list("reference", flat=True)
    )
    assert list(references) == [f"usage:{account.pk}:2026-03-04T10:{n}" for n in range(2)]


@pytest.mark.django_db
def test_what_the_allowance_paid_is_not_posted() -> None:
    account = factories.make_account()
    key, model = factories.make_key(account).key, factories.make_model()
    make_record(account=account, key=key, model=model, at=HOUR, charged_nanousd=0, allowance_tokens=120)
    rollups.roll_up(at=factories.now())
    assert posting.post_hours(at=LATER) == 0


@pytest.mark.django_db(transaction=True)
def test_a_crash_before_the_commit_posts_nothing_and_the_next_run_posts_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    account = factories.make_account(credit="1")
    spend(account)
    rollups.roll_up(at=factories.now())
    real_post = ledger.post

    def crash(**movement: Any) -> None:
        real_post(**movement)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "post", crash)
        with pytest.raises(KeyboardInterrupt):
            posting.post_hours(at=LATER)
    assert not LedgerTransaction.objects.filter(kind="usage").exists()
    assert_wallet_is_ledger_less_unposted(account)
    assert posting.post_hours(at=LATER) == 1
    assert_wallet_is_ledger_less_unposted(account)


@pytest.mark.django_db(transaction=True)
def test_a_second_worker_waits_and_posts_nothing_twice() -> None:
    account = factories.make_account(credit="1")
    spend(account)
    rollups.roll_up(at=factories.now())
    posted: list[int] = []

    def other_worker() -> None:
        posted.append(posting.post_hours(at=LATER))
        connection.close()

    with transaction.atomic():
        # The first worker has posted and not committed yet: the other meets its locked rows.
        assert posting.post_hours(at=LATER) == 1
        other = threading.Thread(target=other_worker)
        other.start()
        other.join(timeout=0.5)
        assert other.is_alive()
    other.join(timeout=10)
    assert posted == [0]
    assert LedgerTransaction.objects.filter(kind="usage").count() == 1
    assert_wallet_is_ledger_less_unposted(account)


@pytest.mark.django_db(transaction=True)
def test_a_roll_up_that_comes_in_between_is_posted_by_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    account = factories.make_account(credit="1")
    spend(account, keys=1)
    rollups.roll_up(at=factories.now())
    real_post = ledger.post

    def post_while_another_key_is_rolled_up(**movement: Any) -> None:
        def other_worker() -> None:
            spend(account, keys=1)
            rollups.roll_up(at=factories.now())
            connection.close()

        other = threading.Thread(target=other_worker)
        other.start()
        other.join(timeout=10)
        real_post(**movement)

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "post", post_while_another_key_is_rolled_up)
        assert posting.post_hours(at=LATER) == 1
    assert unposted(account) == 1_000_000
    assert_wallet_is_ledger_less_unposted(account)
    assert posting.post_hours(at=LATER) == 1
    assert not HourlyUsage.objects.filter(posted_nanousd=0).exists()
    assert_wallet_is_ledger_less_unposted(account)


@pytest.mark.django_db(transaction=True)
def test_a_roll_up_into_the_very_row_waits_until_it_is_posted(monkeypatch: pytest.MonkeyPatch) -> None:
    account = factories.make_account(credit="1")
    key, model = factories.make_key(account).key, factories.make_model()
    make_record(account=account, key=key, model=model, at=HOUR)
    rollups.roll_up(at=factories.now())
    make_record(account=account, key=key, model=model, at=HOUR)
    real_post = ledger.post

    def roll_up() -> None:
        rollups.roll_up(at=factories.now())
        connection.close()

    other = threading.Thread(target=roll_up)

    def post_while_it_is_rolled_up(**movement: Any) -> None:
        # Between the sum and the update that marks it posted.
        other.start()
        other.join(timeout=0.5)
        real_post(**movement)

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "post", post_while_it_is_rolled_up)
        assert posting.post_hours(at=LATER) == 1
    other.join(timeout=10)
    assert_wallet_is_ledger_less_unposted(account)
    assert unposted(account) == 1_000_000
    assert posting.post_hours(at=LATER) == 1
    assert unposted(account) == 0

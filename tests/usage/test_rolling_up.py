"""Records into hours: once each, whatever is killed and however many workers there are."""

import datetime as dt
import threading
from typing import Any

import pytest
import time_machine
from django.core import mail
from django.db import connection, transaction
from django.db.models import Sum

from billing import ledger, owed_mail
from billing.models import LedgerTransaction, Posting
from tests import factories
from tests.usage.rows import assert_wallet_is_ledger_less_unposted, make_record
from usage import rollups, tasks
from usage.models import HourlyUsage, LossToTell, UsageRecord

AT = dt.datetime(2026, 3, 4, 10, 59, 59, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


@pytest.mark.django_db
def test_records_are_summed_by_hour_key_model_and_outcome() -> None:
    account = factories.make_account(credit="1")
    one, two = factories.make_key(account).key, factories.make_key(account).key
    model = factories.make_model()
    make_record(account=account, key=one, model=model, at=AT, cached_input_tokens=40)
    make_record(account=account, key=one, model=model, at=AT.replace(minute=0), allowance_tokens=7)
    make_record(account=account, key=one, model=model, at=AT + dt.timedelta(seconds=1))
    make_record(account=account, key=two, model=model, at=AT)
    make_record(account=account, key=two, model=None, at=AT, outcome="refused", status=404)

    assert rollups.roll_up(at=AT) == 5
    assert rollups.roll_up(at=AT) == 0

    hour = AT.replace(minute=0, second=0)
    assert HourlyUsage.objects.count() == 4
    first = HourlyUsage.objects.get(account=account, key=one, model=model, hour=hour, outcome="completed")
    assert (first.requests, first.input_tokens, first.cached_input_tokens, first.output_tokens) == (
        2,
        200,
        40,
        40,
    )
    assert (first.cost_nanousd, first.charged_nanousd, first.allowance_tokens) == (2_000_000, 2_000_000, 7)
    assert HourlyUsage.objects.get(key=one, hour=hour + dt.timedelta(hours=1)).requests == 1
    assert HourlyUsage.objects.get(key=two, model=None, outcome="refused").requests == 1
    assert_wallet_is_ledger_less_unposted(account)


@pytest.mark.django_db
def test_later_records_are_added_to_an_hour_that_exists_even_without_a_model() -> None:
    account = factories.make_account(credit="1")
    key = factories.make_key(account).key
    for _ in range(3):
        make_record(account=account, key=key, model=None, at=AT, outcome="refused", status=401)
        rollups.roll_up(at=AT)
    assert HourlyUsage.objects.get().requests == 3


@pytest.mark.django_db
def test_a_batch_takes_no_more_than_it_is_told() -> None:
    account = factories.make_account(credit="1")
    key, model = factories.make_key(account).key, factories.make_model()
    for _ in range(5):
        make_record(account=account, key=key, model=model, at=AT)
    assert [rollups.roll_up(at=AT, batch=2) for _ in range(4)] == [2, 2, 1, 0]
    assert HourlyUsage.objects.get().requests == 5


@pytest.mark.django_db(transaction=True)
def test_a_crash_between_the_sums_and_the_commit_loses_and_doubles_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    account = factories.make_account(credit="1")
    key, model = factories.make_key(account).key, factories.make_model()
    make_record(account=account, key=key, model=model, at=AT, loss_nanousd=5)

    def crash(**_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "post", crash)
        with pytest.raises(KeyboardInterrupt):
            rollups.roll_up(at=AT)
    assert not HourlyUsage.objects.exists()
    assert UsageRecord.objects.get().is_rolled_up is False

    assert rollups.roll_up(at=AT) == 1
    assert HourlyUsage.objects.get().requests == 1
    assert LedgerTransaction.objects.filter(kind="loss").count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_worker_skips_what_another_has_claimed_and_the_sum_is_exact() -> None:
    account = factories.make_account(credit="1")
    keys = [factories.make_key(account).key for _ in range(3)]
    model = factories.make_model()
    for i in range(60):
        make_record(account=account, key=keys[i % 3], model=model, at=AT)
    taken: list[int] = []

    def other_worker() -> None:
        # It meets the first worker's locked records, and waits for its hours; both commit.
        taken.append(rollups.roll_up(at=AT, batch=40))
        connection.close()

    with transaction.atomic():
        first = rollups.roll_up(at=AT, batch=40)
        other = threading.Thread(target=other_worker)
        other.start()
        other.join(timeout=0.5)
        assert other.is_alive()  # it waits for the hours that are not committed
    other.join(timeout=10)
    assert (first, taken) == (40, [20])
    assert HourlyUsage.objects.aggregate(total=Sum("requests"))["total"] == 60
    assert not UsageRecord.objects.filter(is_rolled_up=False).exists()


@pytest.mark.django_db(transaction=True)
def test_many_workers_at_once_are_exact() -> None:
    account = factories.make_account(credit="1")
    keys = [factories.make_key(account).key for _ in range(4)]
    model = factories.make_model()
    for i in range(120):
        make_record(account=account, key=keys[i % 4], model=model, at=AT)
    barrier = threading.Barrier(4)

    def work() -> None:
        barrier.wait()
        while rollups.roll_up(at=AT, batch=7):
            pass
        connection.close()

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=30)
    assert HourlyUsage.objects.aggregate(total=Sum("requests"))["total"] == 120
    assert_wallet_is_ledger_less_unposted(account)


@pytest.mark.django_db(transaction=True)
def test_a_loss_is_booked_with_its_record_and_the_operator_is_told(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.OPERATOR_EMAILS = ["operator@example.com"]
    account = factories.make_account(credit="1")
    key, model = factories.make_key(account).key, factories.make_model()
    record = make_record(account=account, key=key, model=model, at=AT, loss_nanousd=250_000_000)

    rollups.roll_up(at=AT + 3 * DAY)
    rollups.roll_up(at=AT + 4 * DAY)
    for _ in range(2):
        tasks.mail_losses()

    booked = LedgerTransaction.objects.get(kind="loss")
    assert booked.reference == f"loss:{record.pk}"
    assert booked.created_at == AT + 3 * DAY
    legs = Posting.objects.filter(transaction=booked).values_list("ledger_account__kind", "amount_nanousd")
    assert dict(legs) == {"platform_loss": -250_000_000, "usage_revenue": 250_000_000}
    assert_wallet_is_ledger_less_unposted(account)
    (message,) = mail.outbox
    assert message.to == ["operator@example.com"]
    assert str(record.pk) in message.body
    assert "$0.25" in message.body
    assert any(
        entry.levelname == "ERROR" and str(record.pk) in entry.getMessage() for entry in caplog.records
    )
    assert not LossToTell.objects.exists()


@pytest.mark.django_db
def test_a_loss_is_told_of_when_mail_works_again_and_somebody_is_named(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.OPERATOR_EMAILS = []
    account = factories.make_account(credit="1")
    key, model = factories.make_key(account).key, factories.make_model()
    records = [make_record(account=account, key=key, model=model, at=AT, loss_nanousd=5) for _ in range(2)]
    assert rollups.roll_up(at=AT) == 2
    tasks.mail_losses()
    settings.OPERATOR_EMAILS = ["operator@example.com"]

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError

    with monkeypatch.context() as broken:
        broken.setattr("django.core.mail.EmailMessage.send", refuse)
        tasks.mail_losses()
    tasks.mail_losses()
    assert mail.outbox == []
    assert LossToTell.objects.count() == 2
    with time_machine.travel(factories.now() + owed_mail.LEASE + dt.timedelta(seconds=1)):
        tasks.mail_losses()
    (message,) = mail.outbox
    assert all(str(record.pk) in message.body for record in records)


@pytest.mark.django_db(transaction=True)
def test_a_loss_that_is_rolled_back_is_told_to_nobody() -> None:
    account = factories.make_account(credit="1")
    key, model = factories.make_key(account).key, factories.make_model()
    make_record(account=account, key=key, model=model, at=AT, loss_nanousd=5)
    with transaction.atomic():
        rollups.roll_up(at=AT)
        transaction.set_rollback(True)
    assert not LossToTell.objects.exists()

"""Spikes are found within minutes, and one spike is one e-mail."""

import datetime as dt
import smtplib
import threading
from typing import Any

import pytest
import time_machine
from django.core import mail
from django.db import connection, transaction

from accounts import mailing
from accounts.models import Account
from catalog.models import Model
from keys.models import ApiKey
from tests import factories
from tests.usage.rows import make_hour, make_record
from usage import alerting, anomalies, rollups, tasks
from usage.models import Anomaly, HourlyUsage, UsageRecord

HOUR = dt.datetime(2026, 3, 18, 14, tzinfo=dt.UTC)  # a Wednesday
AT = HOUR + dt.timedelta(minutes=12)
USD = 1_000_000_000
DAY = dt.timedelta(days=1)
ONE_HOUR = dt.timedelta(hours=1)


def make_history(key: ApiKey, model: Model, *, days: int = 14, usd: float = 1, hours: int = 24) -> None:
    """So much in each hour of the earlier days, long rolled up and posted, and of the day until now."""
    rows = [
        HourlyUsage(
            account_id=key.account_id,
            key=key,
            model=model,
            outcome="completed",
            hour=at,
            requests=1,
            cost_nanousd=int(usd * USD),
            charged_nanousd=int(usd * USD),
            posted_nanousd=int(usd * USD),
        )
        for day in range(1, days + 1)
        for shift in range(-(hours // 2), hours - hours // 2)
        if (at := HOUR - day * DAY + shift * ONE_HOUR) < HOUR
    ]
    HourlyUsage.objects.bulk_create(rows)


def spend(key: ApiKey, model: Model, *, usd: float, at: dt.datetime = HOUR) -> UsageRecord:
    return make_record(account=key.account, key=key, model=model, at=at, cost_nanousd=int(usd * USD))


@pytest.fixture
def account(db: None) -> Account:
    return factories.make_account(credit="5000", user=factories.make_user("owner@example.com"))


@pytest.fixture
def key(account: Account) -> ApiKey:
    return factories.make_key(account, name="batch jobs").key


@pytest.fixture
def model(db: None) -> Model:
    return factories.make_model("acme-large")


def test_a_spike_of_the_running_hour_is_found_before_any_task_has_rolled_it_up(
    key: ApiKey, model: Model
) -> None:
    make_history(key, model)
    spend(key, model, usd=2.4)
    assert anomalies.detect(at=AT) == []
    spend(key, factories.make_model("acme-mini"), usd=0.1)
    spend(key, model, usd=7.5)

    (found,) = anomalies.detect(at=AT)

    assert (found.account_id, found.key, found.model, found.hour) == (key.account_id, key, model, HOUR)
    assert (found.expected_nanousd, found.threshold_nanousd) == (1 * USD, int(2.5 * USD))
    assert found.observed_nanousd == 10 * USD


def test_the_last_ended_hour_is_judged_too(key: ApiKey, model: Model) -> None:
    make_history(key, model)
    spend(key, model, usd=40, at=HOUR - dt.timedelta(minutes=1))
    rollups.roll_up(at=AT)
    (found,) = anomalies.detect(at=HOUR + dt.timedelta(seconds=5))
    assert found.hour == HOUR - ONE_HOUR


def test_a_quiet_hour_is_never_called_low(key: ApiKey, model: Model) -> None:
    make_history(key, model, usd=100)
    spend(key, model, usd=0.01)
    assert anomalies.detect(at=AT) == []


def test_a_new_key_without_history_is_not_judged_but_its_account_is(account: Account, model: Model) -> None:
    make_history(factories.make_key(account).key, model)
    new_key = factories.make_key(account).key
    spend(new_key, model, usd=60)
    (found,) = anomalies.detect(at=AT)
    assert found.key is None
    assert found.observed_nanousd == 60 * USD


def test_a_new_account_is_not_judged(key: ApiKey, model: Model) -> None:
    make_history(key, model, days=4)
    spend(key, model, usd=500)
    assert anomalies.detect(at=AT) == []


def test_cents_are_no_alert_whatever_their_ratio(key: ApiKey, model: Model) -> None:
    make_history(key, model, usd=0.001)
    spend(key, model, usd=0.9)
    assert anomalies.detect(at=AT) == []


def test_what_the_allowance_paid_is_no_spend(key: ApiKey, model: Model) -> None:
    make_history(key, model)
    make_record(account=key.account, key=key, model=model, at=HOUR, cost_nanousd=90 * USD, charged_nanousd=0)
    assert anomalies.detect(at=AT) == []


def test_steady_growth_is_no_spike(key: ApiKey, model: Model) -> None:
    for day in range(1, 15):
        for shift in (-1, 0, 1):
            amount = int(10 * USD * 1.05**-day)
            hour = HOUR - day * DAY + shift * ONE_HOUR
            make_hour(account=key.account, key=key, model=model, hour=hour, charged_nanousd=amount)
    spend(key, model, usd=10.5)
    assert anomalies.detect(at=AT) == []


def test_a_weekly_rhythm_is_no_spike(key: ApiKey, model: Model) -> None:
    make_history(key, model, usd=0.2)
    for week in (1, 2):
        HourlyUsage.objects.filter(key=key, hour=HOUR - 7 * week * DAY).update(
            charged_nanousd=50 * USD, posted_nanousd=50 * USD, requests=50
        )
    spend(key, model, usd=55)
    assert anomalies.detect(at=AT) == []


def test_an_account_is_named_once_where_its_keys_explain_it(account: Account, model: Model) -> None:
    loud, calm = factories.make_key(account).key, factories.make_key(account).key
    for one in (loud, calm):
        make_history(one, model)
        spend(one, model, usd=1)
    spend(loud, model, usd=80)
    (found,) = anomalies.detect(at=AT)
    assert found.key == loud


def test_an_account_is_named_where_no_key_stands_out(account: Account, model: Model) -> None:
    make_history(factories.make_key(account).key, model)
    for _ in range(10):
        spend(factories.make_key(account).key, model, usd=5)
    (found,) = anomalies.detect(at=AT)
    assert found.key is None


def test_one_spike_is_one_anomaly_that_shows_its_worst_hour(key: ApiKey, model: Model) -> None:
    make_history(key, model)
    for hours, usd in enumerate([20, 90, 30, 0, 0, 40]):
        at = HOUR + hours * ONE_HOUR
        if usd:
            spend(key, model, usd=usd, at=at)
        for minutes in (5, 50):
            anomalies.detect(at=at + dt.timedelta(minutes=minutes))
    spike = Anomaly.objects.get()
    assert (spike.hour, spike.last_hour) == (HOUR, HOUR + 5 * ONE_HOUR)
    assert spike.observed_nanousd == 90 * USD


def test_after_the_cool_down_a_new_spike_is_a_new_anomaly(key: ApiKey, model: Model) -> None:
    make_history(key, model)
    for at in (HOUR, HOUR + anomalies.COOL_DOWN + ONE_HOUR):
        spend(key, model, usd=30, at=at)
        assert len(anomalies.detect(at=at)) == 1


def test_a_late_record_of_the_hour_before_belongs_to_the_known_spike(key: ApiKey, model: Model) -> None:
    make_history(key, model)
    spend(key, model, usd=30)
    assert len(anomalies.detect(at=AT)) == 1
    spend(key, model, usd=70, at=HOUR - dt.timedelta(seconds=3))
    assert anomalies.detect(at=AT) == []
    assert Anomaly.objects.get().observed_nanousd == 70 * USD


def test_another_accounts_spend_is_not_mixed_in(key: ApiKey, model: Model) -> None:
    make_history(key, model)
    stranger = factories.make_account(credit="5000")
    spend(factories.make_key(stranger).key, model, usd=500)
    assert anomalies.detect(at=AT) == []


@time_machine.travel(AT, tick=False)
def test_one_spike_is_one_mail_that_says_what_happened(key: ApiKey, model: Model, settings: Any) -> None:
    settings.PUBLIC_URL = "https://tollgate.example"
    make_history(key, model)
    spend(key, model, usd=10)
    for _ in range(3):
        tasks.detect_anomalies()
        tasks.mail_anomalies()

    (message,) = mail.outbox
    assert message.to == ["owner@example.com"]
    assert message.subject == "Key “batch jobs” is spending far more than usual"
    for fact in (
        "$10.00 in an hour",
        "$1.00 (the median",
        "2026-03-18 14:00 UTC",
        "batch jobs",
        "acme-large",
    ):
        assert fact in message.body
    assert f"https://tollgate.example/keys/{key.pk}/" in message.body
    assert "https://tollgate.example/usage/alerts/" in message.body


@time_machine.travel(AT, tick=False)
def test_the_mail_about_an_account_names_the_key_that_spent_most(account: Account, model: Model) -> None:
    make_history(factories.make_key(account).key, model)
    new_key = factories.make_key(account, name="made by a thief").key
    spend(new_key, model, usd=60)
    tasks.detect_anomalies()
    tasks.mail_anomalies()
    (message,) = mail.outbox
    assert "made by a thief (spent most of it)" in message.body
    assert f"/keys/{new_key.pk}/" in message.body


def test_a_worker_that_died_before_it_marked_the_mail_is_found_out(
    key: ApiKey, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_history(key, model)
    spend(key, model, usd=10)
    anomalies.detect(at=AT)

    def die(**_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, time_machine.travel(AT, tick=False):
        patch.setattr(alerting, "mail_anomaly", die)
        with pytest.raises(KeyboardInterrupt):
            tasks.mail_anomalies()
    with time_machine.travel(AT + anomalies.MAIL_LEASE, tick=False):
        tasks.mail_anomalies()
        assert mail.outbox == []
    with time_machine.travel(AT + anomalies.MAIL_LEASE + dt.timedelta(seconds=1), tick=False):
        tasks.mail_anomalies()
        tasks.mail_anomalies()
    assert len(mail.outbox) == 1


def test_a_mail_that_the_server_refuses_does_not_keep_the_others_back(
    account: Account, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [factories.make_key(account).key for _ in range(2)]
    for one in keys:
        make_history(one, model)
        spend(one, model, usd=10)
    anomalies.detect(at=AT)
    real_mail = alerting.mail_anomaly

    def refuse_the_first(*, anomaly: Anomaly) -> None:
        if anomaly.key == keys[0]:
            raise smtplib.SMTPRecipientsRefused({})
        real_mail(anomaly=anomaly)

    monkeypatch.setattr(alerting, "mail_anomaly", refuse_the_first)
    tasks.mail_anomalies()
    assert len(mail.outbox) == 1
    assert Anomaly.objects.get(mailed_at=None).key == keys[0]


@pytest.mark.django_db(transaction=True)
def test_a_second_worker_waits_for_the_first_and_finds_the_spike_known() -> None:
    account = factories.make_account(credit="500")
    key, model = factories.make_key(account).key, factories.make_model()
    make_history(key, model)
    spend(key, model, usd=10)
    answers: list[list[Anomaly]] = []

    def other_worker() -> None:
        answers.append(anomalies.detect(at=AT))
        connection.close()

    with transaction.atomic():
        # The first has written the spike and not committed it yet.
        assert len(anomalies.detect(at=AT)) == 1
        other = threading.Thread(target=other_worker)
        other.start()
        other.join(timeout=0.5)
        assert other.is_alive()
    other.join(timeout=10)
    assert answers == [[]]
    assert Anomaly.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_workers_lease_a_mail_once() -> None:
    account = factories.make_account()
    known = Anomaly.objects.create(
        account=account, hour=HOUR, expected_nanousd=1, threshold_nanousd=2, observed_nanousd=3
    )
    answers: list[Anomaly | None] = []

    def other_worker() -> None:
        answers.append(anomalies.claim_mail(at=AT))
        connection.close()

    with transaction.atomic():
        # The first has leased it and not committed yet: the other still sees it free, and waits for its row.
        assert anomalies.claim_mail(at=AT) == known
        other = threading.Thread(target=other_worker)
        other.start()
        other.join(timeout=0.5)
        assert other.is_alive()
    other.join(timeout=10)
    assert answers == [None]


@pytest.mark.parametrize(
    ("public_url", "own_url", "hosts", "https", "expected"),
    [
        ("https://a.example", "http://localhost:8000", ["other.example"], False, "https://a.example/keys/"),
        ("", "http://localhost:8000", ["other.example"], False, "http://localhost:8000/keys/"),
        ("", "", ["one.example", "two.example"], True, "https://one.example/keys/"),
        ("", "", [".one.example"], False, "http://one.example/keys/"),
        ("", "", ["*"], False, "http://localhost/keys/"),
    ],
)
def test_a_link_in_a_mail_needs_no_request(
    settings: Any, public_url: str, own_url: str, hosts: list[str], *, https: bool, expected: str
) -> None:
    settings.PUBLIC_URL, settings.TOLLGATE_URL = public_url, own_url
    settings.ALLOWED_HOSTS, settings.HTTPS = hosts, https
    assert mailing.public_url("/keys/") == expected

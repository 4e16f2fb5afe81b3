"""What operators must hear of is owed until it is out: whoever dies, and also while there is nobody to tell."""

import datetime as dt

import pytest
from django.core import mail
from django.test import Client
from pytest_django import Settings
from time_machine import travel

from billing import owed_mail, refunding, unmatched, webhooks
from billing.models import Dispute, UnmatchedPayment, WebhookEvent
from billing.providers.provider import DisputeChanged, PaymentArrived, WebhookMessage
from billing.tasks import payments
from billing.tasks.refunds import mail_about_refunds
from config import checks
from tests import factories
from tests.billing.test_disputing import hear
from tests.billing.test_refunding import bought, news

pytestmark = pytest.mark.django_db
OPERATORS = ["operator@example.com"]


@pytest.fixture(autouse=True)
def _operators(settings: Settings) -> None:
    settings.OPERATOR_EMAILS = OPERATORS


def arrive(payment: str = "pi_1", currency: str = "eur") -> UnmatchedPayment:
    arrived = PaymentArrived(reference="", payment=payment, amount_cents=2500, currency=currency)
    return unmatched.note(
        provider="stripe", payment=arrived, why="it fits nothing", event=None, at=factories.now()
    )


def tell_of_dispute(*, currency: str = "usd", received_at: dt.datetime) -> WebhookEvent:
    news = DisputeChanged("du_1", "pi_unknown", 2500, currency, "fraudulent", "open")
    message = WebhookMessage("evt_1", "charge.dispute.created", received_at, news)
    event = webhooks.record(provider="stripe", message=message, at=received_at)
    webhooks.process(event=event, at=received_at)
    event.refresh_from_db()
    return event


def _refuse(*_: object, **__: object) -> int:
    raise OSError


def test_operators_are_told_of_unmatched_payments_once_and_together() -> None:
    arrive("pi_1")
    arrive("pi_2")
    for _ in range(2):
        payments.mail_unmatched_payments()
    (message,) = mail.outbox
    assert message.to == OPERATORS
    assert message.subject == "2 payments without a top-up"
    assert message.body.count("2500 of the smallest unit of EUR") == 2
    assert "/admin/billing/unmatchedpayment/" in message.body
    assert all(payment.mailed_at for payment in UnmatchedPayment.objects.all())


def test_a_payment_that_somebody_has_resolved_is_not_told_of() -> None:
    payment = arrive()
    unmatched.resolve(unmatched=payment, actor=factories.make_user(), text="seen", at=factories.now())
    payments.mail_unmatched_payments()
    assert mail.outbox == []


def test_a_mail_that_does_not_leave_is_sent_after_its_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    arrive()
    with monkeypatch.context() as broken:
        broken.setattr("django.core.mail.EmailMessage.send", _refuse)
        payments.mail_unmatched_payments()
    assert UnmatchedPayment.objects.get().mailed_at is None
    with travel(factories.now() + owed_mail.LEASE + dt.timedelta(seconds=1)):
        payments.mail_unmatched_payments()
    assert len(mail.outbox) == 1


def test_a_worker_killed_between_its_claim_and_the_mail_leaves_it_owed() -> None:
    arrive()
    at = factories.now()
    claimed = owed_mail.claim_for_operators(rows=unmatched.unresolved(), at=at)
    assert len(claimed) == 1
    # Nobody else sends it meanwhile.
    assert owed_mail.claim_for_operators(rows=unmatched.unresolved(), at=at) == []
    again = owed_mail.claim_for_operators(rows=unmatched.unresolved(), at=at + owed_mail.LEASE)
    assert again == claimed


def test_what_comes_while_there_is_nobody_to_tell_is_told_when_there_is(settings: Settings) -> None:
    settings.OPERATOR_EMAILS = []
    arrive()
    hear(bought(), "open")
    tell_of_dispute(received_at=factories.now() - webhooks.TOLD_AFTER)
    for task in (payments.mail_unmatched_payments, payments.mail_waiting_events, mail_about_refunds):
        task()
    # The account is told all the same.
    assert [message.to for message in mail.outbox] == [
        [address] for address in Dispute.objects.values_list("account__members__email", flat=True)
    ]
    mail.outbox.clear()
    settings.OPERATOR_EMAILS = OPERATORS
    for task in (payments.mail_unmatched_payments, payments.mail_waiting_events, mail_about_refunds) * 2:
        task()
    assert [message.to for message in mail.outbox] == [OPERATORS] * 3


def test_an_event_that_waits_for_a_day_is_told_once_with_what_is_in_the_way() -> None:
    event = tell_of_dispute(received_at=factories.now() - dt.timedelta(hours=23))
    payments.mail_waiting_events()
    assert mail.outbox == []
    with travel(factories.now() + dt.timedelta(hours=2)):
        for _ in range(2):
            payments.mail_waiting_events()
    (message,) = mail.outbox
    assert message.subject == "1 webhook event could not be processed"
    assert event.event in message.body
    assert "DisputeUnknown: stripe reports a dispute du_1 of a payment pi_unknown" in message.body
    assert "Payment: pi_unknown" in message.body
    # It may be nobody's here; otherwise it is a payment that is to be credited.
    assert "four days after it came, the event is ignored" in message.body
    assert "it waits under Unmatched payments" in message.body
    assert "close it in the admin" not in message.body


def test_an_event_that_cannot_be_booked_is_told_with_what_to_do_about_it() -> None:
    topup = bought()
    hear(topup, "lost", occurred_at=factories.now() - 2 * webhooks.TOLD_AFTER)
    at = factories.now() - webhooks.TOLD_AFTER
    news = DisputeChanged("dp_1", topup.provider_payment, 1, "usd", "fraudulent", "lost")
    event = webhooks.record(provider="sandbox", message=WebhookMessage("evt_1", "x", at, news), at=at)
    webhooks.process(event=event, at=at)
    tell_of_dispute(received_at=at)
    mail.outbox.clear()
    payments.mail_waiting_events()
    (message,) = mail.outbox
    stuck, _, unknown = message.body.partition("is not known here")
    assert "which is lost with another amount" in stuck
    assert "close it in the admin with a note" in stuck
    assert topup.provider_payment in stuck
    assert "pi_unknown" not in stuck
    assert "pi_unknown" in unknown


def test_refused_mail_about_a_refund_and_a_dispute_stays_owed_to_the_operators(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topup = bought()
    hear(topup, "open")
    refunding.hear(provider="sandbox", news=news(bought()), at=factories.now())
    with monkeypatch.context() as broken:
        broken.setattr("django.core.mail.EmailMessage.send", _refuse)
        mail_about_refunds()
    with travel(factories.now() + owed_mail.LEASE + dt.timedelta(seconds=1)):
        mail_about_refunds()
    assert [message.to for message in mail.outbox].count(OPERATORS) == 2


def test_an_event_that_was_processed_in_time_is_not_told() -> None:
    tell_of_dispute(received_at=factories.now() - dt.timedelta(days=2))
    WebhookEvent.objects.update(outcome="ignored", processed_at=factories.now())
    payments.mail_waiting_events()
    assert mail.outbox == []


def test_a_refused_mail_about_waiting_events_stays_owed(monkeypatch: pytest.MonkeyPatch) -> None:
    tell_of_dispute(received_at=factories.now() - webhooks.TOLD_AFTER)
    monkeypatch.setattr("django.core.mail.EmailMessage.send", _refuse)
    payments.mail_waiting_events()
    assert WebhookEvent.objects.get().operators_mail_due_at is not None


def test_the_operators_first_page_counts_what_waits_for_them(client: Client) -> None:
    client.force_login(factories.make_user(is_staff=True, is_superuser=True))
    assert "Money waits for you" not in client.get("/admin/").text
    arrive()
    tell_of_dispute(received_at=factories.now())
    page = client.get("/admin/").text
    assert "1 payment without a top-up" in page
    assert "1 webhook event that could not be processed" in page
    for listed in (
        "/admin/billing/unmatchedpayment/?resolved_at__isempty=1",
        "/admin/billing/webhookevent/?outcome__exact=waiting",
        "/admin/billing/refund/?status__exact=pending",
    ):
        assert client.get(listed).status_code == 200
    assert "pi_1" in client.get("/admin/billing/unmatchedpayment/?resolved_at__isempty=1").text
    client.force_login(factories.make_user(is_staff=True))
    assert "Money waits for you" not in client.get("/admin/").text


@pytest.mark.parametrize(
    ("providers", "operators", "is_embedded", "found"),
    [
        (["stripe", "sandbox"], [], False, ["tollgate.W001"]),
        (["stripe"], OPERATORS, False, []),
        (["sandbox"], [], False, []),
        ([], [], False, []),
        (["stripe"], [], True, []),
    ],
)
def test_whoever_takes_money_without_anybody_to_tell_is_warned(
    settings: Settings, providers: list[str], operators: list[str], is_embedded: bool, found: list[str]
) -> None:
    settings.TOPUP_PROVIDERS, settings.OPERATOR_EMAILS = providers, operators
    settings.EMBEDDED = is_embedded
    assert [problem.id for problem in checks.somebody_hears_of_money(None)] == found

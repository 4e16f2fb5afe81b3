"""Events of payment companies that wait and that nothing will come of: an operator closes them, with a note."""

import datetime as dt

import pytest
from django.contrib.auth.models import Permission
from django.core import mail
from django.db import IntegrityError, transaction
from django.test import Client
from pytest_django import Settings
from time_machine import travel

from accounts.models import AuditEvent, User
from billing import told_early, topping_up, unmatched, webhooks
from billing.models import Dispute, PaymentReport, TopUp, UnmatchedPayment, Wallet, WebhookEvent
from billing.providers.provider import (
    DisputeChanged,
    News,
    PaymentArrived,
    PaymentFailed,
    RefundChanged,
    WebhookMessage,
)
from billing.tasks import payments
from billing.templatetags.attention import waiting_money
from tests import factories
from tests.billing.test_disputing import hear
from tests.billing.test_refunding import balance, bought
from tests.billing.test_topping_up import start
from tests.concurrency import in_parallel
from tests.invariants import check_books
from usage import auditing

pytestmark = pytest.mark.django_db
AT = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
USD = 10**9
DAY = dt.timedelta(days=1)


def tell(news: News | None, *, event: str = "evt_1", provider: str = "sandbox") -> WebhookEvent:
    at = factories.now()
    message = WebhookMessage(event, "charge.dispute.updated", AT + 40 * DAY, news)
    told = webhooks.record(provider=provider, message=message, at=at)
    webhooks.process(event=told, at=at)
    told.refresh_from_db()
    return told


def differing() -> tuple[TopUp, WebhookEvent]:
    """A dispute that was lost, and of which another amount is told after that."""
    topup = bought()
    hear(topup, "lost", occurred_at=AT)
    return topup, tell(DisputeChanged("dp_1", topup.provider_payment, 2400, "usd", "fraudulent", "lost"))


def close(event: WebhookEvent, actor: User | None = None) -> None:
    actor = actor or factories.make_user(is_staff=True)
    webhooks.close(event=event, actor=actor, note="settled by hand", at=factories.now())


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(factories.make_user("op@example.com", is_staff=True, is_superuser=True))
    return client


def test_the_operator_closes_it_after_reading_what_that_means(operator: Client) -> None:
    topup, event = differing()
    assert event.outcome == "waiting"
    change, address = (f"/admin/billing/webhookevent/{event.pk}/{page}/" for page in ("change", "close"))
    assert f'href="{address}"' in operator.get(change).text
    page = operator.get(address).text
    assert f"about top-up {topup.pk} of account {topup.account_id}" in page
    assert "a dispute of 2400 cents of USD, lost, 2026-04-10 12:00 UTC" in page
    assert "which is lost with another amount" in page
    assert "This field is required" in operator.post(address, {"confirmed": "yes"}).text
    asked = operator.post(address, {"note": "the bank kept $24"}).text
    assert "It is never acted on" in asked
    assert "the audit does not compare them" in asked
    event.refresh_from_db()
    assert event.outcome == "waiting"
    done = operator.post(address, {"note": "the bank kept $24", "confirmed": "yes"}, follow=True).text
    assert "Closed. No money was moved here." in done
    assert "the bank kept $24" in done
    assert "op@example.com" in done
    assert f'href="{address}"' not in done
    event.refresh_from_db()
    assert (event.outcome, event.note, event.processed_at) == (
        "ignored",
        "the bank kept $24",
        event.closed_at,
    )
    again = operator.post(address, {"note": "again", "confirmed": "yes"}, follow=True).text
    assert "The event does not wait any more." in again
    assert "the bank kept $24" in operator.get("/admin/billing/webhookevent/?closed_at__isempty=0").text
    recorded = AuditEvent.objects.get(action="payment_event.closed")
    assert (recorded.account_id, recorded.detail["reason"]) == (topup.account_id, "the bank kept $24")
    assert balance(topup) == 0
    check_books(idle=True)


def test_it_is_closed_once_however_many_operators_do() -> None:
    _, event = differing()
    close(event)
    with pytest.raises(webhooks.NotWaiting):
        close(event)


@pytest.mark.django_db(transaction=True)
def test_two_operators_at_once_close_it_once() -> None:
    _, event = differing()
    actors = [factories.make_user(is_staff=True) for _ in range(2)]

    def try_to(number: int) -> bool:
        try:
            close(event, actors[number])
        except webhooks.NotWaiting:
            return False
        return True

    assert sorted(in_parallel(try_to, times=2)) == [False, True]
    assert AuditEvent.objects.filter(action="payment_event.closed").count() == 1


def test_an_operator_who_is_too_late_reads_that_it_does_not_wait(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, event = differing()

    def too_late(**_: object) -> None:
        raise webhooks.NotWaiting

    monkeypatch.setattr(webhooks, "close", too_late)
    form = {"note": "x", "confirmed": "yes"}
    page = operator.post(f"/admin/billing/webhookevent/{event.pk}/close/", form, follow=True).text
    assert "The event does not wait any more." in page


def test_only_whoever_may_change_events_closes_them(client: Client) -> None:
    _, event = differing()
    address, form = f"/admin/billing/webhookevent/{event.pk}/close/", {"note": "x", "confirmed": "yes"}
    client.force_login(factories.make_user())
    assert client.post(address, form).status_code == 302
    staff = factories.make_user(is_staff=True)
    staff.user_permissions.add(Permission.objects.get(codename="view_webhookevent"))
    client.force_login(staff)
    assert client.get(address).status_code == 403
    assert client.post(address, form).status_code == 403
    event.refresh_from_db()
    assert event.outcome == "waiting"
    staff.user_permissions.add(Permission.objects.get(codename="change_webhookevent"))
    assert client.post(address, form).status_code == 302
    event.refresh_from_db()
    assert (event.outcome, event.closed_by) == ("ignored", staff)


def test_nobody_hears_of_it_any_more_and_the_audit_says_how_many_there_are(settings: Settings) -> None:
    settings.OPERATOR_EMAILS = ["op@example.com"]
    _, event = differing()
    with travel(factories.now() + 2 * DAY):
        assert len(auditing.audit_ledger(at=factories.now()).discrepancies) == 1
        close(event)
        webhooks.process_due(at=factories.now() + DAY)
        payments.mail_waiting_events()
        report = auditing.audit_ledger(at=factories.now())
    event.refresh_from_db()
    assert (event.outcome, event.attempts, mail.outbox) == ("ignored", 1, [])
    assert waiting_money()["events"] == 0
    assert report.discrepancies == []
    assert (report.checked["payment events"], report.checked["of them closed by hand"]) == (1, 1)


def test_a_closed_event_is_not_taken_up_when_its_payment_is_told_of_again() -> None:
    topup, event = differing()
    close(event)
    arrived = PaymentArrived(topup.provider_reference, topup.provider_payment, 2500, "usd")
    assert tell(arrived, event="evt_2").outcome == "done"
    event.refresh_from_db()
    assert event.outcome == "ignored"


def test_one_that_was_acted_on_while_it_was_closed_says_that_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    topup, event = differing()
    act = webhooks._act

    def closed_meanwhile(event: WebhookEvent, at: dt.datetime, *, is_asked: bool) -> WebhookEvent.Outcome:
        close(event)
        return act(event, at, is_asked=is_asked)

    with monkeypatch.context() as racing:
        racing.setattr(webhooks, "_act", closed_meanwhile)
        hear(topup, "won", occurred_at=AT + DAY)
        webhooks.process(event=event, at=factories.now())
    event.refresh_from_db()
    assert (event.outcome, event.note) == ("done", "settled by hand")
    assert Dispute.objects.get().amount_nanousd == 24 * USD
    check_books(idle=True)


def test_a_sweep_that_has_read_it_before_it_was_closed_leaves_it_alone() -> None:
    topup, event = differing()
    hear(topup, "won", occurred_at=AT + DAY)
    close(event)
    webhooks.process(event=event, at=factories.now())
    assert Dispute.objects.get().amount_nanousd == 25 * USD


def test_an_event_is_not_closed_without_a_note_nor_kept_waiting_with_one() -> None:
    _, event = differing()
    for fields in ({"closed_at": AT}, {"note": "x"}, {"closed_at": AT, "note": "x"}):
        with pytest.raises(IntegrityError), transaction.atomic():
            WebhookEvent.objects.filter(pk=event.pk).update(**fields)


def test_the_page_says_what_closing_an_event_of_an_unknown_payment_means(operator: Client) -> None:
    event = tell(RefundChanged("re_1", "", "pi_unknown", 2500, "usd", "succeeded"))
    address = f"/admin/billing/webhookevent/{event.pk}/close/"
    page = operator.get(address).text
    assert "Its payment is not known here." in page
    assert "ignored four days after it came" in page
    operator.post(address, {"note": "not ours", "confirmed": "yes"})
    # There is no account whose log could say it; the event does.
    assert not AuditEvent.objects.filter(action="payment_event.closed").exists()
    event.refresh_from_db()
    assert (event.note, event.closed_by) == ("not ours", User.objects.get(email="op@example.com"))


def test_whoever_credits_a_payment_reads_what_was_closed_of_it(operator: Client) -> None:
    payment = unmatched.note(
        provider="sandbox",
        payment=PaymentArrived("", "pi_1", 2500, "usd"),
        why="it fits nothing",
        event=None,
        at=AT,
    )
    event = tell(RefundChanged("re_1", "", "pi_1", 2500, "usd", "succeeded"))
    close(event)
    account = factories.make_account()
    address = f"/admin/billing/unmatchedpayment/{payment.pk}/resolve/"
    page = operator.get(address).text
    assert "Told of it as well, and closed by hand: a refund of 2500 cents of USD, succeeded" in page
    assert "Money of it may have gone back already" not in page
    operator.post(address, {"account": account.pk, "note": "x", "confirmed": "yes"})
    assert Wallet.objects.get(account=account).balance_nanousd == 20 * USD
    check_books(idle=True)


@pytest.mark.parametrize(
    ("news", "says", "warns"),
    [
        (PaymentArrived("ref", "pi_1", 2500, "usd"), "a payment of 2500 cents of USD", True),
        (PaymentFailed("ref", "declined"), "a payment that failed", False),
        (None, "nothing that concerns us", False),
    ],
)
def test_every_kind_of_event_is_told_in_words(
    operator: Client, news: News | None, says: str, warns: bool
) -> None:
    event = WebhookEvent.objects.create(
        provider="sandbox", event="evt_1", type="x", news=webhooks.written(news), occurred_at=AT
    )
    address = f"/admin/billing/webhookevent/{event.pk}/close/"
    page = operator.get(address).text
    assert f"sandbox has told of {says}" in page
    assert "It names no payment that is known here." in page
    asked = operator.post(address, {"note": "x"}).text
    assert ("Money may have come" in asked) is warns


def test_a_payment_event_is_about_the_top_up_that_it_names() -> None:
    topup = start(factories.make_account(), usd=20)
    told: list[News] = [
        PaymentFailed(topup.provider_reference, "declined"),
        PaymentArrived("", "pi_9", 1, "usd"),
    ]
    events = [WebhookEvent(provider="sandbox", news=webhooks.written(news)) for news in told]
    assert [webhooks.topup_of(event) for event in events] == [topup, None]


# --- What was told of a payment that an operator closes -----------------------------------------------------


def unmatched_payment() -> UnmatchedPayment:
    arrived = PaymentArrived("", "pi_1", 2500, "usd")
    return unmatched.note(provider="sandbox", payment=arrived, why="it fits nothing", event=None, at=AT)


def test_what_was_told_of_a_payment_that_is_closed_waits_no_longer(settings: Settings) -> None:
    settings.OPERATOR_EMAILS = ["op@example.com"]
    payment, actor = unmatched_payment(), factories.make_user(is_staff=True)
    early = tell(RefundChanged("re_1", "", "pi_1", 2500, "usd", "succeeded"))
    other = tell(RefundChanged("re_2", "", "pi_2", 2500, "usd", "succeeded"), event="evt_2")
    unmatched.resolve(unmatched=payment, actor=actor, text="given back", at=factories.now())
    early.refresh_from_db()
    other.refresh_from_db()
    assert (early.outcome, other.outcome) == ("ignored", "waiting")
    # Nor does what is told later.
    late = tell(RefundChanged("re_3", "", "pi_1", 100, "usd", "succeeded"), event="evt_3")
    assert late.outcome == "ignored"


def test_where_it_is_credited_after_all_it_is_taken_up_again() -> None:
    payment, account = unmatched_payment(), factories.make_account()
    tell(RefundChanged("re_1", "", "pi_1", 2500, "usd", "succeeded"))
    unmatched.resolve(unmatched=payment, actor=account.members.get(), text="not ours", at=factories.now())
    topup = topping_up.start(account=account, actor=None, credit_nanousd=20 * USD, provider="sandbox", at=AT)
    paid = topping_up.finish(
        provider="sandbox",
        reference=topup.provider_reference,
        paid_total_nanousd=25 * USD,
        payment="pi_1",
        at=AT,
    )
    unmatched.found(topup=paid, at=AT)
    webhooks.process_told_early(provider="sandbox", payment="pi_1", at=factories.now())
    assert Wallet.objects.get(account=account).balance_nanousd == 0
    check_books(idle=True)


def test_what_waits_of_a_payment_that_has_paid_a_top_up_goes_on_waiting() -> None:
    topup, event = differing()
    told_early.let_go(provider="sandbox", payment=topup.provider_payment, at=factories.now())
    event.refresh_from_db()
    assert event.outcome == "waiting"


# --- The evidence -------------------------------------------------------------------------------------------


def test_the_operator_reads_what_was_said_of_payments(operator: Client) -> None:
    PaymentReport.objects.create(
        provider="stripe", payment="pi_1", reference="ref", amount_cents=123_456, currency="usd", said_at=AT
    )
    report = PaymentReport.objects.create(
        provider="stripe", payment="pi_2", reference="ref", amount_cents=7, currency="eur", said_at=AT
    )
    listed = operator.get("/admin/billing/paymentreport/", {"q": "pi_1"}).text
    assert "1,234.56 USD" in listed
    assert "pi_2" not in listed
    assert "pi_1" not in operator.get("/admin/billing/paymentreport/", {"currency": "eur"}).text
    page = operator.get(f"/admin/billing/paymentreport/{report.pk}/change/").text
    assert "7 of the smallest unit of EUR" in page
    assert 'name="_save"' not in page
    assert operator.get("/admin/billing/paymentreport/add/").status_code == 403

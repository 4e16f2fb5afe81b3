"""What a provider has said was paid must be a paid top-up of the same payment and amount, and the other way round."""

import datetime as dt
from importlib import import_module

import pytest
from pytest_django import Settings

from billing import topping_up, unmatched, webhooks
from billing.models import PaymentReport, TopUp, UnmatchedPayment, WebhookEvent
from billing.providers.provider import DisputeChanged, News, PaymentArrived, RefundChanged, WebhookMessage
from tests import factories
from tests.usage.audited import found, plant
from usage import auditing

pytestmark = pytest.mark.django_db
AT = dt.datetime(2026, 3, 4, 15, 30, tzinfo=dt.UTC)


@pytest.fixture(autouse=True)
def topup(settings: Settings) -> TopUp:
    """A payment of $25.00 that has arrived at Stripe, as its event says."""
    settings.TOPUP_PROVIDERS = ["stripe"]
    topup = topping_up.start(
        account=factories.make_account(), actor=None, credit_nanousd=20 * 10**9, provider="stripe", at=AT
    )
    paid = topping_up.take(provider="stripe", payment=payment_of(topup), at=AT)
    tell(topup)
    return paid


def payment_of(topup: TopUp, *, payment: str = "pay_1", cents: int = 2500) -> PaymentArrived:
    return PaymentArrived(topup.provider_reference, payment, cents, "usd")


def tell(topup: TopUp, *, event: str = "evt_1", cents: int = 2500, outcome: str = "done") -> None:
    WebhookEvent.objects.create(
        provider=topup.provider,
        event=event,
        type="payment",
        news={
            "kind": "PaymentArrived",
            "reference": topup.provider_reference,
            "payment": "pay_1",
            "amount_cents": cents,
            "currency": "usd",
        },
        occurred_at=AT,
        outcome=outcome,
        processed_at=AT,
    )


def test_an_event_that_comes_twice_says_the_same(topup: TopUp) -> None:
    tell(topup, event="evt_2")
    assert found() == []


def test_an_event_that_fits_nothing_waits_for_a_person(topup: TopUp) -> None:
    tell(topup, event="evt_2", cents=1, outcome="unmatched")
    assert found() == []


@pytest.mark.parametrize(("hours", "is_found"), [(23, False), (25, True)])
def test_an_event_that_waits_for_longer_than_a_day_is_found(topup: TopUp, hours: int, is_found: bool) -> None:
    tell(topup, event="evt_2")
    plant("UPDATE billing_webhookevent SET outcome = 'waiting', processed_at = NULL WHERE event = 'evt_2'")
    WebhookEvent.objects.update(received_at=AT - dt.timedelta(hours=hours))
    assert (
        found()
        == [
            "stripe event evt_2, payment: it has waited to be processed for more than a day, and the books lack it"
        ]
        * is_found
    )


def test_an_event_of_another_amount_is_found() -> None:
    plant("UPDATE billing_webhookevent SET news = jsonb_set(news, '{amount_cents}', '2499')")
    assert found() == [
        (
            "stripe event evt_1 of payment pay_1: its top-up was paid with 25.000000000 USD,"
            " the event says 24.990000000 USD"
        )
    ]


@pytest.mark.parametrize(
    ("change", "said"), [("payment", "payment other in usd"), ("currency", "payment pay_1 in other")]
)
def test_an_event_of_another_payment_or_currency_is_found(change: str, said: str) -> None:
    plant(f"UPDATE billing_webhookevent SET news = jsonb_set(news, '{{{change}}}', '\"other\"')")  # noqa: S608
    assert found() == [f"stripe event evt_1: it names {said}, its top-up was paid by pay_1 in usd"]


def test_an_event_of_which_nothing_came_is_found() -> None:
    plant("UPDATE billing_webhookevent SET news = jsonb_set(news, '{reference}', '\"other\"')")
    assert found() == [
        "stripe event evt_1 of payment pay_1: its top-up was paid with nothing, the event says 25.000000000 USD"
    ]


def test_what_a_provider_answered_is_as_good_as_its_event() -> None:
    plant("DELETE FROM billing_webhookevent")
    assert found() == []


def test_what_is_said_of_a_payment_is_kept_once(topup: TopUp) -> None:
    topping_up.take(provider="stripe", payment=payment_of(topup), at=AT)
    with pytest.raises(topping_up.PaymentDiffers):
        topping_up.take(provider="stripe", payment=payment_of(topup, cents=2499), at=AT)
    assert list(PaymentReport.objects.order_by("pk").values_list("payment", "amount_cents")) == [
        ("pay_1", 2500),
        ("pay_1", 2499),
    ]
    assert found() == []


@pytest.mark.parametrize(
    "nothing",
    [
        "provider = 'other'",
        "payment = 'other'",
        "reference = 'other'",
        "amount_cents = 2499",
        "currency = 'eur'",
    ],
)
def test_a_paid_top_up_of_which_its_provider_said_nothing_is_found(topup: TopUp, nothing: str) -> None:
    plant(f"UPDATE billing_paymentreport SET {nothing}")  # noqa: S608
    assert found() == [
        (
            f"top-up {topup.pk} of stripe: it is paid with 25.000000000 USD,"
            " and its provider has said nothing of such a payment"
        )
    ]


def test_a_payment_that_an_operator_credited_is_held_against_what_came(topup: TopUp) -> None:
    stray = PaymentArrived("nobody", "pay_2", 1250, "usd")
    with pytest.raises(topping_up.PaymentUnknown) as unknown:
        topping_up.take(provider="stripe", payment=stray, at=AT)
    kept = unmatched.note(provider="stripe", payment=stray, why=str(unknown.value), event=None, at=AT)
    unmatched.credit(
        unmatched=kept, account=topup.account, actor=topup.account.members.get(), text="theirs", at=AT
    )
    assert found() == []
    plant("UPDATE billing_unmatchedpayment SET amount_cents = 1249")
    plant("DELETE FROM billing_paymentreport WHERE payment = 'pay_2'")
    assert found() == [
        "unmatched payment pay_2 of stripe: its top-up is 12.500000000 USD, and what came is 12.490000000 USD"
    ]
    plant("UPDATE billing_unmatchedpayment SET payment = 'pay_3', amount_cents = 1250")
    assert (
        "unmatched payment pay_3 of stripe: its top-up is nothing, and what came is 12.500000000 USD"
        in found()
    )


def test_a_payment_that_fitted_when_it_was_reported_again_is_right(topup: TopUp) -> None:
    note = {"provider": "stripe", "why": "too little", "event": None, "at": AT}
    unmatched.note(payment=payment_of(topup, cents=2499), **note)  # type: ignore[arg-type]
    unmatched.found(topup=topup, at=AT)
    assert UnmatchedPayment.objects.get().topup == topup
    assert found() == []


def test_payments_from_before_reports_were_kept_are_taken_for_reported(topup: TopUp) -> None:
    account = topup.account
    other = topping_up.start(account=account, actor=None, credit_nanousd=8 * 10**9, provider="stripe", at=AT)
    topping_up.finish(
        provider="stripe", reference=other.provider_reference, paid_total_nanousd=other.total_nanousd, at=AT
    )
    plant("DELETE FROM billing_paymentreport")
    assert len(found()) == 2
    plant(import_module("billing.migrations.0017_both_ways").REPORTS)
    assert found() == []
    assert dict(PaymentReport.objects.values_list("payment", "is_assumed")) == {
        "pay_1": False,
        other.provider_reference: True,
    }


def stray(_topup: TopUp) -> UnmatchedPayment:
    """A payment of $12.50 that fits nothing, and that an operator has closed."""
    came = PaymentArrived("nobody", "pay_2", 1250, "usd")
    with pytest.raises(topping_up.PaymentUnknown):
        topping_up.take(provider="stripe", payment=came, at=AT)
    return unmatched.note(provider="stripe", payment=came, why="it fits nothing", event=None, at=AT)


def close(payment: UnmatchedPayment, topup: TopUp) -> None:
    unmatched.resolve(unmatched=payment, actor=topup.account.members.get(), text="given back", at=AT)


@pytest.mark.parametrize(("minutes", "is_found"), [(9, False), (11, True)])
def test_a_payment_that_came_and_is_nowhere_is_found(topup: TopUp, minutes: int, is_found: bool) -> None:
    stray(topup)
    later = AT + dt.timedelta(minutes=minutes)
    assert auditing.audit_ledger(at=later).discrepancies == []
    plant("DELETE FROM billing_unmatchedpayment")
    said = (
        "payment pay_2 of stripe, 1250 of the smallest unit of usd, came,"
        " and is neither credited nor among the unmatched payments"
    )
    assert auditing.audit_ledger(at=later).discrepancies == [said] * is_found


def test_a_payment_whose_event_has_its_turn_yet_is_on_its_way(topup: TopUp) -> None:
    stray(topup)
    plant("DELETE FROM billing_unmatchedpayment")
    tell(topup, event="evt_2", outcome="done")
    plant(
        "UPDATE billing_webhookevent SET outcome = 'waiting', processed_at = NULL,"
        " news = jsonb_set(news, '{payment}', '\"pay_2\"') WHERE event = 'evt_2'"
    )
    WebhookEvent.objects.update(received_at=AT)
    assert auditing.audit_ledger(at=AT + dt.timedelta(minutes=11)).discrepancies == []


def test_a_payment_that_an_operator_has_closed_is_right(topup: TopUp) -> None:
    close(stray(topup), topup)
    assert auditing.audit_ledger(at=AT + dt.timedelta(days=1)).discrepancies == []


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM billing_paymentclosing",
        "UPDATE billing_paymentclosing SET note = 'another'",
        "UPDATE billing_unmatchedpayment SET resolved_at = now()",
        "UPDATE billing_unmatchedpayment SET note = 'another'",
        "UPDATE billing_unmatchedpayment SET resolved_at = NULL",
    ],
)
def test_a_payment_that_is_closed_otherwise_than_an_operator_has_is_found(
    topup: TopUp, statement: str
) -> None:
    close(stray(topup), topup)
    plant(statement)
    (line,) = found()
    assert line.startswith("unmatched payment pay_2 of stripe: ")


def test_a_payment_that_is_closed_by_hand_is_found(topup: TopUp) -> None:
    stray(topup)
    UnmatchedPayment.objects.update(resolved_at=AT, note="nothing to see")
    assert found() == [
        "unmatched payment pay_2 of stripe: it is closed without credit, and no operator has done so"
    ]


def test_payments_that_were_closed_before_that_was_kept_are_taken_for_closed(topup: TopUp) -> None:
    close(stray(topup), topup)
    plant("DELETE FROM billing_paymentclosing")
    assert len(found()) == 1
    plant(import_module("billing.migrations.0020_what_stays").CLOSINGS)
    assert found() == []


GONE = [
    RefundChanged("re_1", "", "pay_1", 2500, "usd", "succeeded"),
    DisputeChanged("du_1", "pay_1", 2500, "usd", "fraudulent", "open"),
]


def told(news: News) -> WebhookEvent:
    message = WebhookMessage("evt_2", "it went back", AT, news)
    return webhooks.record(provider="stripe", message=message, at=AT)


def ignore() -> None:
    """By a query that the database does not refuse: an event of no payment of ours ends so."""
    WebhookEvent.objects.filter(outcome="waiting").update(outcome="ignored", processed_at=AT)


@pytest.mark.parametrize("news", GONE)
@pytest.mark.parametrize(("seconds", "is_found"), [(59, False), (61, True)])
def test_what_went_back_of_a_paid_top_up_and_is_ignored_by_hand_is_found(
    topup: TopUp, news: News, seconds: int, is_found: bool
) -> None:
    told(news)
    ignore()
    line = (
        f"stripe event evt_2, it went back, of top-up {topup.pk}:"
        " it is ignored, no operator has closed it, and its payment is one of ours"
    )
    later = AT + dt.timedelta(seconds=seconds)
    assert auditing.audit_ledger(at=later).discrepancies == [line] * is_found


@pytest.mark.parametrize("news", GONE)
def test_what_went_back_and_an_operator_has_closed_is_right(topup: TopUp, news: News) -> None:
    actor = topup.account.members.get()
    webhooks.close(event=told(news), actor=actor, note="settled by letter", at=AT)
    WebhookEvent.objects.update(closed_by=None)
    assert auditing.audit_ledger(at=AT + dt.timedelta(hours=1)).discrepancies == []


@pytest.mark.parametrize("payment", ["pay_2", ""])
def test_what_went_back_of_a_payment_that_is_none_of_ours_is_ignored(payment: str) -> None:
    told(DisputeChanged("du_1", payment, 2500, "usd", "fraudulent", "open"))
    ignore()
    assert auditing.audit_ledger(at=AT + dt.timedelta(hours=1)).discrepancies == []

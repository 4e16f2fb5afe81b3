"""Refunds that stay on their way: looked up for as long as it takes, and told of once."""

from collections.abc import Callable
from typing import Any

import pytest
from django.core import mail
from django.db import connection
from pytest_django import Settings
from time_machine import travel

from billing import pending_refunds, refunding
from billing.models import Refund, TopUp
from billing.providers.provider import ProviderAway
from billing.providers.sandbox import SandboxProvider
from billing.tasks.refunds import ask_for_refunds, mail_about_refunds
from tests import factories
from tests.billing.fake_stripe import FakeStripe
from tests.billing.paying import USD
from tests.billing.staying_refunds import DAY, HOUR, begun, lost, paid_at_stripe
from tests.billing.test_refunding import balance, bought, news, refund
from tests.concurrency import in_parallel
from tests.invariants import check_books

pytestmark = pytest.mark.django_db


@pytest.fixture
def paid(fake_stripe: FakeStripe) -> TopUp:
    return paid_at_stripe(fake_stripe)


# --- Looked up ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["succeeded", "failed"])
def test_a_refund_whose_webhook_was_lost_is_looked_up_by_its_name(
    fake_stripe: FakeStripe, paid: TopUp, status: str
) -> None:
    fake_stripe.refunds_become = "pending"
    made = refund(paid, usd="8")
    fake_stripe.settle_refund(str(made.provider_refund), status)
    ask_for_refunds()
    assert Refund.objects.get().status == "pending"
    with travel(factories.now() + pending_refunds.LOOK_EVERY):
        ask_for_refunds()
    assert Refund.objects.get().status == status
    assert balance(paid) == (12 if status == "succeeded" else 20) * USD
    check_books(idle=True)


def test_a_refund_whose_answer_was_lost_for_a_day_is_found_by_our_name_for_it(
    fake_stripe: FakeStripe, paid: TopUp
) -> None:
    made = lost(paid, fake_stripe)
    refund(paid, usd="1", reference="r-2")
    ask_for_refunds()
    made.refresh_from_db()
    assert (made.status, made.provider_refund) == ("succeeded", fake_stripe.of_kind("refund")[0]["id"])
    assert len(fake_stripe.of_kind("refund")) == 2
    check_books(idle=True)


def test_a_refund_that_stripe_does_not_know_by_its_name_is_looked_for_among_the_payments(
    fake_stripe: FakeStripe, paid: TopUp
) -> None:
    made = lost(paid, fake_stripe)
    Refund.objects.update(provider_refund="re_of_another_account")
    ask_for_refunds()
    assert Refund.objects.get().status == "succeeded"
    assert made.reference == "r-1"


def test_looking_up_goes_on_more_slowly_after_the_first_hours() -> None:
    topup, at = bought(), factories.now()
    begun(topup, at=at)
    Refund.objects.update(provider_refund="re_1")
    looks = []
    for hours in range(1, 40):
        now = at + hours * HOUR
        if pending_refunds.claim(at=now):
            looks.append(hours)
            assert pending_refunds.claim(at=now) is None
    assert looks == [*range(1, 20), 25, 31, 37]


def test_what_is_asked_for_again_is_not_looked_up() -> None:
    begun(bought(), at=factories.now() - 10 * HOUR)
    assert pending_refunds.claim(at=factories.now()) is None


@pytest.mark.django_db(transaction=True)
def test_sweeps_at_once_look_up_once() -> None:
    begun(bought(), at=factories.now() - DAY)
    at = factories.now()
    claimed = in_parallel(lambda _number: pending_refunds.claim(at=at), times=8)
    assert sum(refund is not None for refund in claimed) == 1


def test_a_sweep_that_is_overtaken_between_finding_and_claiming_leaves_it_alone() -> None:
    begun(bought(), at=factories.now() - DAY)
    at = factories.now()
    others: list[Refund | None] = []

    def overtake(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        if sql.startswith("UPDATE") and not others:
            others.append(None)
            others[0] = pending_refunds.claim(at=at)
        return execute(sql, *rest)

    with connection.execute_wrapper(overtake):
        assert pending_refunds.claim(at=at) is None
    assert others == [Refund.objects.get()]


def test_a_key_that_stripe_does_not_take_says_nothing_about_a_refund(
    fake_stripe: FakeStripe, paid: TopUp, settings: Settings
) -> None:
    lost(paid, fake_stripe)
    Refund.objects.update(provider_refund="re_1")
    settings.STRIPE_SECRET_KEY = "sk_test_another"
    made = Refund.objects.select_related("topup").get()
    assert pending_refunds.look_up(refund=made, at=factories.now()) is pending_refunds.Answer.NONE


def test_without_an_answer_it_stays_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    made = begun(bought(), at=factories.now() - DAY)

    def away(*_: object, **__: object) -> None:
        raise ProviderAway

    monkeypatch.setattr(SandboxProvider, "find_refund", away)
    assert pending_refunds.look_up(refund=made, at=factories.now()) is pending_refunds.Answer.NONE
    made.topup.provider = "shells"
    assert pending_refunds.look_up(refund=made, at=factories.now()) is pending_refunds.Answer.NONE
    assert Refund.objects.get().status == "pending"


def test_one_of_another_amount_is_known_and_stays_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    topup = bought()
    made = begun(topup, at=factories.now() - DAY)
    told = news(topup, cents=1, reference="r-1")
    monkeypatch.setattr(SandboxProvider, "find_refund", lambda *_, **__: told)
    assert pending_refunds.look_up(refund=made, at=factories.now()) is pending_refunds.Answer.KNOWN
    assert Refund.objects.get().status == "pending"


def test_two_sweeps_at_once_ask_for_different_refunds() -> None:
    begun(bought(), at=factories.now() - HOUR)
    begun(bought(), at=factories.now() - HOUR, reference="r-2")
    at = factories.now()
    others: list[Refund | None] = []

    def overtake(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        if sql.startswith("UPDATE") and not others:
            others.append(None)
            others[0] = refunding.claim_unanswered(at=at)
        return execute(sql, *rest)

    with connection.execute_wrapper(overtake):
        mine = refunding.claim_unanswered(at=at)
    assert {refund.reference for refund in (mine, *others) if refund} == {"r-1", "r-2"}


# --- Told of -----------------------------------------------------------------------------------------------


def test_operators_hear_once_of_a_refund_that_is_on_its_way_for_too_long(settings: Settings) -> None:
    settings.OPERATOR_EMAILS = ["op@example.com"]
    begun(bought(), at=factories.now())
    mail_about_refunds()
    assert mail.outbox == []
    with travel(factories.now() + refunding.ASK_FOR):
        for _ in range(2):
            mail_about_refunds()
    (message,) = mail.outbox
    assert message.subject == "A refund of $10.00 is still on its way"
    assert "The payment company has not said that it has made it." in message.body
    assert "/admin/billing/refund/" in message.body


def test_one_that_the_company_has_named_says_so(settings: Settings) -> None:
    settings.OPERATOR_EMAILS = ["op@example.com"]
    begun(bought(), at=factories.now() - DAY)
    Refund.objects.update(provider_refund="re_1")
    mail_about_refunds()
    assert "has it as re_1 and has not decided" in mail.outbox[0].body


def test_a_refund_that_ended_in_time_is_not_told_to_operators(settings: Settings) -> None:
    settings.OPERATOR_EMAILS = ["op@example.com"]
    refund(bought(), usd="8", at=factories.now() - DAY)
    mail_about_refunds()
    assert ["op@example.com"] not in [message.to for message in mail.outbox]


def test_one_that_was_made_elsewhere_is_told_at_once_and_when_it_takes_too_long(settings: Settings) -> None:
    settings.OPERATOR_EMAILS = ["op@example.com"]
    topup = bought()
    refunding.hear(provider="sandbox", news=news(topup, status="pending"), at=factories.now())
    for moment in (factories.now(), factories.now() + DAY):
        with travel(moment):
            for _ in range(2):
                mail_about_refunds()
    assert [message.subject for message in mail.outbox] == [
        "$25.00 was refunded at the payment company",
        "A refund of $25.00 is still on its way",
    ]

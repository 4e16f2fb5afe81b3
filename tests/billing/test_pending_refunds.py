"""Refunds that stay on their way: looked up for as long as it takes, told of once, and ended by a person if need be."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from django.core import mail
from django.db import connection
from django.test import Client
from pytest_django import Settings
from time_machine import travel

from accounts.models import AuditEvent
from billing import pending_refunds, refunding
from billing.models import Refund, TopUp
from billing.providers.provider import ProviderAway, RefundChanged
from billing.providers.sandbox import SandboxProvider
from billing.tasks.refunds import ask_for_refunds, mail_about_refunds
from tests import factories
from tests.billing.fake_stripe import FakeStripe
from tests.billing.paying import USD, check_out, start
from tests.billing.test_refunding import balance, bought, news, refund
from tests.concurrency import in_parallel
from tests.invariants import check_books

pytestmark = pytest.mark.django_db
HOUR = dt.timedelta(hours=1)
DAY = 24 * HOUR


@pytest.fixture
def paid(fake_stripe: FakeStripe) -> TopUp:
    """A top-up of 20 USD at 25 % that was paid at Stripe."""
    from billing import looking_up

    topup = start()
    fake_stripe.pay(check_out(topup).session)
    looking_up.look_up(topup=topup, at=factories.now())
    topup.refresh_from_db()
    return topup


def begun(topup: TopUp, *, at: dt.datetime, reference: str = "r-1") -> Refund:
    """A refund of $8 whose process died before it asked."""
    return refunding.start(
        topup=topup,
        credit_nanousd=8 * USD,
        reason="unused",
        actor=topup.account.members.get(),
        reference=reference,
        at=at,
    )


def lost(topup: TopUp, fake: FakeStripe) -> Refund:
    """A refund of $8 that Stripe has made, a day ago, and of which no answer ever came."""
    fake.fail_next("drop-after", path="/v1/refunds", times=3)
    made = refund(topup, usd="8", at=factories.now() - DAY)
    assert (made.status, made.provider_refund) == ("pending", None)
    Refund.objects.update(asked_at=factories.now() - DAY)
    made.refresh_from_db()
    return made


def again(refund: Refund, actor_of: TopUp) -> Refund:
    actor = actor_of.account.members.get()
    return pending_refunds.ask_again(refund=refund, actor=actor, at=factories.now())


def given_up(refund: Refund) -> Refund:
    actor = refund.topup.account.members.get()
    return pending_refunds.give_up(refund=refund, actor=actor, at=factories.now())


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


# --- Ended by a person -------------------------------------------------------------------------------------


def test_asking_again_makes_what_the_company_knows_nothing_of(fake_stripe: FakeStripe, paid: TopUp) -> None:
    made = begun(paid, at=factories.now() - 3 * DAY)
    ask_for_refunds()
    assert Refund.objects.get().status == "pending"
    assert again(made, paid).status == "succeeded"
    assert [found["metadata"] for found in fake_stripe.of_kind("refund")] == [{"tollgate_refund": "r-1"}]
    assert AuditEvent.objects.get(action="refund.asked_again").actor == paid.account.members.get()
    check_books(idle=True)


def test_asking_again_makes_nothing_twice(fake_stripe: FakeStripe, paid: TopUp) -> None:
    made = lost(paid, fake_stripe)
    assert again(made, paid).status == "succeeded"
    assert len(fake_stripe.of_kind("refund")) == 1
    # One who saw the page before asks as well.
    assert again(made, paid).status == "succeeded"
    assert len(fake_stripe.of_kind("refund")) == 1
    check_books(idle=True)


@pytest.mark.django_db(transaction=True)
def test_two_operators_who_ask_again_at_once_get_one_refund(fake_stripe: FakeStripe, paid: TopUp) -> None:
    made = begun(paid, at=factories.now() - 3 * DAY)
    in_parallel(lambda _number: again(Refund.objects.select_related("topup").get(pk=made.pk), paid), times=4)
    assert len(fake_stripe.of_kind("refund")) == 1
    assert Refund.objects.get().status == "succeeded"
    assert balance(paid) == 12 * USD


def test_one_that_was_made_elsewhere_is_never_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    topup = bought()
    made = refunding.hear(provider="sandbox", news=news(topup, status="pending"), at=factories.now() - DAY)
    assert made is not None

    def never(*_: object, **__: object) -> RefundChanged:
        raise AssertionError

    monkeypatch.setattr(SandboxProvider, "refund", never)
    assert again(made, topup).status == "pending"
    with pytest.raises(pending_refunds.NotGivenUp, match="only the company ends it"):
        given_up(made)


def test_what_the_company_knows_nothing_of_is_given_back_to_the_wallet(
    fake_stripe: FakeStripe, paid: TopUp
) -> None:
    made = begun(paid, at=factories.now() - DAY)
    assert balance(paid) == 12 * USD
    ended = given_up(made)
    assert (ended.status, balance(paid)) == ("failed", 20 * USD)
    assert "knows nothing of it" in ended.message
    assert AuditEvent.objects.get(action="refund.given_up").actor == paid.account.members.get()
    check_books(idle=True)


def test_one_that_is_made_after_it_was_given_up_is_booked_again(fake_stripe: FakeStripe, paid: TopUp) -> None:
    made = begun(paid, at=factories.now() - DAY)
    given_up(made)
    refunding.ask(refund=made, at=factories.now())
    made.refresh_from_db()
    assert (made.status, balance(paid)) == ("succeeded", 12 * USD)
    check_books(idle=True)


def test_what_the_company_knows_or_does_not_answer_about_is_not_given_back(
    fake_stripe: FakeStripe, paid: TopUp
) -> None:
    fake_stripe.refunds_become = "pending"
    made = lost(paid, fake_stripe)
    fake_stripe.fail_next("500", path="/v1/refunds", times=3)
    with pytest.raises(pending_refunds.NotGivenUp, match="gives no answer"):
        given_up(made)
    with pytest.raises(pending_refunds.NotGivenUp, match="knows the refund"):
        given_up(made)
    # Another account's key says nothing about the refund.
    TopUp.objects.update(provider_payment="pi_of_another_account")
    made = Refund.objects.select_related("topup").get()
    Refund.objects.update(provider_refund=None)
    made = Refund.objects.select_related("topup").get()
    with pytest.raises(pending_refunds.NotGivenUp, match="gives no answer"):
        given_up(made)
    assert balance(paid) == 12 * USD


@pytest.mark.parametrize(("begun_ago", "asked_ago"), [(19 * HOUR, 19 * HOUR), (DAY, HOUR / 60)])
def test_while_it_is_still_being_asked_for_it_is_not_given_back(
    begun_ago: dt.timedelta, asked_ago: dt.timedelta
) -> None:
    made = begun(bought(), at=factories.now() - begun_ago)
    made.asked_at = factories.now() - asked_ago
    with pytest.raises(pending_refunds.NotGivenUp, match="still being asked"):
        given_up(made)


def test_one_that_succeeds_while_it_is_given_up_stays_succeeded() -> None:
    topup = bought()
    made = begun(topup, at=factories.now() - DAY)
    refunding.hear(provider="sandbox", news=news(topup, cents=1000, reference="r-1"), at=factories.now())
    with pytest.raises(refunding.NotAsItWas):
        refunding.give_up(refund=made, actor=topup.account.members.get(), message="x", at=factories.now())
    assert (Refund.objects.get().status, balance(topup)) == ("succeeded", 12 * USD)
    assert not AuditEvent.objects.filter(action="refund.given_up").exists()
    check_books(idle=True)


def test_one_that_is_asked_for_again_while_it_is_given_up_stays_on_its_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topup = bought()
    made = begun(topup, at=factories.now() - DAY)
    calls: list[str] = []

    def asked_meanwhile(*_: object, **__: object) -> None:
        calls.append("find")
        if len(calls) == 1:
            # The company knows nothing of it, and before that is heard, somebody else asks again.
            other = Refund.objects.select_related("topup").get()
            pending_refunds.ask_again(refund=other, actor=topup.account.members.get(), at=factories.now())

    def away(*_: object, **__: object) -> RefundChanged:
        raise ProviderAway

    monkeypatch.setattr(SandboxProvider, "find_refund", asked_meanwhile)
    monkeypatch.setattr(SandboxProvider, "refund", away)
    with pytest.raises(pending_refunds.NotGivenUp, match="Meanwhile it was asked for again"):
        given_up(made)
    assert calls == ["find", "find"]
    assert (Refund.objects.get().status, balance(topup)) == ("pending", 12 * USD)
    assert not AuditEvent.objects.filter(action="refund.given_up").exists()
    check_books(idle=True)


def test_one_that_the_company_names_while_it_is_given_up_stays_on_its_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topup = bought()
    made = begun(topup, at=factories.now() - DAY)

    def named_meanwhile(*_: object, **__: object) -> None:
        told = news(topup, cents=1000, status="pending", reference="r-1")
        refunding.hear(provider="sandbox", news=told, at=factories.now())

    monkeypatch.setattr(SandboxProvider, "find_refund", named_meanwhile)
    with pytest.raises(pending_refunds.NotGivenUp, match="has spoken of it"):
        given_up(made)
    assert (Refund.objects.get().provider_refund, balance(topup)) == ("re_1", 12 * USD)
    check_books(idle=True)


def test_one_that_was_named_and_that_the_company_knows_no_more_can_be_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topup = bought()
    begun(topup, at=factories.now() - DAY)
    Refund.objects.update(provider_refund="re_1")
    monkeypatch.setattr(SandboxProvider, "find_refund", lambda *_, **__: None)
    ended = given_up(Refund.objects.select_related("topup").get())
    assert (ended.status, ended.provider_refund, balance(topup)) == ("failed", None, 20 * USD)
    check_books(idle=True)


# --- The operator's pages ----------------------------------------------------------------------------------


@pytest.fixture
def operator() -> Client:
    client = Client()
    client.force_login(factories.make_user(is_staff=True, is_superuser=True))
    return client


def test_the_operator_asks_again_after_reading_what_that_does(operator: Client) -> None:
    topup = bought()
    made = begun(topup, at=factories.now() - DAY)
    address = f"/admin/billing/refund/{made.pk}/ask-again/"
    assert f'href="{address}"' in operator.get(f"/admin/billing/refund/{made.pk}/change/").text
    asked = operator.get(address).text
    assert f"account {topup.account_id}, {topup.account.name} ({topup.account.members.get().email})" in asked
    assert "$10.00 goes back to whoever paid" in asked
    operator.post(address)
    assert Refund.objects.get().status == "pending"
    assert "The refund is: Given back." in operator.post(address, {"confirmed": "yes"}, follow=True).text
    # Nothing is left to do.
    assert "The refund is: Given back." in operator.post(address, {"confirmed": "yes"}, follow=True).text
    assert AuditEvent.objects.filter(action="refund.asked_again").count() == 1
    assert f'href="{address}"' not in operator.get(f"/admin/billing/refund/{made.pk}/change/").text


def test_the_operator_gives_the_credit_back_after_reading_what_that_does(operator: Client) -> None:
    topup = bought()
    made = begun(topup, at=factories.now() - HOUR)
    address = f"/admin/billing/refund/{made.pk}/give-up/"
    assert "$8.00 of credit is in the wallet again" in operator.get(address).text
    assert "still being asked" in operator.post(address, {"confirmed": "yes"}, follow=True).text
    Refund.objects.update(created_at=factories.now() - DAY)
    told = operator.post(address, {"confirmed": "yes"}, follow=True).text
    assert "The refund is: Failed. It was not made" in told
    assert "The refund is: Failed." in operator.post(address, {"confirmed": "yes"}, follow=True).text
    assert balance(topup) == 20 * USD
    check_books(idle=True)


def test_a_page_of_one_that_the_company_has_named_says_so(operator: Client) -> None:
    made = begun(bought(), at=factories.now() - DAY)
    Refund.objects.update(provider_refund="re_1")
    assert "has it as re_1" in operator.get(f"/admin/billing/refund/{made.pk}/ask-again/").text
    assert "1 refund on the way for too long" in operator.get("/admin/").text


@pytest.mark.parametrize("act", ["ask-again", "give-up"])
def test_a_member_of_staff_without_the_permission_does_neither(client: Client, act: str) -> None:
    made = begun(bought(), at=factories.now() - DAY)
    address = f"/admin/billing/refund/{made.pk}/{act}/"
    client.force_login(factories.make_user(is_staff=True))
    assert client.post(address, {"confirmed": "yes"}).status_code == 403
    client.force_login(made.account.members.get())
    assert client.post(address, {"confirmed": "yes"}).status_code == 302
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

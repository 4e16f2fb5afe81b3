"""Refunds that stay on their way, ended by a person: asked for again, or given up."""

import datetime as dt

import pytest
from django.test import Client

from accounts.models import AuditEvent
from billing import pending_refunds, refunding
from billing.models import Refund, TopUp
from billing.providers.provider import ProviderAway, RefundChanged
from billing.providers.sandbox import SandboxProvider
from billing.tasks.refunds import ask_for_refunds
from tests import factories
from tests.billing.fake_stripe import FakeStripe
from tests.billing.paying import USD
from tests.billing.staying_refunds import DAY, HOUR, begun, lost, paid_at_stripe
from tests.billing.test_refunding import balance, bought, news
from tests.concurrency import in_parallel
from tests.invariants import check_books

pytestmark = pytest.mark.django_db


@pytest.fixture
def paid(fake_stripe: FakeStripe) -> TopUp:
    return paid_at_stripe(fake_stripe)


def again(refund: Refund, actor_of: TopUp) -> Refund:
    actor = actor_of.account.members.get()
    return pending_refunds.ask_again(refund=refund, actor=actor, at=factories.now())


def given_up(refund: Refund) -> Refund:
    actor = refund.topup.account.members.get()
    return pending_refunds.give_up(refund=refund, actor=actor, at=factories.now())


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

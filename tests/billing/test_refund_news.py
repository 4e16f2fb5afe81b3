"""What companies tell of refunds: often, late, in any order, and of those that nobody here has made."""

from collections.abc import Sequence
from importlib import import_module

import pytest
from django.core import mail
from django.db import connection, transaction
from django.test import Client
from pytest_django import Settings

from accounts.models import AuditEvent
from billing import moving, refunding, webhooks
from billing.models import LedgerTransaction, Refund, TopUp, WebhookEvent
from billing.providers.provider import ProviderRefused, RefundChanged, WebhookMessage
from billing.providers.sandbox import SandboxProvider
from billing.tasks.refunds import mail_about_refunds
from tests import factories
from tests.billing.test_billing_pages import sign_in, text_of
from tests.billing.test_refunding import AT, USD, balance, bought, news, refund, spend
from tests.concurrency import in_parallel, start_and_wait_behind
from tests.invariants import check_books


def hear(topup: TopUp, **fields: object) -> Refund | None:
    return refunding.hear(provider="sandbox", news=news(topup, **fields), at=factories.now())  # type: ignore[arg-type]


@pytest.mark.django_db
@pytest.mark.parametrize("statuses", [("pending", "succeeded"), ("succeeded", "pending", "succeeded")])
def test_news_of_a_refund_may_come_often_and_late(statuses: tuple[str, ...]) -> None:
    topup = bought()
    started = refunding.start(
        topup=topup,
        credit_nanousd=20 * USD,
        reason="unused",
        actor=topup.account.members.get(),
        reference="r-1",
        at=AT,
    )
    for status in statuses:
        hear(topup, status=status, reference="r-1")
    started.refresh_from_db()
    assert (started.status, started.provider_refund) == ("succeeded", "re_1")
    assert LedgerTransaction.objects.filter(kind="refund").count() == 1
    check_books(idle=True)


@pytest.mark.django_db
def test_a_refund_that_fails_after_all_is_posted_back_and_stays_failed() -> None:
    topup = bought()
    made = refund(topup)
    for status in ("failed", "failed", "succeeded"):
        hear(topup, status=status, refund="sandbox-r-1", reference="r-1", message="account closed")
    made.refresh_from_db()
    assert (made.status, made.message, balance(topup)) == ("failed", "account closed", 20 * USD)
    check_books(idle=True)


@pytest.mark.django_db
def test_a_refund_that_was_refused_and_made_all_the_same_is_booked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topup = bought()

    def refuse(*_: object, **__: object) -> RefundChanged:
        raise ProviderRefused("The key is wrong.")

    with monkeypatch.context() as patched:
        patched.setattr(SandboxProvider, "refund", refuse)
        made = refund(topup)
    spend(topup.account, 15)
    hear(topup, reference="r-1")
    made.refresh_from_db()
    assert (made.status, made.credit_nanousd, made.loss_nanousd) == ("succeeded", 5 * USD, 15 * USD)
    assert balance(topup) == 0
    check_books(idle=True)


@pytest.mark.django_db
@pytest.mark.parametrize("status", ["succeeded", "pending"])
def test_a_call_that_is_refused_after_the_company_has_named_the_refund_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    topup = bought()

    def refuse_late(*_: object, **__: object) -> RefundChanged:
        hear(topup, reference="r-1", status=status)
        raise ProviderRefused("There is nothing left to refund.")

    monkeypatch.setattr(SandboxProvider, "refund", refuse_late)
    made = refund(topup)
    assert (made.status, made.provider_refund, balance(topup)) == (status, "re_1", 0)
    assert not LedgerTransaction.objects.filter(reference__startswith="refund-failed").exists()
    check_books(idle=True)


@pytest.mark.django_db
@pytest.mark.parametrize(("spent", "credit", "loss"), [(0, 20, 0), (12, 8, 12), (20, 0, 20)])
def test_a_refund_at_the_companys_own_dashboard_takes_what_there_is(
    settings: Settings, spent: int, credit: int, loss: int
) -> None:
    settings.OPERATOR_EMAILS = ["op@example.com"]
    topup = bought()
    if spent:
        spend(topup.account, spent)
    for _ in range(3):
        hear(topup)
    made = Refund.objects.get()
    assert (made.credit_nanousd, made.fee_nanousd, made.loss_nanousd) == (credit * USD, 5 * USD, loss * USD)
    assert (made.status, made.created_by, made.asked_at) == ("succeeded", None, None)
    mail_about_refunds()
    mail_about_refunds()
    told_operator, told_account = mail.outbox
    assert told_operator.to == ["op@example.com"]
    assert "at the payment company" in told_operator.subject
    assert told_account.to == [topup.account.members.get().email]
    check_books(idle=True)


@pytest.mark.django_db
def test_a_refund_at_the_dashboard_that_fails_is_taken_back() -> None:
    topup = bought()
    spend(topup.account, 12)
    hear(topup, status="pending")
    hear(topup, status="failed")
    assert Refund.objects.get().status == "failed"
    assert balance(topup) == 8 * USD
    check_books(idle=True)


# As they are heard: what a company tells of a refund that somebody made at its dashboard and that fails.
ORDERS = [
    ("failed",),
    ("failed", "pending"),
    ("failed", "succeeded"),
    ("failed", "pending", "succeeded"),
    ("pending", "failed"),
    ("pending", "failed", "succeeded"),
    ("succeeded", "failed"),
]


def tell(topup: TopUp, statuses: Sequence[str], *, first: int = 1, refund: str = "re_1") -> None:
    """As webhooks, each an event of its own."""
    for number, status in enumerate(statuses, start=first):
        told = news(topup, status=status, message="no bank", refund=refund)
        message = WebhookMessage(f"evt_{number}", "refund", AT, told)
        event = webhooks.record(provider="sandbox", message=message, at=factories.now())
        webhooks.process(event=event, at=factories.now())


@pytest.mark.django_db
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("times", [1, 3])
def test_a_refund_that_the_company_failed_is_failed_here_in_any_order(
    order: tuple[str, ...], times: int
) -> None:
    topup = bought()
    spend(topup.account, 12)
    tell(topup, [status for status in order for _ in range(times)])
    tell(topup, order, first=100)
    made = Refund.objects.get()
    assert (made.status, made.message, made.total_nanousd) == ("failed", "no bank", 25 * USD)
    assert made.moved_nothing is (order[0] == "failed")
    assert balance(topup) == 8 * USD
    assert set(WebhookEvent.objects.values_list("outcome", flat=True)) == {"done"}
    check_books(idle=True)


@pytest.mark.django_db
def test_one_that_failed_before_it_was_heard_of_has_booked_nothing_and_is_no_loss() -> None:
    topup = bought()
    hear(topup, status="failed")
    assert not LedgerTransaction.objects.filter(kind="refund").exists()
    assert refunding.refundable(topup=topup).credit_nanousd == 20 * USD
    assert AuditEvent.objects.get(subject_type="refund").action == "refund.failed_elsewhere"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("other", ["pending", "succeeded", "failed"])
def test_news_that_it_failed_and_older_news_at_once_end_failed(other: str) -> None:
    topup = bought()
    in_parallel(lambda number: tell(topup, [("failed", other)[number % 2]], first=number), times=6)
    assert Refund.objects.get().status == "failed"
    assert balance(topup) == 20 * USD
    check_books(idle=True)


@pytest.mark.django_db(transaction=True)
def test_older_news_that_waits_for_the_wallet_finds_what_was_written_meanwhile() -> None:
    topup = bought()
    with transaction.atomic():
        moving.lock(account_id=topup.account_id)
        # It has looked, found no such refund, and waits for the wallet.
        older = start_and_wait_behind(lambda: tell(topup, ["succeeded"]))
        hear(topup, status="failed")
    older.join(timeout=20)
    assert (Refund.objects.get().status, balance(topup)) == ("failed", 20 * USD)
    check_books(idle=True)


@pytest.mark.django_db
def test_pages_and_mails_say_of_one_that_moved_nothing_what_is_so(settings: Settings, client: Client) -> None:
    settings.OPERATOR_EMAILS = ["op@example.com"]
    topup = bought()
    tell(topup, ["failed"])
    for _ in range(2):
        mail_about_refunds()
    # The account has lost nothing, and is told nothing.
    (told_operator,) = mail.outbox
    assert (told_operator.to, told_operator.subject) == (["op@example.com"], "A refund of $25.00 failed")
    assert "Nothing of it was booked, and none of their credit was taken." in told_operator.body
    assert "in their wallet again" not in told_operator.body
    assert "no bank" in told_operator.body
    page = text_of(sign_in(topup.account), f"/billing/topups/{topup.pk}/")
    assert "failed at the payment company. None of your credit was taken for it." in page
    assert "in your wallet again" not in page
    client.force_login(factories.make_user(is_staff=True, is_superuser=True))
    refund_page = client.get(f"/admin/billing/refund/{Refund.objects.get().pk}/change/").text
    assert "Never: it had failed at the payment company before it was heard of." in refund_page
    assert refund_page.count(">nothing<") == 3
    assert ">nothing<" in client.get("/admin/billing/refund/").text


@pytest.mark.django_db
def test_the_operator_reads_whether_a_refund_is_booked(client: Client) -> None:
    client.force_login(factories.make_user(is_staff=True, is_superuser=True))
    topup = bought()
    made = refund(topup)
    address = f"/admin/billing/refund/{made.pk}/change/"
    assert ">Yes<" in client.get(address).text
    hear(topup, status="failed", refund="sandbox-r-1", reference="r-1")
    assert ">Yes, and back again<" in client.get(address).text


@pytest.mark.django_db
def test_what_was_dropped_or_booked_against_it_before_is_mended_by_acting_on_it_again() -> None:
    dropped, booked = bought(), bought()
    tell(dropped, ["failed"], first=1)
    tell(booked, ["failed", "succeeded"], first=2, refund="re_2")
    # As it was before: the first was dropped, and the other was booked after that.
    Refund.objects.all().delete()
    hear(booked, status="succeeded", refund="re_2")
    assert balance(booked) == 0
    with connection.cursor() as cursor:
        # It ran before events ended once.
        cursor.execute(import_module("billing.migrations.0022_events_end_once").REVERSE)
        cursor.execute(import_module("billing.migrations.0018_told_in_any_order").FAILED_AGAIN)
    assert webhooks.process_due(at=factories.now()) == 2
    assert set(Refund.objects.values_list("topup", "status")) == {
        (dropped.pk, "failed"),
        (booked.pk, "failed"),
    }
    assert balance(booked) == balance(dropped) == 20 * USD
    check_books(idle=True)


@pytest.mark.django_db
def test_refunds_that_are_not_ours_or_of_another_amount_are_refused() -> None:
    topup = bought()
    with pytest.raises(refunding.RefundUnknown):
        hear(topup, payment="pi_other")
    with pytest.raises(refunding.RefundUnknown):
        hear(topup, payment="")
    with pytest.raises(refunding.RefundDiffers):
        hear(topup, currency="eur")
    refund(topup, usd="8")
    with pytest.raises(refunding.RefundDiffers):
        hear(topup, reference="r-1", cents=1001)
    check_books(idle=True)


@pytest.mark.django_db(transaction=True)
def test_the_same_news_at_once_is_booked_once() -> None:
    topup = bought()
    in_parallel(lambda _: hear(topup), times=10)
    assert Refund.objects.count() == 1
    assert balance(topup) == 0
    check_books(idle=True)

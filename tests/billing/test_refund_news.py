"""What companies tell of refunds: often, late, in any order, and of those that nobody here has made."""

import pytest
from django.core import mail
from pytest_django import Settings

from billing import refunding
from billing.models import LedgerTransaction, Refund, TopUp
from billing.providers.provider import ProviderRefused, RefundChanged
from billing.providers.sandbox import SandboxProvider
from billing.tasks.refunds import mail_about_refunds
from tests import factories
from tests.billing.test_refunding import AT, USD, balance, bought, news, refund, spend
from tests.concurrency import in_parallel
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


@pytest.mark.django_db
def test_a_failed_refund_that_we_never_heard_of_changes_nothing() -> None:
    topup = bought()
    assert hear(topup, status="failed") is None
    assert balance(topup) == 20 * USD


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

"""Disputes: frozen, given back or lost, whatever order a company tells it in."""

import datetime as dt
import itertools

import pytest
from django.core import mail
from pytest_django import Settings

from accounts.models import AuditEvent
from billing import disputing, refunding
from billing.models import Dispute, LedgerTransaction, TopUp
from billing.providers.provider import DisputeChanged
from billing.tasks.refunds import mail_about_refunds
from tests import factories
from tests.billing.test_billing_pages import sign_in, text_of
from tests.billing.test_refunding import balance, bought, legs, refund, spend
from tests.concurrency import in_parallel
from tests.invariants import check_books

AT = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
USD = 10**9


def hear(
    topup: TopUp,
    status: str,
    *,
    cents: int = 2500,
    dispute: str = "dp_1",
    occurred_at: dt.datetime | None = None,
) -> Dispute:
    news = DisputeChanged(
        dispute=dispute,
        payment=topup.provider_payment,
        amount_cents=cents,
        currency="usd",
        reason="fraudulent",
        status=status,
        respond_by="2026-03-09T12:00:00+00:00",
    )
    return disputing.hear(provider="sandbox", news=news, at=factories.now(), occurred_at=occurred_at)


def shares(dispute: Dispute) -> tuple[int, int, int]:
    """In whole USD: what is frozen or gone, of the fee, and lost."""
    dispute.refresh_from_db()
    return dispute.frozen_nanousd // USD, dispute.fee_nanousd // USD, dispute.loss_nanousd // USD


@pytest.mark.django_db
def test_an_open_dispute_freezes_its_credit() -> None:
    topup = bought()
    dispute = hear(topup, "open")
    assert (dispute.status, shares(dispute)) == ("open", (20, 5, 0))
    assert dispute.respond_by == dt.datetime(2026, 3, 9, 12, tzinfo=dt.UTC)
    assert balance(topup) == 0
    assert legs(f"dispute:{dispute.pk}") == {"customer_credits": -20 * USD, "disputes": 20 * USD}
    assert refunding.refundable(topup=topup).credit_nanousd == 0
    check_books(idle=True)


@pytest.mark.django_db
def test_what_was_spent_cannot_be_frozen() -> None:
    topup = bought()
    spend(topup.account, 15)
    assert shares(hear(topup, "open")) == (5, 5, 15)
    assert balance(topup) == 0
    check_books(idle=True)


@pytest.mark.django_db
def test_of_spent_credit_nothing_is_booked_until_it_is_lost() -> None:
    topup = bought()
    spend(topup.account, 20)
    dispute = hear(topup, "open")
    assert not LedgerTransaction.objects.filter(kind="dispute").exists()
    hear(topup, "lost")
    assert legs(f"dispute-lost:{dispute.pk}") == {
        "refunds": -5 * USD,
        "platform_loss": -20 * USD,
        "cash_clearing": 25 * USD,
    }
    check_books(idle=True)


@pytest.mark.django_db
def test_a_dispute_that_is_won_gives_the_credit_back() -> None:
    topup = bought()
    hear(topup, "open")
    dispute = hear(topup, "won")
    assert (dispute.status, shares(dispute), balance(topup)) == ("won", (0, 0, 0), 20 * USD)
    assert refunding.refundable(topup=topup).credit_nanousd == 20 * USD
    check_books(idle=True)


@pytest.mark.django_db
def test_a_dispute_of_spent_credit_that_is_won_moves_nothing() -> None:
    topup = bought()
    spend(topup.account, 20)
    hear(topup, "open")
    hear(topup, "won")
    assert not LedgerTransaction.objects.filter(kind="dispute").exists()
    check_books(idle=True)


@pytest.mark.django_db
def test_a_dispute_that_is_lost_takes_credit_and_fee() -> None:
    topup = bought()
    spend(topup.account, 15)
    hear(topup, "open")
    dispute = hear(topup, "lost")
    assert legs(f"dispute-lost:{dispute.pk}") == {
        "disputes": -5 * USD,
        "refunds": -5 * USD,
        "platform_loss": -15 * USD,
        "cash_clearing": 25 * USD,
    }
    assert balance(topup) == 0
    check_books(idle=True)


@pytest.mark.django_db
def test_a_part_of_a_payment_may_be_disputed_and_then_another() -> None:
    topup = bought()
    assert shares(hear(topup, "open", cents=1000)) == (8, 2, 0)
    assert shares(hear(topup, "open", cents=1500, dispute="dp_2")) == (12, 3, 0)
    hear(topup, "lost", cents=1000)
    hear(topup, "won", cents=1500, dispute="dp_2")
    assert balance(topup) == 12 * USD
    check_books(idle=True)


@pytest.mark.django_db
def test_what_was_refunded_before_is_the_platforms_loss_if_it_is_disputed_too() -> None:
    topup = bought()
    refund(topup, usd="20")
    dispute = hear(topup, "open")
    assert shares(dispute) == (0, 0, 25)
    hear(topup, "lost")
    check_books(idle=True)


@pytest.mark.django_db
@pytest.mark.parametrize("told", sorted(set(itertools.permutations(["open", "open", "won", "won"]))))
def test_a_won_dispute_ends_won_in_any_order(told: tuple[str, ...]) -> None:
    topup = bought()
    for status in told:
        hear(topup, status)
    assert Dispute.objects.get().status == "won"
    assert balance(topup) == 20 * USD
    check_books(idle=True)


@pytest.mark.django_db
@pytest.mark.parametrize("told", sorted(set(itertools.permutations(["open", "open", "lost", "lost"]))))
def test_a_lost_dispute_ends_lost_in_any_order(told: tuple[str, ...]) -> None:
    topup = bought()
    spend(topup.account, 15)
    for status in told:
        hear(topup, status)
    dispute = Dispute.objects.get()
    assert (dispute.status, shares(dispute), balance(topup)) == ("lost", (5, 5, 15), 0)
    check_books(idle=True)


@pytest.mark.django_db
@pytest.mark.parametrize("told", sorted(itertools.permutations(["open", "won", "lost"])))
@pytest.mark.parametrize("last", ["won", "lost"])
def test_of_two_decisions_the_later_one_counts_in_any_order(told: tuple[str, ...], last: str) -> None:
    topup = bought()
    for status in told:
        hear(topup, status, occurred_at=AT + dt.timedelta(days=1 if status == last else 0))
    dispute = Dispute.objects.get()
    assert dispute.status == last
    assert balance(topup) == (20 * USD if last == "won" else 0)
    check_books(idle=True)


@pytest.mark.django_db
def test_a_bank_may_change_its_mind_more_than_once() -> None:
    topup = bought()
    for status in ("open", "won", "lost", "won", "lost"):
        hear(topup, status)
        check_books(idle=True)
    assert shares(Dispute.objects.get()) == (20, 5, 0)
    assert balance(topup) == 0


@pytest.mark.django_db
def test_a_dispute_that_is_lost_after_all_freezes_only_what_is_still_there() -> None:
    topup = bought()
    hear(topup, "open")
    hear(topup, "won")
    spend(topup.account, 18)
    assert shares(hear(topup, "lost")) == (2, 5, 18)
    assert balance(topup) == 0
    check_books(idle=True)


@pytest.mark.django_db(transaction=True)
def test_equal_news_at_once_is_booked_once() -> None:
    topup = bought()
    in_parallel(lambda _: hear(topup, "open"), times=10)
    assert LedgerTransaction.objects.filter(kind="dispute").count() == 1
    check_books(idle=True)


@pytest.mark.django_db(transaction=True)
def test_all_the_news_at_once_ends_right() -> None:
    topup = bought()
    in_parallel(lambda number: hear(topup, ("open", "lost")[number % 2]), times=10)
    assert Dispute.objects.get().status == "lost"
    assert balance(topup) == 0
    check_books(idle=True)


@pytest.mark.django_db
def test_disputes_that_are_not_ours_or_in_another_currency_are_refused() -> None:
    topup = bought()
    news = DisputeChanged("dp_1", "pi_other", 2500, "usd", "fraudulent", "open")
    with pytest.raises(disputing.DisputeUnknown):
        disputing.hear(provider="sandbox", news=news, at=AT)
    news = DisputeChanged("dp_1", topup.provider_payment, 2500, "eur", "fraudulent", "open")
    with pytest.raises(disputing.DisputeDiffers):
        disputing.hear(provider="sandbox", news=news, at=AT)
    with pytest.raises(disputing.DisputeUnknown):
        disputing.hear(provider="stripe", news=news, at=AT)
    assert not Dispute.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("status", "says"), [("open", "is frozen"), ("won", "is yours again"), ("lost", "was taken back")]
)
def test_operator_and_account_are_told_and_the_page_says_it(
    settings: Settings, status: str, says: str
) -> None:
    settings.OPERATOR_EMAILS = ["op@example.com"]
    topup = bought()
    hear(topup, status)
    mail_about_refunds()
    mail_about_refunds()
    to_operator, to_account = mail.outbox
    assert to_operator.to == ["op@example.com"]
    assert "fraudulent" in to_operator.body
    assert to_account.to == [topup.account.members.get().email]
    assert "$25.00" in to_account.body
    client = sign_in(topup.account)
    assert says in text_of(client, f"/billing/topups/{topup.pk}/")
    assert ("$25.00 disputed" in text_of(client, "/billing/payments/")) is (status == "open")
    assert AuditEvent.objects.filter(subject_type="dispute").exists()


@pytest.mark.django_db
def test_news_that_comes_while_a_mail_is_sent_is_told_as_well() -> None:
    from billing import owed_mail

    topup = bought()
    hear(topup, "open")
    claimed = owed_mail.claim(rows=Dispute.objects.all(), at=factories.now())
    assert claimed is not None
    hear(topup, "won")
    owed_mail.mark_sent(rows=Dispute.objects.all(), row=claimed)
    assert owed_mail.claim(rows=Dispute.objects.all(), at=factories.now()) is not None

"""Promotional credit that a dispute or a refund took: if that is undone it is promotional again, lot by lot."""

import datetime as dt

import pytest

from billing import crediting, expiring, promotions, refunding
from billing.models import PromotionalCredit, TopUp, WithheldCredit
from tests import factories
from tests.billing.test_disputing import hear
from tests.billing.test_refunding import balance, bought, news, spend
from tests.invariants import check_books

USD = 10**9
DAY = dt.timedelta(days=1)


def grant(topup: TopUp, *, usd: int, days: int | None = 1) -> PromotionalCredit:
    now = factories.now()
    posted = crediting.grant(
        account=topup.account,
        amount_nanousd=usd * USD,
        reason="for a test",
        actor=None,
        at=now,
        reference=f"lot:{PromotionalCredit.objects.count()}",
        expires_at=None if days is None else now + days * DAY,
    )
    return posted.lot


def lefts(topup: TopUp) -> list[int]:
    """What is left of each lot in whole USD, in order of their making."""
    left = {lot.id: lot.left_nanousd for lot in promotions.standing(account_id=topup.account_id).lots}
    lots = PromotionalCredit.objects.filter(account=topup.account_id).order_by("pk")
    return [left.get(lot.pk, 0) // USD for lot in lots]


def paid(topup: TopUp) -> int:
    return promotions.standing(account_id=topup.account_id).paid_nanousd // USD


@pytest.mark.django_db
def test_a_grant_does_not_become_money_through_a_dispute_that_is_won() -> None:
    topup = bought()
    spend(topup.account, 20)
    grant(topup, usd=20, days=None)
    hear(topup, "open")
    assert (lefts(topup), balance(topup)) == ([0], 0)
    check_books(idle=True)
    hear(topup, "won")
    assert (lefts(topup), paid(topup)) == ([20], 0)
    assert refunding.refundable(topup=topup).credit_nanousd == 0
    assert not WithheldCredit.objects.exists()
    check_books(idle=True)


@pytest.mark.django_db
def test_each_lot_gets_what_it_lost_and_paid_credit_the_rest() -> None:
    topup = bought()
    spend(topup.account, 10)
    grant(topup, usd=8, days=3)
    grant(topup, usd=7, days=1)
    # Of 20 USD, 10 are paid credit; then the lots in the order of spending.
    hear(topup, "open")
    assert (lefts(topup), paid(topup)) == ([5, 0], 0)
    spend(topup.account, 2)
    hear(topup, "won")
    assert (lefts(topup), paid(topup)) == ([6, 7], 10)
    check_books(idle=True)


@pytest.mark.django_db
def test_a_grant_that_was_due_while_it_was_frozen_expires_when_it_is_back() -> None:
    topup = bought()
    spend(topup.account, 20)
    lot = grant(topup, usd=20, days=1)
    hear(topup, "open")
    later = factories.now() + 2 * DAY
    assert expiring.expire_due(at=later) == 0
    hear(topup, "won")
    assert expiring.expire_due(at=later) == 20 * USD
    lot.refresh_from_db()
    assert (lot.remaining_nanousd, lot.expired_nanousd, balance(topup)) == (0, 20 * USD, 0)
    check_books(idle=True)


@pytest.mark.django_db
def test_a_bank_that_changes_its_mind_gives_and_takes_promotional_credit_as_such() -> None:
    topup = bought()
    spend(topup.account, 20)
    grant(topup, usd=20)
    for status, left in [("open", 0), ("lost", 0), ("won", 20), ("lost", 0), ("won", 20)]:
        hear(topup, status)
        assert (lefts(topup), paid(topup)) == ([left], 0)
        check_books(idle=True)


@pytest.mark.django_db
def test_a_grant_does_not_become_money_through_a_refund_that_fails() -> None:
    topup = bought()
    spend(topup.account, 15)
    grant(topup, usd=20)
    told = news(topup, status="pending")
    refunding.hear(provider="sandbox", news=told, at=factories.now())
    assert (lefts(topup), paid(topup)) == ([5], 0)
    check_books(idle=True)
    refunding.hear(provider="sandbox", news=news(topup, status="failed"), at=factories.now())
    assert (lefts(topup), paid(topup)) == ([20], 5)
    assert refunding.refundable(topup=topup).credit_nanousd == 5 * USD
    check_books(idle=True)

"""Grants and lots must be the same, and what is gone of a lot must have gone somewhere."""

import datetime as dt

import pytest

from accounts.models import Account, Plan
from billing import adjusting, crediting, expiring, promotions
from billing.models import PromotionalCredit
from tests import factories
from tests.billing import test_disputing, test_refunding, test_withheld_credit
from tests.usage import rows
from tests.usage.audited import found, plant

pytestmark = pytest.mark.django_db
AT = dt.datetime(2026, 3, 4, 15, 30, tzinfo=dt.UTC)


@pytest.fixture(autouse=True)
def account() -> Account:
    """A grant of $10 that was charged $0.001, and a later one of 50 nano-USD, of which 7 were taken back."""
    account = factories.make_account(plan=Plan.PAY_AS_YOU_GO, credit="10")
    key, model = factories.make_key(account).key, factories.make_model()
    rows.make_record(account=account, key=key, model=model, at=AT)
    give = {"account": account, "reason": "for a test", "at": AT}
    crediting.grant(**give, amount_nanousd=50, actor=None, reference="second")  # type: ignore[arg-type]
    adjusting.take(
        **give,  # type: ignore[arg-type]
        amount_nanousd=7,
        actor=account.members.get(),
        reference="taken",
    )
    assert found() == []
    return account


def gone(account: Account, lot: PromotionalCredit, found: str, most: str) -> str:
    return (
        f"account {account.pk}, promotional credit from number {lot.pk} on: {found} USD of it is gone,"
        f" and what was charged or taken since then is {most} USD"
    )


def test_a_lot_that_was_lowered_by_hand_is_found(account: Account) -> None:
    first, second = PromotionalCredit.objects.order_by("pk")
    assert (first.remaining_nanousd, second.remaining_nanousd) == (9_999_000_000, 43)
    plant("UPDATE billing_promotionalcredit SET remaining_nanousd = 42 WHERE id = %(id)s", id=second.pk)
    assert found() == [
        gone(account, first, "0.001000008", "0.001000007"),
        gone(account, second, "0.000000008", "0.000000007"),
    ]


def test_a_lot_that_was_closed_by_hand_before_it_was_looked_at_is_found(account: Account) -> None:
    key = account.api_keys.get()
    rows.make_record(account=account, key=key, model=None, at=AT, cost_nanousd=20)
    first, _second = PromotionalCredit.objects.order_by("pk")
    plant(
        "UPDATE billing_promotionalcredit SET remaining_nanousd = 0, closed_at = now() WHERE id = %(id)s",
        id=first.pk,
    )
    assert gone(account, first, "10.000000007", "0.001000007") in found()


def test_what_is_charged_after_a_look_is_no_discrepancy_before_and_after_the_next(account: Account) -> None:
    rows.make_record(account=account, key=account.api_keys.get(), model=None, at=AT, cost_nanousd=20)
    assert found() == []
    promotions.attribute(account_id=account.pk, at=AT)
    assert found() == []


def test_a_grant_without_its_lot_is_found(account: Account) -> None:
    plant("DELETE FROM billing_promotionalcredit")
    assert found() == [
        f"ledger transaction {grant.reference}: the promotional credit that it moved does not exist"
        for grant in account.ledger_transactions.filter(kind="promotion").order_by("pk")
    ]


def test_an_expiry_without_its_lot_is_found(account: Account) -> None:
    lot = PromotionalCredit.objects.latest("pk")
    plant("UPDATE billing_promotionalcredit SET expires_at = %(at)s WHERE id = %(id)s", at=AT, id=lot.pk)
    expiring.expire_due(at=AT)
    assert found() == []
    plant("UPDATE billing_ledgertransaction SET reference = 'expiry:0:0' WHERE kind = 'expiry'")
    lines = found()
    assert "ledger transaction expiry:0:0: the promotional credit that it moved does not exist" in lines
    assert f"promotional credit {lot.pk}, expired: the ledger says nothing" in "".join(lines)


def test_a_lot_that_was_closed_by_hand_beside_a_refund_of_paid_credit_is_found() -> None:
    """Refunds, and disputes that were won, took nothing of it: no bound is as wide as they were."""
    topup = test_refunding.bought(granted="5")
    test_disputing.hear(topup, "open")
    test_disputing.hear(topup, "won")
    test_refunding.refund(topup, usd="8")
    assert found() == []
    lot = topup.account.promotional_credits.get()
    PromotionalCredit.objects.filter(pk=lot.pk).update(remaining_nanousd=0, closed_at=AT)
    assert found() == [gone(topup.account, lot, "5.000000000", "0.000000000")]


@pytest.mark.parametrize("ending", ["open", "lost", "won"])
def test_a_lot_that_lost_credit_to_a_dispute_is_right(ending: str) -> None:
    topup = test_refunding.bought()
    test_refunding.spend(topup.account, 17)
    lot = test_withheld_credit.grant(topup, usd=5, days=None)
    test_disputing.hear(topup, "open")
    test_disputing.hear(topup, ending)
    lot.refresh_from_db()
    assert lot.remaining_nanousd == (5 * 10**9 if ending == "won" else 0)
    assert found() == []

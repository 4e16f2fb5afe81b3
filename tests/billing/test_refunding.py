"""Refunds: only unspent paid credit, once, with the fee's share, whatever the company answers and whoever asks."""

import datetime as dt
from decimal import Decimal

import pytest
from django.core import mail
from pytest_django import Settings

from accounts.models import Account, AuditEvent
from billing import crediting, refunding, wallets
from billing.models import Posting, Refund, TopUp, Wallet
from billing.providers.provider import ProviderAway, ProviderRefused, RefundChanged
from billing.providers.sandbox import SandboxProvider
from billing.tasks.refunds import ask_for_refunds, mail_about_refunds
from tests import factories
from tests.billing.test_topping_up import finish, start
from tests.concurrency import in_parallel
from tests.invariants import check_books

AT = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
USD = 10**9


def bought(*, usd: int = 20, granted: str = "0") -> TopUp:
    """A paid top-up on the sandbox at 25 %, of an account that was granted so much before."""
    return finish(start(factories.make_account(credit=granted), usd=usd))


def spend(account: Account, usd: Decimal | int) -> None:
    """Usage of the account that is charged, rolled up and posted."""
    from tests.usage import rows
    from usage import posting, rollups

    nanousd = int(Decimal(usd) * USD)
    model, key = factories.make_model(), factories.make_key(account).key
    rows.make_record(account=account, key=key, model=model, at=AT, cost_nanousd=nanousd)
    rollups.roll_up(at=AT)
    posting.post_hours(at=factories.now())


def refund(topup: TopUp, *, usd: str = "20", reference: str = "r-1", at: dt.datetime | None = None) -> Refund:
    started = refunding.start(
        topup=topup,
        credit_nanousd=int(Decimal(usd) * USD),
        reason="unused",
        actor=topup.account.members.get(),
        reference=reference,
        at=at or factories.now(),
    )
    return refunding.ask(refund=started, at=factories.now())


def news(topup: TopUp, *, cents: int = 2500, status: str = "succeeded", **fields: str) -> RefundChanged:
    told = {"refund": "re_1", "reference": "", "payment": topup.provider_payment, "currency": "usd", **fields}
    return RefundChanged(amount_cents=cents, status=status, **told)


def legs(reference: str) -> dict[str, int]:
    found = Posting.objects.filter(transaction__reference=reference)
    return dict(found.values_list("ledger_account__kind", "amount_nanousd"))


def balance(topup: TopUp) -> int:
    return Wallet.objects.get(account=topup.account_id).balance_nanousd


@pytest.mark.django_db
def test_unspent_credit_goes_back_with_its_fee() -> None:
    topup = bought()
    made = refund(topup)
    assert (made.status, made.credit_nanousd, made.fee_nanousd, made.total_nanousd) == (
        "succeeded",
        20 * USD,
        5 * USD,
        25 * USD,
    )
    assert made.provider_refund == "sandbox-r-1"
    assert balance(topup) == 0
    assert legs(f"refund:{made.pk}") == {
        "customer_credits": -20 * USD,
        "refunds": -5 * USD,
        "cash_clearing": 25 * USD,
    }
    actions = AuditEvent.objects.filter(subject_type="refund").order_by("pk").values_list("action", flat=True)
    assert list(actions) == ["refund.started", "refund.succeeded"]
    check_books(idle=True)


@pytest.mark.django_db
def test_what_was_spent_is_not_given_back() -> None:
    topup = bought()
    spend(topup.account, Decimal("7.123456789"))
    possible = refunding.refundable(topup=topup)
    assert possible.credit_nanousd == 12_870_000_000
    assert "$12.876543211" in possible.because
    with pytest.raises(refunding.NotRefundable, match=r"\$12\.87 can be given back"):
        refund(topup, usd="12.88")
    assert refund(topup, usd="12.87").fee_nanousd == 3_220_000_000
    check_books(idle=True)


@pytest.mark.django_db
def test_what_running_requests_hold_is_not_given_back() -> None:
    topup = bought()
    Wallet.objects.update(held_nanousd=6 * USD)
    assert refunding.refundable(topup=topup).credit_nanousd == 14 * USD
    Wallet.objects.update(held_nanousd=0)


@pytest.mark.django_db
def test_credit_that_nobody_paid_for_is_not_given_back() -> None:
    topup = bought(granted="50")
    spend(topup.account, 60)
    # Granted credit is spent first: 50 of it, then 10 of what was paid for.
    assert refunding.refundable(topup=topup).credit_nanousd == 10 * USD
    refund(topup, usd="10")
    assert balance(topup) == 0
    check_books(idle=True)


@pytest.mark.django_db
def test_a_grant_does_not_become_money_through_a_spent_top_up() -> None:
    topup = bought()
    spend(topup.account, 20)
    crediting.grant(
        account=topup.account, amount_nanousd=20 * USD, reason="sorry", actor=None, at=AT, reference="g"
    )
    assert refunding.refundable(topup=topup).credit_nanousd == 0
    with pytest.raises(refunding.NotRefundable):
        refund(topup, usd="0.01")
    check_books(idle=True)


@pytest.mark.django_db
@pytest.mark.parametrize("usd", ["0", "-1", "0.005", "20.01"])
def test_an_amount_that_makes_no_sense_is_refused(usd: str) -> None:
    with pytest.raises(refunding.NotRefundable):
        refund(bought(), usd=usd)
    assert not Refund.objects.exists()


@pytest.mark.django_db
def test_a_top_up_that_was_not_paid_is_not_refunded() -> None:
    topup = start(factories.make_account())
    with pytest.raises(refunding.NotRefundable, match="not paid"):
        refund(topup, usd="1")


@pytest.mark.django_db
def test_another_top_up_is_not_refunded_through_this_one() -> None:
    topup = bought(usd=10)
    finish(start(topup.account, usd=30))
    assert refunding.refundable(topup=topup).credit_nanousd == 10 * USD
    refund(topup, usd="10")
    assert refunding.refundable(topup=topup).credit_nanousd == 0
    assert balance(topup) == 30 * USD
    check_books(idle=True)


@pytest.mark.django_db
@pytest.mark.parametrize(("fee_share", "cents"), [("1", 125), ("0.5", 63), ("0", 0)])
def test_many_small_refunds_give_back_as_much_fee_as_a_single_one(
    settings: Settings, fee_share: str, cents: int
) -> None:
    settings.REFUND_FEE_SHARE = Decimal(fee_share)
    topup = bought(usd=5)
    for number in range(10):
        refund(topup, usd="0.33", reference=f"r-{number}")
    refund(topup, usd="1.70", reference="last")
    assert sum(made.fee_nanousd for made in Refund.objects.all()) == cents * 10**7
    assert balance(topup) == 0
    check_books(idle=True)


@pytest.mark.django_db
def test_a_form_that_is_sent_twice_refunds_once() -> None:
    topup = bought()
    refund(topup, usd="5")
    with pytest.raises(refunding.AlreadyAsked):
        refund(topup, usd="5")
    assert balance(topup) == 15 * USD


@pytest.mark.django_db
def test_a_refund_that_the_company_refuses_is_posted_back(monkeypatch: pytest.MonkeyPatch) -> None:
    topup = bought()

    def refuse(*_: object, **__: object) -> RefundChanged:
        raise ProviderRefused("The card is gone.")

    monkeypatch.setattr(SandboxProvider, "refund", refuse)
    made = refund(topup, usd="8")
    assert (made.status, made.message) == ("failed", "The card is gone.")
    assert balance(topup) == 20 * USD
    assert refunding.refundable(topup=topup).credit_nanousd == 20 * USD
    check_books(idle=True)


@pytest.mark.django_db
def test_a_refund_without_an_answer_is_asked_for_again_under_the_same_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topup = bought()
    asked: list[str] = []

    def away(*_: object, reference: str, **__: object) -> RefundChanged:
        asked.append(reference)
        raise ProviderAway

    with monkeypatch.context() as patched:
        patched.setattr(SandboxProvider, "refund", away)
        made = refund(topup, usd="8", at=factories.now() - dt.timedelta(minutes=3))
    assert (made.status, asked, balance(topup)) == ("pending", ["r-1"], 12 * USD)
    ask_for_refunds()
    made.refresh_from_db()
    assert (made.status, made.provider_refund) == ("succeeded", "sandbox-r-1")
    assert balance(topup) == 12 * USD
    check_books(idle=True)


@pytest.mark.django_db
def test_the_sweep_leaves_alone_what_was_just_asked_or_is_too_old() -> None:
    topup, now = bought(), factories.now()
    for number, at in enumerate((now, now - refunding.ASK_FOR)):
        refunding.start(
            topup=topup,
            credit_nanousd=USD,
            reason="unused",
            actor=topup.account.members.get(),
            reference=f"r-{number}",
            at=at,
        )
    assert refunding.claim_unanswered(at=now) is None
    assert refunding.claim_unanswered(at=now + refunding.ASK_EVERY + dt.timedelta(seconds=1)) is not None


@pytest.mark.django_db
def test_an_answer_of_another_amount_leaves_the_refund_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    topup = bought()
    monkeypatch.setattr(SandboxProvider, "refund", lambda *_, **__: news(topup, cents=1, reference="r-1"))
    assert refund(topup, usd="8").status == "pending"
    assert balance(topup) == 12 * USD
    check_books(idle=True)


@pytest.mark.django_db
def test_a_provider_that_this_version_does_not_know_is_not_asked() -> None:
    topup = bought()
    started = refunding.start(
        topup=topup,
        credit_nanousd=USD,
        reason="unused",
        actor=topup.account.members.get(),
        reference="r-1",
        at=AT,
    )
    started.topup.provider = "shells"
    assert refunding.ask(refund=started, at=AT).status == "pending"


@pytest.mark.django_db
def test_a_refund_that_failed_is_told_to_the_operators_alone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.OPERATOR_EMAILS = ["op@example.com"]

    def refuse(*_: object, **__: object) -> RefundChanged:
        raise ProviderRefused("The card is gone.")

    monkeypatch.setattr(SandboxProvider, "refund", refuse)
    refund(bought())
    mail_about_refunds()
    [told] = mail.outbox
    assert told.to == ["op@example.com"]
    assert "The card is gone." in told.body


@pytest.mark.django_db
def test_what_the_mail_server_refuses_is_owed_until_later(settings: Settings) -> None:
    refund(bought())
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    mail_about_refunds()
    due_at = Refund.objects.get().mail_due_at
    assert due_at is not None
    assert due_at > factories.now()


@pytest.mark.django_db(transaction=True)
def test_a_refund_and_spending_at_once_never_give_more_than_there_is() -> None:
    topup = bought()
    account_id = topup.account_id

    def act(number: int) -> str:
        if number % 2:
            return spend_at_once(account_id, 3 * USD)
        try:
            refund(topup, usd="3", reference=f"r-{number}")
        except refunding.NotRefundable:
            return "refused"
        return "refunded"

    outcomes = in_parallel(act, times=12)
    assert outcomes.count("refunded") + outcomes.count("spent") == 6
    assert balance(topup) == 2 * USD
    refunded = outcomes.count("refunded")
    assert sum(made.credit_nanousd for made in Refund.objects.all()) == refunded * 3 * USD


def spend_at_once(account_id: int, nanousd: int) -> str:
    """As the teller does it: under the wallet's lock, and only what is available."""
    from django.db import transaction

    with transaction.atomic():
        connection = wallets.borrowed_connection()
        wallet = wallets.lock(connection, [account_id])[account_id]
        if wallet.available_nanousd < nanousd:
            return "refused"
        wallet.charge(nanousd)
        wallets.write(connection, [wallet])
    return "spent"

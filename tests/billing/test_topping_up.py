"""A top-up: the quote it keeps, the payment that is credited once, and what else a payment may be."""

import datetime as dt
from decimal import Decimal

import pytest
from django.db import IntegrityError, transaction
from pytest_django import Settings

from accounts.models import Account, AuditEvent, Plan
from billing import crediting, ledger, topping_up, wallets
from billing.models import LedgerTransaction, TopUp, Wallet
from billing.providers import offering
from billing.providers.sandbox import SANDBOX, payment_of
from catalog.money import decimal_or_nan
from tests import factories
from tests.concurrency import in_parallel
from tests.invariants import check_books

AT = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
USD = 10**9


def start(account: Account, *, usd: int = 20, provider: str = "sandbox") -> TopUp:
    actor = account.members.get()
    return topping_up.start(account=account, actor=actor, credit_nanousd=usd * USD, provider=provider, at=AT)


def finish(topup: TopUp, *, at: dt.datetime = AT) -> TopUp:
    return topping_up.finish(
        provider=topup.provider,
        reference=topup.provider_reference,
        paid_total_nanousd=topup.total_nanousd,
        at=at,
    )


@pytest.mark.django_db
def test_a_top_up_keeps_the_quote_and_moves_no_money() -> None:
    account = factories.make_account()
    topup = start(account)
    assert (topup.status, topup.credit_nanousd, topup.fee_nanousd, topup.total_nanousd, topup.fee_rate) == (
        "pending",
        20 * USD,
        5 * USD,
        25 * USD,
        Decimal("0.25"),
    )
    assert topup.created_by == account.members.get()
    assert len(topup.provider_reference) >= 32
    assert not LedgerTransaction.objects.exists()
    check_books(idle=True)


@pytest.mark.django_db
def test_a_top_up_is_charged_as_quoted_though_the_fee_changes() -> None:
    account = factories.make_account()
    topup = start(account)
    Plan.objects.update(topup_fee_rate=Decimal("0.5"))
    assert finish(topup).fee_nanousd == 5 * USD
    check_books(idle=True)


@pytest.mark.django_db
def test_a_provider_that_is_not_offered_starts_nothing() -> None:
    with pytest.raises(topping_up.ProviderNotOffered, match="other"):
        start(factories.make_account(), provider="other")
    assert not TopUp.objects.exists()


@pytest.mark.django_db
def test_a_payment_becomes_credit() -> None:
    account = factories.make_account()
    topup = finish(start(account), at=AT + dt.timedelta(minutes=1))
    assert (topup.status, topup.paid_at) == ("paid", AT + dt.timedelta(minutes=1))
    assert Wallet.objects.get(account=account).balance_nanousd == 20 * USD
    posted = LedgerTransaction.objects.get()
    assert (posted.reference, posted.kind, posted.account) == (f"topup:{topup.pk}", "topup", account)
    legs = posted.postings.values_list(
        "ledger_account__kind", "ledger_account__provider", "ledger_account__account", "amount_nanousd"
    )
    assert sorted(legs) == [
        ("cash_clearing", "sandbox", None, -25 * USD),
        ("customer_credits", "", account.pk, 20 * USD),
        ("fee_revenue", "", None, 5 * USD),
    ]
    check_books(idle=True)


@pytest.mark.django_db
def test_without_a_fee_none_is_booked() -> None:
    Plan.objects.update(topup_fee_rate=0)
    finish(start(factories.make_account()))
    assert LedgerTransaction.objects.get().postings.count() == 2
    check_books(idle=True)


@pytest.mark.django_db
def test_the_first_payment_moves_the_account_to_pay_as_you_go() -> None:
    account = factories.make_account()
    version = account.policy_version
    finish(start(account))
    account.refresh_from_db()
    assert account.plan.slug == Plan.PAY_AS_YOU_GO
    assert account.policy_version > version


@pytest.mark.django_db
def test_a_payment_leaves_a_plan_that_spends_credits() -> None:
    plan = Plan.objects.create(
        slug="campus", name="Campus", requests_per_day=1, tokens_per_day=1, spends_credits=True
    )
    account = factories.make_account(plan=plan.slug)
    finish(start(account))
    account.refresh_from_db()
    assert account.plan == plan


@pytest.mark.django_db
def test_every_step_is_in_the_audit_trail() -> None:
    account = factories.make_account()
    topup = start(account)
    finish(topup)
    topping_up.cancel(topup=start(account), actor=None)
    actions = AuditEvent.objects.filter(account=account).order_by("id").values_list("action", flat=True)
    assert list(actions) == [
        "topup.started",
        "topup.paid",
        "account.plan_changed",
        "topup.started",
        "topup.canceled",
    ]
    paid = AuditEvent.objects.get(action="topup.paid")
    assert (paid.subject_id, paid.actor) == (str(topup.pk), None)
    assert paid.detail == {
        "credit_usd": "20.000000000",
        "total_usd": "25.000000000",
        "provider": "sandbox",
        "origin": "page",
    }


@pytest.mark.django_db
def test_a_payment_reported_twice_is_credited_once() -> None:
    account = factories.make_account()
    topup = start(account)
    first, second = finish(topup), finish(topup, at=AT + dt.timedelta(days=1))
    assert first == second
    assert second.paid_at == AT
    assert Wallet.objects.get(account=account).balance_nanousd == 20 * USD
    check_books(idle=True)


@pytest.mark.django_db(transaction=True)
def test_a_payment_reported_20_times_at_once_is_credited_once() -> None:
    account = factories.make_account()
    topup = start(account)
    answers = in_parallel(lambda _number: finish(topup), times=20)
    assert {answer.pk for answer in answers} == {topup.pk}
    assert {answer.status for answer in answers} == {"paid"}
    assert Wallet.objects.get(account=account).balance_nanousd == 20 * USD
    assert LedgerTransaction.objects.count() == 1
    assert AuditEvent.objects.filter(action="topup.paid").count() == 1
    check_books(idle=True)


@pytest.mark.django_db(transaction=True)
def test_many_payments_of_one_account_at_once_are_all_credited() -> None:
    account = factories.make_account()
    topups = [start(account, usd=number + 5) for number in range(8)]
    in_parallel(lambda number: finish(topups[number]), times=8)
    assert Wallet.objects.get(account=account).balance_nanousd == sum(range(5, 13)) * USD
    check_books(idle=True)


@pytest.mark.django_db
@pytest.mark.parametrize("difference", [-1, 1])
def test_another_amount_than_the_quote_is_refused(difference: int) -> None:
    topup = start(factories.make_account())
    with pytest.raises(topping_up.PaymentDiffers, match=r"the quote says 25\.000000000 USD"):
        topping_up.finish(
            provider="sandbox",
            reference=topup.provider_reference,
            paid_total_nanousd=topup.total_nanousd + difference,
            at=AT,
        )
    topup.refresh_from_db()
    assert topup.status == "pending"
    check_books(idle=True)


@pytest.mark.django_db
def test_a_payment_nobody_waits_for_is_refused() -> None:
    with pytest.raises(topping_up.PaymentUnknown, match="made-up"):
        topping_up.finish(provider="sandbox", reference="made-up", paid_total_nanousd=1, at=AT)


@pytest.mark.django_db
def test_a_canceled_top_up_is_credited_if_its_payment_comes_all_the_same() -> None:
    account = factories.make_account()
    topup = topping_up.cancel(topup=start(account), actor=None)
    assert topup.status == "canceled"
    assert finish(topup).status == "paid"
    assert Wallet.objects.get(account=account).balance_nanousd == 20 * USD
    check_books(idle=True)


@pytest.mark.django_db
def test_a_top_up_is_canceled_once() -> None:
    topup = start(factories.make_account())
    topping_up.cancel(topup=topup, actor=None)
    topping_up.cancel(topup=topup, actor=None)
    assert AuditEvent.objects.filter(action="topup.canceled").count() == 1


@pytest.mark.django_db
def test_a_paid_top_up_cannot_be_canceled() -> None:
    topup = finish(start(factories.make_account()))
    with pytest.raises(topping_up.AlreadyPaid, match="has been paid"):
        topping_up.cancel(topup=topup, actor=None)
    topup.refresh_from_db()
    assert topup.status == "paid"


@pytest.mark.django_db
def test_credit_of_a_top_up_is_never_given_twice_even_past_its_lock() -> None:
    account = factories.make_account()
    topup = finish(start(account))
    with pytest.raises(ledger.AlreadyPosted):
        crediting.credit_topup(topup=topup, at=AT)
    assert Wallet.objects.get(account=account).balance_nanousd == 20 * USD
    check_books(idle=True)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "fields",
    [
        {"total_nanousd": 24 * USD},
        {"fee_nanousd": -5 * USD, "total_nanousd": 15 * USD},
        {"credit_nanousd": 0, "total_nanousd": 5 * USD},
        {"status": "paid"},
        {"paid_at": AT},
    ],
)
def test_the_database_refuses_a_top_up_that_makes_no_sense(fields: dict[str, object]) -> None:
    topup = start(factories.make_account())
    with pytest.raises(IntegrityError, match="topup_"), transaction.atomic():
        TopUp.objects.filter(pk=topup.pk).update(**fields)


def test_a_provider_nobody_knows_is_told_of_by_its_name_and_offered_to_nobody(settings: Settings) -> None:
    settings.TOPUP_PROVIDERS = ["Sandbox", "sandbox", "shells"]
    assert offering.configured() == [SANDBOX]
    assert offering.unknown() == ["Sandbox", "shells"]


@pytest.mark.django_db
def test_a_wallet_that_is_full_sells_no_more_and_takes_no_more() -> None:
    account = factories.make_account()
    topup, other = start(account), start(account)
    Wallet.objects.update_or_create(
        account=account, defaults={"balance_nanousd": wallets.MOST_NANOUSD - 25 * USD}
    )
    pay = {"provider": "sandbox", "at": AT}
    payments = [payment_of(topup=each) for each in (topup, other)]
    topping_up.take(payment=payments[0], **pay)  # type: ignore[arg-type]
    with pytest.raises(
        crediting.WalletFull, match=r"at most \$1,000,000,000.00; this one has room for \$5.00 more"
    ):
        topping_up.take(payment=payments[1], **pay)  # type: ignore[arg-type]
    with pytest.raises(topping_up.AmountNotOffered, match="A wallet holds at most"):
        start(account)
    assert TopUp.objects.get(pk=other.pk).status == "pending"


@pytest.mark.parametrize(
    ("least", "most", "problem"),
    [
        ("NaN", "100", "TOPUP_MINIMUM_USD must be"),
        ("five", "100", "TOPUP_MINIMUM_USD must be"),
        ("-1", "100", "TOPUP_MINIMUM_USD must be"),
        ("0", "100", "TOPUP_MINIMUM_USD must be"),
        ("0.001", "100", "TOPUP_MINIMUM_USD must be"),
        ("5", "Infinity", "TOPUP_MAXIMUM_USD must be"),
        ("5", "100000000.01", "TOPUP_MAXIMUM_USD must be"),
        ("5", "1e30", "TOPUP_MAXIMUM_USD must be"),
        ("5.01", "5", "the minimum must not be the larger one"),
        ("5", "5", ""),
        ("0.01", "1e8", ""),
    ],
)
def test_limits_that_make_no_sense_sell_nothing_and_say_what_to_write(
    settings: Settings, least: str, most: str, problem: str
) -> None:
    settings.TOPUP_MINIMUM_USD, settings.TOPUP_MAXIMUM_USD = decimal_or_nan(least), decimal_or_nan(most)
    assert problem in topping_up.limits_problem()
    assert bool(problem) == bool(topping_up.limits_problem())
    if problem:
        with pytest.raises(topping_up.AmountNotOffered, match="has to correct its settings"):
            topping_up.quote(credit_nanousd=20 * USD, fee_rate=Decimal("0.25"))


def test_only_what_the_operator_offers_is_configured(settings: Settings) -> None:
    assert offering.configured() == [SANDBOX]
    settings.TOPUP_PROVIDERS = []
    assert offering.configured() == []
    assert offering.named(slug="sandbox") == SANDBOX
    assert offering.named(slug="shells") is None

"""Buying credit: the quote that the buyer agrees to, the top-up that waits for its payment, and the credit it brings.

Credit is bought in whole cents. The fee comes on top, at the rate of the account's plan, rounded half up to a whole
cent; usage itself carries no markup.
"""

import datetime as dt
import secrets
from dataclasses import dataclass
from decimal import Decimal

from django.conf import settings
from django.db import transaction

from accounts import auditing, plans
from accounts.models import Account, Plan, User
from billing import crediting, payment_methods, receipts, reports, wallets
from billing.models import SavedPaymentMethod, TopUp, Wallet
from billing.providers import offering
from billing.providers.provider import CURRENCY, Checkout, PaymentArrived, SavedMethod
from catalog.money import NANO_PER_CENT, nano_from_usd, usd_from_nano, usd_string, whole_cents

# At once: a bigint holds 9 billion USD in nano-USD, and a wallet is a sum of amounts.
MOST_USD = 100_000_000
# What the column holds.
_LONGEST_MESSAGE = 300


class AmountNotOffered(Exception):
    """So much credit cannot be bought; the message tells the buyer what can."""


class ProviderNotOffered(Exception):
    """The operator does not offer this payment provider."""


class PaymentUnknown(Exception):
    """No top-up waits for this payment."""


class PaymentDiffers(Exception):
    """What was paid is not what the quote says. Nothing was credited."""


class PaidOtherwise(Exception):
    """Another payment has paid the top-up. This one came beside it, and was not credited."""


class AlreadyPaid(Exception):
    """A paid top-up cannot be canceled."""


@dataclass(frozen=True, slots=True)
class Quote:
    """What an amount of credit costs, in nano-USD, each a whole number of cents; `fee_rate` is of the credit."""

    credit_nanousd: int
    fee_nanousd: int
    total_nanousd: int
    fee_rate: Decimal


def limits_problem() -> str:
    """What is wrong with the least and the most credit that can be bought at once, and what to write; empty: nothing.

    A start is refused with it.
    """
    least, most = settings.TOPUP_MINIMUM_USD, settings.TOPUP_MAXIMUM_USD
    for name, usd in (("TOPUP_MINIMUM_USD", least), ("TOPUP_MAXIMUM_USD", most)):
        if not usd.is_finite() or not 0 < usd <= MOST_USD or usd != round(usd, 2):
            return f"{name} must be an amount of USD in whole cents, from 0.01 to {MOST_USD}, such as 5 or 12.50."
    if least > most:
        return f"TOPUP_MINIMUM_USD is {least} and TOPUP_MAXIMUM_USD is {most}: the minimum must not be the larger one."
    return ""


def quote(*, credit_nanousd: int, fee_rate: Decimal) -> Quote:
    """The fee and the total for an amount of credit. Raises AmountNotOffered."""
    if limits_problem():
        msg = "Credit cannot be bought here: whoever operates this installation has to correct its settings."
        raise AmountNotOffered(msg)
    least, most = (nano_from_usd(usd) for usd in (settings.TOPUP_MINIMUM_USD, settings.TOPUP_MAXIMUM_USD))
    if not least <= credit_nanousd <= most:
        msg = f"Choose an amount from ${usd_from_nano(least):,.2f} to ${usd_from_nano(most):,.2f}."
        raise AmountNotOffered(msg)
    if credit_nanousd % NANO_PER_CENT:
        msg = "Choose an amount in whole cents."
        raise AmountNotOffered(msg)
    fee = whole_cents(credit_nanousd * fee_rate)
    return Quote(credit_nanousd, fee, credit_nanousd + fee, fee_rate)


def start(
    *,
    account: Account,
    actor: User | None,
    credit_nanousd: int,
    provider: str,
    at: dt.datetime,
    saves_method: bool = False,
    method: SavedPaymentMethod | None = None,
    submission: str | None = None,
    origin: TopUp.Origin = TopUp.Origin.PAGE,
) -> TopUp:
    """Keep the quote of the account's plan as a top-up that waits for its payment through the provider (its slug).

    `method` is what will be charged without the buyer; without one they pay on a page, and `saves_method` says that
    they allow to be charged again. `submission` (up to 64 characters) names the form that was sent: one that comes
    again gets the top-up that it made, whatever has become of it.

    Raises AmountNotOffered, ProviderNotOffered.
    """
    if provider not in {offered.slug for offered in offering.configured()}:
        msg = f"{provider} is not among the payment providers of this installation."
        raise ProviderNotOffered(msg)
    agreed = quote(credit_nanousd=credit_nanousd, fee_rate=account.plan.topup_fee_rate)
    _refuse_overfull(account, credit_nanousd)
    known = method or payment_methods.latest(account=account, provider=provider)
    fields = {
        "created_by": actor,
        "provider": provider,
        "provider_reference": secrets.token_urlsafe(24),
        "provider_customer": known.customer if known else "",
        "credit_nanousd": agreed.credit_nanousd,
        "fee_nanousd": agreed.fee_nanousd,
        "total_nanousd": agreed.total_nanousd,
        "fee_rate": agreed.fee_rate,
        "saves_method": saves_method,
        "method": method,
        "origin": origin,
        "created_at": at,
    }
    with transaction.atomic():
        if submission is None:
            topup, is_new = TopUp.objects.create(account=account, **fields), True
        else:
            topup, is_new = TopUp.objects.get_or_create(
                account=account, submission=submission, defaults=fields
            )
        if is_new:
            _record("topup.started", topup, actor=actor)
    return topup


def _refuse_overfull(account: Account, credit_nanousd: int) -> None:
    """Before anything is paid; what comes all the same is looked at again, under the wallet's lock."""
    balance = Wallet.objects.filter(account=account).values_list("balance_nanousd", flat=True).first() or 0
    try:
        crediting.refuse_overfull(balance_nanousd=balance, amount_nanousd=credit_nanousd)
    except crediting.WalletFull as full:
        raise AmountNotOffered(str(full)) from full


def keep_checkout(*, topup: TopUp, checkout: Checkout) -> None:
    """Remember the page on which the top-up is paid."""
    topup.checkout_session, topup.checkout_url = checkout.session, checkout.url
    topup.checkout_expires_at = checkout.expires_at
    topup.save(update_fields=["checkout_session", "checkout_url", "checkout_expires_at"])


def take(*, provider: str, payment: PaymentArrived, at: dt.datetime) -> TopUp:
    """Credit a payment as a provider (its slug) reports it: `finish`, with all that the report says.

    That it was reported is kept, whatever comes of it: the audit holds paid top-ups against it.
    """
    reports.keep(provider=provider, payment=payment, at=at)
    return finish(
        provider=provider,
        reference=payment.reference,
        paid_total_nanousd=payment.amount_cents * NANO_PER_CENT,
        at=at,
        payment=payment.payment,
        currency=payment.currency,
        method=payment.method,
    )


def finish(
    *,
    provider: str,
    reference: str,
    paid_total_nanousd: int,
    at: dt.datetime,
    payment: str = "",
    currency: str = CURRENCY,
    method: SavedMethod | None = None,
) -> TopUp:
    """Credit a payment that has arrived, exactly once, however often and by however many it is reported.

    `payment` is the provider's name for it, the reference itself where it has none of its own. The first top-up of an
    account on a plan that spends no credits moves it to pay-as-you-go. One that was given up here while the payment
    was on its way is credited all the same: the money has come. `method` is kept if the buyer has allowed it.

    Raises PaymentUnknown, PaymentDiffers where amount or currency are not the quote's, PaidOtherwise, and
    crediting.WalletFull.
    """
    payment = payment or reference
    expected = _expected(provider, reference, paid_total_nanousd, currency)
    with transaction.atomic():
        wallets.lock(wallets.borrowed_connection(), [expected.account_id])
        topup = (
            TopUp.objects.select_for_update(of=("self",)).select_related("account__plan").get(pk=expected.pk)
        )
        if topup.status == TopUp.Status.PAID:
            if topup.provider_payment not in ("", payment):
                msg = f"{topup} was paid by {topup.provider_payment} already"
                raise PaidOtherwise(msg)
        else:
            _refuse_second_use(topup, payment)
            topup.status, topup.paid_at = TopUp.Status.PAID, at
            topup.provider_payment, topup.failure = payment, ""
            topup.save(update_fields=["status", "paid_at", "provider_payment", "failure"])
            receipts.issue(topup=topup, at=at)
            _record("topup.paid", topup, actor=None)
            if not topup.account.plan.spends_credits:
                plans.change_plan(
                    account=topup.account,
                    plan=Plan.objects.get(slug=Plan.PAY_AS_YOU_GO),
                    actor=topup.created_by,
                )
            # Last, as everybody who posts waits for it.
            crediting.credit_topup(topup=topup, at=at)
        # A payment that is reported again may bring the method that the first report did not know.
        if method is not None and topup.saves_method:
            payment_methods.keep(topup=topup, method=method, at=at)
    return topup


def _expected(provider: str, reference: str, paid_total_nanousd: int, currency: str) -> TopUp:
    """The top-up that the payment names, which costs just that."""
    expected = TopUp.objects.filter(provider=provider, provider_reference=reference).first()
    if expected is None:
        msg = f"{provider} reports a payment {reference} that no top-up waits for"
        raise PaymentUnknown(msg)
    if (currency, paid_total_nanousd) != (CURRENCY, expected.total_nanousd):
        msg = (
            f"{expected}: {provider} reports {usd_string(paid_total_nanousd)} {currency.upper()},"
            f" the quote says {usd_string(expected.total_nanousd)} USD"
        )
        raise PaymentDiffers(msg)
    return expected


def _refuse_second_use(topup: TopUp, payment: str) -> None:
    """One payment pays one top-up; a constraint of the database stands behind this."""
    paid = TopUp.objects.filter(provider=topup.provider, provider_payment=payment).exclude(pk=topup.pk)
    if other := paid.first():
        msg = f"payment {payment} has paid {other} already"
        raise PaidOtherwise(msg)


def give_up(*, provider: str, reference: str, message: str) -> TopUp | None:
    """The provider says that no payment will come. A top-up that is not waiting any more stays as it is.

    Returns the top-up if this gave it up. Raises PaymentUnknown.
    """
    with transaction.atomic():
        topup = (
            TopUp.objects.select_for_update().filter(provider=provider, provider_reference=reference).first()
        )
        if topup is None:
            msg = f"{provider} reports on a payment {reference} that no top-up waits for"
            raise PaymentUnknown(msg)
        if topup.status != TopUp.Status.PENDING:
            return None
        topup.status, topup.failure = TopUp.Status.FAILED, message[:_LONGEST_MESSAGE]
        topup.save(update_fields=["status", "failure"])
        _record("topup.failed", topup, actor=None)
    return topup


def cancel(*, topup: TopUp, actor: User | None) -> TopUp:
    """Give up a top-up that waits for its payment; a repeat does nothing. Raises AlreadyPaid."""
    with transaction.atomic():
        locked = TopUp.objects.select_for_update().get(pk=topup.pk)
        if locked.status == TopUp.Status.PAID:
            msg = "This top-up has been paid. Its credit is in your wallet."
            raise AlreadyPaid(msg)
        if locked.status == TopUp.Status.PENDING:
            locked.status = TopUp.Status.CANCELED
            locked.save(update_fields=["status"])
            _record("topup.canceled", locked, actor=actor)
    return locked


def _record(action: str, topup: TopUp, *, actor: User | None) -> None:
    auditing.record(
        account=topup.account_id,
        actor=actor,
        action=action,
        subject_type="topup",
        subject_id=topup.pk,
        credit_usd=usd_string(topup.credit_nanousd),
        total_usd=usd_string(topup.total_nanousd),
        provider=topup.provider,
        origin=topup.origin,
    )

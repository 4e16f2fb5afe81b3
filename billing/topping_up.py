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
from billing import crediting, wallets
from billing.models import TopUp
from billing.providers import offering
from catalog.money import NANO_PER_CENT, nano_from_usd, usd_from_nano, usd_string, whole_cents


class AmountNotOffered(Exception):
    """So much credit cannot be bought; the message tells the buyer what can."""


class ProviderNotOffered(Exception):
    """The operator does not offer this payment provider."""


class PaymentUnknown(Exception):
    """No top-up waits for this payment."""


class PaymentDiffers(Exception):
    """What was paid is not what the quote says. Nothing was credited."""


class AlreadyPaid(Exception):
    """A paid top-up cannot be canceled."""


@dataclass(frozen=True, slots=True)
class Quote:
    """What an amount of credit costs, in nano-USD, each a whole number of cents; `fee_rate` is of the credit."""

    credit_nanousd: int
    fee_nanousd: int
    total_nanousd: int
    fee_rate: Decimal


def quote(*, credit_nanousd: int, fee_rate: Decimal) -> Quote:
    """The fee and the total for an amount of credit. Raises AmountNotOffered."""
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
    *, account: Account, actor: User | None, credit_nanousd: int, provider: str, at: dt.datetime
) -> TopUp:
    """Keep the quote of the account's plan as a top-up that waits for its payment through the provider (its slug).

    Raises AmountNotOffered, ProviderNotOffered.
    """
    if provider not in {offered.slug for offered in offering.configured()}:
        msg = f"{provider} is not among the payment providers of this installation."
        raise ProviderNotOffered(msg)
    agreed = quote(credit_nanousd=credit_nanousd, fee_rate=account.plan.topup_fee_rate)
    with transaction.atomic():
        topup = TopUp.objects.create(
            account=account,
            created_by=actor,
            provider=provider,
            provider_reference=secrets.token_urlsafe(24),
            credit_nanousd=agreed.credit_nanousd,
            fee_nanousd=agreed.fee_nanousd,
            total_nanousd=agreed.total_nanousd,
            fee_rate=agreed.fee_rate,
            created_at=at,
        )
        _record("topup.started", topup, actor=actor)
    return topup


def finish(*, provider: str, reference: str, paid_total_nanousd: int, at: dt.datetime) -> TopUp:
    """Credit a payment that has arrived, exactly once, however often and by however many it is reported.

    The first top-up of an account on a plan that spends no credits moves it to pay-as-you-go. One that was canceled
    here while the payment was on its way is credited all the same: the money has come.

    Raises PaymentUnknown, and PaymentDiffers where the amount is not the quote's.
    """
    expected = TopUp.objects.filter(provider=provider, provider_reference=reference).first()
    if expected is None:
        msg = f"{provider} reports a payment {reference} that no top-up waits for"
        raise PaymentUnknown(msg)
    if paid_total_nanousd != expected.total_nanousd:
        msg = (
            f"{expected}: {provider} reports {usd_string(paid_total_nanousd)} USD,"
            f" the quote says {usd_string(expected.total_nanousd)} USD"
        )
        raise PaymentDiffers(msg)
    with transaction.atomic():
        wallets.lock(wallets.borrowed_connection(), [expected.account_id])
        topup = (
            TopUp.objects.select_for_update(of=("self",)).select_related("account__plan").get(pk=expected.pk)
        )
        if topup.status == TopUp.Status.PAID:
            return topup
        topup.status, topup.paid_at = TopUp.Status.PAID, at
        topup.save(update_fields=["status", "paid_at"])
        crediting.credit_topup(topup=topup, at=at)
        _record("topup.paid", topup, actor=None)
        if not topup.account.plan.spends_credits:
            plans.change_plan(
                account=topup.account, plan=Plan.objects.get(slug=Plan.PAY_AS_YOU_GO), actor=topup.created_by
            )
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
    )

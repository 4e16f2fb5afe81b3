"""Payments that have come and fit no top-up: kept, told to the operators once, and resolved by one of them."""

import datetime as dt
from decimal import ROUND_HALF_UP, Decimal

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.urls import reverse

from accounts import auditing, mailing
from accounts.models import Account, User
from billing import crediting, owed_mail, told_early, topping_up, wallets
from billing.models import PaymentClosing, TopUp, UnmatchedPayment, WebhookEvent
from billing.providers.provider import CURRENCY, PaymentArrived
from catalog.money import NANO_PER_CENT, whole_cents

# Why a payment cannot be credited by itself.
REASONS = (
    topping_up.PaymentUnknown,
    topping_up.PaymentDiffers,
    topping_up.PaidOtherwise,
    crediting.WalletFull,
)


class AlreadyResolved(Exception):
    """Somebody has dealt with this payment."""


class CannotBeCredited(Exception):
    """The payment is not in USD, or too small to be credit; the message says which."""


def note(
    *,
    provider: str,
    payment: PaymentArrived,
    why: str,
    event: WebhookEvent | None,
    at: dt.datetime,
) -> UnmatchedPayment:
    """Keep the payment for the operators, once however often it is reported."""
    unmatched, _is_new = UnmatchedPayment.objects.get_or_create(
        provider=provider,
        payment=payment.payment or payment.reference,
        defaults={
            "reference": payment.reference,
            "amount_cents": payment.amount_cents,
            "currency": payment.currency,
            "why": why[:300],
            "event": event,
            "seen_at": at,
            "operators_mail_due_at": at,
        },
    )
    return unmatched


def found(*, topup: TopUp, at: dt.datetime) -> None:
    """The payment of this top-up was credited after all: nobody needs to look for it any more.

    What was told of it before is taken up by the next sweep.
    """
    told_early.take_up(provider=topup.provider, payment=topup.provider_payment, at=at)
    UnmatchedPayment.objects.filter(
        provider=topup.provider, payment=topup.provider_payment, resolved_at=None
    ).update(resolved_at=at, note="The provider has reported it again, and it fitted.", topup=topup)


def resolve(*, unmatched: UnmatchedPayment, actor: User, text: str, at: dt.datetime) -> None:
    """Close it with a note: given back at the provider, say. Moves no money. Raises AlreadyResolved.

    What was told of its refunds and disputes waits no longer.
    """
    with transaction.atomic():
        waiting = UnmatchedPayment.objects.filter(pk=unmatched.pk, resolved_at=None)
        if not waiting.update(resolved_at=at, resolved_by=actor, note=text):
            raise AlreadyResolved
        PaymentClosing.objects.create(
            provider=unmatched.provider,
            payment=unmatched.payment,
            closed_at=at,
            operator_id=actor.pk,
            note=text,
        )
        told_early.let_go(provider=unmatched.provider, payment=unmatched.payment, at=at)


def is_closed(*, provider: str, payment: str) -> bool:
    """Whether an operator has closed this payment without crediting it."""
    closed = UnmatchedPayment.objects.filter(resolved_at__isnull=False, topup=None)
    return closed.filter(provider=provider, payment=payment).exists()


def credit(
    *, unmatched: UnmatchedPayment, account: Account, actor: User, text: str, at: dt.datetime
) -> TopUp:
    """Credit the payment to the account, as the top-up that it names or a new one that costs just what was paid.

    Refunds and disputes that were told of before wait to be processed from then on: `webhooks.process_told_early`, or
    the next sweep.

    Raises AlreadyResolved, CannotBeCredited, crediting.WalletFull, and PaidOtherwise where the payment has paid a
    top-up already.
    """
    with transaction.atomic():
        wallets.lock(wallets.borrowed_connection(), [account.pk])
        waiting = UnmatchedPayment.objects.select_for_update(of=("self",)).get(pk=unmatched.pk)
        if waiting.resolved_at is not None:
            raise AlreadyResolved
        topup = foreseen(unmatched=waiting, account=account)
        if not topup.pk:
            topup.created_by, topup.created_at = actor, at
            topup.save()
        paid = topping_up.finish(
            provider=waiting.provider,
            reference=topup.provider_reference,
            paid_total_nanousd=topup.total_nanousd,
            at=at,
            payment=waiting.payment,
            currency=waiting.currency,
        )
        waiting.resolved_at, waiting.resolved_by, waiting.note, waiting.topup = at, actor, text, paid
        waiting.save(update_fields=["resolved_at", "resolved_by", "note", "topup"])
        told_early.take_up(provider=waiting.provider, payment=waiting.payment, at=at)
        auditing.record(
            account=account,
            actor=actor,
            action="payment.matched",
            subject_type="topup",
            subject_id=paid.pk,
            payment=waiting.payment,
            reason=text,
        )
    return paid


def foreseen(*, unmatched: UnmatchedPayment, account: Account) -> TopUp:
    """The top-up that `credit` would pay: the one of the account that the payment names, or a new one, not yet saved.

    Raises CannotBeCredited.
    """
    _refuse_uncreditable(unmatched)
    return _named(unmatched, account) or _made_for(unmatched, account)


def unresolved() -> QuerySet[UnmatchedPayment]:
    """Those that wait for an operator."""
    return UnmatchedPayment.objects.filter(resolved_at=None)


def mark_told(*, unmatched: list[UnmatchedPayment], at: dt.datetime) -> None:
    """The e-mail about them is out."""
    for payment in unmatched:
        UnmatchedPayment.objects.filter(pk=payment.pk).update(mailed_at=at)
        owed_mail.mark_operators_told(rows=UnmatchedPayment.objects.all(), row=payment)


def mail_operators(*, unmatched: list[UnmatchedPayment]) -> None:
    """Tell the operators what has come and why it was not credited. Raises mailing.SendingErrors."""
    mailing.send(
        subject=f"{len(unmatched)} payment{'s' if len(unmatched) > 1 else ''} without a top-up",
        template="billing/mail/unmatched.txt",
        context={
            "unmatched": unmatched,
            "page": mailing.public_url(reverse("admin:billing_unmatchedpayment_changelist")),
        },
        to=settings.OPERATOR_EMAILS,
    )


def _refuse_uncreditable(waiting: UnmatchedPayment) -> None:
    if waiting.currency != CURRENCY:
        msg = f"Credit is sold in USD, and this was paid in {waiting.currency.upper()}."
        raise CannotBeCredited(msg)
    if waiting.amount_cents <= 0:
        msg = "Nothing was paid."
        raise CannotBeCredited(msg)


def _named(waiting: UnmatchedPayment, account: Account) -> TopUp | None:
    """The account's unpaid top-up that the payment names and pays."""
    return (
        TopUp.objects.filter(
            account=account,
            provider=waiting.provider,
            provider_reference=waiting.reference,
            total_nanousd=waiting.amount_cents * NANO_PER_CENT,
        )
        .exclude(status=TopUp.Status.PAID)
        .first()
    )


def _made_for(waiting: UnmatchedPayment, account: Account) -> TopUp:
    """A top-up whose total is what was paid: the fee of the account's plan is taken out of it."""
    total_cents, rate = waiting.amount_cents, account.plan.topup_fee_rate
    credit_cents = int((total_cents / (1 + rate)).quantize(Decimal(1), ROUND_HALF_UP))
    # Where no amount of credit and its rounded fee make the total, the cent between them is the fee's.
    while credit_cents * NANO_PER_CENT + whole_cents(credit_cents * NANO_PER_CENT * rate) > (
        total_cents * NANO_PER_CENT
    ):
        credit_cents -= 1
    if credit_cents <= 0:
        msg = "It is less than a cent of credit."
        raise CannotBeCredited(msg)
    return TopUp(
        account=account,
        provider=waiting.provider,
        provider_reference=f"unmatched-{waiting.pk}",
        credit_nanousd=credit_cents * NANO_PER_CENT,
        fee_nanousd=(total_cents - credit_cents) * NANO_PER_CENT,
        total_nanousd=total_cents * NANO_PER_CENT,
        fee_rate=rate,
    )

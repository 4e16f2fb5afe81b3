"""Refunds: money that goes back to the buyer, for credit that goes out of the wallet first.

The debit has a transaction of its own, so that nobody can spend what is on its way back. Then the company is asked,
under a reference by which it gives back once, however often it is asked: what it leaves unanswered is asked again by a
sweep.
"""

import datetime as dt
import logging
from dataclasses import dataclass
from decimal import Decimal

from django.conf import settings
from django.db import transaction

from accounts import auditing
from accounts.models import User
from billing import collecting, kept, moving, promotions, reports
from billing.ledger import Leg
from billing.models import LedgerAccount, LedgerTransaction, Refund, TopUp
from billing.providers import offering
from billing.providers.provider import CURRENCY, ProviderAway, ProviderRefused, RefundChanged
from catalog.money import NANO_PER_CENT, usd_string, usd_text, whole_cents

logger = logging.getLogger(__name__)

# A company forgets a reference after a day; until then asking again is safe. What is pending then is looked up, and the
# operators are told: see `pending_refunds`.
ASK_FOR = dt.timedelta(hours=20)
ASK_EVERY = dt.timedelta(minutes=2)
# What the columns hold.
_LONGEST_REASON, _LONGEST_MESSAGE = 200, 300


class NotRefundable(Exception):
    """So much of the top-up cannot be given back; the message tells the operator what can, and why not more."""


class AlreadyAsked(Exception):
    """This refund exists: the form was sent twice."""


class NotAsItWas(Exception):
    """Something has happened to the refund since it was read."""


class RefundUnknown(Exception):
    """A company reports a refund of a payment that is not ours."""


class RefundDiffers(Exception):
    """A company reports another amount or currency than was asked for. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Refundable:
    """What of a top-up's credit can be given back, in nano-USD and whole cents, and why it is not more."""

    credit_nanousd: int
    because: str


def refundable(*, topup: TopUp) -> Refundable:
    """Only credit that was paid for and is not spent, and of this payment no more than it brought.

    Reads without a lock, for a page; `start` looks again under it.
    """
    if topup.status != TopUp.Status.PAID:
        return Refundable(0, "It is not paid.")
    of_topup = kept.of(topup=topup).credit_nanousd
    standing = promotions.standing(account_id=topup.account_id)
    most = max(0, min(of_topup, standing.paid_available_nanousd))
    most -= most % NANO_PER_CENT
    if most < of_topup:
        because = (
            f"The account has {usd_text(max(0, standing.paid_available_nanousd))} of credit that was paid for,"
            " is not spent, and is not held by running requests. Whole cents of it can be given back."
        )
    elif most < topup.credit_nanousd:
        because = "The rest of this top-up has been given back, or is disputed."
    else:
        because = "That is all the credit of this top-up."
    return Refundable(most, because)


def fee_for(*, topup: TopUp, credit_nanousd: int) -> int:
    """What of the fee goes back with so much credit: its share, times REFUND_FEE_SHARE, in nano-USD and whole cents.

    Counted over all refunds of the top-up, so that many small ones give back no more than a single one.
    """
    left = kept.of(topup=topup)
    gone = Decimal(topup.credit_nanousd - left.credit_nanousd + credit_nanousd)
    due = whole_cents(settings.REFUND_FEE_SHARE * topup.fee_nanousd * gone / topup.credit_nanousd)
    return max(0, min(left.fee_nanousd, due - (topup.fee_nanousd - left.fee_nanousd)))


def start(
    *, topup: TopUp, credit_nanousd: int, reason: str, actor: User, reference: str, at: dt.datetime
) -> Refund:
    """Take the credit out of the wallet and book its way back; `ask` then tells the company.

    Raises NotRefundable, and AlreadyAsked for a reference that was used before.
    """
    with transaction.atomic():
        moving.lock(account_id=topup.account_id)
        # What a dispute waits for is not for a refund.
        collecting.collect(account_id=topup.account_id, at=at)
        topup = TopUp.objects.select_for_update(of=("self",)).get(pk=topup.pk)
        if Refund.objects.filter(reference=reference).exists():
            raise AlreadyAsked(reference)
        possible = refundable(topup=topup)
        if not 0 < credit_nanousd <= possible.credit_nanousd or credit_nanousd % NANO_PER_CENT:
            msg = f"{usd_text(possible.credit_nanousd)} can be given back. {possible.because}"
            raise NotRefundable(msg)
        refund = Refund.objects.create(
            account_id=topup.account_id,
            topup=topup,
            reference=reference,
            credit_nanousd=credit_nanousd,
            fee_nanousd=fee_for(topup=topup, credit_nanousd=credit_nanousd),
            reason=reason,
            created_by=actor,
            created_at=at,
            asked_at=at,
            operators_mail_due_at=at + ASK_FOR,
        )
        _book(refund, at=at)
        _record("refund.started", refund, actor=actor)
    return refund


def ask(*, refund: Refund, at: dt.datetime) -> Refund:
    """Ask the company for a refund that is on its way. Not inside a transaction.

    Refused: its credit is back in the wallet, unless the company has spoken of it meanwhile. No answer: it stays on its
    way, and the sweep asks again.
    """
    provider = offering.named(slug=refund.topup.provider)
    if provider is None:
        logger.error("%s: no provider %s to ask", refund, refund.topup.provider)
        return refund
    try:
        news = provider.refund(
            topup=refund.topup,
            amount_cents=refund.total_nanousd // NANO_PER_CENT,
            reference=refund.reference,
        )
    except ProviderAway as away:
        logger.warning("%s stays on its way: %s", refund, away)
        return refund
    except ProviderRefused as refused:
        return _change(refund, status=Refund.Status.FAILED, at=at, message=str(refused))
    try:
        return hear(provider=provider.slug, news=news, at=at)
    except RefundDiffers:
        logger.exception("%s stays on its way", refund)
        return refund


def give_up(*, refund: Refund, actor: User, message: str, at: dt.datetime) -> Refund:
    """Post a refund back that the company knows nothing of, if it is still as it was when the company was asked.

    Its name is forgotten: if the company reports it all the same, it is booked again, as one that was refused. Raises
    NotAsItWas where it was asked for or named meanwhile, or is not on its way any more.
    """
    with transaction.atomic():
        moving.lock(account_id=refund.account_id)
        pending = Refund.objects.filter(
            pk=refund.pk,
            status=Refund.Status.PENDING,
            asked_at=refund.asked_at,
            provider_refund=refund.provider_refund,
        )
        if not pending.update(provider_refund=None):
            raise NotAsItWas
        _record("refund.given_up", refund, actor=actor)
        return _change(refund, status=Refund.Status.FAILED, at=at, message=message)


def claim_unanswered(*, at: dt.datetime) -> Refund | None:
    """A refund that the company has not answered for ASK_EVERY, to be asked again; None: there is none."""
    waiting = Refund.objects.filter(
        status=Refund.Status.PENDING,
        provider_refund=None,
        asked_at__lt=at - ASK_EVERY,
        created_at__gt=at - ASK_FOR,
    )
    for refund_id in waiting.order_by("asked_at").values_list("pk", flat=True)[:10]:
        if waiting.filter(pk=refund_id).update(asked_at=at):
            return Refund.objects.select_related("topup").get(pk=refund_id)
    return None


def hear(*, provider: str, news: RefundChanged, at: dt.datetime) -> Refund:
    """What a company (its slug) says of a refund, however often and in whatever order.

    One that was made at the company's own dashboard finds its top-up by the payment. Credit is taken for it as far as
    it is available, and what running requests hold as they leave it; the rest is the platform's loss. Raises
    RefundUnknown, RefundDiffers.
    """
    refund = _named(provider, news)
    if news.currency.lower() != CURRENCY or (
        refund is not None and refund.total_nanousd != news.amount_cents * NANO_PER_CENT
    ):
        msg = f"{refund or news.refund}: {provider} reports {news.amount_cents} cents of {news.currency}"
        raise RefundDiffers(msg)
    if refund is not None:
        status = Refund.Status(news.status)
        return _change(refund, status=status, at=at, message=news.message, named=news.refund)
    topup = TopUp.objects.filter(
        provider=provider, provider_payment=news.payment, status=TopUp.Status.PAID
    ).first()
    if topup is None or not news.payment:
        msg = f"{provider} reports a refund {news.refund} of a payment {news.payment} that is not ours"
        raise RefundUnknown(msg)
    return _made_elsewhere(topup, news, at=at)


def _named(provider: str, news: RefundChanged) -> Refund | None:
    """The refund that is spoken of, by our name for it or by theirs."""
    refunds = Refund.objects.select_related("topup").filter(topup__provider=provider)
    ours = refunds.filter(reference=news.reference).first() if news.reference else None
    return ours or refunds.filter(provider_refund=news.refund).first()


def _made_elsewhere(topup: TopUp, news: RefundChanged, *, at: dt.datetime) -> Refund:
    """Write down a refund that nobody here has asked for.

    One that has failed moves nothing. It is kept all the same: what was told of it before may be heard only later.
    """
    with transaction.atomic():
        moving.lock(account_id=topup.account_id)
        collecting.collect(account_id=topup.account_id, at=at)
        wallet = moving.lock(account_id=topup.account_id)
        if _named(topup.provider, news) is None:
            failed = news.status == Refund.Status.FAILED
            share = kept.share(topup=topup, amount_nanousd=news.amount_cents * NANO_PER_CENT)
            taken, to_take = (share.credit_nanousd, 0) if failed else wallet.reach(share.credit_nanousd)
            refund = Refund.objects.create(
                account_id=topup.account_id,
                topup=topup,
                reference=f"{topup.provider}:{news.refund}",
                provider_refund=news.refund,
                credit_nanousd=taken,
                fee_nanousd=share.fee_nanousd,
                loss_nanousd=share.credit_nanousd - taken + share.beyond_nanousd,
                bookings=0 if failed else 1,
                status=news.status,
                reason="Made at the payment company",
                message=news.message[:_LONGEST_MESSAGE],
                created_at=at,
                ended_at=None if news.status == Refund.Status.PENDING else at,
                mail_due_at=None if failed else at,
                operators_mail_due_at=at,
            )
            reports.keep_refund(reference=refund.reference, refund=news.refund, status=news.status, at=at)
            if not failed:
                _book(refund, at=at)
                collecting.wait_for(refund, amount_nanousd=to_take)
                refund.save(update_fields=["to_take_nanousd"])
            _record(f"refund.{'failed' if failed else 'made'}_elsewhere", refund, actor=None)
            return refund
    # Somebody was faster with the same news.
    return hear(provider=topup.provider, news=news, at=at)


def _change(
    refund: Refund, *, status: Refund.Status, at: dt.datetime, message: str = "", named: str | None = None
) -> Refund:
    """Bring a refund to the status that is reported, and the books with it. What was failed by the company stays so."""
    with transaction.atomic():
        moving.lock(account_id=refund.account_id)
        # Before credit may come back: what was spent is not waited for, so that nothing of it is taken for that.
        collecting.collect(account_id=refund.account_id, at=at)
        refund = Refund.objects.select_for_update(of=("self",)).select_related("topup").get(pk=refund.pk)
        if named is not None:
            reports.keep_refund(reference=refund.reference, refund=named, status=status, at=at)
        if named is None and (refund.status != Refund.Status.PENDING or refund.provider_refund):
            # Only our own call was refused, and meanwhile the company has said what became of the refund.
            return refund
        failed = refund.status == Refund.Status.FAILED
        # The company told us no, and perhaps made it all the same.
        refused = failed and refund.provider_refund is None
        overtaken = not refused and (failed or status == Refund.Status.PENDING)
        refund.provider_refund = refund.provider_refund or named
        if status == refund.status or overtaken:
            refund.save(update_fields=["provider_refund"])
            return refund
        if refused:
            _book_again(refund, at=at)
        elif status == Refund.Status.FAILED:
            _book_back(refund, at=at)
        refund.status, refund.message = status, message[:_LONGEST_MESSAGE]
        refund.ended_at = None if status == Refund.Status.PENDING else at
        refund.mail_due_at = at
        refund.operators_mail_due_at = _operators_due_at(refund, at)
        refund.save()
        # Of another one, for which there may be something now.
        collecting.collect(account_id=refund.account_id, at=at)
        refund.refresh_from_db()
        _record(f"refund.{status}", refund, actor=None)
    return refund


def _operators_due_at(refund: Refund, at: dt.datetime) -> dt.datetime | None:
    """When the operators are told: of what failed or was not made here at once, of what stays on its way later."""
    if refund.status == Refund.Status.FAILED or refund.asked_at is None:
        return at
    return at + ASK_FOR if refund.status == Refund.Status.PENDING else None


def _book(refund: Refund, *, at: dt.datetime) -> None:
    _post(refund, "refund", sign=1, at=at)


def _book_back(refund: Refund, *, at: dt.datetime) -> None:
    _post(refund, "refund-failed", sign=-1, at=at)
    collecting.wait_for(refund, amount_nanousd=0)


def _book_again(refund: Refund, *, at: dt.datetime) -> None:
    wallet = moving.lock(account_id=refund.account_id)
    wanted = refund.credit_nanousd + refund.loss_nanousd
    refund.credit_nanousd, to_take = wallet.reach(wanted)
    refund.loss_nanousd = wanted - refund.credit_nanousd
    refund.bookings += 1
    _book(refund, at=at)
    collecting.wait_for(refund, amount_nanousd=to_take)


def _post(refund: Refund, name: str, *, sign: int, at: dt.datetime) -> None:
    again = f":{refund.bookings}" if refund.bookings > 1 else ""
    provider = refund.topup.provider
    moving.move(
        account_id=refund.account_id,
        amount_nanousd=-sign * refund.credit_nanousd,
        reference=f"{name}:{refund.pk}{again}",
        kind=LedgerTransaction.Kind.REFUND,
        description=f"{'Refund' if sign > 0 else 'Refund that failed'} of top-up {refund.topup_id}",
        against=[
            Leg(LedgerAccount.Kind.REFUNDS, -sign * refund.fee_nanousd),
            Leg(LedgerAccount.Kind.PLATFORM_LOSS, -sign * refund.loss_nanousd),
            Leg(LedgerAccount.Kind.CASH_CLEARING, sign * refund.total_nanousd, provider=provider),
        ],
        at=at,
        of=refund,
    )


def _record(action: str, refund: Refund, *, actor: User | None) -> None:
    auditing.record(
        account=refund.account_id,
        actor=actor,
        action=action,
        subject_type="refund",
        subject_id=refund.pk,
        topup=refund.topup_id,
        credit_usd=usd_string(refund.credit_nanousd),
        total_usd=usd_string(refund.total_nanousd),
        reason=refund.reason[:_LONGEST_REASON],
    )

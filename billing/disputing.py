"""Disputes: a bank wants a payment back. Credit is frozen until it decides, then given back or lost.

A company tells of a dispute several times, and not always in order. Each telling names the state that the dispute was
in and its amount, so the books are brought there from whatever they are in; one that was overtaken changes nothing.
"""

import datetime as dt

from django.db import transaction

from accounts import auditing
from billing import collecting, kept, moving
from billing.ledger import Leg
from billing.models import Dispute, LedgerAccount, LedgerTransaction, TopUp
from billing.providers.provider import CURRENCY, DisputeChanged
from catalog.money import NANO_PER_CENT, usd_string


class DisputeUnknown(Exception):
    """A company reports a dispute of a payment that is not ours."""


class DisputeDiffers(Exception):
    """A company reports a dispute in another currency than was paid in, or that one which is lost had another amount.

    Nothing was changed.
    """


def hear(
    *, provider: str, news: DisputeChanged, at: dt.datetime, occurred_at: dt.datetime | None = None
) -> Dispute:
    """What a company (its slug) says of a dispute, however often and in whatever order.

    Opened: the credit is frozen, as far as it is available, and what running requests hold of it as they leave it. Won:
    it is given back. Lost: it is gone, with its share of the fee, and what the wallet did not have is the platform's
    loss. Where a bank changes its mind, the decision that occurred later counts, and so does the amount; without
    `occurred_at`, what is heard later. Raises DisputeUnknown, DisputeDiffers.
    """
    topup = TopUp.objects.filter(
        provider=provider, provider_payment=news.payment, status=TopUp.Status.PAID
    ).first()
    if topup is None or not news.payment:
        msg = f"{provider} reports a dispute {news.dispute} of a payment {news.payment} that is not ours"
        raise DisputeUnknown(msg)
    if news.currency.lower() != CURRENCY or news.amount_cents <= 0:
        msg = f"{provider} reports a dispute {news.dispute} of {news.amount_cents} cents of {news.currency}"
        raise DisputeDiffers(msg)
    with transaction.atomic():
        moving.lock(account_id=topup.account_id)
        # Before credit may come back: what was spent is not waited for, so that nothing of it is taken for that.
        collecting.collect(account_id=topup.account_id, at=at)
        dispute = _hear(topup, news, at=at, told_at=occurred_at or at)
        # Of this one or another, for which there may be something now.
        collecting.collect(account_id=topup.account_id, at=at)
        dispute.refresh_from_db()
    return dispute


def _hear(topup: TopUp, news: DisputeChanged, *, at: dt.datetime, told_at: dt.datetime) -> Dispute:
    dispute = Dispute.objects.filter(topup=topup, provider_dispute=news.dispute).first()
    known = dispute is not None
    if dispute is None:
        dispute = _unopened(topup, news, at=at, told_at=told_at)
    amount_nanousd = news.amount_cents * NANO_PER_CENT
    is_overtaken = _is_overtaken(dispute, news, known=known, decided_at=told_at)
    is_latest = told_at >= dispute.amount_told_at
    is_other = is_latest and amount_nanousd != dispute.amount_nanousd
    if is_other and is_overtaken and dispute.status == Dispute.Status.LOST:
        msg = f"{topup.provider} reports {news.amount_cents} cents of {dispute}, which is lost with another amount"
        raise DisputeDiffers(msg)
    is_won_now = not is_overtaken and news.status == Dispute.Status.WON
    is_rebooked = is_other and dispute.status == Dispute.Status.OPEN and not is_won_now
    if is_rebooked:
        _book_difference(dispute, amount_nanousd=amount_nanousd, at=at)
        _record(dispute, "amount_changed")
    elif is_other and not is_won_now:
        dispute.amount_nanousd = amount_nanousd
    if not is_overtaken:
        _bring_to(dispute, Dispute.Status(news.status), known=known, at=at)
        dispute.closed_at = None if dispute.status == Dispute.Status.OPEN else told_at
        if news.respond_by:
            dispute.respond_by = dt.datetime.fromisoformat(news.respond_by)
    if is_latest:
        dispute.amount_nanousd, dispute.amount_told_at = amount_nanousd, told_at
    if is_rebooked or not is_overtaken:
        dispute.mail_due_at = dispute.operators_mail_due_at = at
    dispute.save()
    if not is_overtaken:
        _record(dispute, "opened" if dispute.status == Dispute.Status.OPEN else dispute.status)
    return dispute


def _unopened(topup: TopUp, news: DisputeChanged, *, at: dt.datetime, told_at: dt.datetime) -> Dispute:
    """A dispute that the books do not know yet: nothing of it is frozen, as in one that was won."""
    return Dispute.objects.create(
        account_id=topup.account_id,
        topup=topup,
        provider_dispute=news.dispute,
        reason=news.reason[:120],
        status=Dispute.Status.WON,
        amount_nanousd=news.amount_cents * NANO_PER_CENT,
        amount_told_at=told_at,
        opened_at=at,
        closed_at=at,
    )


def _is_overtaken(dispute: Dispute, news: DisputeChanged, *, known: bool, decided_at: dt.datetime) -> bool:
    if not known:
        return False
    if news.status == dispute.status:
        return True
    if dispute.closed_at is None:
        return False
    return news.status == Dispute.Status.OPEN or decided_at < dispute.closed_at


def _bring_to(dispute: Dispute, status: Dispute.Status, *, known: bool, at: dt.datetime) -> None:
    """From one state of the books to another; what lies between is booked as well."""
    before = Dispute.Status(dispute.status) if known else None
    dispute.status = status
    if status == Dispute.Status.WON:
        if before == Dispute.Status.OPEN:
            _thaw(dispute, at=at)
        elif before == Dispute.Status.LOST:
            _take_back_the_loss(dispute, at=at)
        collecting.wait_for(dispute, amount_nanousd=0)
        dispute.frozen_nanousd = dispute.fee_nanousd = dispute.loss_nanousd = 0
        return
    if before != Dispute.Status.OPEN:
        _freeze(dispute, at=at)
    if status == Dispute.Status.LOST:
        _lose(dispute, at=at)


def _freeze(dispute: Dispute, *, at: dt.datetime) -> None:
    share = kept.share(topup=dispute.topup, amount_nanousd=dispute.amount_nanousd)
    wallet = moving.lock(account_id=dispute.account_id)
    dispute.frozen_nanousd, to_take_nanousd = wallet.reach(share.credit_nanousd)
    dispute.fee_nanousd = share.fee_nanousd
    dispute.loss_nanousd = share.credit_nanousd - dispute.frozen_nanousd + share.beyond_nanousd
    dispute.bookings += 1
    if dispute.frozen_nanousd:
        _post(
            dispute,
            "dispute",
            "frozen",
            amount_nanousd=-dispute.frozen_nanousd,
            against=[Leg(LedgerAccount.Kind.DISPUTES, dispute.frozen_nanousd)],
            at=at,
        )
    collecting.wait_for(dispute, amount_nanousd=to_take_nanousd)


def _book_difference(dispute: Dispute, *, amount_nanousd: int, at: dt.datetime) -> None:
    """The bank wants another amount back of a dispute that is open: what that is more is frozen, what is less released.

    Of credit that was spent when it was frozen nothing more is taken than the amount has grown by.
    """
    share = kept.share(topup=dispute.topup, amount_nanousd=amount_nanousd, but_for=dispute)
    less = max(0, dispute.frozen_nanousd - share.credit_nanousd)
    more = max(0, share.credit_nanousd - dispute.frozen_nanousd - dispute.loss_nanousd)
    now, later = moving.lock(account_id=dispute.account_id).reach(more)
    to_take = min(dispute.to_take_nanousd, share.credit_nanousd - dispute.frozen_nanousd + less) + later
    released = less - now
    if released:
        prefix = f"dispute-changed:{dispute.pk}:"
        earlier = LedgerTransaction.objects.filter(
            account_id=dispute.account_id, reference__startswith=prefix
        )
        moving.move(
            account_id=dispute.account_id,
            amount_nanousd=released,
            reference=f"{prefix}{earlier.count()}",
            kind=LedgerTransaction.Kind.DISPUTE,
            description=f"Dispute of top-up {dispute.topup_id}: its amount has changed",
            against=[Leg(LedgerAccount.Kind.DISPUTES, -released)],
            at=at,
            of=dispute,
        )
    dispute.amount_nanousd = amount_nanousd
    dispute.frozen_nanousd -= released
    dispute.fee_nanousd = share.fee_nanousd
    dispute.loss_nanousd = amount_nanousd - dispute.fee_nanousd - dispute.frozen_nanousd
    collecting.wait_for(dispute, amount_nanousd=to_take)


def _thaw(dispute: Dispute, *, at: dt.datetime) -> None:
    if dispute.frozen_nanousd:
        _post(
            dispute,
            "dispute-won",
            "won",
            amount_nanousd=dispute.frozen_nanousd,
            against=[Leg(LedgerAccount.Kind.DISPUTES, -dispute.frozen_nanousd)],
            at=at,
        )


def _lose(dispute: Dispute, *, at: dt.datetime) -> None:
    frozen = Leg(LedgerAccount.Kind.DISPUTES, -dispute.frozen_nanousd)
    against = [frozen, *_gone(dispute, sign=1)]
    _post(dispute, "dispute-lost", "lost", amount_nanousd=0, against=against, at=at)


def _take_back_the_loss(dispute: Dispute, *, at: dt.datetime) -> None:
    against = _gone(dispute, sign=-1)
    _post(dispute, "dispute-won", "won", amount_nanousd=dispute.frozen_nanousd, against=against, at=at)


def _gone(dispute: Dispute, *, sign: int) -> list[Leg]:
    provider = dispute.topup.provider
    return [
        Leg(LedgerAccount.Kind.REFUNDS, -sign * dispute.fee_nanousd),
        Leg(LedgerAccount.Kind.PLATFORM_LOSS, -sign * dispute.loss_nanousd),
        Leg(LedgerAccount.Kind.CASH_CLEARING, sign * dispute.amount_nanousd, provider=provider),
    ]


def _post(
    dispute: Dispute, name: str, words: str, *, amount_nanousd: int, against: list[Leg], at: dt.datetime
) -> None:
    again = f":{dispute.bookings}" if dispute.bookings > 1 else ""
    moving.move(
        account_id=dispute.account_id,
        amount_nanousd=amount_nanousd,
        reference=f"{name}:{dispute.pk}{again}",
        kind=LedgerTransaction.Kind.DISPUTE,
        description=f"Dispute of top-up {dispute.topup_id}: {words}",
        against=against,
        at=at,
        of=dispute,
    )


def _record(dispute: Dispute, what: str) -> None:
    auditing.record(
        account=dispute.account_id,
        actor=None,
        action=f"dispute.{what}",
        subject_type="dispute",
        subject_id=dispute.pk,
        topup=dispute.topup_id,
        amount_usd=usd_string(dispute.amount_nanousd),
        frozen_usd=usd_string(dispute.frozen_nanousd),
        loss_usd=usd_string(dispute.loss_nanousd),
        to_take_usd=usd_string(dispute.to_take_nanousd),
        reason=dispute.reason,
    )

"""Credit bought without the buyer: one purchase at a time, charged once, whatever runs beside it or dies in between.

A purchase is committed as a pending top-up under the wallet's lock before the provider is asked, and a constraint
of the database allows one of those for each account. A process that dies before, during or after the charge leaves it
pending: the next run asks again under the same key, for which the provider charges once. It stays pending until the
provider says that it was paid or that nothing will come, however long a bank takes: until then it counts in the month's
cap, and nothing else is bought. Who reports the outcome does not matter (this module, a webhook, a look-up): outcomes
are counted from the top-ups themselves.
"""

import datetime as dt
import logging

from django.db import connection, transaction
from django.db.models import Max, Q, QuerySet, Sum

from accounts import auditing
from accounts.models import Account, User
from billing import payment_methods, topping_up, unmatched, wallets
from billing.models import AutoTopUp, SavedPaymentMethod, TopUp
from billing.providers import offering
from billing.providers.provider import (
    Outcome,
    PaymentArrived,
    PaymentFailed,
    ProviderAway,
    ProviderRefused,
)
from catalog.money import usd_from_nano, usd_string

logger = logging.getLogger(__name__)

FAILURES_TO_STOP = 2
# After a payment that failed.
RETRY_AFTER = dt.timedelta(minutes=10)
# For so long only one process asks about a top-up. It charges and then perhaps looks up, and must have ended before
# another one may conclude that no charge was made.
ASKING_LASTS = 2 * offering.longest_call() + dt.timedelta(seconds=30)
# Providers forget after a day under which keys they charged. Later than this, what became of it is only looked up.
ASK_AGAIN_FOR = dt.timedelta(hours=20)
_LOOK_AGAIN_AFTER = dt.timedelta(hours=1)
# A purchase that is not decided by then is told to the account, once.
TELL_AFTER = dt.timedelta(days=1)

# An outcome to count; a top-up to ask about; credit to buy, or a method that can no longer buy any.
_DUE = """
    SELECT t.account_id
    FROM billing_autotopup t
    JOIN accounts_account a ON a.id = t.account_id
    JOIN accounts_plan p ON p.id = a.plan_id
    LEFT JOIN billing_wallet w ON w.account_id = t.account_id
    LEFT JOIN billing_savedpaymentmethod m ON m.account_id = t.account_id AND m.is_default AND m.removed_at IS NULL
    LEFT JOIN LATERAL (
        SELECT max(u.created_at) FILTER (WHERE u.status = 'pending') AS waits_since,
            bool_or(u.status <> 'pending') AS ended
        FROM billing_topup u
        WHERE u.account_id = t.account_id AND u.origin = 'automatic' AND u.id > t.counted_topup_id
    ) AS bought ON true
    WHERE coalesce(bought.ended, false)
        OR (bought.waits_since IS NOT NULL AND (t.asked_at IS NULL OR t.asked_at <= CASE
            WHEN bought.waits_since > %(charged_since)s THEN %(asked_until)s ELSE %(looked_until)s END))
        OR (bought.waits_since IS NULL AND t.is_on AND a.status = 'active' AND p.spends_credits AND (
            m.id IS NULL OR m.expires < %(today)s
            OR (coalesce(w.balance_nanousd - w.held_nanousd, 0) < t.threshold_nanousd
                AND coalesce(w.to_take_nanousd, 0) = 0
                AND (t.not_before IS NULL OR t.not_before <= %(at)s))
        ))
    ORDER BY t.account_id
"""


class CapTooLow(Exception):
    """The month's cap does not allow a single purchase; the message says what one costs."""


class MethodNotUsable(Exception):
    """The payment method is not the account's, was removed, has expired, or its provider is not offered."""


def switch_on(
    *,
    account: Account,
    threshold_nanousd: int,
    amount_nanousd: int,
    monthly_cap_nanousd: int,
    method: SavedPaymentMethod,
    actor: User,
    at: dt.datetime,
) -> AutoTopUp:
    """Write down what the account has agreed to; a change of it is the same act, and forgets earlier failures.

    The method becomes the default, which is what is charged, also when another one becomes it later.
    Raises AmountNotOffered, CapTooLow, MethodNotUsable.
    """
    quote = topping_up.quote(credit_nanousd=amount_nanousd, fee_rate=account.plan.topup_fee_rate)
    if monthly_cap_nanousd < quote.total_nanousd:
        msg = f"Each purchase charges ${usd_from_nano(quote.total_nanousd):,.2f}; the month must allow at least one."
        raise CapTooLow(msg)
    if method not in payment_methods.usable(account=account) or _has_expired(method, at):
        msg = "This payment method cannot be charged any more."
        raise MethodNotUsable(msg)
    with transaction.atomic():
        wallets.lock(wallets.borrowed_connection(), [account.pk])
        ended = _bought(account.pk).exclude(status=TopUp.Status.PENDING).aggregate(last=Max("pk"))
        auto, _ = AutoTopUp.objects.update_or_create(
            account=account,
            defaults={
                "is_on": True,
                "threshold_nanousd": threshold_nanousd,
                "amount_nanousd": amount_nanousd,
                "monthly_cap_nanousd": monthly_cap_nanousd,
                "agreed_total_nanousd": quote.total_nanousd,
                "agreed_by": actor,
                "agreed_at": at,
                "failures": 0,
                "counted_topup_id": ended["last"] or 0,
                "not_before": None,
                "off_reason": "",
                "off_at": None,
                "mail_due_at": None,
            },
        )
        payment_methods.make_default(method=method, actor=actor)
        _record("auto_topup.switched_on", auto, actor=actor, method=str(method))
    return auto


def switch_off(*, account: Account, actor: User) -> None:
    """Buy nothing more from now on; a repeat does nothing."""
    with transaction.atomic():
        wallets.lock(wallets.borrowed_connection(), [account.pk])
        auto = AutoTopUp.objects.filter(account=account, is_on=True).first()
        if auto is not None:
            auto.is_on = False
            auto.save()
            _record("auto_topup.switched_off", auto, actor=actor)


def due(*, at: dt.datetime) -> list[int]:
    """The ids of the accounts for which `run` has something to do, in one statement for all accounts."""
    moments = {
        "at": at,
        "today": at.date(),
        "asked_until": at - ASKING_LASTS,
        "looked_until": at - _LOOK_AGAIN_AFTER,
        "charged_since": at - ASK_AGAIN_FOR,
    }
    with connection.cursor() as cursor:
        cursor.execute(_DUE, moments)
        return [account_id for (account_id,) in cursor.fetchall()]


def run(*, account_id: int, at: dt.datetime) -> TopUp | None:
    """Do what is due for the account: count what has ended, buy if its credit is low, ask again about what waits.

    Returns the top-up that the provider was asked about. May run for the same account as often, and as often at the
    same time, as you like.
    """
    topup = _claim(account_id, at)
    if topup is None:
        return None
    _charge(topup, at)
    with transaction.atomic():
        wallets.lock(wallets.borrowed_connection(), [account_id])
        auto = _locked(account_id)
        if auto is not None:
            _count(auto, at)
            _tell_if_it_lasts(auto, at)
            auto.save()
    return topup


def charged_method(*, account_id: int) -> SavedPaymentMethod | None:
    """The payment method that a purchase would be charged to."""
    return _charged_methods(account_id).first()


def _charged_methods(account_id: int) -> QuerySet[SavedPaymentMethod]:
    return SavedPaymentMethod.objects.filter(account=account_id, removed_at=None, is_default=True)


def charged_in_month(*, account_id: int, at: dt.datetime) -> int:
    """What automatic top-ups have charged in the UTC month of `at` until then, with fees, in nano-USD.

    What waits may be charged at any time, so it counts in each month in which it waits. What has come counts in the
    month in which it came, also where it was given up before.
    """
    month = at.astimezone(dt.UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    counted = _bought(account_id).filter(Q(status=TopUp.Status.PENDING) | Q(paid_at__gte=month))
    return counted.aggregate(total=Sum("total_nanousd"))["total"] or 0


def waiting(*, account_id: int) -> TopUp | None:
    """The purchase that was begun and is not decided yet; there is one at most."""
    return _bought(account_id).filter(status=TopUp.Status.PENDING).select_related("method").first()


def is_capped(*, auto: AutoTopUp, at: dt.datetime) -> bool:
    """Whether another purchase would charge more than the month may."""
    charged = charged_in_month(account_id=auto.account_id, at=at)
    return charged + auto.agreed_total_nanousd > auto.monthly_cap_nanousd


def _claim(account_id: int, at: dt.datetime) -> TopUp | None:
    """The top-up that the caller, and nobody else for a while, asks the provider about; a new one if one is due."""
    with transaction.atomic():
        wallet = wallets.lock(wallets.borrowed_connection(), [account_id])[account_id]
        auto = _locked(account_id)
        if auto is None:
            return None
        _count(auto, at)
        topup = waiting(account_id=account_id)
        if topup is not None and auto.asked_at is not None and auto.asked_at > at - ASKING_LASTS:
            topup = None
        # What is bought while a dispute waits for credit that requests hold would be taken for it, one after the other.
        elif topup is None and not wallet.to_take_nanousd and _wants(auto, wallet.available_nanousd, at):
            topup = _start(auto, at)
        if topup is not None:
            auto.asked_at = at
        auto.save()
    return topup


def _locked(account_id: int) -> AutoTopUp | None:
    return (
        AutoTopUp.objects.select_for_update(of=("self",))
        .select_related("account__plan", "agreed_by")
        .filter(account_id=account_id)
        .first()
    )


def _count(auto: AutoTopUp, at: dt.datetime) -> None:
    """Take notice of how purchases have ended, each once, in the order in which they were made."""
    ended = _bought(auto.account_id).filter(pk__gt=auto.counted_topup_id).exclude(status=TopUp.Status.PENDING)
    for topup in ended.order_by("pk"):
        auto.counted_topup_id, auto.asked_at = topup.pk, None
        if topup.status == TopUp.Status.PAID:
            auto.failures, auto.not_before = 0, None
        if topup.status != TopUp.Status.FAILED:
            continue
        auto.failures += 1
        auto.not_before = at + RETRY_AFTER
        if auto.is_on and auto.failures >= FAILURES_TO_STOP:
            _stop(auto, f"The last two payments failed. {topup.failure}".strip(), at)


def _wants(auto: AutoTopUp, available_nanousd: int, at: dt.datetime) -> bool:
    """Whether to buy now. What makes it impossible for good switches it off."""
    if not auto.is_on or not auto.account.plan.spends_credits or auto.account.status != Account.Status.ACTIVE:
        return False
    if problem := _problem(auto, at):
        _stop(auto, problem, at)
        return False
    if available_nanousd >= auto.threshold_nanousd or (auto.not_before and auto.not_before > at):
        return False
    if is_capped(auto=auto, at=at):
        auto.not_before = _next_month(at)
        auto.mail_due_at = at
        return False
    return True


def _problem(auto: AutoTopUp, at: dt.datetime) -> str:
    """Why nothing can be bought as it was agreed, for people to read; empty: nothing is wrong."""
    method, rate = charged_method(account_id=auto.account_id), auto.account.plan.topup_fee_rate
    if method is None:
        return "The payment method was removed."
    if _has_expired(method, at):
        return f"The payment method {method} has expired."
    if method.provider not in {provider.slug for provider in offering.configured()}:
        return "Payments through this provider are not offered here any more."
    try:
        quote = topping_up.quote(credit_nanousd=auto.amount_nanousd, fee_rate=rate)
    except topping_up.AmountNotOffered as refused:
        return f"This amount cannot be bought any more. {refused}"
    if quote.total_nanousd > auto.agreed_total_nanousd:
        return (
            f"The fee has changed: each purchase would charge ${usd_from_nano(quote.total_nanousd):,.2f},"
            f" and you have agreed to ${usd_from_nano(auto.agreed_total_nanousd):,.2f}."
        )
    return ""


def _start(auto: AutoTopUp, at: dt.datetime) -> TopUp:
    # There is one: `_wants` has looked, under the same lock.
    method = _charged_methods(auto.account_id).get()
    return topping_up.start(
        account=auto.account,
        actor=auto.agreed_by,
        credit_nanousd=auto.amount_nanousd,
        provider=method.provider,
        method=method,
        origin=TopUp.Origin.AUTOMATIC,
        at=at,
    )


def _charge(topup: TopUp, at: dt.datetime) -> None:
    """Ask the provider about the money, and take note of what is decided. Nothing else ends the purchase."""
    try:
        outcome = _ask(topup, at)
    except (ProviderAway, ProviderRefused) as problem:
        logger.warning("%s: %s does not say whether it charged: %s", topup, topup.provider, problem)
        return
    if isinstance(outcome, PaymentArrived):
        _take(topup, outcome, at)
    elif isinstance(outcome, PaymentFailed):
        _give_up(topup, outcome.message)


def _ask(topup: TopUp, at: dt.datetime) -> Outcome | None:
    """Have it charged, or, where asking could charge what nobody wants any more, ask how it stands. None: nobody knows.

    Raises ProviderAway, and ProviderRefused where the provider will not even say how it stands.
    """
    provider, method = offering.named(slug=topup.provider), topup.method
    if provider is None or method is None:
        return None
    is_wanted = (
        method.removed_at is None and AutoTopUp.objects.filter(account=topup.account_id, is_on=True).exists()
    )
    if not is_wanted or at - topup.created_at >= ASK_AGAIN_FOR:
        return provider.look_up(topup=topup)
    try:
        return provider.charge_saved(topup=topup, method=payment_methods.as_told(method))
    except ProviderRefused as refused:
        # What is refused now may have been charged when a process asked for it that did not live to hear the answer.
        outcome = provider.look_up(topup=topup)
        if isinstance(outcome, PaymentFailed):
            return PaymentFailed(topup.provider_reference, str(refused))
        return outcome


def _take(topup: TopUp, payment: PaymentArrived, at: dt.datetime) -> None:
    try:
        paid = topping_up.take(provider=topup.provider, payment=payment, at=at)
    except unmatched.REASONS as problem:
        unmatched.note(provider=topup.provider, payment=payment, why=str(problem), event=None, at=at)
        _give_up(topup, "The payment was not what was asked for. We look into it.")
    else:
        unmatched.found(topup=paid, at=at)


def _give_up(topup: TopUp, message: str) -> None:
    topping_up.give_up(provider=topup.provider, reference=topup.provider_reference, message=message)


def _tell_if_it_lasts(auto: AutoTopUp, at: dt.datetime) -> None:
    """Have the account told of a purchase that is not decided for long, once for each."""
    topup = waiting(account_id=auto.account_id)
    if topup is not None and topup.pk != auto.told_topup_id and at - topup.created_at >= TELL_AFTER:
        auto.told_topup_id, auto.mail_due_at = topup.pk, at


def _stop(auto: AutoTopUp, reason: str, at: dt.datetime) -> None:
    """Switch it off for the account, which hears why by e-mail."""
    auto.is_on, auto.off_reason, auto.off_at, auto.mail_due_at = False, reason[:400], at, at
    _record("auto_topup.stopped", auto, actor=None, reason=reason)


def _bought(account_id: int) -> QuerySet[TopUp]:
    return TopUp.objects.filter(account=account_id, origin=TopUp.Origin.AUTOMATIC)


def _has_expired(method: SavedPaymentMethod, at: dt.datetime) -> bool:
    return method.expires is not None and method.expires < at.astimezone(dt.UTC).date()


def _next_month(at: dt.datetime) -> dt.datetime:
    month = at.astimezone(dt.UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (month + dt.timedelta(days=32)).replace(day=1)


def _record(action: str, auto: AutoTopUp, *, actor: User | None, **detail: str) -> None:
    auditing.record(
        account=auto.account_id,
        actor=actor,
        action=action,
        subject_type="account",
        subject_id=auto.account_id,
        threshold_usd=usd_string(auto.threshold_nanousd),
        amount_usd=usd_string(auto.amount_nanousd),
        monthly_cap_usd=usd_string(auto.monthly_cap_nanousd),
        **detail,
    )

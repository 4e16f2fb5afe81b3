"""Payment methods that buyers allow to be charged again: kept when a payment brings one, removed when they say so."""

import datetime as dt

from django.db import transaction
from django.db.models import Q

from accounts import auditing
from accounts.models import Account, User
from billing import wallets
from billing.models import SavedPaymentMethod, TopUp
from billing.providers import offering
from billing.providers.provider import SavedMethod


def usable(*, account: Account) -> list[SavedPaymentMethod]:
    """The account's saved methods of the providers that are offered, the default first, then the newest."""
    offered = [provider.slug for provider in offering.configured()]
    return list(
        SavedPaymentMethod.objects.filter(account=account, removed_at=None, provider__in=offered).order_by(
            "-is_default", "-id"
        )
    )


def latest(*, account: Account, provider: str) -> SavedPaymentMethod | None:
    """The newest method of the account at the provider: who has paid once is the same customer the next time."""
    return SavedPaymentMethod.objects.filter(account=account, provider=provider, removed_at=None).first()


def as_told(method: SavedPaymentMethod) -> SavedMethod:
    """The method as its provider knows it."""
    return SavedMethod(
        customer=method.customer,
        method=method.method,
        brand=method.brand,
        last4=method.last4,
        expires=method.expires,
    )


def keep(*, topup: TopUp, method: SavedMethod, at: dt.datetime) -> SavedPaymentMethod:
    """Keep the method that paid a top-up, and make it the default. One that is there, or was removed since, stays so.

    Who calls it has locked the wallet of the account, so that two cannot both become the default.
    """
    # A provider may name the method of a later purchase as it named one that was removed before it.
    there = Q(removed_at=None) | Q(created_at__gte=topup.created_at)
    own = SavedPaymentMethod.objects.filter(account=topup.account_id, provider=topup.provider)
    if known := own.filter(there, method=method.method).first():
        return known
    SavedPaymentMethod.objects.filter(account=topup.account_id, is_default=True).update(is_default=False)
    kept = SavedPaymentMethod.objects.create(
        account_id=topup.account_id,
        provider=topup.provider,
        customer=method.customer,
        method=method.method,
        brand=method.brand,
        last4=method.last4,
        expires=method.expires,
        is_default=True,
        created_by=topup.created_by,
        created_at=at,
    )
    _record("payment_method.saved", kept, actor=topup.created_by)
    return kept


def make_default(*, method: SavedPaymentMethod, actor: User) -> None:
    """Let auto top-up charge this one; a removed method stays what it was."""
    with transaction.atomic():
        wallets.lock(wallets.borrowed_connection(), [method.account_id])
        own = SavedPaymentMethod.objects.filter(account=method.account_id, removed_at=None)
        if not own.filter(pk=method.pk, is_default=False).exists():
            return
        own.filter(is_default=True).update(is_default=False)
        own.filter(pk=method.pk).update(is_default=True)
        _record("payment_method.made_default", method, actor=actor)


def remove(*, method: SavedPaymentMethod, actor: User | None, at: dt.datetime) -> None:
    """Charge the method no more; a repeat does nothing. `forget` then tells the provider."""
    with transaction.atomic():
        wallets.lock(wallets.borrowed_connection(), [method.account_id])
        waiting = SavedPaymentMethod.objects.filter(pk=method.pk, removed_at=None)
        if waiting.update(removed_at=at, is_default=False):
            _record("payment_method.removed", method, actor=actor)


def forget(*, method: SavedPaymentMethod, at: dt.datetime) -> None:
    """Have the provider forget a removed method. Raises ProviderAway and ProviderRefused."""
    provider = offering.named(slug=method.provider)
    if provider is None:
        return
    provider.forget_method(method=as_told(method))
    SavedPaymentMethod.objects.filter(pk=method.pk, forgotten_at=None).update(forgotten_at=at)


def to_forget() -> list[SavedPaymentMethod]:
    """Methods that are removed here, and that their provider may still have."""
    return list(SavedPaymentMethod.objects.filter(removed_at__isnull=False, forgotten_at=None)[:100])


def _record(action: str, method: SavedPaymentMethod, *, actor: User | None) -> None:
    auditing.record(
        account=method.account_id,
        actor=actor,
        action=action,
        subject_type="payment_method",
        subject_id=method.pk,
        provider=method.provider,
        brand=method.brand,
        last4=method.last4,
    )

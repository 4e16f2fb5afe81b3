"""Which payment providers there are, and which of them the operator offers."""

import datetime as dt

from django.conf import settings

from billing.providers.provider import PaymentProvider
from billing.providers.sandbox import SANDBOX
from billing.providers.stripe import STRIPE

# A further provider is a module beside these, and its name in this line.
_KNOWN: dict[str, PaymentProvider] = {provider.slug: provider for provider in (SANDBOX, STRIPE)}


def configured() -> list[PaymentProvider]:
    """The providers that the operator offers, in the order of TOPUP_PROVIDERS. None: nobody can buy credit.

    A start with a name that is no provider's is refused; no page fails over it.
    """
    return [_KNOWN[slug] for slug in settings.TOPUP_PROVIDERS if slug in _KNOWN]


def unknown() -> list[str]:
    """What TOPUP_PROVIDERS names and is no provider."""
    return [slug for slug in settings.TOPUP_PROVIDERS if slug not in _KNOWN]


def known() -> list[str]:
    """What TOPUP_PROVIDERS may name."""
    return list(_KNOWN)


def longest_call() -> dt.timedelta:
    """Within this any call of any provider has ended."""
    return max(provider.longest_call for provider in _KNOWN.values())


def named(*, slug: str) -> PaymentProvider | None:
    """The provider with the slug, also one that is no longer offered. None: this version does not know it."""
    return _KNOWN.get(slug)

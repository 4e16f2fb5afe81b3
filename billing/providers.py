"""Payment providers: who takes the money for a top-up. Which of them are offered is a setting of the operator.

A provider sends the buyer to a payment page, and later tells us that a payment was made (`topping_up.finish`).
"""

from dataclasses import dataclass
from typing import Protocol

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.urls import reverse

from billing.models import TopUp


class PaymentProvider(Protocol):
    """What a top-up needs of whoever takes the money."""

    @property
    def slug(self) -> str:
        """Its name in the database and in TOPUP_PROVIDERS; never changes."""

    @property
    def name(self) -> str:
        """Its name for people."""

    def checkout_url(self, *, topup: TopUp) -> str:
        """Where the buyer pays what the top-up's quote says: an address to redirect to."""


@dataclass(frozen=True, slots=True)
class SandboxProvider:
    """Takes no money. Its payment page is a page of ours, and says so."""

    slug: str = "sandbox"
    name: str = "Sandbox"

    def checkout_url(self, *, topup: TopUp) -> str:
        return reverse("billing:sandbox_payment", args=[topup.provider_reference])


SANDBOX = SandboxProvider()
_KNOWN: dict[str, PaymentProvider] = {provider.slug: provider for provider in (SANDBOX,)}


def configured() -> list[PaymentProvider]:
    """The providers that the operator offers, in the order of TOPUP_PROVIDERS. None: nobody can buy credit.

    Raises ImproperlyConfigured for a slug that is not a provider's.
    """
    unknown = [slug for slug in settings.TOPUP_PROVIDERS if slug not in _KNOWN]
    if unknown:
        msg = f"TOPUP_PROVIDERS names {', '.join(unknown)}; known are: {', '.join(_KNOWN)}"
        raise ImproperlyConfigured(msg)
    return [_KNOWN[slug] for slug in settings.TOPUP_PROVIDERS]


def named(*, slug: str) -> PaymentProvider | None:
    """The provider with the slug, also one that is no longer offered. None: this version does not know it."""
    return _KNOWN.get(slug)

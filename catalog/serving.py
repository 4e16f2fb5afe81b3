"""The catalogue as the gateway keeps it in memory: models by slug, with their prices and who can answer for them."""

import datetime as dt
import os
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

from django.conf import settings

from catalog.models import Model, Upstream
from catalog.pricing import TokenPrice

SANDBOX = "sandbox"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request for a model can be sent."""

    name: str  # the provider's slug, or `sandbox`
    base_url: str
    api_key: str
    model: str  # the name the upstream knows it by
    output_limit_parameter: str

    def __repr__(self) -> str:
        return f"Target({self.name!r}, {self.base_url!r})"  # never the key


@dataclass(frozen=True, slots=True)
class Servable:
    """A model with every price it has or will have, and its targets in the operator's order."""

    id: int
    slug: str
    name: str
    provider: str
    is_premium: bool
    kind: str
    context_window: int
    max_output_tokens: int  # 0: it writes no tokens
    created_at: dt.datetime
    price_starts: tuple[dt.datetime, ...]
    prices: tuple[TokenPrice, ...]
    targets: tuple[Target, ...]

    def price_at(self, at: dt.datetime) -> TokenPrice | None:
        """The price that holds at the moment; None before the first."""
        index = bisect_right(self.price_starts, at)
        return self.prices[index - 1] if index else None


Catalogue = Mapping[str, Servable]


def load() -> Catalogue:
    """Read the enabled models. One without a target is in it too: it exists, though nobody can serve it just now."""
    models = Model.objects.filter(is_enabled=True).select_related("provider")
    return {
        model.slug: _servable(model)
        for model in models.prefetch_related("prices", "upstreams__provider").order_by("slug")
    }


def is_sandboxed() -> bool:
    """Every model answers from the sandbox, because it is there and no provider key is. Never a mix of both."""
    return bool(settings.SANDBOX_UPSTREAM_URL)


def _servable(model: Model) -> Servable:
    prices = sorted(model.prices.all(), key=lambda price: price.starts_at)
    return Servable(
        id=model.pk,
        slug=model.slug,
        name=model.name,
        provider=model.provider.slug,
        is_premium=model.tier == Model.Tier.PREMIUM,
        kind=model.kind,
        context_window=model.context_window,
        max_output_tokens=model.max_output_tokens or 0,
        created_at=model.created_at,
        price_starts=tuple(price.starts_at for price in prices),
        prices=tuple(TokenPrice.of(price) for price in prices),
        targets=_targets(model),
    )


def _targets(model: Model) -> tuple[Target, ...]:
    if is_sandboxed():
        return (Target(SANDBOX, settings.SANDBOX_UPSTREAM_URL, "no-key-needed", model.slug, "max_tokens"),)
    upstreams = [upstream for upstream in model.upstreams.all() if upstream.is_enabled and _key_of(upstream)]
    return tuple(
        Target(
            name=upstream.provider.slug,
            base_url=upstream.provider.base_url.rstrip("/"),
            api_key=_key_of(upstream),
            model=upstream.upstream_model,
            output_limit_parameter=upstream.provider.output_limit_parameter,
        )
        for upstream in sorted(upstreams, key=lambda upstream: (upstream.position, upstream.pk))
    )


def _key_of(upstream: Upstream) -> str:
    """The provider's key from the variable that it names; it is read here and nowhere stored."""
    return os.environ.get(upstream.provider.key_env, "") if upstream.provider.key_env else ""

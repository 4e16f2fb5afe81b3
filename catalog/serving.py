"""The catalogue as the gateway keeps it in memory: models by name, with their prices and who can answer for them."""

import datetime as dt
import logging
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from django.conf import settings
from django.db import connection

from catalog.addresses import UnsafeAddressError, judge_base_url
from catalog.models import Model, ModelAlias, Protocol, Provider, Upstream
from catalog.pricing import TokenPrice

logger = logging.getLogger(__name__)

SANDBOX = "sandbox"
# Of every row that `load` reads.
_FINGERPRINT = "SELECT md5(concat({}))".format(
    ", '/', ".join(
        f"(SELECT string_agg(md5({table}::text), '' ORDER BY id) FROM {table})"  # noqa: S608 - names of ours
        for table in (
            "catalog_provider",
            "catalog_model",
            "catalog_price",
            "catalog_upstream",
            "catalog_modelalias",
        )
    )
)
_refused_urls: set[tuple[str, str]] = set()


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request for a model can be sent: an upstream that can be called."""

    id: str  # provider and model: what health is kept and shown by
    name: str  # the provider's slug, or `sandbox`
    base_url: str
    api_key: str
    model: str  # the name the upstream knows it by
    output_limit_parameter: str
    protocols: frozenset[str]
    position: int = 1
    weight: int = 1

    def __repr__(self) -> str:
        return f"Target({self.name!r}, {self.base_url!r})"  # never the key


@dataclass(frozen=True, slots=True)
class Servable:
    """A model with every price it has or will have, and its targets by position."""

    id: int
    slug: str
    name: str
    provider: str
    is_premium: bool
    kind: str
    context_window: int
    max_output_tokens: int  # 0: it writes no tokens
    supports_tools: bool
    supports_images: bool
    created_at: dt.datetime
    price_starts: tuple[dt.datetime, ...]
    prices: tuple[TokenPrice, ...]
    targets: tuple[Target, ...]

    def price_at(self, at: dt.datetime) -> TokenPrice | None:
        """The price that holds at the moment; None before the first."""
        index = bisect_right(self.price_starts, at)
        return self.prices[index - 1] if index else None


class Catalogue:
    """The enabled models. A name is a slug, a slug with its provider before it, or an operator's alias."""

    __slots__ = ("_by_name", "_models")

    def __init__(self, models: Iterable[Servable] = (), *, aliases: Iterable[tuple[str, str]] = ()) -> None:
        """`aliases` are pairs of a name and a slug. Where two names collide, a model's own name wins."""
        self._models = {model.slug: model for model in models}
        others = {name: self._models[slug] for name, slug in aliases if slug in self._models}
        qualified = {f"{model.provider}/{model.slug}": model for model in self._models.values()}
        self._by_name = others | qualified | self._models

    def get(self, name: str) -> Servable | None:
        """The model of this name; None if there is none, or it is disabled."""
        return self._by_name.get(name)

    def __iter__(self) -> Iterator[Servable]:
        return iter(self._models.values())


def load() -> Catalogue:
    """Read the enabled models. One without a target is in it too: it exists, though nobody can serve it just now."""
    models = Model.objects.filter(is_enabled=True).select_related("provider")
    return Catalogue(
        [
            _servable(model)
            for model in models.prefetch_related("prices", "upstreams__provider").order_by("slug")
        ],
        aliases=ModelAlias.objects.values_list("name", "model__slug"),
    )


def load_if_changed(known: str) -> tuple[str, Catalogue] | None:
    """The catalogue and its fingerprint; None as long as that is the known one.

    To read the catalogue takes many milliseconds of a process that serves requests meanwhile; this takes next to none.
    """
    with connection.cursor() as cursor:
        cursor.execute(_FINGERPRINT)
        (fingerprint,) = cursor.fetchone()
    # Should it change right now, the next look finds another fingerprint.
    return None if fingerprint == known else (fingerprint, load())


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
        supports_tools=model.supports_tools,
        supports_images=model.supports_images,
        created_at=model.created_at,
        price_starts=tuple(price.starts_at for price in prices),
        prices=tuple(TokenPrice.of(price) for price in prices),
        targets=_targets(model),
    )


def _targets(model: Model) -> tuple[Target, ...]:
    if is_sandboxed():
        return (_sandbox_target(model),)
    upstreams = [
        upstream
        for upstream in model.upstreams.all()
        if upstream.is_enabled and _key_of(upstream) and _is_safe(upstream.provider)
    ]
    return tuple(
        Target(
            id=f"{upstream.provider.slug}/{model.slug}",
            name=upstream.provider.slug,
            base_url=upstream.provider.base_url.rstrip("/"),
            api_key=_key_of(upstream),
            model=upstream.upstream_model,
            output_limit_parameter=upstream.provider.output_limit_parameter,
            protocols=frozenset(upstream.provider.protocols),
            position=upstream.position,
            weight=upstream.weight,
        )
        for upstream in sorted(upstreams, key=lambda upstream: (upstream.position, upstream.pk))
    )


def _sandbox_target(model: Model) -> Target:
    return Target(
        id=f"{SANDBOX}/{model.slug}",
        name=SANDBOX,
        base_url=settings.SANDBOX_UPSTREAM_URL,
        api_key="no-key-needed",
        model=model.slug,
        output_limit_parameter="max_tokens",
        protocols=frozenset(Protocol.values),
    )


def _key_of(upstream: Upstream) -> str:
    """The provider's key from the variable that it names; it is read here and nowhere stored."""
    return os.environ.get(upstream.provider.key_env, "") if upstream.provider.key_env else ""


def _is_safe(provider: Provider) -> bool:
    """Whether the gateway may connect to the provider; what says no is logged once, and its key is not sent."""
    try:
        judge_base_url(provider.base_url)
    except UnsafeAddressError as error:
        seen = (provider.slug, provider.base_url)
        if seen not in _refused_urls:
            _refused_urls.add(seen)
            logger.warning("provider %s is not used: %s", provider.slug, error)
        return False
    return True

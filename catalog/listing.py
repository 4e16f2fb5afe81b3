"""The catalogue as people read it: enabled models with the price that holds now."""

import datetime as dt
from dataclasses import dataclass

from django.db.models import Q

from catalog.models import Model, Price
from catalog.money import NanoUSD, nano_from_usd


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model and what a million tokens cost, in nano-USD. No price of a cache's: it costs what input does."""

    model: Model
    input_nanousd: NanoUSD
    output_nanousd: NanoUSD
    cached_input_nanousd: NanoUSD | None
    cache_write_nanousd: NanoUSD | None


def listed(*, at: dt.datetime, search: str = "", tier: str = "", kind: str = "") -> list[ListedModel]:
    """The models that can be called at the moment, by provider and slug: basic ones first, for they are free to try.

    `search` looks in slug, name and provider. A model without a price cannot be called, and is not listed.
    """
    wanted = Q(model__is_enabled=True)
    if search:
        wanted &= (
            Q(model__slug__icontains=search)
            | Q(model__name__icontains=search)
            | Q(model__provider__name__icontains=search)
        )
    if tier:
        wanted &= Q(model__tier=tier)
    if kind:
        wanted &= Q(model__kind=kind)
    prices = (
        Price.objects.filter(wanted, starts_at__lte=at)
        .select_related("model__provider")
        .order_by("model_id", "-starts_at")
        .distinct("model_id")
    )
    rows = [_listed(price) for price in prices]
    return sorted(rows, key=lambda row: (row.model.tier, row.model.provider.name, row.model.slug))


def _listed(price: Price) -> ListedModel:
    cached, written = price.cached_input_usd_per_mtok, price.cache_write_usd_per_mtok
    return ListedModel(
        model=price.model,
        input_nanousd=nano_from_usd(price.input_usd_per_mtok),
        output_nanousd=nano_from_usd(price.output_usd_per_mtok),
        cached_input_nanousd=None if cached is None else nano_from_usd(cached),
        cache_write_nanousd=None if written is None else nano_from_usd(written),
    )

"""The catalogue that ships with Tollgate, put into tables."""

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

from django.db import transaction

from catalog.models import Model, Price, Provider, Upstream

CATALOGUE = Path(__file__).with_name("catalogue.json")

# What a provider calls the limit of output tokens, where it is not max_tokens.
_OUTPUT_LIMIT_PARAMETERS = {"openai": "max_completion_tokens"}


def seed(*, at: dt.datetime) -> None:
    """Make the providers, models, prices and upstreams of the shipped catalogue that are missing. Idempotent.

    What exists stays as the operator left it. A price is added, from `at` on, where the shipped figures have changed
    since the last shipped ones and nobody has set a price of their own since; no price is ever edited.
    """
    facts = json.loads(CATALOGUE.read_text())
    with transaction.atomic():
        providers = _seed_providers(facts["providers"])
        known = {model.slug: model for model in Model.objects.all()}
        newest = {
            price.model_id: price
            for price in Price.objects.order_by("model_id", "-starts_at").distinct("model_id")
        }
        for fact in facts["models"]:
            model = known.get(fact["id"]) or _make_model(fact, providers)
            _seed_price(model=model, fact=fact, newest=newest.get(model.pk), at=at)


def _seed_providers(facts: list[dict[str, Any]]) -> dict[str, Provider]:
    known = {provider.slug: provider for provider in Provider.objects.all()}
    for fact in facts:
        if fact["id"] not in known:
            known[fact["id"]] = Provider.objects.create(
                slug=fact["id"],
                name=fact["name"],
                base_url=fact["base_url"],
                key_env=fact["key_env"],
                protocols=fact["protocols"],
                output_limit_parameter=_OUTPUT_LIMIT_PARAMETERS.get(fact["id"], "max_tokens"),
            )
    return known


def _make_model(fact: dict[str, Any], providers: dict[str, Provider]) -> Model:
    """The model with its upstream. Later runs make no upstream: an operator may have removed it."""
    model = Model.objects.create(
        slug=fact["id"],
        name=fact["name"],
        provider=providers[fact["provider"]],
        tier=fact["tier"],
        kind=fact.get("kind", Model.Kind.CHAT),
        context_window=fact["context_window"],
        max_output_tokens=fact["max_output_tokens"],
        supports_tools=fact["supports_tools"],
        supports_images=fact["supports_images"],
    )
    Upstream.objects.create(
        model=model,
        provider=providers[fact["upstream"]["provider"]],
        upstream_model=fact["upstream"]["model"],
    )
    return model


def _seed_price(*, model: Model, fact: dict[str, Any], newest: Price | None, at: dt.datetime) -> None:
    cached, written = fact["cached_input_usd_per_mtok"], fact.get("cache_write_usd_per_mtok")
    price = Price(
        model=model,
        starts_at=at,
        source=Price.Source.CATALOGUE,
        input_usd_per_mtok=Decimal(fact["input_usd_per_mtok"]),
        output_usd_per_mtok=Decimal(fact["output_usd_per_mtok"]),
        cached_input_usd_per_mtok=None if cached is None else Decimal(cached),
        cache_write_usd_per_mtok=None if written is None else Decimal(written),
    )
    if newest is None or (newest.source == Price.Source.CATALOGUE and newest.figures != price.figures):
        price.save()

"""Prices from a file in the format of LiteLLM's price map: one JSON object, a model per key, USD per token.

Its fields are described in LiteLLM's `model_prices_and_context_window.json`, under `sample_spec`.
"""

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, NoReturn

from django.db import transaction

from catalog.models import Model, Price, Provider, Upstream

# What the price map calls a provider, where it is not our slug.
_PROVIDER_SLUGS = {"gemini": "google", "dashscope": "qwen"}
_TOKENS_PER_PRICE = 1_000_000
_DECIMALS = Decimal("0.000001")
_DEAREST_USD_PER_MTOK = Decimal(100_000)
_LONGEST_NAME = 120
_MOST_TOKENS = 2_000_000_000

Figures = tuple[Decimal, Decimal, Decimal | None, Decimal | None]
Outcome = Literal["changed", "unchanged", "created", "unknown", "skipped", "elsewhere"]


class BadPriceMap(ValueError):
    """The file is no price map, or a price in it makes no sense; the message says which and why."""


class _Unusable(ValueError):
    """An entry that is well formed and says nothing we could use."""


@dataclass(frozen=True, slots=True)
class Line:
    """What became of one entry of the file, in words."""

    outcome: Outcome
    name: str
    words: str


@dataclass(slots=True)
class ImportReport:
    """What an import did, entry by entry."""

    lines: list[Line] = field(default_factory=list)

    def of(self, outcome: Outcome) -> list[Line]:
        """The lines with this outcome, in the file's order."""
        return [line for line in self.lines if line.outcome == outcome]


@dataclass(frozen=True, slots=True)
class _Entry:
    key: str
    name: str
    provider: Provider
    fields: Mapping[str, Any]


def read_price_map(text: str | bytes) -> dict[str, Mapping[str, Any]]:
    """The file's entries, with every number with a point as an exact Decimal. Raises BadPriceMap."""
    try:
        document = json.loads(
            text, parse_float=Decimal, parse_constant=_refuse_constant, object_pairs_hook=_refuse_duplicates
        )
    except (ValueError, RecursionError) as error:
        if isinstance(error, BadPriceMap):
            raise
        raise BadPriceMap(f"the file is no JSON: {error}") from error
    if not isinstance(document, dict) or not document:
        raise BadPriceMap("the file must hold one JSON object with a model per key")
    for key, fields in document.items():
        if not isinstance(fields, dict):
            raise BadPriceMap(f"{key!r} must be an object")
    return document


def import_price_map(
    *, document: Mapping[str, Mapping[str, Any]], at: dt.datetime, create_missing: bool = False
) -> ImportReport:
    """Give every model that we know and the document prices differently a new price from `at` on.

    A model is known by its provider together with its slug or its name at an upstream. With `create_missing`, unknown
    chat models of known providers are added, disabled. All of it happens, or nothing.

    Raises:
        BadPriceMap: a price of one of our models is no number, negative or absurd.
    """
    report = ImportReport()
    with transaction.atomic():
        known = _known_models()
        seen: dict[int, tuple[str, Figures]] = {}
        for entry in _entries(document, report):
            model = known.get((entry.provider.pk, entry.name))
            try:
                if model is not None:
                    line = _update(entry, model, seen=seen, at=at)
                elif create_missing:
                    line = _create(entry, at=at)
                else:
                    line = _say(entry, "unknown", "is not in the catalogue")
            except _Unusable as reason:
                line = _say(entry, "skipped", str(reason))
            report.lines.append(line)
    return report


def _entries(document: Mapping[str, Mapping[str, Any]], report: ImportReport) -> Iterator[_Entry]:
    """The entries of providers that we have; of the others, only that they are there."""
    providers = {provider.slug: provider for provider in Provider.objects.all()}
    for key, fields in document.items():
        if key == "sample_spec":
            continue
        given = fields.get("litellm_provider")
        if not isinstance(given, str):
            report.lines.append(Line("skipped", key, "names no litellm_provider"))
            continue
        provider = providers.get(_PROVIDER_SLUGS.get(given, given))
        if provider is None:
            report.lines.append(
                Line("elsewhere", key, f"is of {given}, which is no provider of the catalogue")
            )
            continue
        yield _Entry(key=key, name=key.removeprefix(f"{given}/"), provider=provider, fields=fields)


def _known_models() -> dict[tuple[int, str], Model]:
    """Models by (provider, name): their name at that provider, which wins, or their own slug."""
    models = {(model.provider_id, model.slug): model for model in Model.objects.all()}
    # Only a model's own provider sets its price: another upstream may serve it for another price.
    upstreams = Upstream.objects.select_related("model").exclude(provider__isnull=True)
    models |= {
        (upstream.provider_id, upstream.upstream_model): upstream.model
        for upstream in upstreams
        if upstream.provider_id == upstream.model.provider_id
    }
    return models


def _update(entry: _Entry, model: Model, *, seen: dict[int, tuple[str, Figures]], at: dt.datetime) -> Line:
    figures = _figures(entry)
    first_key, first_figures = seen.setdefault(model.pk, (entry.key, figures))
    if first_figures != figures:
        raise BadPriceMap(
            f"{first_key!r} and {entry.key!r} are the same model, {model.slug}, at different prices"
        )
    if first_key != entry.key:
        return _say(entry, "unchanged", f"says the same of {model.slug} as {first_key}")
    holding = model.prices.filter(starts_at__lte=at).order_by("-starts_at").first()
    if holding is not None and holding.figures == figures:
        return _say(entry, "unchanged", f"{model.slug} costs that already: {_words(figures)}")
    _add_price(model, figures, at=at)
    before = "no price" if holding is None else _words(holding.figures)
    return _say(entry, "changed", f"{model.slug}: {before} → {_words(figures)}")


def _create(entry: _Entry, *, at: dt.datetime) -> Line:
    """Add a model that an operator may then look at and enable."""
    if entry.fields.get("mode") != "chat":
        raise _Unusable(
            f"is for {entry.fields.get('mode') or 'nothing named'}, and only chat models are added"
        )
    if "/" in entry.name or len(entry.name) > _LONGEST_NAME:
        raise _Unusable("is a variant of a region or a size, or its name is too long")
    context_window = _token_count(entry, "max_input_tokens")
    if context_window is None:
        raise _Unusable("says no max_input_tokens")
    if Model.objects.filter(slug=entry.name).exists():
        raise _Unusable("has the slug of a model of another provider")
    figures = _figures(entry)
    model = Model.objects.create(
        slug=entry.name,
        name=entry.name,
        provider=entry.provider,
        context_window=context_window,
        max_output_tokens=_token_count(entry, "max_output_tokens"),
        # Where the map is silent, tools are usual and images are not.
        supports_tools=entry.fields.get("supports_function_calling") is not False,
        supports_images=entry.fields.get("supports_vision") is True,
        is_enabled=False,
    )
    Upstream.objects.create(model=model, provider=entry.provider, upstream_model=entry.name)
    _add_price(model, figures, at=at)
    return _say(entry, "created", f"added, disabled: {_words(figures)}")


def _add_price(model: Model, figures: Figures, *, at: dt.datetime) -> None:
    input_usd, output_usd, cached_usd, written_usd = figures
    Price.objects.create(
        model=model,
        starts_at=at,
        source=Price.Source.IMPORT,
        input_usd_per_mtok=input_usd,
        output_usd_per_mtok=output_usd,
        cached_input_usd_per_mtok=cached_usd,
        cache_write_usd_per_mtok=written_usd,
    )


def _figures(entry: _Entry) -> Figures:
    """USD per million tokens. Raises _Unusable without a price per token, BadPriceMap where one makes no sense."""
    input_usd = _usd_per_mtok(entry, "input_cost_per_token")
    output_usd = _usd_per_mtok(entry, "output_cost_per_token")
    if input_usd is None or output_usd is None:
        raise _Unusable("has no price per token of input and output")
    if not input_usd and not output_usd:
        raise _Unusable("costs nothing there; if that is meant, set the price in the admin")
    # Nobody gives input away for being cached: a zero says that writing costs nothing on top of the input.
    written_usd = _usd_per_mtok(entry, "cache_creation_input_token_cost") or None
    return input_usd, output_usd, _usd_per_mtok(entry, "cache_read_input_token_cost"), written_usd


def _usd_per_mtok(entry: _Entry, name: str) -> Decimal | None:
    cost = entry.fields.get(name)
    if cost is None:
        return None
    if not isinstance(cost, int | Decimal) or isinstance(cost, bool):
        raise BadPriceMap(f"{entry.key!r}: {name} must be a number, not {cost!r:.40}")
    price = cost * Decimal(_TOKENS_PER_PRICE)
    if not 0 <= price <= _DEAREST_USD_PER_MTOK:
        raise BadPriceMap(f"{entry.key!r}: {name} of {cost} USD a token makes no sense")
    if price != price.quantize(_DECIMALS):
        raise _Unusable(f"has a {name} finer than a millionth of a dollar per million tokens")
    return price.quantize(_DECIMALS)


def _token_count(entry: _Entry, name: str) -> int | None:
    value = entry.fields.get(name)
    if isinstance(value, Decimal) and value == value.to_integral_value():
        value = int(value)
    if value is None or (
        isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MOST_TOKENS
    ):
        return value
    raise _Unusable(f"has no usable {name}")


def _words(figures: Figures) -> str:
    """A price to read, USD per million tokens."""
    names = ("input", "output", "cached input", "cache write")
    said = [
        f"{name} ${figure.normalize():f}"
        for name, figure in zip(names, figures, strict=True)
        if figure is not None
    ]
    return f"{', '.join(said)} per million tokens"


def _say(entry: _Entry, outcome: Outcome, words: str) -> Line:
    return Line(outcome, entry.key, words)


def _refuse_constant(name: str) -> NoReturn:
    raise BadPriceMap(f"{name} is no number")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _value in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadPriceMap(f"{twice!r} is there twice")
    return found

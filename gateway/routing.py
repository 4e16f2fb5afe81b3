"""Which models a request may be served by, and in which order: what it names, or the cheapest that fits.

A request names one model, and with `models` others to fall back to. The virtual model `auto` stands for every
model that fits the request, the cheapest first. Nothing else is ever served instead of what was asked.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from catalog.models import AUTO
from catalog.pricing import TokenPrice
from catalog.serving import Catalogue, Servable, Target
from gateway import authorizing
from gateway.breaker import Health
from gateway.dialects.dialect import Dialect
from gateway.endpoints import ENDPOINTS, served_at
from gateway.errors import (
    Refusal,
    auto_is_for_chat,
    context_length_exceeded,
    invalid_value,
    model_not_allowed,
    not_served_here,
    plan_upgrade_required,
)
from gateway.failures import no_upstream, upstreams_failing
from gateway.parsing import Asked
from keys.authenticating import Credential

# What a request that names no limit is taken to write, where that has to be guessed.
ASSUMED_OUTPUT_TOKENS = 1024
# What `auto` stands for, where a refusal is about all of it.
EVERY_CHOICE = "Every model that auto could choose"


@dataclass(
    slots=True
)  # not frozen, as the next one: made for every request, and that costs three times as much
class Candidate:
    """A model that the request may be served by, its price at the time, and the upstreams to try, by position."""

    model: Servable
    price: TokenPrice
    targets: tuple[Target, ...]


@dataclass(slots=True)
class Question:
    """What the choice rests on. `now` is the clock of `health`, `at` the moment whose prices hold."""

    credential: Credential
    dialect: Dialect
    asked: Asked
    catalogue: Catalogue
    health: Health
    at: dt.datetime
    now: float

    def candidate(self, model: Servable) -> Candidate | None:
        """The model with its price and the upstreams that speak the endpoint's protocol; None if it lacks either."""
        price = model.price_at(self.at)
        targets = ENDPOINTS[self.dialect.endpoint].targets(model)
        return Candidate(model, price, targets) if price is not None and targets else None

    def healthy(self, candidate: Candidate) -> Candidate | None:
        """The candidate without the upstreams that are left alone just now; None if that is all of them."""
        targets = [target for target in candidate.targets if self.health.allows(target.id, self.now)]
        if len(targets) == len(candidate.targets):
            return candidate
        return Candidate(candidate.model, candidate.price, tuple(targets)) if targets else None


def is_auto(asked: Asked) -> bool:
    """Whether the choice was left to us from the start, and not only as a fallback."""
    return asked.model == AUTO


def candidates(question: Question) -> list[Candidate]:
    """The models to try, in order; at least one. Raises Refusal.

    A name that is unknown or not allowed refuses the request, wherever in the list it stands. A fallback that the
    request does not fit, or that nobody serves, is passed over as long as there is another.
    """
    found: dict[int, Candidate] = {}
    obstacle: Refusal | None = None
    for name in question.asked.models:
        try:
            for candidate in _cheapest_first(question) if name == AUTO else [_named(question, name)]:
                found.setdefault(candidate.model.id, candidate)
        except _PassedOverError as passed_over:
            obstacle = obstacle or passed_over.refusal
    authorizing.judge_length(question.credential, dialect=question.dialect, asked=question.asked)
    if not found and obstacle is not None:
        raise obstacle
    healthy = [well for candidate in found.values() if (well := question.healthy(candidate))]
    if not healthy:
        first = next(iter(found.values()))
        ids = [target.id for candidate in found.values() for target in candidate.targets]
        raise upstreams_failing(first.model.slug, question.health.wait_s(ids, question.now))
    return healthy


def in_turn(targets: Sequence[Target], *, chance: Callable[[], float]) -> Sequence[Target]:
    """The targets in the order to try them: by position, and within one in random order by their weights.

    `chance` gives numbers from 0 to 1. A target of weight 3 comes before one of weight 1 three times of four.
    """
    if len(targets) == 1:
        return targets
    ordered: list[Target] = []
    for _position, group in groupby(targets, key=lambda target: target.position):
        # Efraimidis and Spirakis: the largest u^(1/w) first is a weighted draw without replacement.
        ordered += sorted(group, key=lambda target: chance() ** (1 / target.weight), reverse=True)
    return ordered


class _PassedOverError(Exception):
    """What was named cannot serve this request. `refusal` says why, for when nothing else can either."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def _named(question: Question, name: str) -> Candidate:
    """The model of this name. Raises Refusal where it may not be had, _PassedOverError where it cannot serve."""
    param = _param_of(name, question.asked)
    model = authorizing.judge_model(question.credential, name=name, param=param, catalogue=question.catalogue)
    candidate = question.candidate(model)
    try:
        if candidate is None:
            raise _not_served(question, model, param)
        authorizing.judge_abilities(dialect=question.dialect, asked=question.asked, model=model)
        authorizing.judge_size(dialect=question.dialect, asked=question.asked, model=model)
    except Refusal as refusal:
        raise _PassedOverError(refusal) from None
    return candidate


def _not_served(question: Question, model: Servable, param: str) -> Refusal:
    endpoint = ENDPOINTS[question.dialect.endpoint]
    if model.kind == endpoint.kind and (not model.targets or endpoint.targets(model)):
        return no_upstream(model.slug, param=param)
    return not_served_here(model.slug, endpoint=endpoint.path, served_at=served_at(model), param=param)


def _cheapest_first(question: Question) -> list[Candidate]:
    """What `auto` stands for. Raises _PassedOverError, which says which condition excluded the last models."""
    credential, dialect, asked = question.credential, question.dialect, question.asked
    if ENDPOINTS[dialect.endpoint].kind != "chat":
        raise auto_is_for_chat(param=_param_of(AUTO, asked))
    left = [candidate for model in question.catalogue if (candidate := question.candidate(model))]
    if not left:
        raise _PassedOverError(no_upstream(AUTO, param=_param_of(AUTO, asked)))
    limit = asked.output_limit
    left = _kept(
        left,
        lambda model: not credential.allowed_models or model.slug in credential.allowed_models,
        lambda: model_not_allowed(AUTO, param=_param_of(AUTO, asked)),
    )
    left = _kept(
        left,
        lambda model: credential.premium_models or not model.is_premium,
        lambda: plan_upgrade_required(EVERY_CHOICE, credential, param=_param_of(AUTO, asked)),
    )
    if asked.uses_tools:
        left = _kept(left, lambda model: model.supports_tools, lambda: _nobody("tools", "calls tools"))
    if asked.has_images:
        left = _kept(
            left, lambda model: model.supports_images, lambda: _nobody(dialect.input_field, "reads images")
        )
    if limit is not None:
        left = _kept(
            left,
            lambda model: limit <= model.max_output_tokens,
            lambda: _nobody(dialect.limit_field(asked), f"writes {limit:,} tokens"),
        )
    tokens = asked.context_tokens + (limit or 1)
    window = max(candidate.model.context_window for candidate in left)
    left = _kept(
        left,
        lambda model: tokens <= model.context_window,
        lambda: context_length_exceeded(
            tokens=tokens, window=window, model="the largest model left", param=dialect.input_field
        ),
    )
    return sorted(left, key=lambda candidate: (_expected_cost(candidate, asked), candidate.model.slug))


def _kept(
    left: Iterable[Candidate], fits: Callable[[Servable], bool], refusal: Callable[[], Refusal]
) -> list[Candidate]:
    kept = [candidate for candidate in left if fits(candidate.model)]
    if not kept:
        raise _PassedOverError(refusal())
    return kept


def _nobody(param: str, does: str) -> Refusal:
    return invalid_value(param, f"no model that this key may call with the rest of this request {does}")


def _expected_cost(candidate: Candidate, asked: Asked) -> int:
    output = min(asked.output_limit or ASSUMED_OUTPUT_TOKENS, candidate.model.max_output_tokens)
    return candidate.price.cost_nanousd(input_tokens=asked.input_tokens, output_tokens=output * asked.choices)


def _param_of(name: str, asked: Asked) -> str:
    """The field of the body that names the model."""
    if asked.document.get("model") == name:
        return "model"
    return f"models[{asked.document['models'].index(name)}]"

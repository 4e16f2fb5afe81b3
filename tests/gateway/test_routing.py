"""Which models may serve a request, and in which order, judged on a real catalogue and a real key."""

import json
import random
from collections import Counter
from typing import Any

import pytest
from pytest_django import Settings

from accounts.models import Plan
from catalog import serving
from catalog.models import Model, ModelAlias, Protocol
from catalog.serving import Target
from gateway.breaker import Health
from gateway.dialects.chat import Chat
from gateway.dialects.dialect import Dialect
from gateway.dialects.embeddings import Embeddings
from gateway.dialects.messages import Messages
from gateway.errors import Refusal
from gateway.routing import Question, candidates, in_turn
from keys import authenticating
from tests.factories import make_account, make_key, make_model, now

pytestmark = pytest.mark.django_db

NOW = 1000.0
TOOLS = [{"type": "function", "function": {"name": "look_up"}}]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


@pytest.fixture(autouse=True)
def sandboxed(settings: Settings) -> None:
    settings.SANDBOX_UPSTREAM_URL = "http://127.0.0.1:9/v1"


class Desk:
    """A key, and short ways to ask what it would be served by."""

    def __init__(self, *, plan: str = Plan.PAY_AS_YOU_GO, **policy: Any) -> None:
        credential = authenticating.find(secret=make_key(make_account(plan=plan), **policy).secret)
        assert credential is not None
        self.credential = credential
        self.health = Health()

    def order(self, *, dialect: Dialect | None = None, **fields: Any) -> list[str]:
        """The slugs of the candidates, in order."""
        dialect = dialect or Chat()
        body = {"model": "auto", "messages": [{"role": "user", "content": "Hi"}], **fields}
        question = Question(
            credential=self.credential,
            dialect=dialect,
            asked=dialect.parse(json.dumps(body).encode()),
            catalogue=serving.load(),
            health=self.health,
            at=now(),
            now=NOW,
        )
        return [candidate.model.slug for candidate in candidates(question)]

    def refusal(self, **fields: Any) -> Refusal:
        with pytest.raises(Refusal) as caught:
            self.order(**fields)
        return caught.value

    def break_down(self, *slugs: str) -> None:
        """Have these upstreams fail until they are left alone."""
        for slug in slugs:
            for _ in range(20):
                attempt = self.health.begin(f"sandbox/{slug}", NOW - 3)
                assert attempt is not None
                attempt.failed(NOW - 3, "it answered 500")


# --- What is named -----------------------------------------------------------------------------------------------


def test_named_models_come_in_the_clients_order_by_any_of_their_names() -> None:
    for slug in ("a", "b", "c"):
        make_model(slug)
    ModelAlias.objects.create(name="bee", model=Model.objects.get(slug="b"))

    assert Desk().order(model="c", models=["bee", "acme/a", "b"]) == ["c", "b", "a"]
    assert Desk().order(model=None, models=["bee", "c"]) == ["b", "c"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": "nobody"}, "model"),
        ({"model": "a", "models": ["a", "nobody"]}, "models[1]"),
        ({"model": None, "models": ["nobody", "a"]}, "models[0]"),
        ({"model": "auto", "models": ["nobody"]}, "models[0]"),
    ],
)
def test_one_unknown_name_refuses_the_request(fields: dict[str, Any], param: str) -> None:
    make_model("a")

    refusal = Desk().refusal(**fields)

    assert (refusal.status, refusal.code, refusal.param) == (404, "model_not_found", param)


def test_policies_know_models_by_their_slugs_whatever_name_was_asked() -> None:
    ModelAlias.objects.create(name="good", model=make_model("a"))
    ModelAlias.objects.create(name="bad", model=make_model("b"))
    desk = Desk(allowed_models=["a"])

    assert desk.order(model="good") == desk.order(model="acme/a") == ["a"]
    refusal = desk.refusal(model="a", models=["bad"])
    assert (refusal.code, refusal.param) == ("model_not_allowed", "models[0]")
    assert " b." in refusal.message


def test_a_premium_fallback_is_refused_on_the_basic_plan() -> None:
    make_model("a")
    make_model("dear", tier=Model.Tier.PREMIUM)

    refusal = Desk(plan=Plan.BASIC).refusal(model="a", models=["dear"])

    assert (refusal.status, refusal.code, refusal.param) == (403, "plan_upgrade_required", "models[0]")


def test_a_model_that_the_request_does_not_fit_is_passed_over_if_another_does() -> None:
    make_model("small", context_window=10)
    make_model("large")
    make_model("idle").prices.all().delete()

    assert Desk().order(model="small", models=["idle", "large"], max_tokens=100) == ["large"]
    assert Desk().refusal(model="small", models=["idle"], max_tokens=100).code == "context_length_exceeded"
    assert Desk().refusal(model="idle", models=["small"], max_tokens=100).status == 503


@pytest.mark.parametrize(
    ("fields", "param", "fact"),
    [
        ({"tools": TOOLS}, "tools", "supports_tools"),
        ({"functions": [{"name": "look_up"}]}, "functions", "supports_tools"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages", "supports_images"),
    ],
    ids=["tools", "functions", "images"],
)
def test_a_model_that_cannot_do_what_is_asked_is_refused_or_passed_over(
    fields: dict[str, Any], param: str, fact: str
) -> None:
    make_model("plain", supports_tools=False)
    make_model("able", supports_images=True)
    desk = Desk()

    refusal = desk.refusal(model="plain", **fields)

    assert (refusal.status, refusal.code, refusal.param) == (400, "invalid_value", param)
    assert "plain does not" in refusal.message
    assert fact in refusal.message
    assert desk.order(model="plain", models=["able"], **fields) == ["able"]
    assert desk.order(model="plain") == ["plain"]


def test_a_model_is_only_served_where_an_upstream_speaks_the_protocol(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SANDBOX_UPSTREAM_URL = ""
    monkeypatch.setenv("ACME_API_KEY", "a-key")
    make_model("a")

    assert Desk().order(model="a") == ["a"]
    refusal = Desk().refusal(dialect=Messages(), model="a", max_tokens=5)
    assert (refusal.status, refusal.param) == (400, "model")
    assert "/v1/chat/completions" in refusal.message


# --- The cheapest that fits --------------------------------------------------------------------------------------


def test_auto_is_the_cheapest_by_what_the_request_is_expected_to_cost() -> None:
    make_model("chatty", input_price="0.1", output_price="9")
    make_model("reader", input_price="5", output_price="1")
    make_model("middle", input_price="2", output_price="2")

    # With nothing named, output is taken for 1,024 tokens, and decides.
    assert Desk().order() == ["reader", "middle", "chatty"]
    # A long input and a short answer turn it round.
    long_read = [{"role": "user", "content": "word " * 20_000}]
    assert Desk().order(messages=long_read, max_tokens=10) == ["chatty", "middle", "reader"]


def test_auto_counts_with_the_price_that_holds_now() -> None:
    make_model("a", output_price="2")
    riser = make_model("b", output_price="1")
    riser.prices.create(starts_at=now(), input_usd_per_mtok=1, output_usd_per_mtok=50)

    assert Desk().order() == ["a", "b"]


def test_auto_takes_only_models_with_what_the_request_needs() -> None:
    make_model("plain", supports_tools=False, output_price="1")
    make_model("tools", output_price="2")
    make_model("eyes", supports_tools=False, supports_images=True, output_price="3")
    make_model("long", context_window=1_000_000, max_output_tokens=50_000, output_price="4")
    make_model("vectors", kind=Model.Kind.EMBEDDING, max_output_tokens=None, output_price="0")
    make_model("off", is_enabled=False, output_price="0")
    desk = Desk()

    assert desk.order() == ["plain", "tools", "eyes", "long"]
    assert desk.order(tools=TOOLS) == ["tools", "long"]
    assert desk.order(messages=[{"role": "user", "content": [IMAGE]}]) == ["eyes"]
    assert desk.order(max_tokens=20_000) == ["long"]
    assert desk.order(messages=[{"role": "user", "content": "word " * 100_000}]) == ["long"]


def test_auto_respects_the_keys_models_and_the_plans_tier() -> None:
    make_model("dear", tier=Model.Tier.PREMIUM, output_price="1")
    make_model("cheap", output_price="2")
    make_model("other", output_price="3")

    assert Desk(plan=Plan.BASIC).order() == ["cheap", "other"]
    assert Desk(allowed_models=["other", "dear"]).order() == ["dear", "other"]


def test_auto_says_which_condition_excluded_the_last_models() -> None:
    make_model("plain", supports_tools=False, tier=Model.Tier.PREMIUM)
    make_model("tools", max_output_tokens=100, context_window=1_000)
    make_model("gone", is_enabled=False)
    desk, user = Desk(), [{"role": "user", "content": [IMAGE]}]
    long_read = [{"role": "user", "content": "word " * 10_000}]

    found = {
        "key": Desk(allowed_models=["gone"]).refusal(),
        "tier": Desk(plan=Plan.BASIC, allowed_models=["plain"]).refusal(),
        "tools": Desk(allowed_models=["plain"]).refusal(tools=TOOLS),
        "images": desk.refusal(tools=TOOLS, messages=user),
        "output": desk.refusal(tools=TOOLS, max_tokens=101),
        "context": desk.refusal(tools=TOOLS, messages=long_read),
    }

    assert {name: (refusal.status, refusal.code, refusal.param) for name, refusal in found.items()} == {
        "key": (403, "model_not_allowed", "model"),
        "tier": (403, "plan_upgrade_required", "model"),
        "tools": (400, "invalid_value", "tools"),
        "images": (400, "invalid_value", "messages"),
        "output": (400, "invalid_value", "max_tokens"),
        "context": (400, "context_length_exceeded", "messages"),
    }


def test_auto_without_any_model_is_unavailable() -> None:
    assert Desk().refusal().status == 503


def test_there_is_no_auto_for_embeddings() -> None:
    make_model("vectors", kind=Model.Kind.EMBEDDING, max_output_tokens=None)

    refusal = Desk().refusal(dialect=Embeddings(), input="word")
    listed = Desk().refusal(dialect=Embeddings(), input="word", model=None, models=["auto"])

    assert (refusal.status, refusal.code, refusal.param) == (400, "invalid_value", "model")
    assert "chat models only" in refusal.message
    assert listed.param == "models[0]"


# --- Health ------------------------------------------------------------------------------------------------------


def test_models_whose_upstreams_are_left_alone_are_passed_over() -> None:
    make_model("a", output_price="1")
    make_model("b", output_price="2")
    desk = Desk()
    desk.break_down("a")

    assert desk.order() == ["b"]
    assert desk.order(model="a", models=["b"]) == ["b"]


def test_when_all_are_left_alone_the_refusal_says_until_when() -> None:
    make_model("a")
    desk = Desk()
    desk.break_down("a")

    refusal = desk.refusal(model="a")

    assert (refusal.status, refusal.code) == (503, "temporarily_unavailable")
    assert (b"retry-after", b"7") in refusal.headers


# --- Upstreams of one model --------------------------------------------------------------------------------------


def target(name: str, *, position: int, weight: int = 1) -> Target:
    everything = frozenset(Protocol.values)
    return Target(name, name, "https://a.example", "key", "m", "max_tokens", everything, position, weight)


def test_lower_positions_come_first_and_weights_share_a_position() -> None:
    targets = [
        target("heavy", position=1, weight=3),
        target("light", position=1),
        target("last", position=2, weight=1000),
    ]
    chance = random.Random(7).random  # noqa: S311 - a draw that is the same each time

    drawn = Counter(tuple(each.id for each in in_turn(targets, chance=chance)) for _ in range(2000))

    assert set(drawn) == {("heavy", "light", "last"), ("light", "heavy", "last")}
    # Three of four, give or take six standard deviations.
    assert 1380 < drawn["heavy", "light", "last"] < 1620

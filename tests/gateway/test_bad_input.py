"""Bad input: every case is refused in OpenAI's shape, before anything is held, counted or sent upstream."""

from typing import Any

import httpx2 as httpx
import pytest

from accounts.models import Plan
from billing.models import Hold
from tests.factories import make_key
from tests.gateway.conftest import INVALID, Stage, chat, refused
from usage.models import DailyAllowance

BAD_BODIES: list[tuple[bytes, str, str | None]] = [
    (b"", "invalid_json", None),
    (b"{", "invalid_json", None),
    (b"[]", "invalid_json", None),
    (b'"text"', "invalid_json", None),
    (b'{"model": NaN}', "invalid_json", None),
    (b'{"model": "\xff"}', "invalid_json", None),
    (b'{"model": "\\ud800"}', "invalid_json", None),
    (b'{"model": "a", "model": "b"}', "invalid_json", None),
    (b'{"x": ' + b"[" * 5000 + b"]" * 5000 + b"}", "invalid_json", None),
    (b'{"x": ' + b"[" * 70 + b"]" * 70 + b"}", "invalid_json", None),
    (b'{"messages": [{"role": "user", "content": "hi"}]}', "invalid_value", "model"),
    (b'{"model": 5, "messages": [{"role": "user", "content": "hi"}]}', "invalid_value", "model"),
    (b'{"model": "m"}', "invalid_value", "messages"),
    (b'{"model": "m", "messages": []}', "invalid_value", "messages"),
    (b'{"model": "m", "messages": "hi"}', "invalid_value", "messages"),
    (b'{"model": "m", "messages": ["hi"]}', "invalid_value", "messages[0]"),
    (b'{"model": "m", "messages": [{"role": "user", "content": 5}]}', "invalid_value", "messages[0].content"),
]
BAD_FIELDS: list[tuple[str, Any]] = [
    ("max_tokens", -1),
    ("max_tokens", 0),
    ("max_tokens", 1.5),
    ("max_tokens", True),
    ("max_tokens", "5"),
    ("max_completion_tokens", 10**12),
    ("n", 0),
    ("n", 129),
    ("temperature", -0.1),
    ("temperature", "hot"),
    ("top_p", 2),
    ("stream", "yes"),
    ("stream_options", []),
    ("frequency_penalty", -99_999),
    ("presence_penalty", "abc"),
    ("top_logprobs", -5),
    ("logprobs", 7),
    ("logit_bias", [1]),
    ("tools", "x"),
    ("stop", 5),
    ("seed", "x"),
    ("seed", True),
    ("user", 5),
    ("response_format", "x"),
    ("reasoning_effort", 5),
]


@pytest.mark.parametrize(("body", "code", "param"), BAD_BODIES)
def test_a_bad_body_is_refused_before_anything_is_held(
    stage: Stage, body: bytes, code: str, param: str | None
) -> None:
    issued = make_key(stage.account(credit="1"))

    refused(stage.post(issued.secret, body), 400, code, type=INVALID, param=param)

    assert not Hold.objects.exists()
    assert not DailyAllowance.objects.exists()


def test_a_bad_field_is_named(stage: Stage) -> None:
    issued = make_key(stage.account(credit="1"))

    for name, value in BAD_FIELDS:
        response = stage.post(issued.secret, chat("any", **{name: value}))
        refused(response, 400, "invalid_value", type=INVALID, param=name)


def test_two_limits_that_differ_are_refused(stage: Stage) -> None:
    issued = make_key(stage.account(credit="1"))

    response = stage.post(issued.secret, chat("any", max_tokens=5, max_completion_tokens=6))

    refused(response, 400, "invalid_value", type=INVALID, param="max_tokens")


def test_input_over_the_plans_characters_is_refused_and_at_the_limit_is_not(stage: Stage) -> None:
    model = stage.model()
    issued = make_key(stage.account(plan=Plan.BASIC))

    too_long = stage.post(issued.secret, chat(model, "a" * 200_001))
    just_right = stage.post(issued.secret, chat(model, "a" * 200_000))

    assert "200,001" in refused(too_long, 400, "input_too_long", type=INVALID, param="messages")
    assert just_right.status_code == 200


HIDING_PLACES: list[dict[str, Any]] = [
    {
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "f",
                    "parameters": {"properties": {"type": {"description": "a" * 200_001}}},
                },
            }
        ]
    },
    {"prediction": {"type": "content", "content": "a" * 200_001}},
    {"messages": [{"role": "user", "name": "a" * 200_001, "content": "hi"}]},
    {"messages": [{"role": "user", "content": [{"type": "a" * 200_001}]}]},
    {"some_future_field": {"a" * 200_001: 1}},
]


@pytest.mark.parametrize("hidden", HIDING_PLACES, ids=["tool", "prediction", "name", "type", "key"])
def test_input_counts_wherever_it_hides(stage: Stage, hidden: dict[str, Any]) -> None:
    model = stage.model()
    issued = make_key(stage.account(plan=Plan.BASIC))

    response = stage.post(issued.secret, chat(model, **hidden))

    refused(response, 400, "input_too_long", type=INVALID, param="messages")


def test_more_than_the_models_context_is_refused(stage: Stage) -> None:
    model = stage.model(context_window=1_000, max_output_tokens=900)
    issued = make_key(stage.account(credit="1"))

    response = stage.post(issued.secret, chat(model, "a" * 3_000, max_tokens=800))

    refused(response, 400, "context_length_exceeded", type=INVALID, param="messages")


def test_more_output_than_the_model_writes_is_refused(stage: Stage) -> None:
    model = stage.model(max_output_tokens=100)
    issued = make_key(stage.account(credit="1"))

    refused(
        stage.post(issued.secret, chat(model, max_tokens=101)),
        400,
        "invalid_value",
        type=INVALID,
        param="max_tokens",
    )


def test_a_body_that_is_too_large_is_refused_while_it_is_read(stage: Stage) -> None:
    issued = make_key(stage.account())

    def endless() -> Any:
        for _ in range(10_000):
            yield b"x" * 65_536

    response = httpx.post(
        f"{stage.url}/chat/completions",
        headers={"authorization": f"Bearer {issued.secret}"},
        content=endless(),
        timeout=20,
    )

    refused(response, 413, "request_too_large", type=INVALID)
    refused(stage.post(issued.secret, b"x" * (4 * 1024 * 1024 + 1)), 413, "request_too_large", type=INVALID)

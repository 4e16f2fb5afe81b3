"""What goes upstream in each dialect: the body with what was admitted, and the headers with none of the client's."""

import json
from typing import Any

import orjson
import pytest

from catalog.serving import Target
from gateway.dialects.chat import Chat
from gateway.dialects.completions import Completions
from gateway.dialects.dialect import Dialect
from gateway.dialects.embeddings import Embeddings
from gateway.dialects.messages import Messages
from gateway.dialects.responses import Responses
from gateway.errors import Refusal
from tests.gateway import dialects

DIALECTS: list[Dialect] = [Chat(), Completions(), Embeddings(), Responses(), Messages()]
CLIENT = {
    b"authorization": b"Bearer tg_test_secret",
    b"x-api-key": b"tg_test_secret",
    b"cookie": b"session=1",
    b"x-forwarded-for": b"10.0.0.1",
    b"user-agent": b"me",
    b"openai-organization": b"org-1",
    b"anthropic-version": b"2024-01-01",
    b"anthropic-beta": b"one-2025-01-01,two-2025-02-02",
}


def _target(limit: str = "max_tokens") -> Target:
    return Target(
        id="acme:m",
        name="acme",
        base_url="https://acme.example/v1",
        api_key="operators-key",
        model="acme-model",
        output_limit_parameter=limit,
        protocols=frozenset(),
    )


def _sent(dialect: Dialect, output_limit: int, *, limit: str = "max_tokens", **fields: Any) -> dict[str, Any]:
    asked = dialect.parse(orjson.dumps(dialects.body(dialect.endpoint, "m", **fields)))
    sent: dict[str, Any] = orjson.loads(dialect.outgoing(asked, _target(limit), output_limit))
    return sent


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda one: one.endpoint)
def test_what_nobody_here_knows_goes_on_as_it_came(dialect: Dialect) -> None:
    future = {"of": ["the", {"future": None}]}

    sent = _sent(dialect, 7, some_field=future, models=["m", "other"])

    assert sent["some_field"] == future
    assert sent["model"] == "acme-model"
    assert "models" not in sent
    assert sent[dialect.input_field] == dialects.body(dialect.endpoint, "m")[dialect.input_field]


@pytest.mark.parametrize(
    "dialect", [one for one in DIALECTS if one.endpoint != "embeddings"], ids=lambda one: one.endpoint
)
def test_the_limit_that_was_admitted_replaces_the_one_that_was_asked_for(dialect: Dialect) -> None:
    limit_field = dialect.limit_fields[0]
    assert _sent(dialect, 7)[limit_field] == 7
    asked: dict[str, Any] = {limit_field: 90}
    assert _sent(dialect, 7, **asked)[limit_field] == 7


def test_an_embedding_has_no_limit_of_output() -> None:
    assert set(_sent(Embeddings(), 0)) == {"model", "input"}


def test_a_chat_without_a_limit_gets_one_under_the_providers_name() -> None:
    assert _sent(Chat(), 7, limit="max_completion_tokens")["max_completion_tokens"] == 7
    both = _sent(Chat(), 7, max_tokens=9, max_completion_tokens=9)
    assert (both["max_tokens"], both["max_completion_tokens"]) == (7, 7)
    assert "max_tokens" not in _sent(Chat(), 0)
    assert "max_output_tokens" not in _sent(Responses(), 0)


def test_usage_is_always_asked_for_where_the_protocol_has_to_be_asked() -> None:
    for dialect in (Chat(), Completions()):
        assert "stream_options" not in _sent(dialect, 7)
        plain = _sent(dialect, 7, stream=True)
        assert plain["stream_options"] == {"include_usage": True}
        refused = _sent(dialect, 7, stream=True, stream_options={"include_usage": False, "x": 1})
        assert refused["stream_options"] == {"include_usage": True, "x": 1}
    for other in (Responses(), Messages()):
        assert "stream_options" not in _sent(other, 7, stream=True)


def test_no_response_is_stored_upstream() -> None:
    assert _sent(Responses(), 7)["store"] is False
    assert _sent(Responses(), 7, store=None)["store"] is False


@pytest.mark.parametrize("dialect", DIALECTS[:-1], ids=lambda one: one.endpoint)
def test_nothing_of_the_clients_headers_goes_upstream(dialect: Dialect) -> None:
    assert dialect.upstream_headers(_target(), CLIENT) == {
        "authorization": "Bearer operators-key",
        "content-type": "application/json",
    }


def test_anthropics_version_and_betas_are_the_clients_and_nothing_else_is() -> None:
    assert Messages().upstream_headers(_target(), CLIENT) == {
        "x-api-key": "operators-key",
        "content-type": "application/json",
        "anthropic-version": "2024-01-01",
        "anthropic-beta": "one-2025-01-01,two-2025-02-02",
    }
    odd = {b"anthropic-version": "é".encode(), b"anthropic-beta": b"a: b\x00" + b"x" * 2_000}
    assert Messages().upstream_headers(_target(), odd) == {
        "x-api-key": "operators-key",
        "content-type": "application/json",
        "anthropic-version": "2023-06-01",
    }


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda one: one.endpoint)
@pytest.mark.parametrize(
    "number",
    ["18446744073709551616", "-9223372036854775809", "9" * 300, "-" + "9" * 300, "18446744073709551615"],
)
def test_a_whole_number_of_any_size_goes_on_digit_by_digit(dialect: Dialect, number: str) -> None:
    body = orjson.dumps(dialects.body(dialect.endpoint, "m", some_field={"id": [0]}))
    body = body.replace(b"[0]", f'[{number}, 1.5e300, -0.25, {{"é": {number}}}]'.encode())

    sent = dialect.outgoing(dialect.parse(body), _target(), 7)

    assert sent.replace(b" ", b"").count(number.encode()) == 2
    assert json.loads(sent)["some_field"] == {"id": [int(number), 1.5e300, -0.25, {"é": int(number)}]}


def test_a_key_that_is_there_twice_is_found_beside_a_number_of_any_size() -> None:
    body = (
        b'{"model": "m", "messages": [{"role": "user", "content": "a"}], "a": 18446744073709551616, "a": 1}'
    )

    with pytest.raises(Refusal, match="twice"):
        Chat().parse(body)

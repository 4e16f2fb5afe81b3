"""A request in each dialect, and what its answers and refusals look like, for tests that hold for all of them."""

import json
from typing import Any

import httpx2 as httpx

from catalog.models import Model
from tests.gateway.conftest import Stage

PREMIUM = {"tier": Model.Tier.PREMIUM, "input_price": "5", "output_price": "25", "cached_price": "0.5"}
STREAMED = ("chat/completions", "completions", "responses", "messages")
ENDPOINTS = (*STREAMED, "embeddings")
_THREE_WORDS = "three short words"


def body(endpoint: str, model: str, **fields: Any) -> dict[str, Any]:
    """A small request: three words of input, and no limit where the protocol allows that."""
    given: dict[str, dict[str, Any]] = {
        "chat/completions": {"messages": [{"role": "user", "content": _THREE_WORDS}]},
        "completions": {"prompt": _THREE_WORDS, "max_tokens": 100},
        "responses": {"input": _THREE_WORDS},
        "messages": {"messages": [{"role": "user", "content": _THREE_WORDS}], "max_tokens": 100},
        "embeddings": {"input": _THREE_WORDS},
    }
    return {"model": model, **given[endpoint], **fields}


def model_for(stage: Stage, endpoint: str, **facts: Any) -> Model:
    kind = Model.Kind.EMBEDDING if endpoint == "embeddings" else Model.Kind.CHAT
    limit = {"max_output_tokens": None} if endpoint == "embeddings" else {}
    return stage.model(**{**PREMIUM, "kind": kind, **limit, **facts})


def usage(endpoint: str, *, given: Any, written: Any, cached: Any = None) -> dict[str, Any]:
    """A usage object as the protocol writes it. Anthropic's counts the cached tokens apart."""
    if endpoint == "messages":
        return {"input_tokens": given, "output_tokens": written, "cache_read_input_tokens": cached}
    if endpoint == "responses":
        details = {} if cached is None else {"input_tokens_details": {"cached_tokens": cached}}
        return {"input_tokens": given, "output_tokens": written, **details}
    details = {} if cached is None else {"prompt_tokens_details": {"cached_tokens": cached}}
    return {"prompt_tokens": given, "completion_tokens": written, **details}


def refusal(response: httpx.Response, endpoint: str) -> tuple[int, str, str, str | None]:
    """Check the shape of the dialect; returns status, type, code and param."""
    document = response.json()
    error = document["error"]
    assert set(error) == {"message", "type", "param", "code"}
    if endpoint == "messages":
        assert set(document) == {"type", "error", "request_id"}
        assert (document["type"], document["request_id"]) == ("error", response.headers["x-request-id"])
    else:
        assert set(document) == {"error"}
    return response.status_code, error["type"], error["code"], error["param"]


def events(text: str) -> list[tuple[str, Any]]:
    """The events of a stream: the name of each, and its data."""
    found = []
    for event in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in event.split("\n") if ": " in line)
        if "data" in fields:
            is_json = fields["data"] != "[DONE]"
            found.append((fields.get("event", ""), json.loads(fields["data"]) if is_json else "[DONE]"))
    return found


def shown_usage(endpoint: str, text: str) -> dict[str, Any]:
    """The usage object with the cost, where a stream of this dialect has it."""
    told = events(text)
    if endpoint == "responses":
        found = told[-1][1]["response"]["usage"]
    elif endpoint == "messages":
        assert [name for name, _ in told[-2:]] == ["message_delta", "message_stop"]
        found = told[-2][1]["usage"]
    else:
        assert told[-1][1] == "[DONE]"
        found = told[-2][1]["usage"]
    return dict(found)


def streamed(endpoint: str) -> dict[str, Any]:
    """What asks for a stream that ends in its usage."""
    options = {"stream_options": {"include_usage": True}} if "completions" in endpoint else {}
    return {"stream": True, **options}

"""Refusals in each dialect: their shape, their status and type, and everything that a shared account may not reach."""

from typing import Any

import anthropic
import httpx2 as httpx
import openai
import pytest

from accounts.models import Plan
from billing.models import Hold
from catalog.models import Model
from tests.factories import make_key
from tests.gateway import dialects
from tests.gateway.conftest import Stage

OPENAI = [endpoint for endpoint in dialects.ENDPOINTS if endpoint != "messages"]
A_FILE = {"type": "file", "file_id": "f"}


def _types(endpoint: str, openais: str, anthropics: str) -> str:
    return anthropics if endpoint == "messages" else openais


@pytest.mark.parametrize("endpoint", dialects.ENDPOINTS)
def test_every_refusal_has_the_shape_of_the_dialect_that_was_called(stage: Stage, endpoint: str) -> None:
    model = dialects.model_for(stage, endpoint)
    poor, free = make_key(stage.account()).secret, make_key(stage.account(plan=Plan.BASIC)).secret
    limited = make_key(stage.account(credit="1"), requests_per_minute=1).secret
    good = dialects.body(endpoint, model.slug)
    assert stage.post(limited, good, path=endpoint).status_code == 200

    def hears(secret: str, sent: Any, **options: Any) -> tuple[int, str, str, str | None]:
        return dialects.refusal(stage.post(secret, sent, path=endpoint, **options), endpoint)

    invalid, permission, not_found = (
        "invalid_request_error",
        "permission_error",
        _types(endpoint, "invalid_request_error", "not_found_error"),
    )
    authentication = _types(endpoint, invalid, "authentication_error")
    assert hears("nonsense", good) == (401, authentication, "invalid_api_key", None)
    assert hears(poor, b"{") == (400, invalid, "invalid_json", None)
    assert hears(poor, {**good, "model": 5}) == (400, invalid, "invalid_value", "model")
    assert hears(poor, {**good, "model": "none"}) == (404, not_found, "model_not_found", "model")
    assert hears(free, good) == (403, permission, "plan_upgrade_required", "model")
    status, kind, code, _ = hears(poor, good)
    assert (status, kind, code) == (
        402,
        _types(endpoint, "insufficient_quota", "billing_error"),
        "insufficient_credits",
    )
    too_many = _types(endpoint, "requests", "rate_limit_error")
    assert hears(limited, good) == (429, too_many, "rate_limit_exceeded", None)
    too_large = _types(endpoint, invalid, "request_too_large")
    assert hears(poor, b"x" * 5_000_000) == (413, too_large, "request_too_large", None)
    failing = {**good, "sandbox": {"fail": {"status": 500}}}
    assert hears(make_key(stage.account(credit="1")).secret, failing) == (
        502,
        "api_error",
        "upstream_error",
        None,
    )
    got = httpx.get(f"{stage.url}/{endpoint}", headers={"x-api-key": poor})
    assert dialects.refusal(got, endpoint)[0] == 405


def test_anthropics_client_understands_every_refusal(stage: Stage) -> None:
    model = stage.model(**dialects.PREMIUM)
    asked: dict[str, Any] = {
        "model": model.slug,
        "max_tokens": 10,
        "messages": [{"role": "user", "content": "hi"}],
    }

    def client(secret: str) -> anthropic.Anthropic:
        return anthropic.Anthropic(api_key=secret, base_url=stage.gateway.origin, max_retries=0)

    with client("nonsense") as stranger, pytest.raises(anthropic.AuthenticationError) as unknown:
        stranger.messages.create(**asked)
    with client(make_key(stage.account()).secret) as poor:
        with pytest.raises(anthropic.APIStatusError) as unpaid:
            poor.messages.create(**asked)
        with pytest.raises(anthropic.NotFoundError):
            poor.messages.create(**{**asked, "model": "none"})

    assert unknown.value.type == "authentication_error"
    assert unpaid.value.request_id == unpaid.value.response.headers["x-request-id"]
    assert (unpaid.value.status_code, unpaid.value.type) == (402, "billing_error")


def test_what_is_not_there_is_refused_in_the_shape_of_what_is(stage: Stage) -> None:
    secret = make_key(stage.account()).secret

    batches = stage.post(secret, {}, path="messages/batches")
    elsewhere = stage.post(secret, {}, path="responses/compact")

    assert dialects.refusal(batches, "messages") == (404, "not_found_error", "unknown_url", None)
    assert dialects.refusal(elsewhere, "responses")[2] == "unknown_url"


def test_credit_that_does_not_suffice_names_the_limit_as_the_dialect_does(stage: Stage) -> None:
    model = stage.model(**dialects.PREMIUM)
    issued = make_key(stage.account(credit="0.01"))

    for endpoint, limit in (("responses", "max_output_tokens"), ("messages", "max_tokens")):
        asked = dialects.body(endpoint, model.slug, **{limit: 5_000})
        response = stage.post(issued.secret, asked, path=endpoint)
        assert dialects.refusal(response, endpoint)[3] == limit
        assert f"at most {limit}=" in response.text


def test_a_model_of_another_kind_is_told_where_it_answers(stage: Stage) -> None:
    chat, embedding = stage.model(**dialects.PREMIUM), dialects.model_for(stage, "embeddings")
    client = stage.client(make_key(stage.account(credit="1")).secret)

    with pytest.raises(openai.BadRequestError) as wrong:
        client.embeddings.create(model=chat.slug, input="hi")
    assert (wrong.value.code, wrong.value.param) == ("invalid_value", "model")
    assert "/v1/chat/completions" in wrong.value.message
    with pytest.raises(openai.BadRequestError, match="call it at /v1/embeddings"):
        client.responses.create(model=embedding.slug, input="hi")


BAD_FIELDS: list[tuple[str, dict[str, Any], str]] = [
    ("completions", {"prompt": None}, "prompt"),
    ("completions", {"prompt": 5}, "prompt"),
    ("completions", {"prompt": []}, "prompt"),
    ("completions", {"prompt": ["a", 5]}, "prompt"),
    ("completions", {"prompt": [-1]}, "prompt"),
    ("completions", {"prompt": [True]}, "prompt"),
    ("completions", {"prompt": ["a"] * 129}, "prompt"),
    ("completions", {"max_tokens": 0}, "max_tokens"),
    ("completions", {"best_of": 21}, "best_of"),
    ("completions", {"n": 3, "best_of": 2}, "best_of"),
    ("completions", {"echo": 1}, "echo"),
    ("completions", {"stream_options": {}}, "stream_options"),
    ("embeddings", {"input": None}, "input"),
    ("embeddings", {"input": {}}, "input"),
    ("embeddings", {"input": ["a"] * 2049}, "input"),
    ("embeddings", {"input": [[]]}, "input"),
    ("embeddings", {"dimensions": 0}, "dimensions"),
    ("embeddings", {"stream": True}, "stream"),
    ("responses", {"input": None}, "input"),
    ("responses", {"input": []}, "input"),
    ("responses", {"input": 5}, "input"),
    ("responses", {"input": ["hi"]}, "input[0]"),
    ("responses", {"input": [{"id": "item_1"}]}, "input[0]"),
    ("responses", {"max_output_tokens": -1}, "max_output_tokens"),
    ("responses", {"max_output_tokens": True}, "max_output_tokens"),
    ("responses", {"temperature": 3}, "temperature"),
    ("responses", {"tools": [5]}, "tools[0]"),
    ("responses", {"tools": [{}]}, "tools[0].type"),
    ("responses", {"reasoning": "high"}, "reasoning"),
    ("responses", {"stream": 1}, "stream"),
    ("messages", {"max_tokens": None}, "max_tokens"),
    ("messages", {"max_tokens": 0}, "max_tokens"),
    ("messages", {"messages": []}, "messages"),
    ("messages", {"messages": ["hi"]}, "messages[0]"),
    ("messages", {"messages": [{"role": "user"}]}, "messages[0].content"),
    ("messages", {"messages": [{"role": "user", "content": ["hi"]}]}, "messages[0].content[0]"),
    ("messages", {"temperature": 1.5}, "temperature"),
    ("messages", {"top_k": -1}, "top_k"),
    ("messages", {"system": 5}, "system"),
    ("messages", {"stop_sequences": "x"}, "stop_sequences"),
    ("chat/completions", {"models": []}, "models"),
    ("chat/completions", {"models": "a"}, "models"),
    ("chat/completions", {"models": ["a", "a"]}, "models"),
    ("chat/completions", {"models": ["a", 5]}, "models"),
    ("chat/completions", {"models": list("abcdefghi")}, "models"),
    ("chat/completions", {"messages": [{"role": "user", "content": ["hi"]}]}, "messages[0].content[0]"),
]
_TOOL = "tools[0].type"
# What would reach the operator's account at the upstream, or cost what nobody here has a price for.
NOT_SHARED: list[tuple[str, dict[str, Any], str]] = [
    ("chat/completions", {"store": True}, "store"),
    ("chat/completions", {"service_tier": "priority"}, "service_tier"),
    ("chat/completions", {"modalities": ["text", "audio"]}, "modalities"),
    ("chat/completions", {"audio": {"voice": "x", "format": "wav"}}, "audio"),
    ("chat/completions", {"web_search_options": {}}, "web_search_options"),
    ("chat/completions", {"search_parameters": {}}, "search_parameters"),
    ("chat/completions", {"enable_search": True}, "enable_search"),
    ("chat/completions", {"plugins": [{"id": "web"}]}, "plugins"),
    ("chat/completions", {"tools": [{"type": "web_search"}]}, _TOOL),
    ("chat/completions", {"cached_content": "cachedContents/1"}, "cached_content"),
    (
        "chat/completions",
        {"extra_body": {"google": {"cached_content": "cachedContents/1"}}},
        "extra_body.google.cached_content",
    ),
    ("completions", {"service_tier": "fast"}, "service_tier"),
    ("responses", {"store": True}, "store"),
    ("responses", {"background": True}, "background"),
    ("responses", {"previous_response_id": "resp_1"}, "previous_response_id"),
    ("responses", {"conversation": "conv_1"}, "conversation"),
    ("responses", {"prompt": {"id": "pmpt_1"}}, "prompt"),
    ("responses", {"service_tier": "priority"}, "service_tier"),
    ("responses", {"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
    *[
        ("responses", {"tools": [{"type": kind}]}, _TOOL)
        for kind in (
            "file_search",
            "code_interpreter",
            "web_search",
            "web_search_preview",
            "image_generation",
            "mcp",
        )
    ],
    (
        "responses",
        {"tools": [{"type": "shell", "environment": {"type": "container_auto"}}]},
        "tools[0].environment",
    ),
    (
        "responses",
        {"tools": [{"type": "namespace", "tools": [{"type": "web_search"}]}]},
        "tools[0].tools[0].type",
    ),
    ("responses", {"tools": [{"type": "namespace", "tools": 5}]}, "tools[0].tools"),
    (
        "responses",
        {"input": [{"type": "additional_tools", "tools": [{"type": "web_search"}]}]},
        "input[0].tools[0].type",
    ),
    ("messages", {"container": "c_1"}, "container"),
    ("messages", {"mcp_servers": []}, "mcp_servers"),
    ("messages", {"thread": {"type": "create"}}, "thread"),
    ("messages", {"fallbacks": "default"}, "fallbacks"),
    ("messages", {"speed": "fast"}, "speed"),
    ("messages", {"inference_geo": "us"}, "inference_geo"),
    ("messages", {"service_tier": "priority"}, "service_tier"),
    *[
        ("messages", {"tools": [{"type": kind, "name": "x"}]}, _TOOL)
        for kind in ("web_search_20250305", "web_fetch_20250910", "code_execution_20250825", "mcp_toolset")
    ],
]
_CHAT_PARTS: list[tuple[dict[str, Any], str]] = [
    ({"type": "file", "file": {"file_id": "f"}}, ".file"),
    ({"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}}, ""),
    ({"type": "video_url", "video_url": {"url": "https://v"}}, ""),
]
_RESPONSE_PARTS: list[tuple[dict[str, Any], str]] = [
    ({"type": "input_image", "file_id": "f"}, ".file_id"),
    ({"type": "input_file", "file_id": "f"}, ".file_id"),
    ({"type": "input_file", "file_url": "https://f"}, ".file_url"),
    ({"type": "input_audio", "input_audio": {}}, ""),
]
_MESSAGE_BLOCKS: list[tuple[dict[str, Any], str]] = [
    ({"type": "image", "source": A_FILE}, ".source"),
    ({"type": "document", "source": A_FILE}, ".source"),
    ({"type": "document", "source": {"type": "url", "url": "https://f"}}, ".source"),
    ({"type": "image", "source": {}}, ".source"),
    ({"type": "container_upload", "file_id": "f"}, ""),
    (
        {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image", "source": A_FILE}]},
        ".content[0].source",
    ),
    (
        {
            "type": "tool_addition",
            "tool": {"type": "tool_definition", "definition": {"type": "web_search_20250305"}},
        },
        ".tool.definition[0].type",
    ),
]


def _in_a_message(part: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [part]}]


def test_a_bad_field_is_named_in_every_dialect_and_nothing_is_held(stage: Stage) -> None:
    secret = make_key(stage.account(credit="1")).secret

    for endpoint, fields, param in BAD_FIELDS:
        response = stage.post(secret, dialects.body(endpoint, "any", **fields), path=endpoint)
        assert dialects.refusal(response, endpoint)[::2] == (400, "invalid_value"), (endpoint, fields)
        assert dialects.refusal(response, endpoint)[3] == param, (endpoint, fields)
    assert not Hold.objects.exists()


def test_what_a_shared_account_may_not_reach_is_refused_with_a_reason(stage: Stage) -> None:
    secret = make_key(stage.account(credit="1")).secret
    message = "messages[0].content[0]"
    parts = [
        *[("chat/completions", {"messages": _in_a_message(part)}, message + at) for part, at in _CHAT_PARTS],
        *[
            ("responses", {"input": _in_a_message(part)}, "input[0].content[0]" + at)
            for part, at in _RESPONSE_PARTS
        ],
        *[("messages", {"messages": _in_a_message(block)}, message + at) for block, at in _MESSAGE_BLOCKS],
        (
            "chat/completions",
            {"messages": [{"role": "assistant", "audio": {"id": "a"}}]},
            "messages[0].audio",
        ),
    ]

    for endpoint, fields, param in [*NOT_SHARED, *parts]:
        response = stage.post(secret, dialects.body(endpoint, "any", **fields), path=endpoint)
        assert dialects.refusal(response, endpoint) == (
            400,
            "invalid_request_error",
            "invalid_value",
            param,
        ), (endpoint, fields, response.text)
        assert len(response.json()["error"]["message"]) > 50


@pytest.mark.parametrize(
    ("endpoint", "fields"),
    [
        (
            "chat/completions",
            {"tools": [{"type": "function", "function": {"name": "file_id"}}], "store": False},
        ),
        ("chat/completions", {"service_tier": "flex", "modalities": ["text"]}),
        ("responses", {"tools": [{"type": "function", "name": "f", "parameters": {"file_id": "x"}}]}),
        ("responses", {"tools": [{"type": "shell", "environment": {"type": "local"}}], "background": False}),
        ("messages", {"tools": [{"name": "f", "input_schema": {"type": "container_upload"}}]}),
        ("messages", {"tools": [{"type": "bash_20250124", "name": "bash"}], "speed": "standard"}),
        (
            "messages",
            {
                "messages": [
                    {"role": "user", "content": "one"},
                    {
                        "role": "assistant",
                        "content": [{"type": "tool_use", "input": {"type": "container_upload"}}],
                    },
                ]
            },
        ),
    ],
)
def test_what_the_client_runs_itself_is_its_own_affair(
    stage: Stage, endpoint: str, fields: dict[str, Any]
) -> None:
    model = stage.model(tier=Model.Tier.BASIC)
    secret = make_key(stage.account(plan=Plan.BASIC)).secret

    response = stage.post(secret, dialects.body(endpoint, model.slug, **fields), path=endpoint)

    assert response.status_code == 200, response.text

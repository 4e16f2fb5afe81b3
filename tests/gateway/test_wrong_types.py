"""What each protocol's own types rule out is refused by name; what a provider takes is let through."""

import json
from typing import Any

import pytest

from gateway.dialects.chat import Chat
from gateway.dialects.dialect import Dialect
from gateway.dialects.messages import Messages
from gateway.dialects.responses import Responses
from gateway.errors import Refusal

USER = {"role": "user", "content": "hi"}
GOOD: dict[type[Dialect], dict[str, Any]] = {
    Chat: {"messages": [USER]},
    Responses: {"input": "hi"},
    Messages: {"messages": [USER], "max_tokens": 9},
}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": 5}}


def _parts(part: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [part]}]


WRONG: list[tuple[type[Dialect], dict[str, Any], str]] = [
    (Chat, {"messages": [{"role": "boss", "content": "hi"}]}, "messages[0].role"),
    (Chat, {"messages": _parts({"type": "text", "text": 5})}, "messages[0].content[0].text"),
    (Chat, {"messages": _parts({"type": "text"})}, "messages[0].content[0].text"),
    (Chat, {"messages": _parts({"type": "image_url", "image_url": 5})}, "messages[0].content[0].image_url"),
    (Chat, {"messages": _parts({"type": "image_url", "image_url": {}})}, "messages[0].content[0].image_url"),
    (Chat, {"tools": [{"type": "function"}]}, "tools[0].function.name"),
    (Chat, {"tools": [{"type": "function", "function": {"name": 5}}]}, "tools[0].function.name"),
    (Chat, {"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
    (Chat, {"stop": [5]}, "stop"),
    (Chat, {"stop": ["x"] * 17}, "stop"),
    (Chat, {"reasoning_effort": "huge"}, "reasoning_effort"),
    (Chat, {"function_call": 5}, "function_call"),
    (Chat, {"functions": [1]}, "functions"),
    (Chat, {"prediction": 5}, "prediction"),
    (Chat, {"top_logprobs": 1.5}, "top_logprobs"),
    (Responses, {"safety_identifier": 5}, "safety_identifier"),
    (Responses, {"input": [{"role": "user", "content": 5}]}, "input[0].content"),
    (Responses, {"input": [{"role": "user"}]}, "input[0].content"),
    (Responses, {"input": [{"type": "message", "role": "user"}]}, "input[0].content"),
    (Responses, {"input": [{"role": "boss", "content": "hi"}]}, "input[0].role"),
    (Responses, {"input": _parts({"text": "hi"})}, "input[0].content[0]"),
    (Responses, {"input": _parts({"type": "input_text", "text": 5})}, "input[0].content[0].text"),
    (Responses, {"input": _parts({"type": "input_image", "image_url": 5})}, "input[0].content[0].image_url"),
    (Responses, {"input": _parts({"type": "input_file", "file_data": 5})}, "input[0].content[0].file_data"),
    (Responses, {"tools": [{"type": "function"}]}, "tools[0].name"),
    (Responses, {"reasoning": {"effort": "huge"}}, "reasoning.effort"),
    (Messages, {"messages": [{"role": "tool", "content": "hi"}]}, "messages[0].role"),
    (Messages, {"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
    (Messages, {"messages": [{"role": "assistant", "content": []}, USER]}, "messages[0].content"),
    (Messages, {"messages": _parts({"type": "text", "text": 5})}, "messages[0].content[0].text"),
    (Messages, {"messages": _parts(IMAGE)}, "messages[0].content[0].source.data"),
    (Messages, {"metadata": {"user_id": 5}}, "metadata.user_id"),
    (Messages, {"stop_sequences": [5]}, "stop_sequences"),
    (Messages, {"system": [None]}, "system[0]"),
    (Messages, {"output_config": 5}, "output_config"),
    (Messages, {"context_management": 5}, "context_management"),
    (Messages, {"cache_control": 5}, "cache_control"),
    (Messages, {"tools": [{"input_schema": {}}]}, "tools[0].name"),
]
TAKEN: list[tuple[type[Dialect], dict[str, Any]]] = [
    *[
        (Chat, {"messages": [{"role": role, "content": "hi"}]})
        for role in ("system", "developer", "user", "assistant", "tool", "function")
    ],
    (Chat, {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": []}]}),
    (Chat, {"messages": _parts({"type": "image_url", "image_url": {"url": "https://i", "detail": "low"}})}),
    (Chat, {"tools": [{"type": "custom", "custom": {"name": "c"}}], "stop": ["x"] * 4}),
    (Chat, {"stop": "x", "reasoning_effort": "xhigh"}),
    (Chat, {"reasoning_effort": "none"}),
    (Responses, {"input": [{"role": "developer", "content": [{"type": "input_text", "text": "hi"}]}]}),
    (Responses, {"input": [{"type": "message", "role": "assistant", "content": []}]}),
    (Responses, {"input": [{"type": "yet_to_be_invented", "content": 5}]}),
    (Responses, {"input": [{"type": "function_call_output", "call_id": "c", "output": "4"}]}),
    (
        Responses,
        {"input": [{"type": "image_generation_call", "id": "i", "status": "failed", "result": None}]},
    ),
    (Responses, {"reasoning": {"effort": "minimal", "summary": "auto"}}),
    (Chat, {"function_call": {"name": "f"}, "functions": [{"name": "f"}], "prediction": {"type": "content"}}),
    (Messages, {"system": [{"type": "text", "text": "be kind", "cache_control": {"type": "ephemeral"}}]}),
    (Messages, {"messages": [USER, {"role": "assistant", "content": []}]}),
    (Messages, {"messages": [{"role": "system", "content": "hi"}, USER]}),
    (Messages, {"metadata": {"user_id": None}, "stop_sequences": ["x"]}),
    (Messages, {"tools": [{"type": "bash_20250124", "name": "bash"}, {"name": "f", "input_schema": {}}]}),
]


def _parse(dialect: type[Dialect], fields: dict[str, Any]) -> None:
    dialect().parse(json.dumps({"model": "m", **GOOD[dialect], **fields}).encode())


@pytest.mark.parametrize(("dialect", "fields", "param"), WRONG)
def test_a_wrong_type_is_refused_by_name(dialect: type[Dialect], fields: dict[str, Any], param: str) -> None:
    with pytest.raises(Refusal) as caught:
        _parse(dialect, fields)

    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "invalid_value", param)


@pytest.mark.parametrize(("dialect", "fields"), TAKEN)
def test_what_a_provider_takes_is_let_through(dialect: type[Dialect], fields: dict[str, Any]) -> None:
    _parse(dialect, fields)

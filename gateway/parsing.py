"""What a client asked for, read strictly: a body is a JSON object without surprises, or the request is refused."""

import math
from dataclasses import dataclass
from typing import Any

from gateway.errors import invalid_value
from gateway.strict_json import parse_object

_MAX_CHOICES = 128
_MAX_TOKENS = 10_000_000
_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for a completion. `input_bytes` bounds its input tokens, `input_tokens` estimates them."""

    document: dict[str, Any]
    model: str
    is_streamed: bool
    wants_usage: bool
    output_limit: int | None
    choices: int
    input_bytes: int
    input_characters: int

    @property
    def input_tokens(self) -> int:
        return max(math.ceil(self.input_characters / _CHARACTERS_PER_TOKEN), 1)


def parse_chat(body: bytes) -> Asked:
    """The body of `POST /v1/chat/completions`. Fields that we do not know are the upstream's to judge."""
    document = parse_object(body)
    messages = document.get("messages")
    if not isinstance(messages, list) or not messages:
        raise invalid_value("messages", "it must be a list with at least one message")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise invalid_value(f"messages[{index}]", "a message is an object with a `role`")
        if not isinstance(message.get("content"), str | list | None):
            raise invalid_value(f"messages[{index}].content", "it must be a string or a list of parts")
    _check_types(document)
    is_streamed = _boolean(document, "stream")
    return Asked(
        document=document,
        model=_model(document),
        is_streamed=is_streamed,
        wants_usage=_wants_usage(document, is_streamed=is_streamed),
        output_limit=_output_limit(document),
        choices=_whole_number(document, "n", high=_MAX_CHOICES) or 1,
        input_bytes=len(body),
        input_characters=sum(_characters(value) for name, value in document.items() if name not in _CONTROLS),
    )


_RANGES = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
    "top_logprobs": (0, 20),
}
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "tools": ((list,), "a list"),
    "tool_choice": ((str, dict), "a string or an object"),
    "stop": ((str, list), "a string or a list of strings"),
    "seed": ((int,), "a whole number"),
    "logprobs": ((bool,), "true or false"),
    "logit_bias": ((dict,), "an object"),
    "user": ((str,), "a string"),
    "metadata": ((dict,), "an object"),
    "response_format": ((dict,), "an object"),
    "reasoning_effort": ((str,), "a string"),
    "parallel_tool_calls": ((bool,), "true or false"),
}
# What steers a request and is not read by the model. Everything else a client sends may be input.
_CONTROLS = frozenset({"model", "metadata", "user", "safety_identifier", "prompt_cache_key", "sandbox"})
# The protocol's own words are not the client's input, as long as they are words.
_PROTOCOL_KEYS = frozenset(
    {"role", "type", "content", "text", "name", "function", "parameters", "image_url", "url"}
)
_WORD = 32


def _characters(value: object) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum(map(_characters, value))
    if isinstance(value, dict):
        return sum(
            (0 if key in _PROTOCOL_KEYS else len(key)) + (0 if _is_word(key, item) else _characters(item))
            for key, item in value.items()
        )
    return 0


def _is_word(key: str, value: object) -> bool:
    return key in ("role", "type") and isinstance(value, str) and len(value) <= _WORD


def _model(document: dict[str, Any]) -> str:
    model = document.get("model")
    if not isinstance(model, str) or not model:
        raise invalid_value("model", "it must be the name of a model")
    return model


def _output_limit(document: dict[str, Any]) -> int | None:
    newer = _whole_number(document, "max_completion_tokens", high=_MAX_TOKENS)
    older = _whole_number(document, "max_tokens", high=_MAX_TOKENS)
    if newer is not None and older is not None and newer != older:
        raise invalid_value("max_tokens", "it differs from `max_completion_tokens`; send one of them")
    return older if newer is None else newer


def _wants_usage(document: dict[str, Any], *, is_streamed: bool) -> bool:
    options = document.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise invalid_value("stream_options", "it must be an object")
    if not is_streamed:
        raise invalid_value("stream_options", "it is only allowed when `stream` is true")
    return _boolean(options, "include_usage", "stream_options.")


def _check_types(document: dict[str, Any]) -> None:
    for name, (low, high) in _RANGES.items():
        _check_number(document, name, low=low, high=high)
    for name, (kinds, words) in _KINDS.items():
        value = document.get(name)
        if value is not None and (
            not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)
        ):
            raise invalid_value(name, f"it must be {words}")


def _boolean(document: dict[str, Any], name: str, prefix: str = "") -> bool:
    value = document.get(name)
    if not isinstance(value, bool | None):
        raise invalid_value(prefix + name, "it must be true or false")
    return bool(value)


def _whole_number(document: dict[str, Any], name: str, *, high: int) -> int | None:
    value = document.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= high:
        raise invalid_value(name, f"it must be a whole number from 1 to {high:,}")
    return value


def _check_number(document: dict[str, Any], name: str, *, low: float, high: float) -> None:
    value = document.get(name)
    if value is not None and (
        isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high
    ):
        raise invalid_value(name, f"it must be a number from {low} to {high}")

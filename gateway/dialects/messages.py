"""`POST /v1/messages`: Anthropic's protocol, its errors included."""

import math
import re
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from catalog.serving import Target
from gateway import fields, metering, shapes, weighing
from gateway.dialects.dialect import Answered, BrokenAnswerError, Dialect, Meter, decoded, repeatable
from gateway.dialects.shared_account import (
    OTHER_PRICE,
    STORED,
    UNBOUNDED,
    judge_name,
    judge_tools,
    objects_in,
)
from gateway.errors import Refusal, invalid_value
from gateway.metering import Usage
from gateway.parsing import Asked, boolean, messages_of, models_of
from gateway.sse import data_of, named_event_of
from gateway.strict_json import parse_object, written
from gateway.weighing import Image

_VERSION = "2023-06-01"
_PASSED_HEADERS = ("anthropic-version", "anthropic-beta")
_HEADER = re.compile(rb"[\w.,\- ]{1,1000}")
# Tools of any version that the client runs, or that only choose among its own.
_TOOL = re.compile(
    r"custom|(?:bash|text_editor|memory|computer|browser_toolset|computer_toolset)_\d+"
    r"|tool_search_tool_(?:bm25|regex)(?:_\d+)?"
)
_FIELDS: dict[str, fields.Judge] = {
    "max_tokens": fields.AN_OUTPUT_LIMIT,
    "system": fields.of_type("a string or a list of text blocks", str, list),
    "temperature": fields.number(0, 1),
    "top_p": fields.number(0, 1),
    "top_k": fields.whole_number(0, 1_000_000),
    "stop_sequences": fields.strings(8_192),
    "tools": fields.A_LIST,
    "tool_choice": fields.AN_OBJECT,
    "thinking": fields.AN_OBJECT,
    "output_config": fields.AN_OBJECT,
    "context_management": fields.AN_OBJECT,
    "cache_control": fields.AN_OBJECT,
    "metadata": fields.AN_OBJECT,
    # Not for clients of a shared account:
    "container": fields.never(STORED),
    "thread": fields.never(STORED),
    "user_profile_id": fields.never(STORED),
    "workspace_id": fields.never(STORED),
    "mcp_servers": fields.never(f"the upstream would call them, and {UNBOUNDED}"),
    "fallbacks": fields.never(f"{OTHER_PRICE}; send `models` to have this gateway fall back"),
    "fallback_credit_token": fields.never(OTHER_PRICE),
    "service_tier": fields.one_of("auto", "standard_only", why=OTHER_PRICE),
    "speed": fields.one_of("standard", why=OTHER_PRICE),
    "inference_geo": fields.one_of("global", why=OTHER_PRICE),
}
# The same of the content, by the type of a block, and by the type of its source.
_BLOCKS = {"container_upload": STORED, "mcp_tool_use": UNBOUNDED, "mcp_tool_result": UNBOUNDED}
_SOURCES = {"file": STORED}
# Where the payload of an image or a document stands, by the type of its source.
_PAYLOADS = {"url": "url", "base64": "data"}
# A system message may stand among the others since Anthropic's newer models.
_ROLE = fields.word("user", "assistant", "system")
# What is the client's own JSON, or a schema of it, and is read as text.
_NOT_BLOCKS = frozenset({"input", "input_schema"})
# How long a cache may keep what is written to it. An hour has another price than five minutes.
_TTL = "5m"
_NO_DELTA: dict[str, Any] = {
    "type": "message_delta",
    "delta": {"stop_reason": None, "stop_sequence": None},
}


class Messages(Dialect):
    endpoint = "messages"
    input_field = "messages"
    limit_fields = ("max_tokens",)
    id_header = b"request-id"

    def parse(self, body: bytes) -> Asked:
        document, images = read_input(body)
        if document.get("max_tokens") is None:
            raise invalid_value("max_tokens", "it is required")
        return Asked(
            document=document,
            models=models_of(document),
            is_streamed=boolean(document, "stream"),
            wants_usage=True,
            output_limit=document["max_tokens"],
            choices=1,
            most_input_tokens=len(body) + sum(image.most_tokens for image in images),
            input_characters=weighing.characters_of(document) + sum(image.characters for image in images),
            uses_tools=bool(document.get("tools")),
            has_images=bool(images),
        )

    def outgoing(self, asked: Asked, target: Target, output_limit: int) -> bytes:
        document = {**asked.document, "model": target.model, "max_tokens": output_limit}
        document.pop("models", None)
        return written(document)

    def upstream_headers(self, target: Target, client: Mapping[bytes, bytes]) -> dict[str, str]:
        """The version and the betas that the client asks for are part of the protocol; nothing else is passed on."""
        headers = {
            "x-api-key": target.api_key,
            "anthropic-version": _VERSION,
            "content-type": "application/json",
        }
        for name in _PASSED_HEADERS:
            value = client.get(name.encode(), b"")
            if _HEADER.fullmatch(value):
                headers[name] = value.decode("ascii")
        return headers

    def read(self, document: dict[str, Any]) -> Answered:
        content = document.get("content")
        if not isinstance(content, list):
            raise BrokenAnswerError("its answer is not a message")
        reason = document.get("stop_reason")
        return Answered(
            usage_of(document.get("usage")),
            sum(map(_produced_characters, content)),
            str(reason or "")[:30],
        )

    def meter(self, asked: Asked) -> Meter:
        return MessageMeter(asked)

    def refusal(self, refusal: Refusal, request_id: uuid.UUID) -> dict[str, Any]:
        return shapes.anthropics(
            status=refusal.status,
            message=refusal.message,
            param=refusal.param,
            code=refusal.code,
            request_id=str(request_id),
        )


def read_input(body: bytes) -> tuple[dict[str, Any], list[Image]]:
    """The document, judged but for its limit of output, and the images and documents in it. Raises Refusal."""
    document = parse_object(body)
    messages = messages_of(document)
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise invalid_value(f"messages[{index}]", "a message is an object with a `role`")
        _ROLE(f"messages[{index}].role", message["role"])
        _judge_content(message.get("content"), f"messages[{index}].content")
        # Only the beginning of an answer, which comes last, may be empty.
        if message["content"] == [] and (message is not messages[-1] or message["role"] != "assistant"):
            raise invalid_value(f"messages[{index}].content", "it must not be empty")
    fields.judge(document, _FIELDS)
    _judge_content(document.get("system") or "", "system")
    fields.judge_all(document.get("metadata") or {}, {"user_id": fields.A_STRING}, "metadata")
    _judge_cache(document, "")
    _judge_tools(document.get("tools") or [], "tools")
    return document, _judge_blocks(messages, "messages") + _judge_blocks(document.get("system"), "system")


class MessageMeter(Meter):
    """A stream of a message: its start with the input, blocks, a delta with the cumulative output, and its stop."""

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self._start: dict[str, Any] = {}
        self._counts: dict[str, Any] = {}
        self._delta: dict[str, Any] | None = None

    def take(self, event: bytes) -> bytes:
        data = data_of(event)
        if not data:
            return event
        chunk = decoded(data)
        match chunk.get("type"):
            case "content_block_delta":
                self.characters += _produced_characters(chunk.get("delta"))
            case "content_block_start":
                self.characters += _produced_characters(chunk.get("content_block"))
            case "message_start":
                self._take_start(chunk)
            case "message_delta":
                return self._take_delta(chunk)
            case "message_stop":
                self.is_done = True
                return b""
            case "error":
                raise BrokenAnswerError("it reported an error in its stream")
            case str():
                pass  # a ping, the end of a block, or what is yet to be invented
            case _:
                raise BrokenAnswerError("it sent an event without a type")
        return event

    def _take_start(self, chunk: dict[str, Any]) -> None:
        message = chunk.get("message")
        usage = message.get("usage") if isinstance(message, dict) else None
        if isinstance(usage, dict):
            # Its output is a first guess, which the delta replaces.
            self._start = {name: value for name, value in usage.items() if name != "output_tokens"}
            self._counts = self._start

    def _take_delta(self, chunk: dict[str, Any]) -> bytes:
        """Withheld until the end: the cost belongs into it. The last one counts; an earlier one goes out as it is."""
        earlier, self._delta = self._delta, repeatable(chunk)
        delta, usage = chunk.get("delta"), chunk.get("usage")
        if isinstance(delta, dict) and isinstance(delta.get("stop_reason"), str):
            self.finish_reason = delta["stop_reason"][:30]
        if isinstance(usage, dict):
            told = {name: value for name, value in usage.items() if value is not None}
            self._counts = {**self._counts, **told}
            self.usage = usage_of(self._counts)
        return b"" if earlier is None else named_event_of("message_delta", orjson.dumps(earlier))

    def measured(self) -> Usage:
        """What is reported; of a message that broke off, the input that its start told, and an estimate of the rest."""
        if self.usage is None:
            told = usage_of({**self._start, "output_tokens": 0})
            if told is not None:
                written = math.ceil(self.characters / metering.CHARACTERS_PER_TOKEN)
                return replace(told, output_tokens=written, is_estimated=True)
        return super().measured()

    def ending(self, usage: Usage, *, cost_usd: str) -> bytes:
        """The delta with the usage and the cost, and the stop."""
        delta = self._delta or _NO_DELTA
        counts = (self.usage and delta.get("usage")) or _usage_object(usage)
        last = {**delta, "usage": {**counts, "cost_usd": cost_usd}}
        stop = named_event_of("message_stop", b'{"type":"message_stop"}')
        return named_event_of("message_delta", orjson.dumps(last)) + stop

    def error(self, refusal: Refusal, request_id: uuid.UUID) -> bytes:
        return named_event_of("error", orjson.dumps(Messages().refusal(refusal, request_id)))


def usage_of(usage: object) -> Usage | None:
    """Anthropic's usage; None if it is absent, malformed, negative or absurd.

    Its `input_tokens` are those that no cache had: what was read from a cache and written to one comes on top.
    """
    if not isinstance(usage, dict):
        return None
    read = metering.count(usage.get("cache_read_input_tokens") or 0)
    made = metering.count(usage.get("cache_creation_input_tokens") or 0)
    fresh = metering.count(usage.get("input_tokens"))
    if read is None or made is None or fresh is None:
        return None
    return metering.reported(
        input_tokens=fresh + read + made,
        output_tokens=usage.get("output_tokens"),
        cached_tokens=read,
        cache_write_tokens=made,
    )


def _usage_object(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_input_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "output_tokens": usage.output_tokens,
    }


def _judge_content(content: object, at: str) -> None:
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise invalid_value(at, "it must be a string or a list of blocks")
    for index, block in enumerate(content):
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            raise invalid_value(f"{at}[{index}]", "a block is an object with a `type`")
        if block["type"] == "text":
            fields.A_STRING(f"{at}[{index}].text", block.get("text"))


def _judge_blocks(value: object, at: str) -> list[Image]:
    """The images and documents among the blocks. Raises Refusal."""
    images: list[Image] = []
    for name, block in objects_in(value, at, skipped=_NOT_BLOCKS):
        kind, source, definition = block.get("type"), block.get("source"), block.get("definition")
        if isinstance(kind, str) and kind in _BLOCKS:
            raise invalid_value(name, _BLOCKS[kind])
        _judge_cache(block, name)
        if kind == "tool_definition":
            _judge_tools([definition], f"{name}.definition")
        if isinstance(source, dict) and kind in ("image", "document"):
            origin = source.get("type")
            if not isinstance(origin, str):
                raise invalid_value(f"{name}.source", "a source is an object with a `type`")
            if origin in _SOURCES:
                raise invalid_value(f"{name}.source", _SOURCES[origin])
            if kind == "document" and origin == "url":
                raise invalid_value(f"{name}.source", UNBOUNDED)
            if origin in _PAYLOADS:
                payload = source.get(_PAYLOADS[origin])
                fields.A_STRING(f"{name}.source.{_PAYLOADS[origin]}", payload)
                images.append(weighing.image(payload) if kind == "image" else weighing.file(payload))
    return images


def _judge_cache(marked: dict[str, Any], at: str) -> None:
    """Raises Refusal for what is to stay in a cache for longer than its price is for."""
    control = marked.get("cache_control")
    if isinstance(control, dict) and control.get("ttl") not in (None, _TTL):
        raise invalid_value(f"{at}.cache_control.ttl".lstrip("."), f"{OTHER_PRICE}; send {_TTL!r}, or none")


def _judge_tools(tools: list[Any], at: str) -> None:
    judge_tools(tools, is_allowed=_TOOL.fullmatch, at=at, default="custom")
    for index, tool in enumerate(tools):
        _judge_cache(tool, f"{at}[{index}]")
        if tool.get("type") in (None, "custom"):
            judge_name(tool, f"{at}[{index}]")


def _produced_characters(block: object) -> int:
    """Of a block or of a delta of one: text, thinking, the call of a tool."""
    if not isinstance(block, dict):
        return 0
    return sum(
        metering.characters(block.get(name)) for name in ("text", "thinking", "partial_json", "name", "input")
    )

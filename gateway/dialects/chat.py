"""`POST /v1/chat/completions`: OpenAI's chat, which most providers speak."""

import re
import uuid
from typing import Any, ClassVar

import orjson

from catalog.serving import Target
from gateway import fields, metering, weighing
from gateway.dialects.dialect import (
    Answered,
    BrokenAnswerError,
    Dialect,
    Meter,
    decoded,
    encoded,
    repeatable,
)
from gateway.dialects.openai_usage import read_usage
from gateway.dialects.shared_account import (
    APART,
    NO_STORE,
    OTHER_PRICE,
    SERVICE_TIER,
    STORED,
    UNBOUNDED,
    judge_name,
    judge_tools,
    objects_in,
)
from gateway.errors import Refusal, invalid_value
from gateway.metering import Usage
from gateway.parsing import Asked, boolean, messages_of, models_of
from gateway.sse import data_of, event_of
from gateway.strict_json import parse_object, written
from gateway.weighing import Image

_MAX_CHOICES = 128
_LIMITS = ("max_tokens", "max_completion_tokens")
_DONE = b"[DONE]"
# What OpenAI writes into every chunk but the last when it is asked for usage. It closes the chunk, so it is no text.
_NO_USAGE = b',"usage":null}'
_DATA, _END = b"data: ", b"\n\n"
_LINE_AND_BLANK = 2
# What ends the plain part of a stream: the figures, and the last word.
_SPECIAL = re.compile(rb'"usage":\s*\{|data: \[')

# Tools that the client runs, at any provider that speaks this protocol.
_TOOLS = frozenset({"function", "custom"})
_ROLE = fields.word("system", "developer", "user", "assistant", "tool", "function")


def _nothing_stored(name: str, value: object) -> None:
    """Google's own fields stand in an object of their own; one of them names content that is stored there."""
    for at, inner in objects_in(value, name, skipped=()):
        if "cached_content" in inner:
            raise invalid_value(f"{at}.cached_content", STORED)


SAMPLING: dict[str, fields.Judge] = {
    "temperature": fields.number(0, 2),
    "top_p": fields.number(0, 1),
    "frequency_penalty": fields.number(-2, 2),
    "presence_penalty": fields.number(-2, 2),
    "n": fields.whole_number(1, _MAX_CHOICES),
    "max_tokens": fields.AN_OUTPUT_LIMIT,
    "stop": fields.stop,
    "seed": fields.of_type("a whole number", int),
    "logit_bias": fields.AN_OBJECT,
    "user": fields.A_STRING,
}
_FIELDS: dict[str, fields.Judge] = {
    **SAMPLING,
    "max_completion_tokens": fields.AN_OUTPUT_LIMIT,
    "top_logprobs": fields.whole_number(0, 20),
    "tools": fields.A_LIST,
    "tool_choice": fields.A_STRING_OR_AN_OBJECT,
    "functions": fields.objects,
    "function_call": fields.A_STRING_OR_AN_OBJECT,
    "prediction": fields.AN_OBJECT,
    "safety_identifier": fields.A_STRING,
    "prompt_cache_key": fields.A_STRING,
    "logprobs": fields.TRUE_OR_FALSE,
    "metadata": fields.AN_OBJECT,
    "response_format": fields.AN_OBJECT,
    "reasoning_effort": fields.AN_EFFORT,
    "parallel_tool_calls": fields.TRUE_OR_FALSE,
    # Not for clients of a shared account:
    "store": NO_STORE,
    "service_tier": SERVICE_TIER,
    "modalities": fields.one_of(["text"], why=OTHER_PRICE),
    "audio": fields.never(OTHER_PRICE),
    "web_search_options": fields.never(APART),
    "search_parameters": fields.never(APART),
    "enable_search": fields.only_false(APART),
    "plugins": fields.never(APART),
    "cached_content": fields.never(STORED),
    "extra_body": _nothing_stored,
}
# Parts of a message that are refused, by their type.
_PARTS = {
    "input_audio": OTHER_PRICE,
    "audio_url": OTHER_PRICE,
    "video_url": UNBOUNDED,
}


class Chat(Dialect):
    endpoint = "chat/completions"
    input_field = "messages"
    limit_fields: ClassVar[tuple[str, ...]] = _LIMITS

    def parse(self, body: bytes) -> Asked:
        document = parse_object(body)
        messages = messages_of(document)
        images = [image for index, message in enumerate(messages) for image in _images_of(message, index)]
        fields.judge(document, _FIELDS)
        _judge_tools(document.get("tools") or [])
        is_streamed = boolean(document, "stream")
        return Asked(
            document=document,
            models=models_of(document),
            is_streamed=is_streamed,
            wants_usage=self.wants_usage(document, is_streamed=is_streamed),
            output_limit=_output_limit(document),
            choices=document.get("n") or 1,
            most_input_tokens=len(body) + sum(image.most_tokens for image in images),
            input_characters=weighing.characters_of(document) + sum(image.characters for image in images),
            uses_tools=bool(document.get("tools") or document.get("functions")),
            has_images=bool(images),
        )

    def outgoing(self, asked: Asked, target: Target, output_limit: int) -> bytes:
        document: dict[str, Any] = {**asked.document, "model": target.model}
        document.pop("models", None)
        if output_limit:
            named = [name for name in _LIMITS if document.get(name) is not None]
            document |= dict.fromkeys(named or [target.output_limit_parameter], output_limit)
        return written(with_usage_in_stream(document) if asked.is_streamed else document)

    def read(self, document: dict[str, Any]) -> Answered:
        choices = document.get("choices")
        if not isinstance(choices, list):
            raise BrokenAnswerError("its answer is not a completion")
        return Answered(usage_of(document.get("usage")), produced_characters(choices), finish_reason(choices))

    def meter(self, asked: Asked) -> Meter:
        return ChunkMeter(asked)

    @staticmethod
    def wants_usage(document: dict[str, Any], *, is_streamed: bool) -> bool:
        """Whether the client wants to see its usage in the stream. Raises Refusal."""
        options = document.get("stream_options")
        if options is None:
            return False
        if not isinstance(options, dict):
            raise invalid_value("stream_options", "it must be an object")
        if not is_streamed:
            raise invalid_value("stream_options", "it is only allowed when `stream` is true")
        return boolean(options, "include_usage", "stream_options.")


def with_usage_in_stream(document: dict[str, Any]) -> dict[str, Any]:
    """The body with the wish for a usage chunk, which the upstream must send whatever the client wishes."""
    options = document.get("stream_options") or {}
    return {**document, "stream_options": {**options, "include_usage": True}}


class ChunkMeter(Meter):
    """A stream of chunks with choices, then one with the usage, then `[DONE]`."""

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self._last: dict[str, Any] = {}
        self._usage_chunk: dict[str, Any] | None = None

    def take_plain(self, events: bytes) -> tuple[bytes, bytes]:
        if events.count(b"\n") == _LINE_AND_BLANK and (alone := self._take_alone(events)) is not None:
            return alone, b""
        special = _SPECIAL.search(events)
        end = events.rfind(_END, 0, special.start()) + 2 if special else len(events)
        if end < len(_DATA):
            return b"", events
        passed = self._take_text(events[:end])
        return (b"", events) if passed is None else (passed, events[end:])

    def _take_alone(self, event: bytes) -> bytes | None:
        """One chunk of nothing but text, as most come; None, and nothing taken, where it is anything else."""
        if not event.startswith(_DATA) or not event.endswith(_END) or b"\r" in event:
            return None
        try:
            chunk = orjson.loads(event[len(_DATA) : -len(_END)])
        except orjson.JSONDecodeError:
            return None
        if type(chunk) is not dict or chunk.get("error") is not None or chunk.get("usage") is not None:
            return None
        choices = chunk.get("choices")
        if not choices:
            return None
        passed = event
        if "usage" in chunk and not self.asked.wants_usage:
            if not event.endswith(_NO_USAGE + _END):
                return None
            passed = event[: -len(_NO_USAGE + _END)] + b"}" + _END
        said, why = _said(choices)
        self.characters += said
        if why:
            self.finish_reason = why
        self._last = chunk
        return passed

    def _take_text(self, events: bytes) -> bytes | None:
        """Chunks that are one line each and nothing but text; None, and nothing taken, where they are not."""
        number = events.count(_END)
        if events.count(b"\n") != 2 * number or b"\r" in events or not events.startswith(_DATA):
            return None
        try:
            chunks = orjson.loads(b"[" + events[len(_DATA) : -2].replace(_END + _DATA, b",") + b"]")
        except orjson.JSONDecodeError:
            return None
        characters, reason, unused = 0, self.finish_reason, 0
        for chunk in chunks:
            if type(chunk) is not dict or chunk.get("error") is not None or chunk.get("usage") is not None:
                return None
            if not chunk.get("choices"):
                return None
            said, why = _said(chunk["choices"])
            characters += said
            reason = why or reason
            unused += "usage" in chunk
        passed, stripped = events, 0
        if unused and not self.asked.wants_usage:
            passed, stripped = events.replace(_NO_USAGE + _END, b"}" + _END), unused * (len(_NO_USAGE) - 1)
        if len(chunks) != number or len(events) - len(passed) != stripped:
            return None
        self.characters += characters
        self.finish_reason = reason
        self._last = chunks[-1]
        return passed

    def take(self, event: bytes) -> bytes:
        data = data_of(event)
        if not data:
            return event
        if data == _DONE:
            self.is_done = True
            return b""
        chunk = decoded(data)
        if chunk.get("error") is not None:
            raise BrokenAnswerError("it reported an error in its stream")
        self._last = chunk
        said, why = _said(chunk.get("choices"))
        self.characters += said
        self.finish_reason = why or self.finish_reason
        if "usage" not in chunk:
            return event
        return self._take_usage(chunk, event, data)

    def _take_usage(self, chunk: dict[str, Any], event: bytes, data: bytes) -> bytes:
        if chunk["usage"] is not None:
            self.usage = usage_of(chunk["usage"])
        if not chunk.get("choices"):
            # Passed on at the end, with the cost, if the client wants it.
            self._usage_chunk = repeatable(chunk)
            return b""
        if self.asked.wants_usage:
            return event
        if data.endswith(_NO_USAGE):
            return event_of(data[: -len(_NO_USAGE)] + b"}")
        del chunk["usage"]
        return event_of(encoded(chunk))

    def ending(self, usage: Usage, *, cost_usd: str) -> bytes:
        """The chunk with the usage if it is wanted, the upstream's own or one of ours, and `[DONE]`."""
        if not self.asked.wants_usage:
            return event_of(_DONE)
        same: dict[str, Any] = {
            name: self._last[name]
            for name in ("id", "object", "created", "model")
            if isinstance(self._last.get(name), str | int)
        }
        chunk = self._usage_chunk or {**same, "choices": []}
        counts = chunk.get("usage") if self.usage is not None else None
        counts = counts or {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.input_tokens + usage.output_tokens,
        }
        return event_of(orjson.dumps({**chunk, "usage": {**counts, "cost_usd": cost_usd}})) + event_of(_DONE)

    def error(self, refusal: Refusal, request_id: uuid.UUID) -> bytes:
        return event_of(orjson.dumps(refusal.as_json()))


def usage_of(usage: object) -> Usage | None:
    """OpenAI's usage object of a chat or a completion."""
    return read_usage(usage, given="prompt_tokens", written="completion_tokens")


def _said(choices: object) -> tuple[int, str]:
    """The characters that the choices of a chunk carry, and why one of them ended, if one did."""
    written, reason = 0, ""
    if isinstance(choices, list):
        for choice in choices:
            if isinstance(choice, dict):
                delta = choice.get("delta")
                text = delta.get("content") if type(delta) is dict and len(delta) == 1 else None
                # Nearly every delta is a piece of text and nothing else.
                written += (
                    len(text) if type(text) is str else metering.characters(delta or choice.get("text"))
                )
                why = choice.get("finish_reason")
                if why is not None and not reason and isinstance(why, str):
                    reason = why[:30]
    return written, reason


def produced_characters(choices: list[Any]) -> int:
    """The characters that the choices of a whole answer carry."""
    return sum(
        metering.characters(choice.get("message") or choice.get("text"))
        for choice in choices
        if isinstance(choice, dict)
    )


def finish_reason(choices: list[Any]) -> str:
    """Why the first choice that has ended did; empty while none has."""
    for choice in choices:
        if isinstance(choice, dict) and isinstance(choice.get("finish_reason"), str):
            return str(choice["finish_reason"])[:30]
    return ""


def _output_limit(document: dict[str, Any]) -> int | None:
    newer, older = document.get("max_completion_tokens"), document.get("max_tokens")
    if newer is not None and older is not None and newer != older:
        raise invalid_value("max_tokens", "it differs from `max_completion_tokens`; send one of them")
    limit: int | None = older if newer is None else newer
    return limit


def _judge_tools(tools: list[Any]) -> None:
    judge_tools(tools, is_allowed=_TOOLS.__contains__, at="tools")
    for index, tool in enumerate(tools):
        # What a tool is stands in an object that is called like its type.
        judge_name(tool.get(tool["type"]), f"tools[{index}].{tool['type']}")


def _images_of(message: object, index: int) -> list[Image]:
    """The images and files of a message. Raises Refusal for what is no message."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise invalid_value(f"messages[{index}]", "a message is an object with a `role`")
    _ROLE(f"messages[{index}].role", message["role"])
    if message.get("audio") is not None:
        raise invalid_value(f"messages[{index}].audio", STORED)
    content = message.get("content")
    if content is None or isinstance(content, str):
        return []
    if not isinstance(content, list):
        raise invalid_value(f"messages[{index}].content", "it must be a string or a list of parts")
    return [
        image
        for number, part in enumerate(content)
        for image in _image_of(part, f"messages[{index}].content[{number}]")
    ]


def _image_of(part: object, at: str) -> list[Image]:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise invalid_value(at, "a part is an object with a `type`")
    kind = part["type"]
    if kind in _PARTS:
        raise invalid_value(at, _PARTS[kind])
    inner = part.get(kind)
    if kind == "text":
        fields.A_STRING(f"{at}.text", inner)
    if kind == "image_url":
        url = inner.get("url") if isinstance(inner, dict) else inner
        if not isinstance(url, str):
            raise invalid_value(f"{at}.image_url", "it must be an object with a `url`, a string")
        return [weighing.image(url)]
    if kind == "file":
        if not isinstance(inner, dict) or not isinstance(inner.get("file_data"), str) or "file_id" in inner:
            raise invalid_value(f"{at}.file", f"send it as `file_data`; as to `file_id`: {STORED}")
        return [weighing.file(inner["file_data"])]
    return []

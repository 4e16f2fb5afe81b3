"""`POST /v1/responses`: OpenAI's newer protocol, without what it stores."""

import uuid
from typing import Any

import orjson

from catalog.serving import Target
from gateway import fields, metering, weighing
from gateway.dialects.dialect import Answered, BrokenAnswerError, Dialect, Meter, decoded, repeatable
from gateway.dialects.openai_usage import read_usage
from gateway.dialects.shared_account import (
    APART,
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
from gateway.parsing import Asked, boolean, models_of
from gateway.sse import data_of, named_event_of
from gateway.strict_json import parse_object, written
from gateway.weighing import Image

# Tools that the client runs itself, or that only choose among its own.
_TOOLS = frozenset(
    {
        "function",
        "custom",
        "local_shell",
        "shell",  # judged further: its environment may be a container of the upstream's
        "apply_patch",
        "computer",
        "computer_use_preview",
        "namespace",
        "tool_search",
    }
)
_FIELDS: dict[str, fields.Judge] = {
    "instructions": fields.A_STRING,
    "max_output_tokens": fields.AN_OUTPUT_LIMIT,
    "max_tool_calls": fields.whole_number(1, 10_000),
    "temperature": fields.number(0, 2),
    "top_p": fields.number(0, 1),
    "top_logprobs": fields.whole_number(0, 20),
    "safety_identifier": fields.A_STRING,
    "prompt_cache_key": fields.A_STRING,
    "tools": fields.A_LIST,
    "tool_choice": fields.A_STRING_OR_AN_OBJECT,
    "parallel_tool_calls": fields.TRUE_OR_FALSE,
    "reasoning": fields.AN_OBJECT,
    "text": fields.AN_OBJECT,
    "include": fields.A_LIST,
    "metadata": fields.AN_OBJECT,
    "truncation": fields.A_STRING,
    "user": fields.A_STRING,
    "stream_options": fields.AN_OBJECT,
    # Not for clients of a shared account:
    "store": fields.only_false(f"{STORED}; send the whole conversation as `input` instead"),
    "background": fields.only_false(STORED),
    "previous_response_id": fields.never(f"{STORED}; send the whole conversation as `input` instead"),
    "conversation": fields.never(f"{STORED}; send the whole conversation as `input` instead"),
    "prompt": fields.never(f"{STORED}; send the text of the prompt as `instructions`"),
    "service_tier": SERVICE_TIER,
}
# The same of what is inside the input, by the names of fields and by the types of items and parts.
_INSIDE = {"file_id": STORED, "file_url": UNBOUNDED, "container_id": STORED}
_TYPES = {"item_reference": STORED, "input_audio": OTHER_PRICE}
# Where the payload of an image or a file stands, by the type of the part that carries it.
_IMAGES = {"input_image": "image_url", "computer_screenshot": "image_url", "image_generation_call": "result"}
_FILES = {"input_file": "file_data"}
_TEXTS = frozenset({"input_text", "output_text"})
# An item without a type is a message.
_MESSAGE = "message"
_ROLE = fields.word("user", "assistant", "system", "developer")
_NAMED = frozenset({"function", "custom"})
# What is the client's own JSON, or a schema of it, and is read as text.
_NOT_PARTS = frozenset({"tools", "arguments", "action"})
# What of an output item the model wrote.
_WRITTEN = ("content", "summary", "name", "arguments", "input", "action", "operation")
_ENDS = frozenset({"response.completed", "response.incomplete"})


class Responses(Dialect):
    endpoint = "responses"
    input_field = "input"
    limit_fields = ("max_output_tokens",)

    def parse(self, body: bytes) -> Asked:
        document = parse_object(body)
        given = document.get("input")
        if not isinstance(given, str | list) or not given:
            raise invalid_value("input", "it must be a string or a list with at least one item")
        fields.judge(document, _FIELDS)
        fields.judge_all(document.get("reasoning") or {}, {"effort": fields.AN_EFFORT}, "reasoning")
        tools = document.get("tools") or []
        _judge_tools(tools, "tools")
        images = _judge_items(given) if isinstance(given, list) else []
        return Asked(
            document=document,
            models=models_of(document),
            is_streamed=boolean(document, "stream"),
            wants_usage=True,
            output_limit=document.get("max_output_tokens"),
            choices=1,
            most_input_tokens=len(body) + sum(image.most_tokens for image in images),
            input_characters=weighing.characters_of(document) + sum(image.characters for image in images),
            uses_tools=bool(tools),
            has_images=bool(images),
        )

    def outgoing(self, asked: Asked, target: Target, output_limit: int) -> bytes:
        document: dict[str, Any] = {**asked.document, "model": target.model, "store": False}
        document.pop("models", None)
        if output_limit:
            document["max_output_tokens"] = output_limit
        return written(document)

    def read(self, document: dict[str, Any]) -> Answered:
        output = document.get("output")
        if not isinstance(output, list) or document.get("status") == "failed":
            raise BrokenAnswerError("its answer is not a response")
        return Answered(usage_of(document.get("usage")), _produced_characters(output), _reason(document))

    def meter(self, asked: Asked) -> Meter:
        return EventMeter(asked)


class EventMeter(Meter):
    """A stream of typed events; the last is the whole response with its usage."""

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self._sequence = -1
        self._last: dict[str, Any] = {}

    def take(self, event: bytes) -> bytes:
        data = data_of(event)
        if not data:
            return event
        if data == b"[DONE]":
            return b""  # some say it; here the last event is the end
        chunk = decoded(data)
        kind = chunk.get("type")
        if type(chunk.get("sequence_number")) is int:
            self._sequence = chunk["sequence_number"]
        if not isinstance(kind, str):
            raise BrokenAnswerError("it sent an event without a type")
        if kind.endswith(".delta"):
            self.characters += metering.characters(chunk.get("delta"))
            return event
        if kind in _ENDS:
            self._take_end(chunk)
            return b""
        if kind in ("error", "response.failed"):
            self.usage = usage_of(_response(chunk).get("usage"))
            raise BrokenAnswerError("it reported an error in its stream")
        return event

    def _take_end(self, chunk: dict[str, Any]) -> None:
        self._last = repeatable(chunk)
        response = _response(chunk)
        self.usage = usage_of(response.get("usage"))
        self.finish_reason = _reason(response)
        self.is_done = True

    def ending(self, usage: Usage, *, cost_usd: str) -> bytes:
        """The whole response, with the cost in its usage."""
        response = _response(self._last)
        counts = response["usage"] if self.usage is not None else _usage_object(usage)
        last = {**self._last, "response": {**response, "usage": {**counts, "cost_usd": cost_usd}}}
        return named_event_of(self._last["type"], orjson.dumps(last))

    def error(self, refusal: Refusal, request_id: uuid.UUID) -> bytes:
        return named_event_of(
            "error",
            orjson.dumps(
                {
                    "type": "error",
                    "code": refusal.code,
                    "message": refusal.message,
                    "param": refusal.param,
                    "sequence_number": self._sequence + 1,
                }
            ),
        )


def usage_of(usage: object) -> Usage | None:
    """The usage of a response."""
    return read_usage(usage, given="input_tokens", written="output_tokens")


def _usage_object(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_input_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _judge_items(items: list[Any]) -> list[Image]:
    """The images and files of the input. Raises Refusal."""
    for index, item in enumerate(items):
        _judge_item(item, f"input[{index}]")
    images: list[Image] = []
    for at, part in objects_in(items, "input", skipped=_NOT_PARTS):
        kind = part.get("type")
        for name, why in _INSIDE.items():
            if isinstance(part.get(name), str):
                raise invalid_value(f"{at}.{name}", why)
        if isinstance(kind, str) and kind in _TYPES:
            raise invalid_value(at, _TYPES[kind])
        if isinstance(kind, str) and kind in _IMAGES:
            images.append(weighing.image(_payload(part, _IMAGES[kind], at)))
        if isinstance(kind, str) and kind in _FILES:
            images.append(weighing.file(_payload(part, _FILES[kind], at)))
    return images


def _payload(part: dict[str, Any], name: str, at: str) -> object:
    payload = part.get(name)
    if payload is not None:
        fields.A_STRING(f"{at}.{name}", payload)
    return payload


def _judge_item(item: object, at: str) -> None:
    # An item with neither is a reference by its id, whatever else it calls itself.
    if not isinstance(item, dict) or not isinstance(item.get("type") or item.get("role"), str):
        raise invalid_value(at, "an item is an object with a `type` or a `role`")
    if item.get("type") in (None, _MESSAGE):
        _judge_message(item, at)
    if item.get("tools") is not None:  # the input may bring some along
        _judge_tools(item["tools"], f"{at}.tools")


def _judge_message(item: dict[str, Any], at: str) -> None:
    """What an item of another type looks like is the upstream's to judge: there are many, and soon more."""
    _ROLE(f"{at}.role", item.get("role"))
    content = item.get("content")
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise invalid_value(f"{at}.content", "it must be a string or a list of parts")
    for number, part in enumerate(content):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise invalid_value(f"{at}.content[{number}]", "a part is an object with a `type`")
        if part["type"] in _TEXTS:
            fields.A_STRING(f"{at}.content[{number}].text", part.get("text"))


def _judge_tools(tools: object, at: str) -> None:
    if not isinstance(tools, list):
        raise invalid_value(at, "it must be a list")
    judge_tools(tools, is_allowed=_TOOLS.__contains__, at=at)
    for index, tool in enumerate(tools):
        if tool["type"] in _NAMED:
            judge_name(tool, f"{at}[{index}]")
        if tool["type"] == "namespace":
            _judge_tools(tool.get("tools"), f"{at}[{index}].tools")
        environment = tool.get("environment")
        if environment is not None and (
            not isinstance(environment, dict) or environment.get("type") != "local"
        ):
            raise invalid_value(f"{at}[{index}].environment", f"only a local one: {APART}")


def _response(chunk: dict[str, Any]) -> dict[str, Any]:
    response = chunk.get("response")
    return response if isinstance(response, dict) else {}


def _reason(response: dict[str, Any]) -> str:
    """Why it ended: `completed`, or what made it incomplete."""
    details = response.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    told = reason or response.get("status")
    return told[:30] if isinstance(told, str) and told else "completed"


def _produced_characters(output: list[Any]) -> int:
    return sum(
        metering.characters(item.get(name)) for item in output if isinstance(item, dict) for name in _WRITTEN
    )

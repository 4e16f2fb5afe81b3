"""The sandbox as Anthropic's messages."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from gateway.sandbox.answers import (
    Answer,
    Prompt,
    encoded,
    read_limit,
    read_model,
    words_of_content,
    words_of_contents,
)
from gateway.sandbox.controls import BadRequest
from gateway.sandbox.protocol import Protocol, named_event


class Messages(Protocol):
    """Messages in, one message out. Cached input counts apart from the other, as Anthropic has it."""

    breaks_after = 4
    needs_limit = True

    def read(self, body: Mapping[str, Any]) -> Prompt:
        limit = read_limit(body, "max_tokens")
        if limit is None and self.needs_limit:
            raise BadRequest("max_tokens is required", param="max_tokens")
        words = words_of_contents(body.get("messages"), "messages")
        return Prompt(
            body=body,
            model=read_model(body),
            input_tokens=words + words_of_content(body.get("system")),
            is_streamed=body.get("stream") is True,
            output_limit=limit,
        )

    def document(self, prompt: Prompt, answer: Answer) -> dict[str, Any]:
        return {
            **_message(prompt, answer),
            "content": [{"type": "text", "text": answer.text}],
            "stop_reason": _stop_reason(answer),
            **_with_usage(_usage(answer)),
        }

    def events(self, prompt: Prompt, answer: Answer) -> Iterator[bytes]:
        usage = _usage(answer)
        # Of the output, the start tells a first guess, and the delta the truth.
        at_start = None if usage is None else {**usage, "output_tokens": 1}
        yield named_event("message_start", {"message": {**_message(prompt, answer), **_with_usage(at_start)}})
        block = {"type": "text", "text": ""}
        yield named_event("content_block_start", {"index": 0, "content_block": block})
        yield named_event("ping", {})
        head = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":'
            b'{"type":"text_delta","text":'
        )
        for piece in encoded(answer.pieces):
            yield head + piece + b"}}\n\n"
        yield named_event("content_block_stop", {"index": 0})
        delta = {"stop_reason": _stop_reason(answer), "stop_sequence": None}
        told = usage if answer.usage is not None or usage is None else _output(answer)
        yield named_event("message_delta", {"delta": delta, **_with_usage(told)})
        yield named_event("message_stop", {})

    def error(self, message: str, *, code: str | None = None, param: str | None = None) -> dict[str, Any]:
        kind = "invalid_request_error" if code is None else "api_error"
        return {"type": "error", "error": {"type": kind, "message": message, "code": code, "param": param}}

    def error_event(self) -> bytes:
        return b"event: error\ndata: " + orjson.dumps(self.failure()) + b"\n\n"


class CountTokens(Messages):
    """The tokens of messages, without an answer to them."""

    needs_limit = False

    def document(self, prompt: Prompt, answer: Answer) -> dict[str, Any]:
        return {"input_tokens": prompt.input_tokens}


def _message(prompt: Prompt, answer: Answer) -> dict[str, Any]:
    return {
        "id": f"msg_sandbox_{answer.number}",
        "type": "message",
        "role": "assistant",
        "model": prompt.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _stop_reason(answer: Answer) -> str:
    return "max_tokens" if answer.is_cut else "end_turn"


def _usage(answer: Answer) -> Mapping[str, Any] | None:
    if answer.usage is not None:
        return answer.usage
    if not answer.reports_usage:
        return None
    return {
        "input_tokens": answer.input_tokens - answer.cached_tokens - answer.cache_write_tokens,
        "cache_read_input_tokens": answer.cached_tokens,
        "cache_creation_input_tokens": answer.cache_write_tokens,
        **_output(answer),
    }


def _output(answer: Answer) -> dict[str, Any]:
    return {"output_tokens": answer.output_tokens}


def _with_usage(usage: Mapping[str, Any] | None) -> dict[str, Any]:
    return {} if usage is None else {"usage": usage}

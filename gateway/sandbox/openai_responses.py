"""The sandbox as OpenAI's responses."""

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
from gateway.sandbox.protocol import Protocol, named_event


class Responses(Protocol):
    """Items in, one message out. Nothing is stored."""

    breaks_after = 6

    def read(self, body: Mapping[str, Any]) -> Prompt:
        given = body.get("input")
        words = words_of_content(given) if isinstance(given, str) else words_of_contents(given, "input")
        return Prompt(
            body=body,
            model=read_model(body),
            input_tokens=words + words_of_content(body.get("instructions")),
            is_streamed=body.get("stream") is True,
            output_limit=read_limit(body, "max_output_tokens"),
        )

    def document(self, prompt: Prompt, answer: Answer) -> dict[str, Any]:
        whole = _response(prompt, answer, status="incomplete" if answer.is_cut else "completed")
        whole["output"] = [_item(answer, status="completed", content=[_part(answer.text)])]
        usage = _usage(answer)
        return whole if usage is None else {**whole, "usage": usage}

    def events(self, prompt: Prompt, answer: Answer) -> Iterator[bytes]:
        for number, (name, data) in enumerate(self._events(prompt, answer)):
            if isinstance(data, bytes):
                yield b'event: %b\ndata: {"type":"%b",%b,"sequence_number":%d}\n\n' % (
                    name.encode(),
                    name.encode(),
                    data,
                    number,
                )
            else:
                yield named_event(name, {**data, "sequence_number": number})

    def _events(self, prompt: Prompt, answer: Answer) -> Iterator[tuple[str, dict[str, Any] | bytes]]:
        """Each event's name, with its data or, for the many that differ in one word, with what stands in it."""
        began = {"response": _response(prompt, answer, status="in_progress")}
        place = {"item_id": f"msg_sandbox_{answer.number}", "output_index": 0, "content_index": 0}
        yield "response.created", began
        yield "response.in_progress", began
        item = _item(answer, status="in_progress", content=[])
        yield "response.output_item.added", {"output_index": 0, "item": item}
        yield "response.content_part.added", {**place, "part": _part("")}
        head = orjson.dumps({**place, "logprobs": []})[1:-1] + b',"delta":'
        for piece in encoded(answer.pieces):
            yield "response.output_text.delta", head + piece
        yield "response.output_text.done", {**place, "text": answer.text, "logprobs": []}
        yield "response.content_part.done", {**place, "part": _part(answer.text)}
        item = _item(answer, status="completed", content=[_part(answer.text)])
        yield "response.output_item.done", {"output_index": 0, "item": item}
        end = "response.incomplete" if answer.is_cut else "response.completed"
        yield end, {"response": self.document(prompt, answer)}

    def failure(self) -> dict[str, Any]:
        return {"object": "response", "status": "failed", "output": [], **super().failure()}

    def error_event(self) -> bytes:
        error = super().failure()["error"]
        return named_event("error", {name: error[name] for name in ("code", "message", "param")})


def _response(prompt: Prompt, answer: Answer, *, status: str) -> dict[str, Any]:
    return {
        "id": f"resp_sandbox_{answer.number}",
        "object": "response",
        "created_at": answer.created,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "model": prompt.model,
        "output": [],
        "parallel_tool_calls": True,
        "store": prompt.body.get("store", True),
        "tool_choice": "auto",
        "tools": [],
        "usage": None,
    }


def _item(answer: Answer, *, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": f"msg_sandbox_{answer.number}",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": content,
    }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(answer: Answer) -> Mapping[str, Any] | None:
    if answer.usage is not None:
        return answer.usage
    if not answer.reports_usage:
        return None
    return {
        "input_tokens": answer.input_tokens,
        "input_tokens_details": {
            "cached_tokens": answer.cached_tokens,
            "cache_write_tokens": answer.cache_write_tokens,
        },
        "output_tokens": answer.output_tokens,
        "output_tokens_details": {"reasoning_tokens": answer.reasoning_tokens},
        "total_tokens": answer.input_tokens + answer.output_tokens,
    }

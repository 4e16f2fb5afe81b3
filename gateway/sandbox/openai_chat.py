"""The sandbox as OpenAI's chat completions, and as the older completions."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from gateway.sandbox.answers import (
    Answer,
    Prompt,
    count_tokens,
    encoded,
    read_limit,
    read_model,
    words_of_contents,
)
from gateway.sandbox.controls import BadRequest
from gateway.sandbox.protocol import Protocol


class Completions(Protocol):
    """Text in, text out."""

    done = b"data: [DONE]\n\n"

    def read(self, body: Mapping[str, Any]) -> Prompt:
        options = body.get("stream_options")
        choices = body.get("n")
        if choices is not None and (not isinstance(choices, int) or not 1 <= choices <= 128):  # noqa: PLR2004 - OpenAI's
            raise BadRequest("n must be a whole number from 1 to 128", param="n")
        return Prompt(
            body=body,
            model=read_model(body),
            input_tokens=self.count(body),
            is_streamed=body.get("stream") is True,
            wants_usage=isinstance(options, dict) and options.get("include_usage") is True,
            choices=(choices or 1) * self.prompts(body),
            output_limit=read_limit(body, "max_completion_tokens", "max_tokens"),
        )

    def count(self, body: Mapping[str, Any]) -> int:
        return count_tokens(body.get("prompt"), "prompt")

    def prompts(self, body: Mapping[str, Any]) -> int:
        """How many texts are to be completed."""
        prompt = body["prompt"]
        return len(prompt) if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else 1

    def document(self, prompt: Prompt, answer: Answer) -> dict[str, Any]:
        whole = self.envelope(prompt, answer, is_chunk=False)
        whole["choices"] = [
            {
                "index": index,
                **self.said(answer.text),
                "logprobs": None,
                "finish_reason": _finish_reason(answer),
            }
            for index in range(prompt.choices)
        ]
        usage = _usage(answer)
        return whole if usage is None else {**whole, "usage": usage}

    def said(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def events(self, prompt: Prompt, answer: Answer) -> Iterator[bytes]:
        head = b"data: " + orjson.dumps(self.envelope(prompt, answer, is_chunk=True))[:-1] + b',"choices":['
        tail = b'],"usage":null}\n\n' if prompt.wants_usage else b"]}\n\n"
        for index in range(prompt.choices):
            start = head + b'{"index":%d,' % index
            yield from self.choice(start, tail, answer)
        usage = _usage(answer)
        if prompt.wants_usage and usage is not None:
            yield head + b'],"usage":' + orjson.dumps(usage) + b"}\n\n"

    def choice(self, start: bytes, tail: bytes, answer: Answer) -> Iterator[bytes]:
        """The events of one choice, each between `start` and `tail`."""
        before, after = start + b'"text":', b',"finish_reason":null}' + tail
        for piece in encoded(answer.pieces):
            yield before + piece + after
        yield start + b'"text":"","finish_reason":"%s"}' % _finish_reason(answer).encode() + tail

    def envelope(self, prompt: Prompt, answer: Answer, *, is_chunk: bool) -> dict[str, Any]:
        return _envelope(prompt, answer, prefix="cmpl", kind="text_completion")


class Chat(Completions):
    """Messages in, a message out."""

    def count(self, body: Mapping[str, Any]) -> int:
        return words_of_contents(body.get("messages"), "messages")

    def prompts(self, body: Mapping[str, Any]) -> int:
        return 1

    def said(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def choice(self, start: bytes, tail: bytes, answer: Answer) -> Iterator[bytes]:
        yield start + b'"delta":{"role":"assistant","content":""},"finish_reason":null}' + tail
        before, after = start + b'"delta":{"content":', b'},"finish_reason":null}' + tail
        for piece in encoded(answer.pieces):
            yield before + piece + after
        yield start + b'"delta":{},"finish_reason":"%s"}' % _finish_reason(answer).encode() + tail

    def envelope(self, prompt: Prompt, answer: Answer, *, is_chunk: bool) -> dict[str, Any]:
        kind = "chat.completion.chunk" if is_chunk else "chat.completion"
        return _envelope(prompt, answer, prefix="chatcmpl", kind=kind)


def _envelope(prompt: Prompt, answer: Answer, *, prefix: str, kind: str) -> dict[str, Any]:
    return {
        "id": f"{prefix}-sandbox-{answer.number}",
        "object": kind,
        "created": answer.created,
        "model": prompt.model,
        "system_fingerprint": "sandbox",
    }


def _finish_reason(answer: Answer) -> str:
    return "length" if answer.is_cut else "stop"


def _usage(answer: Answer) -> Mapping[str, Any] | None:
    if answer.usage is not None:
        return answer.usage
    if not answer.reports_usage:
        return None
    return {
        "prompt_tokens": answer.input_tokens,
        "completion_tokens": answer.output_tokens,
        "total_tokens": answer.input_tokens + answer.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": answer.cached_tokens,
            "cache_write_tokens": answer.cache_write_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": answer.reasoning_tokens},
    }

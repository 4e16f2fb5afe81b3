"""What the sandbox answers: deterministic text, and token counts that anyone can do in their head.

Input tokens are the whitespace-separated words of all text that was sent (string contents and text parts), exactly,
with no overhead per message. Output tokens are the words that were written, plus the reasoning asked for.
"""

import base64
import functools
import hashlib
import itertools
import re
import time
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.sandbox.controls import BadRequest, Controls

_TEXT = (
    "This answer was written by the Tollgate sandbox and not by {model}. No provider key is set on this installation, "
    "so every model is played by a local server that always says the same, counts words as tokens, and costs nobody "
    "anything."
)
_WORDS = re.compile(r"\s*\S+(?:\s+$)?")
_EMBEDDING_DIMENSIONS = 256
_MOST_DIMENSIONS = 4096
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What was asked, as far as the sandbox cares: `is_chat` or the older text completion."""

    model: str
    is_chat: bool
    input_tokens: int
    is_streamed: bool
    wants_usage: bool
    choices: int
    output_limit: int | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What will be said: the pieces of each choice (a word each), why it ends, and the usage to report, if any."""

    id: str
    created: int
    pieces: Sequence[str]
    finish_reason: str
    usage: Mapping[str, Any] | None


def read_prompt(body: Mapping[str, Any], *, is_chat: bool) -> Prompt:
    """Read the fields that matter. Raises BadRequest where one is missing or of the wrong type."""
    options = body.get("stream_options")
    choices = body.get("n")
    if choices is not None and (not isinstance(choices, int) or not 1 <= choices <= 128):  # noqa: PLR2004 - OpenAI's
        raise BadRequest("n must be a whole number from 1 to 128", param="n")
    limits = [body[name] for name in ("max_completion_tokens", "max_tokens") if body.get(name) is not None]
    if limits and (not isinstance(limits[0], int) or limits[0] < 1):
        raise BadRequest("the output limit must be a positive whole number", param="max_tokens")
    return Prompt(
        model=read_model(body),
        is_chat=is_chat,
        input_tokens=_words_of_messages(body.get("messages"))
        if is_chat
        else count_tokens(body.get("prompt"), "prompt"),
        is_streamed=body.get("stream") is True,
        wants_usage=isinstance(options, dict) and options.get("include_usage") is True,
        choices=choices or 1,
        output_limit=limits[0] if limits else None,
    )


def read_model(body: Mapping[str, Any]) -> str:
    """The model asked for; any name is served."""
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest("model must be a string", param="model")
    return model


def count_tokens(value: object, param: str) -> int:
    """Words of a string or of a list of strings; a list of token numbers (or of such lists) counts its numbers."""
    if isinstance(value, str):
        return len(value.split())
    if isinstance(value, list):
        return sum(1 if isinstance(item, int) else count_tokens(item, param) for item in value)
    raise BadRequest(f"{param} must be a string or a list", param=param)


def _words_of_messages(messages: object) -> int:
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages must be a list that is not empty", param="messages")
    words = 0
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, str):
            words += len(content.split())
        elif isinstance(content, list):
            texts = (part.get("text") for part in content if isinstance(part, dict))
            words += sum(len(text.split()) for text in texts if isinstance(text, str))
    return words


def compose(prompt: Prompt, controls: Controls) -> Answer:
    """The answer to the prompt. The same words for the same request, always; only id and time differ."""
    words = _words(_TEXT.format(model=prompt.model) if controls.text is None else controls.text)
    whole = len(words) + controls.reasoning_tokens
    tokens, finish_reason = whole, "stop"
    if controls.output_tokens is not None:
        tokens = controls.output_tokens
    elif prompt.output_limit is not None and prompt.output_limit < whole:
        tokens, finish_reason = prompt.output_limit, "length"
    written = max(0, tokens - controls.reasoning_tokens)
    return Answer(
        id=f"{'chatcmpl' if prompt.is_chat else 'cmpl'}-sandbox-{next(_numbers)}",
        created=int(time.time()),
        pieces=words[:written] if written <= len(words) else _lengthened(words, written),
        finish_reason=finish_reason,
        usage=_usage(prompt, controls, output_tokens=tokens * prompt.choices),
    )


@functools.lru_cache(maxsize=256)
def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORDS.findall(text))


@functools.lru_cache(maxsize=256)
def _lengthened(words: tuple[str, ...], count: int) -> tuple[str, ...]:
    """The words again and again, until there are `count`."""
    if not words:
        words = ("word",)
    again = (" " + words[0].lstrip(), *words[1:])
    return tuple(itertools.islice(itertools.chain(words, itertools.cycle(again)), count))


def _usage(prompt: Prompt, controls: Controls, *, output_tokens: int) -> Mapping[str, Any] | None:
    if controls.usage is not None:
        return controls.usage
    if not controls.report_usage:
        return None
    return {
        "prompt_tokens": prompt.input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": prompt.input_tokens + output_tokens,
        "prompt_tokens_details": {"cached_tokens": min(controls.cached_tokens, prompt.input_tokens)},
        "completion_tokens_details": {"reasoning_tokens": controls.reasoning_tokens},
    }


def document(prompt: Prompt, answer: Answer) -> bytes:
    """The answer as one JSON document."""
    text = "".join(answer.pieces)
    choices: list[dict[str, Any]] = [
        {
            "index": index,
            **(
                {"message": {"role": "assistant", "content": text, "refusal": None}}
                if prompt.is_chat
                else {"text": text}
            ),
            "logprobs": None,
            "finish_reason": answer.finish_reason,
        }
        for index in range(prompt.choices)
    ]
    whole = _envelope(prompt, answer, is_chunk=False) | {"choices": choices}
    if answer.usage is not None:
        whole["usage"] = answer.usage
    return orjson.dumps(whole)


def events(prompt: Prompt, answer: Answer) -> Iterator[bytes]:
    """The answer as the events of a stream, a word each, without the closing `[DONE]`."""
    head = b"data: " + orjson.dumps(_envelope(prompt, answer, is_chunk=True))[:-1] + b',"choices":['
    tail = b'],"usage":null}\n\n' if prompt.wants_usage else b"]}\n\n"
    for index in range(prompt.choices):
        start = head + b'{"index":%d,' % index
        if prompt.is_chat:
            yield start + b'"delta":{"role":"assistant","content":""},"finish_reason":null}' + tail
        before, after = (
            (b'"delta":{"content":', b'},"finish_reason":null}')
            if prompt.is_chat
            else (
                b'"text":',
                b',"finish_reason":null}',
            )
        )
        before, after = start + before, after + tail
        for piece in _encoded(answer.pieces):
            yield before + piece + after
        end = b'"delta":{}' if prompt.is_chat else b'"text":""'
        yield start + end + b',"finish_reason":"%s"}' % answer.finish_reason.encode() + tail
    if prompt.wants_usage and answer.usage is not None:
        yield head + b'],"usage":' + orjson.dumps(answer.usage) + b"}\n\n"


@functools.lru_cache(maxsize=256)
def _encoded(pieces: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(orjson.dumps(piece) for piece in pieces)


def _envelope(prompt: Prompt, answer: Answer, *, is_chunk: bool) -> dict[str, Any]:
    chat = "chat.completion.chunk" if is_chunk else "chat.completion"
    return {
        "id": answer.id,
        "object": chat if prompt.is_chat else "text_completion",
        "created": answer.created,
        "model": prompt.model,
        "system_fingerprint": "sandbox",
    }


def embeddings(body: Mapping[str, Any], controls: Controls) -> bytes:
    """A vector for each input: the same for the same text, and like no vector of a real model."""
    inputs = body.get("input")
    tokens = count_tokens(inputs, "input")
    dimensions = body.get("dimensions", _EMBEDDING_DIMENSIONS)
    if not isinstance(dimensions, int) or not 1 <= dimensions <= _MOST_DIMENSIONS:
        raise BadRequest(
            f"dimensions must be a whole number from 1 to {_MOST_DIMENSIONS}", param="dimensions"
        )
    is_one = isinstance(inputs, str) or (
        isinstance(inputs, list) and bool(inputs) and isinstance(inputs[0], int)
    )
    rows = [inputs] if is_one or not isinstance(inputs, list) else inputs
    encode = _as_base64 if body.get("encoding_format") == "base64" else list
    data = [
        {"object": "embedding", "index": index, "embedding": encode(_vector(orjson.dumps(row), dimensions))}
        for index, row in enumerate(rows)
    ]
    whole: dict[str, Any] = {"object": "list", "model": read_model(body), "data": data}
    if controls.usage is not None:
        whole["usage"] = controls.usage
    elif controls.report_usage:
        whole["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
    return orjson.dumps(whole)


def _vector(seed: bytes, dimensions: int) -> "array[float]":
    return array("f", ((byte - 127.5) / 127.5 for byte in hashlib.shake_128(seed).digest(dimensions)))


def _as_base64(vector: "array[float]") -> str:
    return base64.b64encode(vector.tobytes()).decode()

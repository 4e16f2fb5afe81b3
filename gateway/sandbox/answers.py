"""What the sandbox answers, whatever the protocol: deterministic text, and token counts to be done in one's head.

Input tokens are the whitespace-separated words of all text that was sent, exactly, with no overhead per message.
Output tokens are the words that were written, plus the reasoning asked for.
"""

import functools
import itertools
import re
import time
from collections.abc import Mapping, Sequence
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
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What was asked, as far as the sandbox cares."""

    body: Mapping[str, Any]
    model: str
    input_tokens: int
    is_streamed: bool
    output_limit: int | None
    wants_usage: bool = True
    choices: int = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """What will be said: the pieces of each choice (a word each), whether a limit cut it, and its tokens."""

    number: int  # of the answer, for its id
    created: int
    pieces: tuple[str, ...]
    is_cut: bool
    input_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    output_tokens: int  # of all choices
    reasoning_tokens: int
    reports_usage: bool
    usage: Mapping[str, Any] | None  # to be reported as it is, instead of the truth

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def read_model(body: Mapping[str, Any]) -> str:
    """The model asked for; any name is served."""
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest("model must be a string", param="model")
    return model


def read_limit(body: Mapping[str, Any], *names: str) -> int | None:
    """The limit of output tokens, by the first of these names that is there."""
    limit = next((body[name] for name in names if body.get(name) is not None), None)
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise BadRequest("the output limit must be a positive whole number", param=names[-1])
    return limit


def count_tokens(value: object, param: str) -> int:
    """Words of a string or of a list of strings; a list of token numbers (or of such lists) counts its numbers."""
    if isinstance(value, str):
        return len(value.split())
    if isinstance(value, list):
        return sum(1 if isinstance(item, int) else count_tokens(item, param) for item in value)
    raise BadRequest(f"{param} must be a string or a list", param=param)


def words_of_contents(items: object, param: str) -> int:
    """The words of messages: of contents that are strings, and of the text parts of the others."""
    if not isinstance(items, list) or not items:
        raise BadRequest(f"{param} must be a list that is not empty", param=param)
    return sum(words_of_content(item.get("content")) for item in items if isinstance(item, dict))


def words_of_content(content: object) -> int:
    if isinstance(content, str):
        return len(content.split())
    if isinstance(content, list):
        texts = (part.get("text") for part in content if isinstance(part, dict))
        return sum(len(text.split()) for text in texts if isinstance(text, str))
    return 0


def compose(prompt: Prompt, controls: Controls) -> Answer:
    """The answer to the prompt. The same words for the same request, always; only number and time differ."""
    words = _words(_TEXT.format(model=prompt.model) if controls.text is None else controls.text)
    whole = len(words) + controls.reasoning_tokens
    tokens, is_cut = whole, False
    if controls.output_tokens is not None:
        tokens = controls.output_tokens
    elif prompt.output_limit is not None and prompt.output_limit < whole:
        tokens, is_cut = prompt.output_limit, True
    written = max(0, tokens - controls.reasoning_tokens)
    cached = min(controls.cached_tokens, prompt.input_tokens)
    return Answer(
        number=next(_numbers),
        created=int(time.time()),
        pieces=words[:written] if written <= len(words) else _lengthened(words, written),
        is_cut=is_cut,
        input_tokens=prompt.input_tokens,
        cached_tokens=cached,
        cache_write_tokens=min(controls.cache_write_tokens, prompt.input_tokens - cached),
        output_tokens=tokens * prompt.choices,
        reasoning_tokens=controls.reasoning_tokens,
        reports_usage=controls.report_usage,
        usage=controls.usage,
    )


@functools.lru_cache(maxsize=256)
def encoded(pieces: tuple[str, ...]) -> Sequence[bytes]:
    """The pieces as JSON strings."""
    return tuple(orjson.dumps(piece) for piece in pieces)


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

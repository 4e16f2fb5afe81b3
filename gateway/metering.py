"""Stage 7: what a response used, read from what the upstream reports, or estimated and marked so.

Where a report stands in an answer, and under which names, is the dialect's to know.
"""

import math
from dataclasses import dataclass
from typing import Any

# More than any context window there is. A larger figure is nonsense, and nonsense is not billed.
_ABSURD = 100_000_000
CHARACTERS_PER_TOKEN = 4
# The catalogue's window may be an older or rounder figure than the provider's.
_WINDOWS = 2
_NOT_WRITTEN = frozenset({"role", "type", "id"})


@dataclass(slots=True)  # not frozen: made for every request, and a frozen one costs twice as much
class Usage:
    """Tokens of a response: input with those in it that a cache had or took, output with the reasoning ones in it."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    is_estimated: bool = False


def reported(
    *,
    input_tokens: object,
    output_tokens: object,
    cached_tokens: object = None,
    cache_write_tokens: object = None,
) -> Usage | None:
    """The figures of a report, if all of them make sense. An explicit zero is zero; None of a cache's is none."""
    given, written = count(input_tokens), count(output_tokens)
    read = 0 if cached_tokens is None else count(cached_tokens)
    made = 0 if cache_write_tokens is None else count(cache_write_tokens)
    if given is None or written is None or read is None or made is None or read + made > given:
        return None
    return Usage(given, written, read, made)


def is_possible(usage: Usage, *, window: int, inputs: int, most_output: int, choices: int) -> bool:
    """Whether a model of this context window and output limit, both in tokens, can have used that much.

    Each of the inputs has the window to itself. More than was held is possible; more than the model can do is not.
    """
    return usage.input_tokens <= window * _WINDOWS * inputs and usage.output_tokens <= most_output * choices


def estimated(*, input_tokens: int, produced_characters: int) -> Usage:
    """What a response must have used: the estimate of its input, and four characters for each output token."""
    return Usage(
        input_tokens=input_tokens,
        output_tokens=math.ceil(produced_characters / CHARACTERS_PER_TOKEN),
        is_estimated=True,
    )


def count(value: object) -> int | None:
    """A number of tokens; None for what is none: negative, absurd, a fraction, a truth value."""
    if type(value) is int and 0 <= value <= _ABSURD:
        return value
    return None


def characters(value: Any) -> int:
    """The characters of what a model wrote: text, refusals, tool calls, without the protocol's own words."""
    if isinstance(value, str):
        return len(value)
    written = 0
    # No recursion: an upstream may nest more deeply than the interpreter follows.
    left = [value]
    while left:
        part = left.pop()
        if isinstance(part, str):
            written += len(part)
        elif isinstance(part, dict):
            for key, item in part.items():
                if key in _NOT_WRITTEN:
                    continue
                # Most of it is text.
                if type(item) is str:
                    written += len(item)
                else:
                    left.append(item)
        elif isinstance(part, list):
            left += part
    return written

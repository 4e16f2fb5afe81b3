"""Stage 7: what a response used, read from what the upstream reports, or estimated and marked so."""

import math
from dataclasses import dataclass
from typing import Any

# More than any context window there is. A larger figure is nonsense, and nonsense is not billed.
_ABSURD = 100_000_000
_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a response: input with the cached ones in it, output with the reasoning ones in it."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0
    is_estimated: bool = False


def reported(usage: object) -> Usage | None:
    """The usage object of an OpenAI response; None if it is absent, malformed, negative or absurd.

    An explicit zero is zero.
    """
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    prompt = _count(usage.get("prompt_tokens"))
    completion = _count(usage.get("completion_tokens"))
    cached_tokens = 0 if cached is None else _count(cached)
    if prompt is None or completion is None or cached_tokens is None or cached_tokens > prompt:
        return None
    return Usage(prompt, completion, cached_tokens)


def estimated(*, input_tokens: int, produced_characters: int) -> Usage:
    """What a response must have used: the estimate of its input, and four characters for each output token."""
    return Usage(
        input_tokens=input_tokens,
        output_tokens=math.ceil(produced_characters / _CHARACTERS_PER_TOKEN),
        is_estimated=True,
    )


def produced_characters(choices: object) -> int:
    """The characters that the choices of a response, or of a chunk of it, carry: text, refusals, tool calls."""
    if not isinstance(choices, list):
        return 0
    return sum(
        _characters(choice.get("delta") or choice.get("message") or choice.get("text"))
        for choice in choices
        if isinstance(choice, dict)
    )


def finish_reason(choices: object) -> str:
    """Why the first choice that has ended did; empty while none has."""
    if isinstance(choices, list):
        for choice in choices:
            if isinstance(choice, dict) and isinstance(choice.get("finish_reason"), str):
                return str(choice["finish_reason"])[:30]
    return ""


def _count(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _ABSURD:
        return value
    return None


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(_characters(item) for key, item in value.items() if key not in ("role", "type", "id"))
    if isinstance(value, list):
        return sum(map(_characters, value))
    return 0

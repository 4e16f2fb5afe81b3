"""How much input a body carries: the characters that a plan counts, and what an image weighs."""

from typing import Any

# What one image is at most counted as by the models there are: the hold must cover it, however few bytes it has.
IMAGE_TOKENS = 5_000
# What an image is likely to be counted as, in characters at four to a token, whatever its bytes.
_IMAGE_CHARACTERS = 6_000
# What steers a request and is not read by the model. Everything else a client sends may be input.
_CONTROLS = frozenset(
    {"model", "models", "metadata", "user", "safety_identifier", "prompt_cache_key", "sandbox"}
)
# The protocol's own words are not the client's input, as long as they are words.
_PROTOCOL_KEYS = frozenset(
    {"role", "type", "content", "text", "name", "function", "parameters", "image_url", "url"}
)
_WORD = 32


def characters_of(document: dict[str, Any]) -> int:
    """The characters of a body that may be input."""
    return sum(_characters(value) for name, value in document.items() if name not in _CONTROLS)


def image_tokens(source: object) -> int:
    """The tokens that an image may be counted as beyond the bytes that it has in the body."""
    if isinstance(source, str) and source[:5].lower() == "data:":
        return max(IMAGE_TOKENS - len(source), 0)
    return IMAGE_TOKENS


def _characters(value: object) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum(map(_characters, value))
    if isinstance(value, dict):
        return sum(
            (0 if key in _PROTOCOL_KEYS else len(key)) + (0 if _is_word(key, item) else _characters(item))
            for key, item in value.items()
        )
    return 0


def _is_word(key: str, value: object) -> bool:
    return key in ("role", "type") and isinstance(value, str) and len(value) <= _WORD

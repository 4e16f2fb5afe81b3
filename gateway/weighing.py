"""How much input a body carries: the characters that a plan counts, and what its images come to."""

from dataclasses import dataclass
from typing import Any

# What one image is at most counted as by the models there are: the hold must cover it, however few bytes it has.
IMAGE_TOKENS = 5_000
# What an image is likely to be counted as, in characters at four to a token, whatever its bytes.
_IMAGE_CHARACTERS = 6_000
# What steers a request and is not read by the model. Everything else a client sends may be input.
_CONTROLS = frozenset(
    {
        "model",
        "models",
        "metadata",
        "user",
        "safety_identifier",
        "prompt_cache_key",
        "stream_options",
        "sandbox",
    }
)
# The protocol's own words are not the client's input, as long as they are words.
_PROTOCOL_KEYS = frozenset(
    {"role", "type", "content", "text", "name", "function", "parameters", "image_url", "url"}
)
# The values of these are words of the protocol too, if they are that short.
_WORD_KEYS = frozenset({"role", "type"})
_WORD = 32


def characters_of(document: dict[str, Any]) -> int:
    """The characters of a body that may be input."""
    return sum(_characters(value) for name, value in document.items() if name not in _CONTROLS)


@dataclass(frozen=True, slots=True)
class Image:
    """What an image in the input adds to what its own letters count as."""

    most_tokens: int
    characters: int


def image(source: object) -> Image:
    """An image as an address, or as data in the body: however long either is, the model sees one image."""
    letters = len(source) if isinstance(source, str) else 0
    return Image(_beyond(source), _IMAGE_CHARACTERS - letters)


def file(source: object) -> Image:
    """A file as data in the body: it may have more pages than an image, so its own letters count too."""
    return Image(_beyond(source), 0)


def _beyond(source: object) -> int:
    """The tokens that it may be counted as beyond the bytes it has in the body. An address says nothing of its size."""
    is_data = isinstance(source, str) and not source[:8].lower().startswith(("http:", "https:"))
    return max(IMAGE_TOKENS - len(source), 0) if isinstance(source, str) and is_data else IMAGE_TOKENS


def _characters(value: object) -> int:
    if isinstance(value, str):
        return len(value)
    characters = 0
    if isinstance(value, list):
        for item in value:
            # Of token numbers a list may have millions, and each call would be for nothing.
            if type(item) is not int:
                characters += _characters(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in _PROTOCOL_KEYS:
                characters += len(key)
            if not isinstance(item, str):
                characters += _characters(item)
            elif key not in _WORD_KEYS or len(item) > _WORD:
                characters += len(item)
    return characters

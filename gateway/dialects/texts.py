"""Input as completions and embeddings take it: a string, strings, a list of token numbers, or lists of those."""

from dataclasses import dataclass
from typing import Any

from gateway.errors import invalid_value

# A token that is given by its number counts as what it stands for: four characters.
_CHARACTERS_PER_TOKEN = 4
_WHAT = "a string, a list of strings, a list of token numbers, or a list of such lists"


@dataclass(frozen=True, slots=True)
class Texts:
    """How much there is. None of the texts has more characters than `longest_characters`."""

    number: int
    characters: int
    longest_characters: int


def read_texts(value: object, name: str, *, most: int) -> Texts:
    """Raises Refusal that names the field."""
    if isinstance(value, list):
        if not value:
            raise invalid_value(name, "it must not be empty")
        texts: list[Any] = [value] if type(value[0]) is int else value
        if len(texts) > most:
            raise invalid_value(name, f"it must have at most {most:,} inputs")
        sizes = [_size(text, name) for text in texts]
        return Texts(len(sizes), sum(sizes), max(sizes))
    size = _size(value, name)
    return Texts(1, size, size)


def _size(text: object, name: str) -> int:
    if isinstance(text, str):
        return len(text)
    if isinstance(text, list) and text and all(type(token) is int and token >= 0 for token in text):
        return len(text) * _CHARACTERS_PER_TOKEN
    raise invalid_value(name, f"it must be {_WHAT}")

"""What a client asked for, as every dialect says it, and the fields that all of them share."""

import math
from dataclasses import dataclass
from typing import Any

from gateway.errors import invalid_value

_MAX_MODELS = 8
_CHARACTERS_PER_TOKEN = 4


@dataclass(slots=True)  # not frozen: made for every request, and a frozen one costs twice as much
class Asked:
    """A request as its dialect read it. `most_input_tokens` bounds its input tokens, `input_tokens` estimates them."""

    document: dict[str, Any]
    models: tuple[str, ...]  # the one asked for, then those to fall back to
    is_streamed: bool
    wants_usage: bool  # in its stream
    output_limit: int | None  # tokens of one choice, as the client named them
    choices: int
    most_input_tokens: int
    input_characters: int
    uses_tools: bool = False
    has_images: bool = False
    longest_characters: int | None = None  # of one input, where there are several that do not share a context
    inputs: int = 1  # how many there are of those
    is_count: bool = False  # it asks how many tokens its input has, which costs nothing

    @property
    def model(self) -> str:
        return self.models[0]

    @property
    def input_tokens(self) -> int:
        return max(math.ceil(self.input_characters / _CHARACTERS_PER_TOKEN), 1)

    @property
    def context_tokens(self) -> int:
        """The estimate of what has to fit into the model's context at once."""
        if self.longest_characters is None:
            return self.input_tokens
        return max(math.ceil(self.longest_characters / _CHARACTERS_PER_TOKEN), 1)


def models_of(document: dict[str, Any]) -> tuple[str, ...]:
    """The models to try, in the client's order: `model`, then `models`. Raises Refusal."""
    model, fallbacks = document.get("model"), document.get("models")
    if fallbacks is not None:
        is_list = isinstance(fallbacks, list) and 1 <= len(fallbacks) <= _MAX_MODELS
        if not is_list or not all(isinstance(name, str) and name for name in fallbacks):
            raise invalid_value("models", f"it must be a list of 1 to {_MAX_MODELS} names of models")
        if len(set(fallbacks)) < len(fallbacks):
            raise invalid_value("models", "it names a model twice")
        if model is None:
            return tuple(fallbacks)
    if not isinstance(model, str) or not model:
        raise invalid_value("model", "it must be the name of a model")
    return (model, *(name for name in fallbacks or () if name != model))


def messages_of(document: dict[str, Any]) -> list[Any]:
    """The messages of a conversation, at least one. Raises Refusal."""
    messages = document.get("messages")
    if not isinstance(messages, list) or not messages:
        raise invalid_value("messages", "it must be a list with at least one message")
    return messages


def boolean(document: dict[str, Any], name: str, prefix: str = "") -> bool:
    """A field that is true or false, or absent: false. Raises Refusal."""
    value = document.get(name)
    if not isinstance(value, bool | None):
        raise invalid_value(prefix + name, "it must be true or false")
    return bool(value)

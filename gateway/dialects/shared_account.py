"""What no client may reach: all accounts here share the operator's one account at an upstream, and pay by the token.

So nothing that is stored at the upstream is within reach (another account may have put it there), and nothing
that it bills apart from tokens, or at another price of tokens, can be asked for.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Any

from gateway import fields
from gateway.errors import invalid_value

STORED = (
    "it would reach what is stored in the operator's account at the upstream, which all accounts here share"
)
APART = "the upstream bills it apart from the model's tokens, and this gateway has no price for it"
OTHER_PRICE = "the upstream has another price for it, which this gateway does not know"
UNBOUNDED = "how many tokens it comes to cannot be known beforehand; send the content itself"

# For the fields that mean the same in all of OpenAI's dialects.
SERVICE_TIER = fields.one_of("auto", "default", "flex", why=OTHER_PRICE)
NO_STORE = fields.only_false(STORED)

_CONTAINERS = (list, dict)


def judge_tools(tools: list[Any], *, is_allowed: Callable[[str], object], at: str, default: str = "") -> None:
    """Raises Refusal for a tool that the upstream would run; `is_allowed` knows those of the client's own side by type.

    `default` is the type of a tool that names none.
    """
    for index, tool in enumerate(tools):
        name = f"{at}[{index}]"
        if not isinstance(tool, dict):
            raise invalid_value(name, "a tool is an object")
        kind = tool.get("type") or default
        if not isinstance(kind, str) or not kind:
            raise invalid_value(f"{name}.type", "a tool has a type")
        if not is_allowed(kind):
            raise invalid_value(f"{name}.type", f"{kind[:40]!r} is run by the upstream, not by you: {APART}")


def judge_name(tool: object, at: str) -> None:
    """Raises Refusal for what has no name to call it by."""
    if not isinstance(tool, dict) or not isinstance(tool.get("name"), str) or not tool["name"]:
        raise invalid_value(f"{at}.name", "a tool has a name")


def objects_in(value: object, at: str, *, skipped: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object in the value, with the name that a refusal of it gives: `input[0].content[1]`.

    However deep, but not in the fields that are skipped.
    """
    if isinstance(value, list):
        for index, item in enumerate(value):
            if type(item) in _CONTAINERS:
                yield from objects_in(item, f"{at}[{index}]", skipped=skipped)
    elif isinstance(value, dict):
        yield at, value
        for key, item in value.items():
            if type(item) in _CONTAINERS and key not in skipped:
                yield from objects_in(item, f"{at}.{key}"[:200], skipped=skipped)

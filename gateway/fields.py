"""Fields of a body, judged one by one: each dialect has a table of its own, from a field's name to its judge."""

from collections.abc import Callable, Mapping
from typing import Any

from gateway.errors import invalid_value

Judge = Callable[[str, Any], None]
MOST_TOKENS = 10_000_000


def judge(document: Mapping[str, Any], judges: Mapping[str, Judge]) -> None:
    """Judge every field that has a judge; null is as good as absent. Raises Refusal that names the field."""
    for name, value in document.items():
        if value is not None and name in judges:
            judges[name](name, value)


def of_type(words: str, *kinds: type) -> Judge:
    """A value of one of these types; a truth value is no number."""

    def judged(name: str, value: Any) -> None:
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise invalid_value(name, f"it must be {words}")

    return judged


def number(low: float, high: float) -> Judge:
    def judged(name: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise invalid_value(name, f"it must be a number from {low} to {high}")

    return judged


def whole_number(low: int, high: int) -> Judge:
    def judged(name: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise invalid_value(name, f"it must be a whole number from {low:,} to {high:,}")

    return judged


def one_of(*allowed: object, why: str) -> Judge:
    """One of a few values, because others would reach what is not the client's, or cost what nobody has priced."""

    def judged(name: str, value: Any) -> None:
        if value not in allowed:
            raise invalid_value(name, why)

    return judged


def only_false(why: str) -> Judge:
    """A switch that stays off, for the same reasons."""

    def judged(name: str, value: Any) -> None:
        TRUE_OR_FALSE(name, value)
        if value:
            raise invalid_value(name, why)

    return judged


def never(why: str) -> Judge:
    """No value at all, for the same reasons."""

    def judged(name: str, value: Any) -> None:
        raise invalid_value(name, why)

    return judged


A_STRING = of_type("a string", str)
A_LIST = of_type("a list", list)
AN_OBJECT = of_type("an object", dict)
TRUE_OR_FALSE = of_type("true or false", bool)
AN_OUTPUT_LIMIT = whole_number(1, MOST_TOKENS)

"""Fields of a body, judged one by one: each dialect has a table of its own, from a field's name to its judge."""

from collections.abc import Callable, Mapping
from typing import Any

from gateway.errors import Refusal, invalid_value

Judge = Callable[[str, Any], None]
MOST_TOKENS = 10_000_000


class OutputLimitRefusal(Refusal):
    """An output limit that no model takes. `model` is what was sent with it as the model's name."""

    model: object = None


def judge(document: Mapping[str, Any], judges: Mapping[str, Judge]) -> None:
    """Judge every field that has a judge; null is as good as absent. Raises Refusal that names the field."""
    for name, value in document.items():
        if value is not None and name in judges:
            try:
                judges[name](name, value)
            except OutputLimitRefusal as refusal:
                refusal.model = document.get("model")
                raise


def judge_all(document: Mapping[str, Any], judges: Mapping[str, Judge], at: str) -> None:
    """The same of an object within the body, `at` being its name."""
    for name, value in document.items():
        if value is not None and name in judges:
            judges[name](f"{at}.{name}", value)


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


def output_limit(low: int, high: int) -> Judge:
    """A whole number, of which the model that is named may say more."""
    judge_number = whole_number(low, high)

    def judged(name: str, value: Any) -> None:
        try:
            judge_number(name, value)
        except Refusal as refusal:
            raise OutputLimitRefusal(
                refusal.status, refusal.type, refusal.code, refusal.message, param=refusal.param
            ) from None

    return judged


def one_of(*allowed: object, why: str) -> Judge:
    """One of a few values, because others would reach what is not the client's, or cost what nobody has priced."""

    def judged(name: str, value: Any) -> None:
        if value not in allowed:
            raise invalid_value(name, why)

    return judged


def word(*known: str) -> Judge:
    """One of the words that a provider of this protocol knows."""

    def judged(name: str, value: Any) -> None:
        if value not in known:
            raise invalid_value(name, f"it must be one of {', '.join(known)}")

    return judged


def strings(most: int) -> Judge:
    """A list of strings."""

    def judged(name: str, value: Any) -> None:
        if (
            not isinstance(value, list)
            or len(value) > most
            or not all(isinstance(each, str) for each in value)
        ):
            raise invalid_value(name, f"it must be a list of at most {most:,} strings")

    return judged


def objects(name: str, value: Any) -> None:
    """A list of objects."""
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise invalid_value(name, "it must be a list of objects")


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
A_STRING_OR_AN_OBJECT = of_type("a string or an object", str, dict)
TRUE_OR_FALSE = of_type("true or false", bool)
AN_OUTPUT_LIMIT = output_limit(1, MOST_TOKENS)
# OpenAI's words and Groq's `default`.
AN_EFFORT = word("none", "minimal", "low", "medium", "high", "xhigh", "max", "default")


def stop(name: str, value: Any) -> None:
    """OpenAI takes 4 sequences, DeepSeek 16; each provider refuses what is too many for itself."""
    if not isinstance(value, str):
        strings(16)(name, value)

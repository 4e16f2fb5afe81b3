"""JSON without surprises: a body that two parsers could read differently is refused, not guessed at."""

import json
from typing import Any

import orjson

from gateway.errors import invalid_json

_MAX_DEPTH = 64
_SHOWN = 60


def parse_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object. Raises Refusal for anything that two parsers could read differently."""
    try:
        # orjson is strict where json is not: NaN, lone surrogates, invalid UTF-8, numbers out of range.
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise invalid_json(str(error).split(":")[0][:200]) from None
    if not isinstance(document, dict):
        raise invalid_json("it must be an object")
    if _may_have_lost_a_key(body, _strings(document)):
        json.loads(body, object_pairs_hook=_refuse_duplicates, parse_int=float)
    return document


def _strings(document: dict[str, Any]) -> list[str]:
    """All strings of the document, keys included. Raises Refusal if it is nested too deeply."""
    strings: list[str] = []
    level: list[Any] = [document]
    for _ in range(_MAX_DEPTH):
        below: list[Any] = []
        for container in level:
            if type(container) is dict:
                strings += container
                children: Any = container.values()
            else:
                children = container
            for child in children:
                kind = type(child)
                if kind is str:
                    strings.append(child)
                elif kind is dict or kind is list:
                    below.append(child)
        if not below:
            return strings
        level = below
    raise invalid_json(f"it is nested more than {_MAX_DEPTH} levels deep")


def _may_have_lost_a_key(body: bytes, strings: list[str]) -> bool:
    r"""Whether fewer strings were read than were written: of two equal keys in an object, one is lost.

    Two quotes were written for each string, and one more for each quote inside it, unless that one was written as
    `\u0022`. So what was read accounts for at most all quotes, and if it does, nothing was lost. To count is several
    times faster than to see every key a second time.
    """
    quotes = body.count(b'"') - 2 * len(strings)
    if quotes == 0:
        return False
    return quotes != sum(string.count('"') for string in strings) or b"u0022" in body


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> None:
    seen = set()
    for key, _ in pairs:
        if key in seen:
            raise invalid_json(f"the key {key[:_SHOWN]!r} appears twice")
        seen.add(key)

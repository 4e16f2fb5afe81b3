"""JSON without surprises: a body that two parsers could read differently is refused, not guessed at."""

import json
import re
from typing import Any

import orjson

from gateway.errors import invalid_json

_MAX_DEPTH = 64
# Far more objects and lists than a conversation has. To make a million takes seconds, in which all streams wait.
_MAX_CONTAINERS = 100_000
# A string, or what is escaped outside of one, as only nonsense has it: without that, nonsense would take forever.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|\\.', re.DOTALL)
_LONG_NUMBER = re.compile(rb"[0-9]{19}")
_SHOWN = 60
# orjson makes a float of a whole number from here on, which is another number; of one below that bound too.
_BEYOND, _BELOW = float(2**64), float(-(2**63))


def parse_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object. Raises Refusal for anything that two parsers could read differently."""
    if len(body) > 2 * _MAX_CONTAINERS and _containers(body) > _MAX_CONTAINERS:
        raise invalid_json(f"it has more than {_MAX_CONTAINERS:,} objects and lists")
    try:
        # orjson is strict where json is not: NaN, lone surrogates, invalid UTF-8, numbers out of range.
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise invalid_json(str(error).split(":")[0][:200]) from None
    if not isinstance(document, dict):
        raise invalid_json("it must be an object")
    strings, is_rounded = _strings(document)
    if _may_have_lost_a_key(body, strings):
        json.loads(body, object_pairs_hook=_refuse_duplicates, parse_int=float)
    return dict(json.loads(body)) if is_rounded and _LONG_NUMBER.search(body) else document


def written(document: dict[str, Any]) -> bytes:
    """A document that `parse_object` has read, as JSON, with whole numbers of any size."""
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError:
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _containers(body: bytes) -> int:
    """How many objects and lists there are at most; brackets in strings do not count where that matters."""
    most = body.count(b"[") + body.count(b"{")
    if most > _MAX_CONTAINERS:
        outside = _STRING.sub(b"", body)
        most = outside.count(b"[") + outside.count(b"{")
    return most


def _strings(document: dict[str, Any]) -> tuple[list[str], bool]:
    """All strings of the document, keys included, and whether a whole number in it may have lost digits.

    Raises Refusal if it is nested too deeply.
    """
    strings: list[str] = []
    is_rounded = False
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
                elif kind is float and not _BELOW < child < _BEYOND:
                    is_rounded = True
        if not below:
            return strings, is_rounded
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

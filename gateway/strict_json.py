"""JSON without surprises: a body that two parsers could read differently is refused, not guessed at."""

import json
from typing import Any

import orjson

from gateway.errors import invalid_json

_MAX_DEPTH = 64


class _DuplicateKeyError(ValueError):
    pass


def parse_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object. Raises Refusal for anything that two parsers could read differently."""
    try:
        # orjson is strict where json is not: NaN, lone surrogates, invalid UTF-8, numbers out of range.
        document = orjson.loads(body)
        json.loads(body, object_pairs_hook=_without_duplicates, parse_int=float)
    except _DuplicateKeyError as error:
        raise invalid_json(f"the key {error.args[0][:60]!r} appears twice") from None
    except (ValueError, RecursionError) as error:
        why = (
            str(error)
            if isinstance(error, orjson.JSONDecodeError)
            else "it is malformed or nested too deeply"
        )
        raise invalid_json(why.split(":")[0][:200]) from None
    if not isinstance(document, dict):
        raise invalid_json("it must be an object")
    # Few brackets cannot nest deeply; most bodies are done with the count.
    if body.count(b"[") + body.count(b"{") > _MAX_DEPTH and _depth_exceeds(document, _MAX_DEPTH):
        raise invalid_json(f"it is nested more than {_MAX_DEPTH} levels deep")
    return document


def _without_duplicates(pairs: list[tuple[str, Any]]) -> None:
    if len(pairs) > 1:
        seen = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKeyError(key)
            seen.add(key)


def _depth_exceeds(value: object, levels: int) -> bool:
    """Whether containers nest deeper than this. The walk is itself bounded by the limit."""
    if isinstance(value, dict):
        children: Any = value.values()
    elif isinstance(value, list):
        children = value
    else:
        return False
    return levels == 0 or any(_depth_exceeds(child, levels - 1) for child in children)

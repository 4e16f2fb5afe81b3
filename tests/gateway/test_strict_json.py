"""Strict JSON against a slow reference that sees every key: the same documents are refused, for the same reason."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import Refusal
from gateway.strict_json import parse_object

# Each character as JSON may write it. What matters is quotes, backslashes, colons and their neighbors.
WRITTEN = {
    '"': ['\\"', "\\u0022"],
    "\\": ["\\\\", "\\u005c", "\\u005C"],
    ":": [":", "\\u003a"],
    "/": ["/", "\\/"],
    "a": ["a", "\\u0061"],
    " ": [" "],
    "\n": ["\\n"],
    "0": ["0"],
    "u": ["u"],
    "é": ["é", "\\u00e9"],
    "😀": ["😀", "\\ud83d\\ude00"],
}
characters = st.sampled_from([spelling for spellings in WRITTEN.values() for spelling in spellings])
strings = st.lists(characters, max_size=4).map(lambda parts: f'"{"".join(parts)}"')
spaces = st.sampled_from(["", "", "", " ", "\n", "\t \r"])
scalars = st.one_of(strings, st.sampled_from(["1", "-0.5e3", "true", "null", "{}", "[]", '""']))


def _joined(brackets: str, parts: list[str]) -> str:
    return brackets[0] + ",".join(parts) + brackets[1]


def _objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    members = st.tuples(spaces, strings, spaces, spaces, values, spaces).map(
        lambda parts: f"{parts[0]}{parts[1]}{parts[2]}:{parts[3]}{parts[4]}{parts[5]}"
    )
    return st.lists(members, max_size=4).map(lambda parts: _joined("{}", parts))


def _containers(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(_objects(values), st.lists(values, max_size=3).map(lambda parts: _joined("[]", parts)))


documents = _objects(st.recursive(scalars, _containers, max_leaves=12))


class _DuplicateError(Exception):
    pass


def reference(body: bytes) -> dict[str, Any]:
    """The document by the standard library, which is shown every key that was written."""

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        built = dict(pairs)
        if len(built) < len(pairs):
            raise _DuplicateError
        return built

    loaded: dict[str, Any] = json.loads(body, object_pairs_hook=build)
    return loaded


@settings(max_examples=150, deadline=None, derandomize=True)
@given(documents)
def test_a_document_is_refused_exactly_if_the_reference_sees_a_key_twice(text: str) -> None:
    body = text.encode()
    try:
        expected = reference(body)
    except _DuplicateError:
        with pytest.raises(Refusal, match="appears twice") as caught:
            parse_object(body)
        assert (caught.value.status, caught.value.code) == (400, "invalid_json")
    else:
        assert parse_object(body) == expected


TWICE = [
    rb'{"a": 1, "a": 2}',
    rb'{"a": 1, "\u0061": 2}',
    rb'{"\"": 1, "\u0022": 2}',
    rb'{"\\": 1, "\u005c": 2}',
    rb'{"\\": 1, "\\": 2}',
    rb'{"x": [{"y": {"": 1, "": 2}}]}',
    # What was lost holds as many quotes as the escape `\u0022` saves.
    rb'{"x": "\u0022\u0022\u0022\u0022", "a": 1, "a": 2}',
    rb'{"x": "\"\u0022\u0022", "a": 1, "a": 2}',
    rb'{"a": "\u0022\u0022", "a": 2}',
    rb'{"a" : 1, "a"	: 2}',
    rb'{"a": {"b": 1}, "a": {"b": 2, "c": 3, "d": "\""}}',
]
ONCE = [
    rb'{"a": 1, "A": 2}',
    rb'{"a": {"a": {"a": [{"a": 1}, {"a": 2}]}}}',
    rb'{"\\": 1, "\\\\": 2, "\"": 3, "\\\"": 4}',
    rb'{"x": "\u0022a\u0022: 1, \"a\": 2"}',
    rb'{"": ":", ":": "\":\""}',
    rb'{"\\\\\\": "\\\":\\"}',
    rb'{"u0022": "\\u0022"}',
]


@pytest.mark.parametrize("body", TWICE)
def test_a_key_that_appears_twice_is_refused_however_it_is_written(body: bytes) -> None:
    with pytest.raises(Refusal, match="appears twice"):
        parse_object(body)


@pytest.mark.parametrize("body", ONCE)
def test_keys_that_only_look_alike_are_read(body: bytes) -> None:
    assert parse_object(body) == json.loads(body)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_sixty_four_levels_are_read_and_one_more_is_refused(opening: bytes) -> None:
    closing = b"]" if opening == b"[" else b"}"

    def nested(levels: int) -> bytes:
        inside = b"{}" if opening != b"[" else b"[]"
        return b'{"x":' + opening * (levels - 2) + inside + closing * (levels - 2) + b"}"

    assert parse_object(nested(64))
    for levels in (65, 2_000, 200_000):
        with pytest.raises(Refusal):
            parse_object(nested(levels))


@pytest.mark.parametrize("body", [b"[1]", b'"a"', b"1", b"null", b"true", b'[{"a": 1, "a": 2}]'])
def test_anything_but_an_object_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal, match="it must be an object"):
        parse_object(body)


@pytest.mark.parametrize(
    "many",
    [
        b"[" + b"[]," * 100_000 + b"[]]",
        b"[" + b"{}," * 100_000 + b"{}]",
        b"[" + b'{"a":[1]},' * 60_000 + b"1]",
        b"[" * 150_000 + b'"' + b'\\"' * 1_000_000,
    ],
)
def test_more_objects_and_lists_than_any_conversation_has_are_refused_before_they_are_made(
    many: bytes,
) -> None:
    with pytest.raises(Refusal, match="more than 100,000 objects and lists"):
        parse_object(b'{"a": ' + many + b"}")


def test_brackets_in_a_text_are_text_however_many() -> None:
    text = 'if (a) { b[0] = "\\\\"; } ' * 60_000

    assert parse_object(orjson.dumps({"a": text})) == {"a": text}

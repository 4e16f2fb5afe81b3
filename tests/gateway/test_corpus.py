"""Bodies that no parser should take, one by one. Each would be served if it were not for its one fault."""

import gzip
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.conftest import Stage
from tests.gateway.nothing_happened import ENDPOINT_PATHS, Victim, check_refusal

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())
VALID = (
    b'"model":"MODEL","messages":[{"role":"user","content":"hi"}],"prompt":"hi","input":"hi","max_tokens":5'
)


def with_field(value: bytes) -> bytes:
    return b"{" + VALID + b',"x":' + value + b"}"


# Too large to be files.
GENERATED: dict[str, bytes] = {
    "65 lists": with_field(b"[" * 64 + b"]" * 64),
    "65 objects": with_field(b'{"a":' * 64 + b"1" + b"}" * 64),
    "a million lists": with_field(b"[" * 1_000_000 + b"]" * 1_000_000),
    "a million open lists": b"[" * 1_000_000,
    "a million open objects": b'{"a":' * 500_000,
    "5,000 digits": with_field(b"9" * 5_000),
    "5,000 digits and an exponent": with_field(b"9" * 5_000 + b"e5000"),
    "100,000 equal keys": b"{" + VALID + b',"a":1' * 100_000 + b"}",
    "a duplicate after 1 MiB": b"{" + VALID + b',"x":"' + b"a" * (1 << 20) + b'","x":1}',
    "1 MiB and no end": b'{"model":"' + b"a" * (1 << 20),
    "1 MiB of NUL": b"\0" * (1 << 20),
    "1 MiB of backslashes": with_field(b'"' + b"\\" * ((1 << 20) + 1) + b'"'),
    "1 MiB of quotes": b'"' * (1 << 20),
}
BODIES = {path.name: path.read_bytes() for path in CORPUS} | GENERATED
MEDIA: list[dict[str, str]] = [
    {"content-encoding": "gzip"},
    {"content-encoding": "br"},
    {"content-encoding": "gzip, identity"},
    {"content-type": "application/json; charset=utf-16"},
    {"content-type": 'application/json; a=b; Charset="ISO-8859-1"'},
]


@pytest.fixture
def victim(stage: Stage) -> Victim:
    return Victim(stage)


@pytest.mark.parametrize("path", ENDPOINT_PATHS)
def test_a_body_of_the_corpus_is_refused_and_leaves_no_trace(victim: Victim, path: str) -> None:
    with victim.unharmed():
        for name, body in BODIES.items():
            body = body.replace(b"MODEL", victim.model.slug.encode())  # noqa: PLW2901
            error = check_refusal(victim.stage.post(victim.secret, body, path=path), path)
            assert error["code"] == "invalid_json", name
            assert len(error["message"]) < 300, name


def test_the_corpus_would_be_served_without_its_faults(victim: Victim) -> None:
    body = (b"{" + VALID + b"}").replace(b"MODEL", victim.model.slug.encode())

    assert victim.stage.post(victim.secret, body).status_code == 200


@pytest.mark.parametrize("headers", MEDIA)
def test_a_body_that_is_not_plain_utf_8_is_refused_by_its_headers(
    victim: Victim, headers: dict[str, str]
) -> None:
    body = b"{" + VALID.replace(b"MODEL", victim.model.slug.encode()) + b"}"
    with victim.unharmed():
        for content in (body, gzip.compress(body)):
            response = victim.stage.post(victim.secret, content, headers=headers)

            error = check_refusal(response, "chat/completions")
            assert (response.status_code, error["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    "headers",
    [
        {"content-encoding": "identity"},
        {"content-type": "application/json; charset=UTF-8"},
        {"content-type": 'application/json;charset="utf-8"'},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
    ],
)
def test_a_plain_body_is_taken_whatever_it_is_called(victim: Victim, headers: dict[str, Any]) -> None:
    body = b"{" + VALID.replace(b"MODEL", victim.model.slug.encode()) + b"}"

    assert victim.stage.post(victim.secret, body, headers=headers).status_code == 200

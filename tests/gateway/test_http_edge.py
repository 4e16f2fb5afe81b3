"""What is not quite HTTP: refused in OpenAI's shape, and nothing that hides behind it is served."""

import pytest

from billing.models import Hold
from tests.factories import make_key
from tests.gateway.conftest import INVALID, Stage
from tests.gateway.raw_http import RawAnswer, RawConnection
from usage.models import UsageRecord

HOST = b"Host: localhost\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
# What each of them hides: a request with a good key, which must not be served.
SMUGGLED = b"GET /v1/key HTTP/1.1\r\n" + HOST + b"Authorization: Bearer %s\r\n\r\n"

HEADERS: dict[str, bytes] = {
    "a length and chunks": b"Content-Length: 5\r\n" + CHUNKED,
    "chunks and a length": CHUNKED + b"Content-Length: 5\r\n",
    "two equal lengths": b"Content-Length: 5\r\nContent-Length: 5\r\n",
    "two lengths": b"Content-Length: 0\r\nContent-Length: 5\r\n",
    "a list of lengths": b"Content-Length: 5, 5\r\n",
    "a signed length": b"Content-Length: +5\r\n",
    "a negative length": b"Content-Length: -5\r\n",
    "a hexadecimal length": b"Content-Length: 0x5\r\n",
    "an underscored length": b"Content-Length: 1_0\r\n",
    "an empty length": b"Content-Length: \r\n",
    "a length beyond 64 bits": b"Content-Length: 36893488147419103237\r\n",
    "chunked, then identity": b"Transfer-Encoding: chunked, identity\r\n",
    "identity, then chunked": b"Transfer-Encoding: identity, chunked\r\n",
    "identity": b"Transfer-Encoding: identity\r\n",
    "gzip, then chunked": b"Transfer-Encoding: gzip, chunked\r\n",
    "xchunked": b"Transfer-Encoding: xchunked\r\n",
    "chunked in quotes": b'Transfer-Encoding: "chunked"\r\n',
    "chunked with a parameter": b"Transfer-Encoding: chunked;q=1\r\n",
    "an empty item": b"Transfer-Encoding: ,chunked\r\n",
    "chunked and a tab": b"Transfer-Encoding: chunked\t\r\n",
    "chunked after a vertical tab": b"Transfer-Encoding: \x0bchunked\r\n",
    "chunked twice": CHUNKED + CHUNKED,
    "chunked and identity": CHUNKED + b"Transfer-Encoding: identity\r\n",
    "identity and chunked": b"Transfer-Encoding: identity\r\n" + CHUNKED,
    "a space before the colon": b"Transfer-Encoding : chunked\r\n",
    "a length with a space before the colon": b"Content-Length : 5\r\n",
    "an underscore for a hyphen": b"Transfer_Encoding: chunked\r\n",
    "a length with an underscore": b"Content_Length: 5\r\n",
    "a folded header": b"X-A: a\r\n b\r\n",
    "a folded coding": b"Transfer-Encoding:\r\n chunked\r\n",
    "a bare line feed": b"X-A: a\nX-B: b\r\n",
    "a bare carriage return": b"X-A: a\rX-B: b\r\n",
    "a NUL in a value": b"X-A: a\0b\r\n",
    "a NUL in a name": b"X-A\0: b\r\n",
    "a control character": b"X-A: a\x01b\r\n",
    "no colon": b"X-A\r\n",
    "no name": b": a\r\n",
    "a name that is not ASCII": b"X-\xc3\xa4: a\r\n",
    "two hosts": b"Host: elsewhere\r\n",
    "two keys": b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n",
    "two content types": b"Content-Type: application/json\r\nContent-Type: text/plain\r\n",
    "an upgrade to HTTP/2": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    "an upgrade to a web socket": b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
}
CHUNKS: dict[str, bytes] = {
    "no number": b"g\r\nhello\r\n0\r\n\r\n",
    "an empty size": b"\r\nhello\r\n0\r\n\r\n",
    "a prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "a negative size": b"-5\r\nhello\r\n0\r\n\r\n",
    "a space after the size": b"5 \r\nhello\r\n0\r\n\r\n",
    "a space before the size": b" 5\r\nhello\r\n0\r\n\r\n",
    "a bare line feed": b"5\nhello\r\n0\r\n\r\n",
    "a bare line feed after the data": b"5\r\nhello\n0\r\n\r\n",
    "a bare line feed in an extension": b"5;\nhello\r\n0\r\n\r\n",
    "a line end in a quoted extension": b'5;a="\r\n"\r\nhello\r\n0\r\n\r\n',
    "more data than it says": b"4\r\nhello\r\n0\r\n\r\n",
    "a size beyond 64 bits": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "a length in a trailer": b"5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n",
    "a coding in a trailer": b"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
}
REQUEST_LINES: dict[str, bytes] = {
    "nonsense": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n",
    "HTTP/0.9": b"GET /v1/models\r\n",
    "HTTP/1.2": b"GET /v1/models HTTP/1.2\r\n",
    "HTTP/2": b"GET /v1/models HTTP/2.0\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n",
    "an unknown method": b"TAKE /v1/models HTTP/1.1\r\n",
    "a method in lower case": b"get /v1/models HTTP/1.1\r\n",
    "a tab": b"GET\t/v1/models HTTP/1.1\r\n",
    "a space in the path": b"GET /v1/ models HTTP/1.1\r\n",
    "a bare line feed": b"GET /v1/models HTTP/1.1\n",
    "a byte that is not ASCII": b"GET /v1/\xff HTTP/1.1\r\n",
    "a NUL": b"GET /v1/\0 HTTP/1.1\r\n",
    "no leading slash": b"GET v1/models HTTP/1.1\r\n",
    "a fragment": b"GET /v1/models#a HTTP/1.1\r\n",
    "somebody else's address": b"GET http://elsewhere/v1/models HTTP/1.1\r\n",
    "a user in the address": b"GET http://me@localhost/v1/models HTTP/1.1\r\n",
    "an address without a path": b"GET http://localhost HTTP/1.1\r\n",
    "a tunnel": b"CONNECT localhost:443 HTTP/1.1\r\n",
    "a tunnel to a path": b"CONNECT /v1/models HTTP/1.1\r\n",
    "all of the server": b"OPTIONS * HTTP/1.1\r\n",
}


def check_refused(stage: Stage, data: bytes, *, secret: str, status: int = 400, case: str = "") -> RawAnswer:
    """One answer in OpenAI's shape, then the end; no trace of a second request."""
    with connect(stage) as connection:
        connection.send(data + SMUGGLED % secret.encode())
        answer = connection.answer()
        assert answer.status == status, (case, answer.body)
        error = answer.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert (error["type"], error["param"]) == (INVALID, None)
        assert len(answer.headers["x-request-id"]) == 36
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["connection"] == "close"
        assert connection.is_closed(), case
    assert f"request {answer.headers['x-request-id']} was refused as {error['code']}" in stage.gateway.log
    assert not UsageRecord.objects.exists()
    assert not Hold.objects.exists()
    return answer


def connect(stage: Stage) -> RawConnection:
    return RawConnection(int(stage.gateway.origin.rpartition(":")[2]))


def head(secret: str, line: bytes = b"POST /v1/chat/completions HTTP/1.1\r\n") -> bytes:
    return line + HOST + b"X-Api-Key: " + secret.encode() + b"\r\n"


def test_headers_that_two_parsers_could_read_differently_are_refused(stage: Stage) -> None:
    secret = make_key(stage.account(credit="1")).secret

    for name, headers in HEADERS.items():
        answer = check_refused(stage, head(secret) + headers + b"\r\n0\r\n\r\n", secret=secret, case=name)
        expected = "upgrade_not_supported" if "upgrade" in name else "malformed_request"
        assert answer.json["error"]["code"] == expected


def test_chunks_that_two_parsers_could_read_differently_are_refused(stage: Stage) -> None:
    secret = make_key(stage.account(credit="1")).secret

    for name, chunks in CHUNKS.items():
        answer = check_refused(stage, head(secret) + CHUNKED + b"\r\n" + chunks, secret=secret, case=name)
        assert answer.json["error"]["code"] == "malformed_request"


def test_a_request_line_that_is_none_is_refused(stage: Stage) -> None:
    secret = make_key(stage.account(credit="1")).secret

    for name, line in REQUEST_LINES.items():
        check_refused(stage, head(secret, line) + b"\r\n", secret=secret, case=name)


def test_a_request_without_a_host_is_refused(stage: Stage) -> None:
    secret = make_key(stage.account()).secret

    check_refused(stage, b"GET /v1/models HTTP/1.1\r\n\r\n", secret=secret)


@pytest.mark.parametrize("size", [70_000, 5_000_000])
def test_headers_of_more_than_64_kib_are_refused(stage: Stage, size: int) -> None:
    secret = make_key(stage.account()).secret

    for oversize in (
        head(secret) + b"X-A: " + b"a" * size + b"\r\n\r\n",
        head(secret) + b"X-A: a\r\n" * (size // 4) + b"\r\n",
        head(secret, b"GET /v1/models?" + b"a" * size + b" HTTP/1.1\r\n") + b"\r\n",
    ):
        answer = check_refused(stage, oversize, secret=secret, status=431)
        assert answer.json["error"]["code"] == "headers_too_large"


def test_trailers_without_end_are_refused(stage: Stage) -> None:
    secret = make_key(stage.account()).secret

    endless = head(secret) + CHUNKED + b"\r\n5\r\nhello\r\n0\r\n" + b"X-A: a\r\n" * 100_000

    check_refused(stage, endless, secret=secret, status=431)


def test_a_key_in_a_trailer_is_no_key(stage: Stage) -> None:
    secret = make_key(stage.account()).secret
    with connect(stage) as connection:
        connection.send(b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST + CHUNKED + b"\r\n2\r\n{}\r\n0\r\n")
        connection.send(b"X-Api-Key: " + secret.encode() + b"\r\n\r\n")

        answer = connection.answer()

    assert (answer.status, answer.json["error"]["code"]) == (401, "missing_api_key")


def test_what_is_unusual_but_clear_is_served(stage: Stage) -> None:
    secret = make_key(stage.account()).secret
    key = b"X-Api-Key: " + secret.encode() + b"\r\n"
    for request in (
        b"\r\nGET /v1/models HTTP/1.1\r\n" + HOST + key + b"\r\n",
        b"GET http://localhost/v1/models HTTP/1.1\r\n" + HOST + key + b"\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: \r\n" + key + b"\r\n",
        b"GET /v1/models HTTP/1.0\r\n" + key + b"\r\n",
        b"GET /v1/models HTTP/1.1\r\n" + HOST + key + b"X-A: " + b"a" * 60_000 + b"\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\n" + HOST + key + b"Upgrade: h2c\r\n\r\n",
    ):
        with connect(stage) as connection:
            connection.send(request)
            assert connection.answer().status == 200, request[:60]


def test_addresses_that_are_none_of_ours_are_answered_in_the_shape(stage: Stage) -> None:
    secret = make_key(stage.account()).secret
    for line, status in (
        (b"GET /v1 HTTP/1.1\r\n", 404),
        (b"GET /v1/ HTTP/1.1\r\n", 404),
        (b"GET /v1/%00 HTTP/1.1\r\n", 404),
        (b"GET /v1/models/%00 HTTP/1.1\r\n", 404),
        (b"GET /v1/models/%ff%fe HTTP/1.1\r\n", 404),
        (b"GET /v1/../accounts/login/ HTTP/1.1\r\n", 404),
        (b"GET /v1/%2e%2e/accounts/login/ HTTP/1.1\r\n", 404),
        (b"GET /v1//models HTTP/1.1\r\n", 404),
        (b"GET /v1/generation?id=%00 HTTP/1.1\r\n", 400),
        (b"HEAD /v1/models HTTP/1.1\r\n", 405),
        (b"OPTIONS /v1/models HTTP/1.1\r\n", 405),
        (b"TRACE /v1/chat/completions HTTP/1.1\r\n", 405),
        (b"GET /v1/chat/completions HTTP/1.1\r\n", 405),
    ):
        with connect(stage) as connection:
            # The last answer on the connection: what follows it would be left over from this one.
            connection.send(head(secret, line) + b"Connection: close\r\n\r\n")
            is_head = line.startswith(b"HEAD")
            answer = connection.answer(has_body=not is_head)
            assert answer.status == status, line
            assert answer.headers["x-request-id"]
            assert is_head or set(answer.json["error"]) == {"message", "type", "param", "code"}
            assert connection.is_closed()


def test_requests_sent_at_once_are_answered_in_turn(stage: Stage) -> None:
    secret = make_key(stage.account()).secret
    with connect(stage) as connection:
        lines = [b"GET /v1/models", b"GET /v1/key", b"GET /v1/nowhere", b"GET /v1/credits"]
        connection.send(b"".join(head(secret, line + b" HTTP/1.1\r\n") + b"\r\n" for line in lines))

        assert [connection.answer().status for _ in lines] == [200, 200, 404, 200]


def test_an_answer_that_is_on_its_way_comes_before_the_refusal_of_the_next_request(stage: Stage) -> None:
    model = stage.model()
    secret = make_key(stage.account(credit="1")).secret
    body = b'{"model": "%s", "messages": [{"role": "user", "content": "hi"}], "sandbox": {"delay_ms": 200}}'
    body %= model.slug.encode()
    with connect(stage) as connection:
        connection.send(head(secret) + b"Content-Length: %d\r\n\r\n" % len(body) + body + b"NONSENSE\r\n\r\n")

        assert connection.answer().status == 200
        assert connection.answer().status == 400
        assert connection.is_closed()


def test_a_refused_body_that_was_announced_first_ends_the_connection(stage: Stage) -> None:
    with connect(stage) as connection:
        connection.send(b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST)
        connection.send(b"Expect: 100-continue\r\nContent-Length: 10\r\n\r\n")

        answer = connection.answer()

        assert (answer.status, answer.headers["connection"]) == (401, "close")
        assert connection.is_closed()


def test_a_body_that_was_announced_first_is_asked_for(stage: Stage) -> None:
    secret = make_key(stage.account()).secret
    with connect(stage) as connection:
        connection.send(head(secret) + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert connection.interim() == 100

        connection.send(b"{}")

        assert connection.answer().json["error"]["code"] == "invalid_value"

"""The HTTP edge refuses in the shape of what was called, as far as that can be known."""

import pytest

from gateway import shapes
from tests.gateway.conftest import Stage
from tests.gateway.raw_http import RawAnswer, RawConnection

HOST = b"Host: localhost\r\n"
# Beyond 64 KiB of headers, no request, two lengths, and a body that breaks off.
FAULTS: dict[str, tuple[bytes, int, str]] = {
    "large": (HOST + b"X-A: " + b"a" * 70_000 + b"\r\n\r\n", 431, "headers_too_large"),
    "no colon": (HOST + b"X-A\r\n\r\n", 400, "malformed_request"),
    "two hosts": (HOST * 2 + b"\r\n", 400, "malformed_request"),
    "no chunk": (HOST + b"Transfer-Encoding: chunked\r\n\r\nnone\r\n", 400, "malformed_request"),
    "an upgrade": (HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n", 400, "upgrade_not_supported"),
}


def answered(stage: Stage, data: bytes) -> RawAnswer:
    with RawConnection(int(stage.gateway.origin.rpartition(":")[2])) as connection:
        connection.send(data)
        return connection.answer()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    "address",
    ["/v1/messages", "/v1/messages?beta=true", "/v1/messages/count_tokens", "http://localhost/v1/messages"],
)
def test_a_fault_at_messages_is_told_in_anthropics_shape(stage: Stage, fault: str, address: str) -> None:
    rest, status, code = FAULTS[fault]

    answer = answered(stage, f"POST {address} HTTP/1.1\r\n".encode() + rest)

    assert answer.status == status
    error = answer.json["error"]
    assert set(answer.json) == {"type", "error", "request_id"}
    assert (answer.json["type"], answer.json["request_id"]) == ("error", answer.headers["x-request-id"])
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, None)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("address", ["/v1/chat/completions", "/v1/messagesX", "/", "/?to=/v1/messages"])
def test_a_fault_anywhere_else_is_told_in_openais(stage: Stage, fault: str, address: str) -> None:
    rest, status, code = FAULTS[fault]

    answer = answered(stage, f"POST {address} HTTP/1.1\r\n".encode() + rest)

    assert answer.status == status
    assert set(answer.json) == {"error"}
    assert answer.json["error"]["code"] == code


def test_the_next_request_of_a_connection_is_refused_in_its_own_shape(stage: Stage) -> None:
    with RawConnection(int(stage.gateway.origin.rpartition(":")[2])) as connection:
        connection.send(b"POST /v1/messages HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\n{}")
        assert connection.answer().status == 401
        connection.send(b"nonsense\r\n\r\n")

        assert set(connection.answer().json) == {"error"}


def test_messages_without_v1_are_sent_there_in_anthropics_shape(stage: Stage) -> None:
    answer = answered(stage, b"POST /messages HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\n{}")

    assert (answer.status, answer.json["error"]["code"]) == (404, "unknown_url")
    assert answer.json["error"]["type"] == "not_found_error"


@pytest.mark.parametrize(
    "target", [b"", b"*", b"localhost:443", b"/v1/messa", b"http://", b"http://x", b"\xff"]
)
def test_half_an_address_is_nobodys(target: bytes) -> None:
    assert not shapes.is_anthropics(target)

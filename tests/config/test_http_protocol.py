"""How long a client may take: deadlines of the HTTP edge, here a hundred times as short."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from config.http_protocol import StrictHttpProtocol
from gateway.asgi import Receive, Scope, Send
from tests.gateway.raw_http import RawConnection, trickle

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
SLOW_ANSWER_S = 0.8


class HastyHttpProtocol(StrictHttpProtocol):
    """The same with other times."""

    head_timeout_s = 0.3
    body_timeout_s = 0.35


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Waits for its body at /read; answers late at /slow; else at once, whatever comes."""
    if scope["path"] == "/slow":
        await asyncio.sleep(SLOW_ANSWER_S)
    if scope["path"] == "/read":
        while (message := await receive()).get("more_body"):
            pass
        if message["type"] == "http.disconnect":
            return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    config = uvicorn.Config(
        application, http=HastyHttpProtocol, lifespan="off", log_config=None, timeout_keep_alive=2
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


def test_a_client_has_thirty_seconds() -> None:
    assert StrictHttpProtocol.head_timeout_s == 30
    assert StrictHttpProtocol.body_timeout_s == 35


def test_a_connection_on_which_nothing_comes_is_closed(port: int) -> None:
    with RawConnection(port) as connection:
        began = time.monotonic()
        assert connection.is_closed()
    assert 0.2 < time.monotonic() - began < 1.5


def test_slow_headers_are_cut_however_steadily_they_come(port: int) -> None:
    with RawConnection(port) as connection:
        began = time.monotonic()
        trickle(connection, GET, every_s=0.04)

        check_too_slow(connection)
        assert time.monotonic() - began < 0.04 * len(GET) + 1


def test_slow_headers_of_a_later_request_are_cut(port: int) -> None:
    with RawConnection(port) as connection:
        connection.send(GET)
        assert connection.answer().status == 200

        connection.send(GET[:10])

        check_too_slow(connection)


def test_a_connection_may_rest_between_requests(port: int) -> None:
    with RawConnection(port) as connection:
        connection.send(GET)
        assert connection.answer().status == 200
        assert not connection.is_closed(within_s=0.8)

        connection.send(GET)

        assert connection.answer().status == 200


def test_empty_lines_do_not_keep_a_connection_open(port: int) -> None:
    with RawConnection(port) as connection:
        connection.send(GET)
        assert connection.answer().status == 200

        trickle(connection, b"\r\n" * 5, every_s=0.05)

        assert connection.is_closed(within_s=1)


def test_a_slow_body_is_cut(port: int) -> None:
    with RawConnection(port) as connection:
        connection.send(b"POST /read HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n")
        trickle(connection, b"0123456789", every_s=0.05)

        check_too_slow(connection)


def test_a_slow_body_that_nobody_reads_is_cut(port: int) -> None:
    with RawConnection(port) as connection:
        connection.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n")
        assert connection.answer().status == 200

        trickle(connection, b"0123456789", every_s=0.05)

        assert connection.is_closed(within_s=1)


def test_an_answer_may_take_longer_than_a_request(port: int) -> None:
    with RawConnection(port) as connection:
        connection.send(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connection.send(b"\r\n")

        assert connection.answer().status == 200


def test_a_request_is_not_late_while_we_serve_another_first(port: int) -> None:
    slow = b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n"
    body = b"POST /read HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n"
    with RawConnection(port) as connection:
        connection.send(slow + GET + body + b"a")
        assert [connection.answer().status for _ in range(2)] == [200, 200]

        connection.send(b"bc")

        assert connection.answer().status == 200


def test_a_slow_request_is_refused_after_the_answer_to_the_one_before(port: int) -> None:
    with RawConnection(port) as connection:
        connection.send(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connection.send(GET[:10])

        assert connection.answer().status == 200
        check_too_slow(connection)


def test_a_request_whose_body_breaks_off_in_the_queue_is_not_served(port: int) -> None:
    slow = b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n"
    broken = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nnonsense"
    with RawConnection(port) as connection:
        connection.send(slow + broken)

        assert connection.answer().status == 200
        assert connection.answer().status == 400
        assert connection.is_closed()


def check_too_slow(connection: RawConnection) -> None:
    answer = connection.answer()
    assert (answer.status, answer.json["error"]["code"]) == (408, "request_timeout")
    assert answer.headers["x-request-id"]
    assert connection.is_closed()

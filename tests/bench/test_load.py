"""The load generator, against servers whose pace is known."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from bench.parts.load import Findings, Orders, run

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
_BODY = {"model": "m"}


def _run(serve: Serve, **how: object) -> Findings:
    """Run the generator against a server of this process."""

    async def both() -> Findings:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/chat/completions"
        orders = {"keys": ["one"], "body": _BODY, "concurrency": 2, "warm_up_s": 0.0, **how}
        async with server:
            return await run(Orders(url=url, **orders))  # type: ignore[arg-type]  # each test names what it needs

    return asyncio.run(both())


def _server(
    heard: "Counter[str]",
    *,
    pause: Callable[[int], float] = lambda _number: 0.0,
    answer: Callable[[int], bytes] = lambda _number: _ANSWER,
) -> Serve:
    """Answers each request after a pause, both by the number of the request, and counts the keys it hears."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = re.search(rb"Content-Length: (\d+)", head)
            key = re.search(rb"Bearer (\w+)", head)
            assert length
            assert key
            await reader.readexactly(int(length[1]))
            number = heard.total()
            heard[key[1].decode()] += 1
            await asyncio.sleep(pause(number))
            writer.write(answer(number))

    async def until_it_leaves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except asyncio.IncompleteReadError:
            writer.close()

    return until_it_leaves


def test_a_number_of_requests_is_sent_exactly_and_takes_turns_over_the_keys() -> None:
    heard: Counter[str] = Counter()

    found = _run(_server(heard), requests=40, keys=["one", "two", "three", "four"])

    assert found.requests == 40
    assert not found.errors
    assert heard == {"one": 10, "two": 10, "three": 10, "four": 10}


def test_it_sends_for_as_long_as_it_is_told() -> None:
    found = _run(_server(Counter(), pause=lambda _number: 0.02), seconds=0.3)

    assert 0.3 <= found.elapsed_s < 0.6
    # Two connections, fifty requests a second on each at most.
    assert 10 <= found.requests <= 32
    assert found.p50_s >= 0.02


def test_what_is_not_200_is_an_error_and_no_latency() -> None:
    refused = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\n\r\n{}"

    found = _run(_server(Counter(), answer=lambda number: _ANSWER if number % 2 else refused), requests=20)

    assert found.errors == {"status 429": 10}
    assert found.requests == 10


def test_a_steady_rate_is_kept_whatever_the_answers_do() -> None:
    began = time.monotonic()

    found = _run(_server(Counter(), pause=lambda _number: 0.005), rate_per_s=100.0, seconds=0.5)

    assert found.requests == 50
    assert 0.45 <= time.monotonic() - began < 2


def test_a_stall_is_charged_to_every_request_that_it_kept_waiting() -> None:
    """With one connection and a stall of 400 ms, the forty requests due meanwhile wait 200 ms on average.

    A generator that counted from the moment of sending would see one slow request, and a median of next to nothing.
    """
    found = _run(
        _server(Counter(), pause=lambda number: 0.4 if number == 0 else 0.0),
        concurrency=1,
        rate_per_s=100.0,
        seconds=0.4,
    )

    assert found.requests == 40
    assert found.p50_s > 0.1
    assert found.p99_s >= 0.39
    # It says so itself: they were sent late.
    assert found.late_p50_s > 0.1

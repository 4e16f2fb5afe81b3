"""Where the gateway connects: judged for the address of each connection, whatever a name has been resolved to."""

import asyncio
import socket
import time
from collections.abc import Iterator
from functools import partial

import pytest
from aiohttp.resolver import AsyncResolver
from pytest_django import Settings

from gateway.forwarding import Answer, Upstreams, UpstreamsFailedError
from tests.factories import now
from tests.gateway import raw_upstream
from tests.gateway.raw_upstream import RawUpstream
from tests.gateway.routes import a_call, candidate_at, completion


@pytest.fixture
def upstream() -> Iterator[RawUpstream]:
    with raw_upstream.running() as running:
        running.answers(completion())
        yield running


def call(base_url: str) -> Answer | str:
    """The answer of an upstream there, or why there was none."""

    async def run() -> Answer | str:
        upstreams = Upstreams()
        candidate = candidate_at(base_url)
        try:
            answer = await upstreams.open(candidate, a_call())
            answer.response.close()
        except UpstreamsFailedError:
            return str(upstreams.health.described(0.0, now())["acme/m"]["last_error"])
        finally:
            await upstreams.close()
        return answer

    return asyncio.run(run())


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::ffff:127.0.0.1]", "2130706433", "127.1"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_no_connection_is_made_to_a_private_address(
    settings: Settings, upstream: RawUpstream, host: str, scheme: str
) -> None:
    settings.SANDBOX_UPSTREAM_URL = ""
    settings.UPSTREAM_PRIVATE_NETWORKS = ["10.0.0.0/8"]

    why = call(upstream.url.replace("http://127.0.0.1", f"{scheme}://{host}"))

    assert isinstance(why, str)
    assert "not a public address" in why or "plain http" in why or "canonical" in why
    assert upstream.connections == 0


def test_a_network_of_the_operators_own_is_reached(settings: Settings, upstream: RawUpstream) -> None:
    settings.SANDBOX_UPSTREAM_URL = ""
    settings.UPSTREAM_PRIVATE_NETWORKS = ["127.0.0.0/8"]

    assert isinstance(call(upstream.url), Answer)
    assert isinstance(call(upstream.url.replace("127.0.0.1", "localhost")), Answer)


def test_the_sandbox_is_reached_wherever_it_is(settings: Settings, upstream: RawUpstream) -> None:
    settings.SANDBOX_UPSTREAM_URL = upstream.url
    settings.UPSTREAM_PRIVATE_NETWORKS = []

    assert isinstance(call(upstream.url), Answer)


def test_a_name_that_nobody_resolves_takes_no_longer_than_a_connection_may(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.GATEWAY_CONNECT_TIMEOUT_S = 0.5
    settings.SANDBOX_UPSTREAM_URL = ""
    with socket.socket(type=socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        address = {"nameservers": ["127.0.0.1"], "udp_port": deaf.getsockname()[1]}
        monkeypatch.setattr("aiohttp.connector.DefaultResolver", partial(AsyncResolver, **address))
        began = time.monotonic()

        why = call("https://models.example.com/v1")

        assert deaf.recv(512)  # it was asked
    assert why == "it could not be reached in time"
    assert time.monotonic() - began < 2

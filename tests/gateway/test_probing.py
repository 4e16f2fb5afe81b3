"""Probes of an upstream that is left alone: one at a time, whatever becomes of it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest
from pytest_django import Settings

from gateway.breaker import PROBE_AFTER_S
from gateway.forwarding import Answer, Upstreams, UpstreamsFailedError
from tests.gateway import raw_upstream
from tests.gateway.raw_upstream import RawUpstream
from tests.gateway.routes import a_call, candidate_at, completion


@pytest.fixture
def upstream(settings: Settings) -> Iterator[RawUpstream]:
    with raw_upstream.running() as running:
        settings.SANDBOX_UPSTREAM_URL = running.url
        running.says(end="silence")
        yield running


def while_one_probes(url: str, then: Callable[[Upstreams, "asyncio.Task[Answer]"], Awaitable[None]]) -> None:
    """Run `then` when the upstream, which failed until ten seconds ago, is being probed by the task."""

    async def run() -> None:
        upstreams = Upstreams()
        opened_at = time.monotonic() - PROBE_AFTER_S
        for _ in range(20):
            attempt = upstreams.health.begin("acme/m", opened_at)
            assert attempt is not None
            attempt.failed(opened_at, "it answered 500")
        probe = asyncio.create_task(upstreams.open(candidate_at(url), a_call()))
        await asyncio.sleep(0)
        try:
            await then(upstreams, probe)
        finally:
            probe.cancel()
            await upstreams.close()

    asyncio.run(run())


def test_a_request_that_comes_during_a_probe_is_told_to_wait(upstream: RawUpstream) -> None:
    async def then(upstreams: Upstreams, _probe: "asyncio.Task[Answer]") -> None:
        with pytest.raises(UpstreamsFailedError) as caught:
            await upstreams.open(candidate_at(upstream.url), a_call())
        assert caught.value.refusal.status == 503
        assert (b"retry-after", b"1") in caught.value.refusal.headers

    while_one_probes(upstream.url, then)


def test_a_probe_that_is_given_up_leaves_the_way_to_the_next_request(upstream: RawUpstream) -> None:
    async def then(upstreams: Upstreams, probe: "asyncio.Task[Answer]") -> None:
        probe.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probe
        upstream.answers(completion())
        answer = await upstreams.open(candidate_at(upstream.url), a_call())
        answer.response.close()
        assert answer.attempt.is_probe

    while_one_probes(upstream.url, then)

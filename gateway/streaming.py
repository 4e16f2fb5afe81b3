"""Passing a stream on as it comes, metering it on the way, and ending it only when its usage is committed."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from catalog.money import usd_string
from gateway import metering
from gateway.asgi import ClientGoneError
from gateway.errors import Refusal, upstream_error, upstream_timeout
from gateway.metering import Usage
from gateway.sse import EventSplitter, EventTooLargeError, data_of, event_of
from gateway.walk import Walk
from usage.models import UsageRecord

logger = logging.getLogger(__name__)

# A client that has gone is billed for what the upstream produces. It is given this long to finish, then it is
# cut.
DRAIN_S = 60.0
_DONE = b"[DONE]"


@dataclass(slots=True)
class _Meter:
    """What a stream has brought so far."""

    wants_usage: bool
    usage: Usage | None = None
    usage_chunk: dict[str, Any] | None = None
    characters: int = 0
    finish_reason: str = ""
    is_done: bool = False
    failure: Refusal | None = None
    splitter: EventSplitter = field(default_factory=EventSplitter)

    def pass_on(self, piece: bytes, model: str) -> bytes:
        """The part of this piece that the client gets now; where it stops being a completion, `failure` says why."""
        passed: list[bytes] = []
        try:
            for event in self.splitter.feed(piece):
                data = data_of(event)
                if data == _DONE:
                    self.is_done = True
                    break
                passed.append(self._judge(event, data, model) if data else event)
        except EventTooLargeError:
            self.failure = upstream_error(model, "it sent an event without an end")
        except Refusal as refusal:
            self.failure = refusal
        return b"".join(passed)

    def _judge(self, event: bytes, data: bytes, model: str) -> bytes:
        try:
            chunk = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise upstream_error(model, "it sent a chunk that is not JSON") from None
        if not isinstance(chunk, dict) or chunk.get("error") is not None:
            raise upstream_error(model, "it reported an error in its stream")
        choices = chunk.get("choices")
        self.characters += metering.produced_characters(choices)
        self.finish_reason = metering.finish_reason(choices) or self.finish_reason
        if "usage" not in chunk:
            return event
        self.usage = metering.reported(chunk["usage"]) or self.usage
        if not choices:
            self.usage_chunk = chunk  # passed on at the end, with the cost, if the client wants it
            return b""
        if self.wants_usage:
            return event
        del chunk["usage"]
        return event_of(orjson.dumps(chunk))


async def relay(walk: Walk, response: aiohttp.ClientResponse) -> None:
    """Serve a streamed answer. Raises Refusal only as long as nothing has been sent."""
    meter = _Meter(wants_usage=walk.asked.wants_usage)
    pieces = _pieces(walk, response)
    passed = b""
    while not passed and not meter.is_done and meter.failure is None:
        try:
            passed = meter.pass_on(await anext(pieces), walk.model.slug)
        except StopAsyncIteration:
            raise _ended(walk) from None
    if meter.failure is not None and not passed:
        raise meter.failure
    client = _Client(walk)
    walk.finished.time_to_first_token_ms = walk.exchange.elapsed_ms
    try:
        await client.start()
        await client.write(passed)
        await _pass_on(walk, client, meter, pieces)
    except Refusal as refusal:
        await _break_off(walk, client, meter, refusal)
    except asyncio.CancelledError:
        shutdown = upstream_error(walk.model.slug, "this gateway is shutting down")
        await asyncio.shield(_break_off(walk, client, meter, shutdown))
        raise
    else:
        await _finish(walk, client, meter)
    finally:
        client.close()


async def _pass_on(walk: Walk, client: "_Client", meter: _Meter, pieces: AsyncIterator[bytes]) -> None:
    """Pass on what comes until the stream is complete. Raises Refusal where it breaks."""
    while meter.failure is None and not meter.is_done and not client.has_drained_enough():
        try:
            piece = await anext(pieces)
        except StopAsyncIteration:
            if not meter.finish_reason and not client.is_gone:
                raise _ended(walk) from None
            return
        await client.write(meter.pass_on(piece, walk.model.slug))
    if meter.failure is not None:
        raise meter.failure


def _ended(walk: Walk) -> Refusal:
    return upstream_error(walk.model.slug, "its stream ended before it was complete")


async def _finish(walk: Walk, client: "_Client", meter: _Meter) -> None:
    walk.finished.status = 200
    walk.finished.finish_reason = meter.finish_reason
    await walk.settle(meter.usage or walk.estimate(meter.characters))
    ending = b""
    if meter.wants_usage:
        ending = event_of(orjson.dumps(_usage_chunk(walk, meter)))
    await client.write(ending + event_of(_DONE))
    await client.end()


async def _break_off(walk: Walk, client: "_Client", meter: _Meter, refusal: Refusal) -> None:
    """The upstream failed after the first byte: an error event, no [DONE], and only what was produced is billed."""
    walk.fail(refusal)
    walk.finished.status = 200  # what the client got, before it went wrong
    refusal.message = refusal.message.replace(
        "Nothing was charged; try again.", "Only what you received is charged."
    )
    walk.finished.error_message = refusal.message
    await walk.settle(meter.usage or walk.estimate(meter.characters), outcome=UsageRecord.Outcome.FAILED)
    await client.write(event_of(orjson.dumps(refusal.as_json())))
    await client.end()


def _usage_chunk(walk: Walk, meter: _Meter) -> dict[str, Any]:
    """The last chunk of a stream with usage: the upstream's own, or one of ours, with the cost in it."""
    finished = walk.finished
    chunk = meter.usage_chunk or {"object": "chat.completion.chunk", "model": walk.model.slug, "choices": []}
    reported = chunk.get("usage") if meter.usage is not None else None
    counts = reported or {
        "prompt_tokens": finished.input_tokens,
        "completion_tokens": finished.output_tokens,
        "total_tokens": finished.input_tokens + finished.output_tokens,
    }
    return {**chunk, "usage": {**counts, "cost_usd": usd_string(walk.charged_nanousd)}}


async def _pieces(walk: Walk, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The body as it comes. Raises Refusal where the upstream hangs or the connection is cut."""
    try:
        async for piece in response.content.iter_any():
            yield piece
    except TimeoutError:
        raise upstream_timeout(walk.model.slug, "its stream stopped") from None
    except (aiohttp.ClientError, OSError):
        raise upstream_error(walk.model.slug, "the connection was cut") from None


class _Client:
    """The reader of a stream, who may leave at any time; then the upstream is drained for a while."""

    def __init__(self, walk: Walk) -> None:
        self._walk = walk
        self._watch = asyncio.create_task(walk.exchange.wait_for_disconnect())
        self._gone_at: float | None = None

    @property
    def is_gone(self) -> bool:
        if self._gone_at is None and self._watch.done():
            self._gone_at = time.monotonic()
        return self._gone_at is not None

    def has_drained_enough(self) -> bool:
        return self.is_gone and time.monotonic() - (self._gone_at or 0) > DRAIN_S

    async def start(self) -> None:
        await self._walk.exchange.start(
            200,
            [
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"cache-control", b"no-cache"),
                (b"x-accel-buffering", b"no"),
                (b"x-tollgate-upstream", self._walk.finished.upstream.encode()),
                *self._walk.headers(),
            ],
        )

    async def write(self, piece: bytes) -> None:
        if piece and not self.is_gone:
            try:
                await self._walk.exchange.write(piece)
            except ClientGoneError:
                self._gone_at = time.monotonic()

    async def end(self) -> None:
        if not self.is_gone:
            try:
                await self._walk.exchange.write(b"", more=False)
            except ClientGoneError:
                self._gone_at = time.monotonic()

    def close(self) -> None:
        self._watch.cancel()

"""Passing a stream on as it comes, metering it on the way, and ending it only when its usage is committed."""

import asyncio
import logging
import time

import aiohttp

from catalog.money import usd_string
from gateway.answers import Collected, KeptAnswer
from gateway.asgi import Headers
from gateway.dialects.dialect import BrokenAnswerError, Meter
from gateway.errors import Refusal
from gateway.failures import shutting_down, upstream_error, upstream_timeout
from gateway.forwarding import Answer
from gateway.sse import EventSplitter, EventTooLargeError, split
from gateway.walk import Walk
from usage.models import UsageRecord

logger = logging.getLogger(__name__)

# A client that has gone is billed for what the upstream produces. It is given this long to finish, then it is
# cut.
DRAIN_S = 60.0
_HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class _Upstream:
    """The stream as it comes: read a piece at a time, until it is over or `failure` says what went wrong."""

    def __init__(self, walk: Walk, answer: Answer) -> None:
        self._model = walk.model.slug
        self._answer = answer
        self._splitter = EventSplitter()
        self.meter: Meter = walk.dialect.meter(walk.asked)
        self.is_over = False
        self.failure: Refusal | None = None

    async def read(self) -> bytes:
        """The part of the next piece that the client gets now."""
        try:
            piece = await self._answer.read()
        except TimeoutError:
            self._fail(upstream_timeout(self._model, "its stream stopped"))
            return b""
        except (aiohttp.ClientError, OSError):
            self._fail(upstream_error(self._model, "the connection was cut"))
            return b""
        if piece:
            return self._pass_on(piece)
        self.is_over = True
        if not self.meter.is_complete:
            self._fail(upstream_error(self._model, "its stream ended before it was complete"))
        return b""

    def _pass_on(self, piece: bytes) -> bytes:
        """What comes before the event that breaks the stream is still passed on."""
        passed: list[bytes] = []
        meter = self.meter
        try:
            plain, left = meter.take_plain(self._splitter.whole(piece))
            if not left:
                return plain
            passed.append(plain)
            for event in split(left):
                passed.append(meter.take(event))
                if meter.is_done:
                    self.is_over = True
                    break
        except EventTooLargeError:
            self._fail(upstream_error(self._model, "it sent an event without an end"))
        except BrokenAnswerError as error:
            self._fail(upstream_error(self._model, str(error)))
        return b"".join(passed)

    def _fail(self, refusal: Refusal) -> None:
        self.failure = refusal
        self.is_over = True


async def relay(walk: Walk, answer: Answer) -> None:
    """Serve a streamed answer. Raises Refusal only as long as nothing has been sent."""
    upstream = _Upstream(walk, answer)
    passed = b""
    while not passed and not upstream.is_over:
        passed = await upstream.read()
    if upstream.failure is not None and not passed:
        raise upstream.failure
    client = _Client(walk)
    walk.finished.time_to_first_token_ms = walk.exchange.elapsed_ms
    try:
        await client.start()
        await client.write(passed)
        while not upstream.is_over and not client.has_drained_enough():
            await client.write(await upstream.read())
        if upstream.failure is None:
            await _finish(walk, client, upstream.meter)
        else:
            walk.blame_upstream(upstream.failure)
            await _break_off(walk, client, upstream.meter, upstream.failure)
    except asyncio.CancelledError:
        # Told to stop. The request ends here in good order, so nobody above has to hear of it. One that is settled has
        # ended: its client is too slow to hear how.
        if not walk.is_settled:
            await asyncio.shield(_break_off(walk, client, upstream.meter, shutting_down()))
    finally:
        client.close()


async def _finish(walk: Walk, client: "_Client", meter: Meter) -> None:
    walk.finished.status = 200
    walk.finished.finish_reason = meter.finish_reason.replace("\0", "")
    usage = walk.measured(meter)
    await walk.settle(usage)
    if not client.is_gone or client.is_kept:  # else it may have been cut, and there is no end to tell
        await client.finish(meter.ending(usage, cost_usd=usd_string(walk.charged_nanousd)))


async def _break_off(walk: Walk, client: "_Client", meter: Meter, refusal: Refusal) -> None:
    """The upstream failed after the first byte: an error event, and only what was produced is billed."""
    walk.fail(refusal)
    walk.finished.status = 200  # what the client got, before it went wrong
    refusal.message = refusal.message.replace(
        "Nothing was charged; try again.", "Only what you received is charged."
    )
    walk.finished.error_message = refusal.message
    await walk.settle(walk.measured(meter), outcome=UsageRecord.Outcome.FAILED)
    await client.write(meter.error(refusal, walk.exchange.id))
    await client.end()


class _Client:
    """The reader of a stream, who may leave at any time; then the upstream is drained for a while.

    If the answer is kept, it is read to its end: the client may come back for it.
    """

    def __init__(self, walk: Walk) -> None:
        self._walk = walk
        self._collected = Collected() if walk.idempotency is not None else None
        self._watch = asyncio.create_task(walk.exchange.wait_for_disconnect())
        self._gone_at: float | None = None

    @property
    def is_gone(self) -> bool:
        if self._gone_at is None and self._watch.done():
            self._gone_at = time.monotonic()
        return self._gone_at is not None

    @property
    def is_kept(self) -> bool:
        return self._collected is not None and self._collected.is_whole

    def has_drained_enough(self) -> bool:
        return self.is_gone and not self.is_kept and time.monotonic() - (self._gone_at or 0) > DRAIN_S

    async def start(self) -> None:
        await self._walk.exchange.start(200, [*_HEADERS, *self._walk.headers()])

    async def write(self, piece: bytes) -> None:
        if self._collected is not None:
            self._collected.add(piece)
        if piece and not self.is_gone:
            await self._walk.exchange.write(piece)

    async def finish(self, ending: bytes) -> None:
        """The last piece of a whole answer. Who has it can have the answer again."""
        if self._collected is not None:
            self._collected.add(ending)
            if self._collected.is_whole:
                walk = self._walk
                kept = KeptAnswer(200, [*_HEADERS, *walk.served_by()], self._collected.body())
                await walk.keep(kept)
            self._collected = None
        await self.write(ending)
        await self.end()

    async def end(self) -> None:
        if not self.is_gone:
            await self._walk.exchange.write(b"", more=False)

    def close(self) -> None:
        self._watch.cancel()

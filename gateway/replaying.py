"""Replays a trace of real requests through a running gateway over HTTP, and counts what came back.

A trace is CSV: TIMESTAMP,ContextTokens,GeneratedTokens, a request a line, as in the Azure LLM inference traces. Each
request is sent with a prompt of exactly that many words and asks the sandbox for exactly that many tokens, so on the
sandbox the usage afterwards equals the trace, token by token.
"""

import asyncio
import contextlib
import csv
import datetime as dt
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

import aiohttp
import orjson

_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_MOST_TOKENS = 10_000_000
# A request refused for its rate waits and tries again, this often; a minute's limit frees at least once a minute.
_MOST_ATTEMPTS = 60
_LONGEST_WAIT_S = 120.0
_RECONNECT_S = 1.0
_PROGRESS_EVERY_S = 0.25
# Below what servers use: a connection that the server is about to close is not sent a request.
_KEEP_ALIVE_S = 2.0
_TIMEOUT = aiohttp.ClientTimeout(total=900, sock_connect=10)
# Refusals that the next request would get as well.
_HOPELESS_STATUSES = frozenset({400, 401, 402, 403, 404})


class BadTrace(ValueError):
    """The file is no trace; the message names the line."""


class GatewayRefused(Exception):
    """The gateway cannot be asked, or will not serve this key or model; the message says why."""


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """One request of a trace: seconds after the first one, tokens in and out."""

    at_s: float
    context_tokens: int
    generated_tokens: int


@dataclass(frozen=True, slots=True)
class Target:
    """Where to replay to, and as whom. `url` is the gateway's address without /v1."""

    url: str
    key: str = field(repr=False)
    model: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}


@dataclass(slots=True)
class Replay:
    """The running totals of a replay. Latencies are seconds, of requests served, without the waits between attempts."""

    total: int
    sent: int = 0
    done: int = 0
    failed: int = 0
    in_flight: int = 0
    refusals_retried: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    reported_input_tokens: int = 0
    reported_output_tokens: int = 0
    miscounted: int = 0
    cost_usd: Decimal = Decimal(0)
    elapsed_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    stopped_because: str = ""
    is_interrupted: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether every request of the trace was served."""
        return self.done == self.total

    def percentile_s(self, share: float) -> float:
        """The latency that this share of the served requests did not exceed; 0 before the first."""
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

    def remaining_s(self) -> float | None:
        """How much longer, at the rate so far. None: nothing was served yet."""
        finished = self.done + self.failed
        return (self.total - finished) * self.elapsed_s / finished if finished else None


def read_trace(lines: Iterable[str], *, limit: int | None = None) -> list[TraceRequest]:
    """The requests of a trace in the order of their times; the first `limit` lines of it. Raises BadTrace."""
    rows = csv.reader(lines)
    header = next(rows, None)
    if header is None or tuple(name.strip().lstrip("\ufeff") for name in header) != _COLUMNS:
        raise BadTrace(f"line 1 must be {','.join(_COLUMNS)}")
    found: list[tuple[dt.datetime, int, int]] = []
    try:
        for row in rows:
            if limit is not None and len(found) >= limit:
                break
            if row:
                found.append(_read_row(row, line=rows.line_num))
    except (csv.Error, UnicodeDecodeError) as error:
        raise BadTrace(f"after line {rows.line_num}: {error}") from error
    if not found:
        raise BadTrace("there is no request in it")
    found.sort(key=lambda request: request[0])
    start = found[0][0]
    return [TraceRequest((at - start).total_seconds(), context, output) for at, context, output in found]


def _read_row(row: list[str], *, line: int) -> tuple[dt.datetime, int, int]:
    if len(row) != len(_COLUMNS):
        raise BadTrace(f"line {line}: {len(_COLUMNS)} values are needed, and there are {len(row)}")
    try:
        at = dt.datetime.fromisoformat(row[0].strip())
    except ValueError:
        raise BadTrace(f"line {line}: {row[0]!r:.40} is no time like 2023-11-16 18:17:03.9799600") from None
    # Only differences count; times without a zone are all of the same one.
    at = at.replace(tzinfo=dt.UTC) if at.tzinfo is None else at
    return at, *(_read_count(value, name, line) for value, name in zip(row[1:], _COLUMNS[1:], strict=True))  # type: ignore[return-value]


def _read_count(text: str, name: str, line: int) -> int:
    text = text.strip()
    if (
        not text.isascii()
        or not text.isdigit()
        or len(text) > len(str(_MOST_TOKENS))
        or int(text) > _MOST_TOKENS
    ):
        raise BadTrace(f"line {line}: {name} must be a whole number up to {_MOST_TOKENS}, not {text!r:.40}")
    return int(text)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a replay will take, at list price, and what there is to pay it with."""

    cost_usd: Decimal
    available_usd: Decimal
    is_free_tier: bool


async def look_ahead(*, target: Target, requests: list[TraceRequest]) -> Outlook:
    """Ask the gateway what the trace will cost with this key and model. Raises GatewayRefused."""
    async with _session(target, connections=1) as session:
        models = await _get(session, "/v1/models")
        key = (await _get(session, "/v1/key"))["data"]
        credits_ = (await _get(session, "/v1/credits"))["data"]
    pricing = next((model["pricing"] for model in models["data"] if model["id"] == target.model), None)
    if pricing is None:
        callable_ = ", ".join(sorted(model["id"] for model in models["data"])) or "none"
        raise GatewayRefused(f"this key may not call {target.model!r}; it may call: {callable_}")
    cost = sum(request.context_tokens for request in requests) * Decimal(pricing["prompt"])
    cost += sum(request.generated_tokens for request in requests) * Decimal(pricing["completion"])
    return Outlook(
        cost_usd=cost, available_usd=Decimal(credits_["available"]), is_free_tier=bool(key["is_free_tier"])
    )


async def _get(session: aiohttp.ClientSession, path: str) -> dict[str, Any]:
    try:
        async with session.get(path) as response:
            body = await response.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise GatewayRefused(f"the gateway does not answer: {str(error) or type(error).__name__}") from error
    if response.status != 200:  # noqa: PLR2004 - HTTP's
        raise GatewayRefused(f"GET {path} was refused with {response.status}: {_message(body)}")
    document: dict[str, Any] = orjson.loads(body)
    return document


async def replay(
    *,
    target: Target,
    requests: list[TraceRequest],
    speed: float,
    concurrency: int,
    on_progress: Callable[[Replay], None],
) -> Replay:
    """Send every request at its time divided by `speed`, at most `concurrency` at once, and wait for all.

    A request refused with 429 or 503 is tried again when the gateway says it may be. One that ended without an
    answer is not, since it may have been served and counted. On cancellation the totals so far are returned.
    """
    state = Replay(total=len(requests))
    async with _session(target, connections=concurrency) as session:
        run = _Run(session=session, model=target.model, state=state, speed=speed)
        queue = iter(requests)
        workers = [asyncio.create_task(run.work(queue)) for _ in range(min(concurrency, len(requests)))]
        reporter = asyncio.create_task(run.report(on_progress))
        try:
            await asyncio.gather(*workers)
        except asyncio.CancelledError:
            state.is_interrupted = True
        finally:
            for task in (*workers, reporter):
                task.cancel()
            await asyncio.gather(*workers, reporter, return_exceptions=True)
            state.elapsed_s = run.elapsed_s
    return state


class _Run:
    """The workers' common ground: one clock, one set of totals, one moment before which nobody sends."""

    def __init__(self, *, session: aiohttp.ClientSession, model: str, state: Replay, speed: float) -> None:
        self._session = session
        self._model = model
        self._state = state
        self._speed = speed
        self._started = time.monotonic()
        self._resume_at_s = 0.0

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started

    async def work(self, queue: Iterator[TraceRequest]) -> None:
        """Take the next request, wait for its time, see it through; again until none is left."""
        for request in queue:
            await asyncio.sleep(max(0.0, request.at_s / self._speed - self.elapsed_s))
            if self._state.stopped_because:
                return
            self._state.sent += 1
            self._state.in_flight += 1
            try:
                await self._see_through(request)
            finally:
                self._state.in_flight -= 1

    async def report(self, on_progress: Callable[[Replay], None]) -> None:
        while True:
            await asyncio.sleep(_PROGRESS_EVERY_S)
            self._state.elapsed_s = self.elapsed_s
            on_progress(self._state)

    async def _see_through(self, request: TraceRequest) -> None:
        body = self._body(request)
        for _attempt in range(_MOST_ATTEMPTS):
            # One refusal speaks for all: without this, every worker would be refused in turn, and count as a request.
            while (wait_s := self._resume_at_s - self.elapsed_s) > 0:  # noqa: ASYNC110 - it may move while we sleep
                await asyncio.sleep(wait_s)
            try:
                wait_or_none = await self._attempt(request, body)
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
                # Nothing was sent: the gateway may be restarting.
                wait_or_none = _RECONNECT_S
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                return self._fail(f"no whole answer: {type(error).__name__}")
            if wait_or_none is None:
                return None
            self._state.refusals_retried += 1
            self._resume_at_s = max(self._resume_at_s, self.elapsed_s + wait_or_none)
        return self._fail(f"refused or not reached {_MOST_ATTEMPTS} times")

    def _body(self, request: TraceRequest) -> bytes:
        prompt = "a " * request.context_tokens
        return orjson.dumps(
            {
                "model": self._model,
                "messages": [{"role": "user", "content": prompt}],
                # A limit of zero is no limit that the protocol knows.
                "max_tokens": max(1, request.generated_tokens),
                "sandbox": {"output_tokens": request.generated_tokens},
            }
        )

    async def _attempt(self, request: TraceRequest, body: bytes) -> float | None:
        """Send it once. Returns the seconds to wait before the next attempt; None: it is over, served or failed."""
        began = time.perf_counter()
        async with self._session.post("/v1/chat/completions", data=body) as response:
            answer = await response.read()
        if response.status == 200:  # noqa: PLR2004 - HTTP's
            self._count(request, answer, cost=response.headers.get("x-tollgate-cost-usd"))
            self._state.latencies_s.append(time.perf_counter() - began)
            return None
        wait_s = _wait_s(response)
        if wait_s is not None:
            return wait_s
        reason = f"{response.status} {_message(answer)}"
        if response.status in _HOPELESS_STATUSES or response.headers.get("x-should-retry") == "false":
            self._state.stopped_because = reason
        self._fail(reason)
        return None

    def _count(self, request: TraceRequest, answer: bytes, *, cost: str | None) -> None:
        usage = orjson.loads(answer).get("usage") or {}
        reported = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
        state = self._state
        state.input_tokens += request.context_tokens
        state.output_tokens += request.generated_tokens
        state.reported_input_tokens += reported[0]
        state.reported_output_tokens += reported[1]
        state.miscounted += reported != (request.context_tokens, request.generated_tokens)
        with contextlib.suppress(InvalidOperation):
            state.cost_usd += Decimal(cost or 0)
        state.done += 1

    def _fail(self, reason: str) -> None:
        self._state.failed += 1
        self._state.failures[reason] = self._state.failures.get(reason, 0) + 1


def _session(target: Target, *, connections: int) -> aiohttp.ClientSession:
    # A replay is told apart from others in the gateway's logs by its client request id.
    headers = target.headers | {"X-Request-Id": f"replay-{uuid.uuid4()}"}
    connector = aiohttp.TCPConnector(limit=connections, keepalive_timeout=_KEEP_ALIVE_S)
    return aiohttp.ClientSession(target.url, connector=connector, timeout=_TIMEOUT, headers=headers)


def _wait_s(response: aiohttp.ClientResponse) -> float | None:
    """How long the gateway asks to wait. None: trying again is of no use."""
    if response.status not in (429, 503) or response.headers.get("x-should-retry") == "false":
        return None
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with contextlib.suppress(KeyError, ValueError):
            return min(max(float(response.headers[name]) * unit, 0.01), _LONGEST_WAIT_S)
    return 1.0


def _message(body: bytes) -> str:
    """What an error says, in one line."""
    try:
        return str(orjson.loads(body)["error"]["message"])[:300]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return body[:100].decode("utf-8", "replace") or "an empty answer"

"""Requests at a steady rate, whatever becomes of those before them, spread evenly over the processes of a gateway."""

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import aiohttp

from tests.gateway.server import GatewayServer

_TIMEOUT = aiohttp.ClientTimeout(total=30)


@dataclass(frozen=True, slots=True)
class Call:
    """One request: when it was sent, by this machine's monotonic clock, and what came back. Status 0: no answer."""

    started: float
    status: int
    took_s: float
    code: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


class Load:
    """`with Load(...) as load:` calls in the background until the block ends; then waits for what is under way.

    `late_s` is the longest that a call was sent after its time: so long the machine had no time for us, nor perhaps
    for the gateway.
    """

    def __init__(self, gateway: GatewayServer, body: Mapping[str, Any], *, per_second: float) -> None:
        self.calls: list[Call] = []
        self.secrets: list[str] = []
        self.late_s = 0.0
        self._gateway = gateway
        self._body = body
        self._interval_s = 1 / per_second
        self._loop = asyncio.new_event_loop()
        self._is_over = asyncio.Event()
        self._sessions: list[aiohttp.ClientSession] = []
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))
        self._has_begun = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        self._has_begun.wait(30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._is_over.set)
        self._thread.join()
        self._loop.close()

    def since(self, moment: float) -> list[Call]:
        """The calls that began after this moment of the monotonic clock and have ended."""
        return [call for call in list(self.calls) if call.started > moment]

    async def _run(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for index in range(len(self._gateway.pids)):
                session = aiohttp.ClientSession(timeout=_TIMEOUT)
                self._sessions.append(await stack.enter_async_context(session))
                with self._gateway.only(index):
                    await asyncio.gather(*(self._greet(session) for _ in range(6)))
            self._has_begun.set()
            running: set[asyncio.Task[None]] = set()
            start = time.monotonic()
            for number in itertools.count():
                with contextlib.suppress(TimeoutError):
                    delay = start + number * self._interval_s - time.monotonic()
                    self.late_s = max(self.late_s, -delay)
                    await asyncio.wait_for(self._is_over.wait(), max(delay, 0))
                if self._is_over.is_set():
                    break
                for secret in self.secrets:
                    call = self._call(self._sessions[number % len(self._sessions)], secret)
                    task = asyncio.create_task(call)
                    running.add(task)
                    task.add_done_callback(running.discard)
            await asyncio.gather(*running)

    async def _greet(self, session: aiohttp.ClientSession) -> None:
        async with session.get(f"{self._gateway.origin}/health/live") as answer:
            await answer.read()

    async def _call(self, session: aiohttp.ClientSession, secret: str) -> None:
        headers = {"authorization": f"Bearer {secret}"}
        url = f"{self._gateway.url}/chat/completions"
        started = time.monotonic()
        try:
            async with session.post(url, json=self._body, headers=headers) as answer:
                document = await answer.json(content_type=None)
                took_s = time.monotonic() - started
                code = document.get("error", {}).get("code") or ""
                self.calls.append(Call(started, answer.status, took_s, code, answer.headers))
        except (aiohttp.ClientError, TimeoutError):
            self.calls.append(Call(started, 0, time.monotonic() - started))

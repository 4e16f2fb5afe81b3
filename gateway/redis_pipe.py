"""One connection to Redis that all requests of a process share: commands in a row, answers in the same order.

redis-py takes a connection of its pool for each command that waits, and with it a handshake for each of the first ones;
here a burst of requests is one write and one read. Its URL reader, its script and hiredis's parser serve us as well.
"""

import asyncio
import ssl
from collections import deque
from hashlib import sha1
from typing import Any

import hiredis
from redis.asyncio.connection import parse_url

# What an answer may take. The event loop may be late itself: a timer that fires late proves nothing about Redis.
TIMEOUT_S = 0.1
_LATE_S = 0.02


class RedisAway(Exception):
    """Redis cannot be reached, or did not answer within 100 ms."""


class RedisPipe:
    """Runs Lua scripts. Lives on one event loop; connects when first used, and anew after it was cut off."""

    def __init__(self, url: str, *scripts: str) -> None:
        self._address: dict[str, Any] = dict(parse_url(url))
        self._scripts = scripts
        self._connecting: asyncio.Task[_Connection] | None = None

    async def run(self, script: str, key: str, *arguments: str | int) -> Any:
        """The answer of one of the scripts for one key. Raises RedisAway."""
        if self._connecting is None or (self._connecting.done() and not _is_open(self._connecting)):
            self._connecting = asyncio.get_running_loop().create_task(self._connect())
        try:
            connection = await asyncio.shield(self._connecting)
        except (OSError, TimeoutError) as error:
            raise RedisAway(str(error)) from None
        digest = sha1(script.encode(), usedforsecurity=False).hexdigest()
        return await connection.ask("EVALSHA", digest, 1, key, *arguments)

    async def close(self) -> None:
        if self._connecting is not None and self._connecting.done() and _is_open(self._connecting):
            self._connecting.result().close()

    async def _connect(self) -> "_Connection":
        async with asyncio.timeout(TIMEOUT_S):
            connection = await self._open()
        if self._address.get("password"):
            who = [self._address["username"]] if self._address.get("username") else []
            await connection.ask("AUTH", *who, self._address["password"])
        if self._address.get("db"):
            await connection.ask("SELECT", self._address["db"])
        for script in self._scripts:
            await connection.ask("SCRIPT", "LOAD", script)
        return connection

    async def _open(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        if path := self._address.get("path"):
            return (await loop.create_unix_connection(_Connection, path))[1]
        is_encrypted = "connection_class" in self._address
        host, port = self._address.get("host", "localhost"), self._address.get("port", 6379)
        context = ssl.create_default_context() if is_encrypted else None
        return (await loop.create_connection(_Connection, host, port, ssl=context))[1]


class _Connection(asyncio.Protocol):
    """Answers in the order of the questions."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._asked: deque[asyncio.Future[Any]] = deque()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    async def ask(self, *command: str | int) -> Any:
        """The answer to one command. Raises RedisAway; the connection is closed then, for its order is lost."""
        if self._transport is None:
            raise RedisAway("the connection is closed")
        future: asyncio.Future[Any] = self._loop.create_future()
        self._asked.append(future)
        self._transport.write(hiredis.pack_command(command))  # type: ignore[arg-type]  # typed as a 1-tuple
        timer = self._loop.call_later(TIMEOUT_S, self._expire, future, self._loop.time() + TIMEOUT_S)
        try:
            return await future
        finally:
            timer.cancel()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's, as asyncio promises

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (answer := self._reader.gets()) is not False:
            future = self._asked.popleft()
            if future.done():
                continue
            if isinstance(answer, hiredis.ReplyError):
                future.set_exception(RedisAway(str(answer)))
                self.close()
            else:
                future.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        while self._asked:
            future = self._asked.popleft()
            if not future.done():
                future.set_exception(RedisAway("the connection was cut"))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def _expire(self, future: asyncio.Future[Any], due: float) -> None:
        if future.done():
            return
        if self._loop.time() - due > _LATE_S:
            # We were late ourselves. The answer may lie in the socket: look there first.
            self._loop.call_later(TIMEOUT_S, self._expire, future, self._loop.time() + TIMEOUT_S)
            return
        future.set_exception(RedisAway("no answer in time"))
        self.close()


def _is_open(connecting: "asyncio.Task[_Connection]") -> bool:
    return not connecting.cancelled() and connecting.exception() is None and connecting.result().is_open

"""One connection to Redis that all requests of a process share: commands in a row, answers in the same order.

redis-py takes a connection of its pool for each command that waits, and with it a handshake for each of the first ones;
here a burst of requests is one write and one read. Its URL reader, its script and hiredis's parser serve us as well.
"""

import asyncio
import contextlib
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
    """Runs Lua scripts. Lives on one event loop; connects when first used, and anew after it was cut off.

    `greeting` is a script, with its key, that runs first on each connection. Its argument is 1 if something that was
    told on an earlier one may never have been heard, else 0.
    """

    def __init__(self, url: str, *scripts: str, greeting: tuple[str, str] | None = None) -> None:
        self._address: dict[str, Any] = dict(parse_url(url))
        self._scripts = scripts
        self._greeting = greeting
        self._is_unheard = False
        self._digests = {
            script: sha1(script.encode(), usedforsecurity=False).hexdigest() for script in scripts
        }
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[_Connection] | None = None

    @property
    def is_connected(self) -> bool:
        return self._connection is not None and self._connection.is_open

    async def run(self, script: str, key: str, *arguments: str | bytes | int) -> Any:
        """The answer of one of the scripts for one key. Raises RedisAway."""
        connection = self._connection
        if connection is None or not connection.is_open:
            connection = await self._connected()
        return await connection.ask("EVALSHA", self._digests[script], 1, key, *arguments)

    def tell(self, script: str, key: str, *arguments: str | int) -> None:
        """Have one of the scripts run, before whatever is asked later; nobody waits for it.

        Raises RedisAway if there is no connection now.
        """
        if self._connection is None or not self._connection.is_open:
            self._is_unheard = True
            raise RedisAway("there is no connection")
        self._connection.send("EVALSHA", self._digests[script], 1, key, *arguments, is_awaited=False)

    async def close(self) -> None:
        """Wait for the answers that are still to come, and hang up."""
        if self._connection is not None:
            await self._connection.drain()
            self._connection.close()

    async def _connected(self) -> "_Connection":
        """The connection, made by whoever needs it first while the others wait."""
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.get_running_loop().create_task(self._connect())
        try:
            return await asyncio.shield(self._connecting)
        except (OSError, TimeoutError) as error:
            raise RedisAway(str(error)) from None

    async def _connect(self) -> "_Connection":
        async with asyncio.timeout(TIMEOUT_S):
            connection = await self._open()
        # All at once: to a Redis that is slow, one round trip is as much as can be waited for.
        greeting: list[tuple[str, ...]] = []
        if self._address.get("password"):
            who = [self._address["username"]] if self._address.get("username") else []
            greeting.append(("AUTH", *who, self._address["password"]))
        if self._address.get("db"):
            greeting.append(("SELECT", str(self._address["db"])))
        greeting += [("SCRIPT", "LOAD", script) for script in self._scripts]
        if self._connection is not None:
            self._is_unheard |= self._connection.is_unheard
        await asyncio.gather(*[connection.send(*command) for command in greeting], self._greet(connection))
        while self._is_unheard:
            # Somebody had something to tell meanwhile.
            await self._greet(connection)
        self._connection = connection
        return connection

    async def _greet(self, connection: "_Connection") -> None:
        is_unheard, self._is_unheard = self._is_unheard, False
        if self._greeting is None:
            return
        script, key = self._greeting
        try:
            await connection.send("EVAL", script, "1", key, str(int(is_unheard)))
        except BaseException:
            self._is_unheard |= is_unheard
            raise

    async def _open(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        if path := self._address.get("path"):
            return (await loop.create_unix_connection(_Connection, path))[1]
        is_encrypted = "connection_class" in self._address
        host, port = self._address.get("host", "localhost"), self._address.get("port", 6379)
        context = ssl.create_default_context() if is_encrypted else None
        return (await loop.create_connection(_Connection, host, port, ssl=context))[1]


class _Connection(asyncio.Protocol):
    """Answers in the order of the questions. One timer watches the oldest of them."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        # The answer that is waited for, until when, and whether by anybody.
        self._asked: deque[tuple[asyncio.Future[Any], float, bool]] = deque()
        # Something that was told has not been answered, and never will be.
        self.is_unheard = False
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._unsent: list[bytes] = []

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    async def ask(self, *command: str | bytes | int) -> Any:
        """The answer to one command. Raises RedisAway; the connection is closed then, for its order is lost."""
        return await self.send(*command)

    def send(self, *command: str | bytes | int, is_awaited: bool = True) -> "asyncio.Future[Any]":
        """Send one command; its answer may be waited for. Raises RedisAway.

        The commands of one turn of the event loop go out together.
        """
        if self._transport is None:
            raise RedisAway("the connection is closed")
        future: asyncio.Future[Any] = self._loop.create_future()
        due = self._loop.time() + TIMEOUT_S
        self._asked.append((future, due, is_awaited))
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append(hiredis.pack_command(command))  # type: ignore[arg-type]  # typed as a 1-tuple
        if self._watch is None:
            self._watch = self._loop.call_at(due, self._look, due)
        return future

    def _send(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self._transport is not None and unsent:
            self._transport.write(b"".join(unsent))

    async def drain(self) -> None:
        """Return when every answer has come, or the connection has gone."""
        self._send()
        with contextlib.suppress(RedisAway):
            while self._asked:
                await asyncio.shield(self._asked[-1][0])

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's, as asyncio promises

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (answer := self._reader.gets()) is not False:
            future, _, is_awaited = self._asked.popleft()
            if future.done():
                continue
            if isinstance(answer, hiredis.ReplyError):
                self.is_unheard |= not is_awaited
                _fail(future, RedisAway(str(answer)))
                self.close()
            else:
                future.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._watch is not None:
            self._watch.cancel()
        while self._asked:
            future, _, is_awaited = self._asked.popleft()
            self.is_unheard |= not is_awaited
            if not future.done():
                _fail(future, RedisAway("the connection was cut"))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def _look(self, expected: float) -> None:
        """Give up on the connection if its oldest question has waited too long; else look again when it will have."""
        self._watch = None
        if not self._asked:
            return
        now, due = self._loop.time(), self._asked[0][1]
        if now - expected > _LATE_S:
            # We were late ourselves. The answers may lie in the socket: look there first.
            due = now + TIMEOUT_S
        elif due <= now:
            _fail(self._asked[0][0], RedisAway("no answer in time"))
            self.close()
            return
        self._watch = self._loop.call_at(due, self._look, due)


def _fail(future: "asyncio.Future[Any]", error: RedisAway) -> None:
    """Whoever waits hears of it; where nobody does, there is nothing to complain of."""
    if not future.done():
        future.set_exception(error)
        future.exception()

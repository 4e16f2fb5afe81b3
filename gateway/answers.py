"""Answers that are kept for a day, in Redis alone, so that a request which comes again gets the same one.

Each is one compressed value: a line of JSON with status and headers, then the body. They have a connection of their
own: a long answer must not keep the minutes of others waiting. What Redis does not take within 100 ms is not kept.
"""

import asyncio
import logging
import time
import uuid
import zlib
from dataclasses import dataclass
from typing import Any, Self

import orjson
from django.conf import settings

from gateway.asgi import Headers
from gateway.redis_pipe import RedisAway, RedisPipe
from usage.forgetting import IDEMPOTENT_FOR

logger = logging.getLogger(__name__)

MAX_BYTES = 4 * 1024 * 1024
_PAUSE_S = 1.0
_LEVEL = 1
# What takes longer than a millisecond to pack is packed in a thread.
_LONG_BYTES = 64 * 1024
_KEEP = "return redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])"
_FIND = "return redis.call('GET', KEYS[1])"


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """An answer as the client got it, without the headers that only held at that moment."""

    status: int
    headers: Headers
    body: bytes

    def packed(self) -> bytes:
        """Itself as one value."""
        head = {
            "status": self.status,
            "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in self.headers],
        }
        return zlib.compress(orjson.dumps(head) + b"\n" + self.body, _LEVEL)

    @classmethod
    def unpacked(cls, value: bytes) -> Self:
        """What `packed` has written."""
        head, _, body = zlib.decompress(value).partition(b"\n")
        facts = orjson.loads(head)
        headers = [(name.encode("latin-1"), text.encode("latin-1")) for name, text in facts["headers"]]
        return cls(facts["status"], headers, body)


class Collected:
    """A stream's pieces as they pass, until they are more than is kept."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    @property
    def is_whole(self) -> bool:
        return self._size <= MAX_BYTES

    def add(self, piece: bytes) -> None:
        self._size += len(piece)
        if self.is_whole:
            self._pieces.append(piece)
        else:
            self._pieces.clear()

    def body(self) -> bytes:
        return b"".join(self._pieces)


class Answers:
    """The kept answers of all processes, by the id of the request that was answered."""

    def __init__(self) -> None:
        self._redis = RedisPipe(settings.REDIS_URL, _KEEP, _FIND)
        self._away_until = 0.0

    async def keep(self, request_id: uuid.UUID, answer: KeptAnswer) -> None:
        """Keep an answer, if it is not too long and Redis takes it."""
        if len(answer.body) > MAX_BYTES:
            return
        is_long = len(answer.body) > _LONG_BYTES
        value = await asyncio.to_thread(answer.packed) if is_long else answer.packed()
        try:
            await self._run(_KEEP, request_id, value, int(IDEMPOTENT_FOR.total_seconds()))
        except RedisAway as error:
            logger.warning("the answer of request %s is not kept: %s", request_id, error)

    async def find(self, request_id: uuid.UUID) -> KeptAnswer | None:
        """The answer to this request; None if it is not kept. Raises RedisAway."""
        value = await self._run(_FIND, request_id)
        if value is None:
            return None
        return await asyncio.to_thread(KeptAnswer.unpacked, value)

    async def close(self) -> None:
        await self._redis.close()

    async def _run(self, script: str, request_id: uuid.UUID, *arguments: bytes | int) -> Any:
        """Ask Redis, unless it has just been away: then nobody waits for it again so soon. Raises RedisAway."""
        if time.monotonic() < self._away_until:
            raise RedisAway("it has just been away")
        try:
            return await self._redis.run(script, f"answer:{request_id}", *arguments)
        except RedisAway:
            self._away_until = time.monotonic() + _PAUSE_S
            raise

"""Stage 4: requests and tokens a minute, of one key, over all processes.

The minute slides: a request counts for 60 seconds, in steps of one. One Redis round trip runs one Lua script,
so the count is exact whatever runs in parallel. While Redis does not answer within 100 ms, each process
counts by itself, with its share of the limit: together they never exceed it. A refused request is not
counted.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from gateway.asgi import Headers
from gateway.errors import Refusal, rate_limit_exceeded
from gateway.redis_pipe import RedisAway, RedisPipe
from keys.authenticating import Credential

logger = logging.getLogger(__name__)

_PAUSE_S = 1.0
_MINUTE_S = 60
_SECOND_MS = 1000
_NO_LIMIT = -1
_LOCAL_KEYS = 10_000
_COUNT = (Path(__file__).parent / "window.lua").read_text()
# A counter that has gone meanwhile must not come back without an expiry.
_CORRECT = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then redis.call('HINCRBY', KEYS[1], ARGV[1], ARGV[2]) end
"""


@dataclass(slots=True)
class Counted:
    """What the minute of a key looks like with this request in it, or without it if it was refused."""

    limit_requests: int | None
    limit_tokens: int | None
    requests: int
    tokens: int
    reset_ms: int
    retry_ms: int
    second: int  # of the clock that counted; a correction goes to the same one
    refused: str  # `requests`, `tokens` or empty

    def headers(self) -> Headers:
        """OpenAI's `x-ratelimit-*` headers; what has no limit has no headers."""
        headers: Headers = []
        reset = duration(self.reset_ms).encode()
        if self.limit_requests is not None:
            remaining = max(self.limit_requests - self.requests, 0)
            headers += [
                (b"x-ratelimit-limit-requests", b"%d" % self.limit_requests),
                (b"x-ratelimit-remaining-requests", b"%d" % remaining),
                (b"x-ratelimit-reset-requests", reset),
            ]
        if self.limit_tokens is not None:
            headers += [
                (b"x-ratelimit-limit-tokens", b"%d" % self.limit_tokens),
                (b"x-ratelimit-remaining-tokens", b"%d" % max(self.limit_tokens - self.tokens, 0)),
                (b"x-ratelimit-reset-tokens", reset),
            ]
        return headers


class Windows:
    """The sliding minutes of all keys, in Redis, and in this process while Redis is away."""

    def __init__(self) -> None:
        self._redis = RedisPipe(settings.REDIS_URL, _COUNT, _CORRECT)
        self._local = LocalMinutes()
        self._away_until = 0.0

    async def count(self, credential: Credential, *, tokens: int, processes: int) -> Counted | None:
        """Count one request of about this many tokens; None for a key without limits. Raises Refusal (429)."""
        if credential.requests_per_minute is None and credential.tokens_per_minute is None:
            return None
        counted = await self._count(credential, tokens=tokens, processes=processes)
        if counted.refused:
            raise _refusal(counted, tokens=tokens)
        return counted

    def correct(self, credential: Credential, counted: Counted, *, difference: int) -> None:
        """Add what a request used beyond its estimate (or give back the rest), in the second it was counted in."""
        self._local.add(credential.key_id, counted.second, difference)
        if credential.tokens_per_minute is None or not difference or time.monotonic() < self._away_until:
            return
        try:
            # Nobody waits for it: it comes before whatever this process counts next.
            self._redis.tell(_CORRECT, _name(credential.key_id), f"t{counted.second}", difference)
        except RedisAway as error:
            self._stay_away(error)

    async def close(self) -> None:
        await self._redis.close()

    async def _count(self, credential: Credential, *, tokens: int, processes: int) -> Counted:
        limits = (credential.requests_per_minute, credential.tokens_per_minute)
        if time.monotonic() >= self._away_until:
            arguments = [_NO_LIMIT if limit is None else limit for limit in limits]
            try:
                answer = await self._redis.run(_COUNT, _name(credential.key_id), *arguments, tokens)
            except RedisAway as error:
                self._stay_away(error)
            else:
                allowed, requests, counted_tokens, reset_ms, retry_ms, second, refused = answer
                if allowed:
                    self._local.count(credential.key_id, second, tokens)
                return Counted(
                    *limits, requests, counted_tokens, reset_ms, retry_ms, second, refused.decode()
                )
        shares = [None if limit is None else limit // max(processes, 1) for limit in limits]
        return self._local.judge(credential.key_id, int(time.time()), tokens, limits=limits, shares=shares)

    def _stay_away(self, error: RedisAway) -> None:
        if time.monotonic() >= self._away_until:
            logger.warning("Redis is away (%s); counting by process", error)
        self._away_until = time.monotonic() + _PAUSE_S


class LocalMinutes:
    """The minutes of this process alone. It counts all the time, so that it knows them when Redis goes away."""

    def __init__(self) -> None:
        self._minutes: dict[int, dict[int, list[int]]] = {}

    def count(self, key_id: int, second: int, tokens: int) -> None:
        if len(self._minutes) > _LOCAL_KEYS:
            self._minutes = {
                key: kept for key, kept in self._minutes.items() if second - max(kept) <= _MINUTE_S
            }
        seconds = self._minutes.setdefault(key_id, {})
        if second not in seconds:
            for old in [old for old in seconds if second - old > _MINUTE_S]:
                del seconds[old]
            seconds[second] = [0, 0]
        seconds[second][0] += 1
        seconds[second][1] += tokens

    def add(self, key_id: int, second: int, tokens: int) -> None:
        entry = self._minutes.get(key_id, {}).get(second)
        if entry is not None:
            entry[1] += tokens

    def judge(
        self,
        key_id: int,
        second: int,
        tokens: int,
        *,
        limits: tuple[int | None, int | None],
        shares: list[int | None],
    ) -> Counted:
        """Count the request within this process's shares of the limits, or refuse it."""
        live = sorted(
            (old, requests, counted)
            for old, (requests, counted) in self._minutes.get(key_id, {}).items()
            if second - old <= _MINUTE_S
        )
        used = [sum(entry[1] for entry in live), sum(entry[2] for entry in live)]
        reset_ms = 1000 * max((entry[0] + _MINUTE_S + 1 - second for entry in live), default=_MINUTE_S + 1)
        for index, (what, asked) in enumerate((("requests", 1), ("tokens", tokens))):
            share = shares[index]
            if share is not None and used[index] + asked > share:
                retry_ms = _fits_in(live, index + 1, used[index] + asked - share, second)
                return Counted(*limits, used[0], used[1], reset_ms, retry_ms, second, what)
        self.count(key_id, second, tokens)
        return Counted(*limits, used[0] + 1, used[1] + tokens, 1000 * (_MINUTE_S + 1), 0, second, "")


def duration(milliseconds: int) -> str:
    """A duration as OpenAI writes it: `12ms`, `1.5s`, `6m0s`."""
    if milliseconds < _SECOND_MS:
        return f"{max(milliseconds, 0)}ms"
    seconds = milliseconds / 1000
    if seconds < _MINUTE_S:
        return f"{seconds:g}s"
    minutes, rest = divmod(seconds, _MINUTE_S)
    return f"{int(minutes)}m{int(rest)}s"


def _fits_in(live: list[tuple[int, int, int]], index: int, excess: int, second: int) -> int:
    for entry in live:
        excess -= entry[index]
        if excess <= 0:
            return 1000 * (entry[0] + _MINUTE_S + 1 - second)
    return 1000 * (_MINUTE_S + 1)


def _name(key_id: int) -> str:
    return f"minute:{{{key_id}}}"


def _refusal(counted: Counted, *, tokens: int) -> Refusal:
    by_requests = counted.refused == "requests"
    return rate_limit_exceeded(
        what=counted.refused,
        limit=(counted.limit_requests if by_requests else counted.limit_tokens) or 0,
        used=counted.requests if by_requests else counted.tokens,
        asked=1 if by_requests else tokens,
        retry_ms=counted.retry_ms,
        headers=counted.headers(),
    )

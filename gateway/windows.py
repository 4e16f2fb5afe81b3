"""Stage 4: requests and tokens a minute, of one key, over all processes.

The minute slides: a request counts for 60 seconds, in steps of one. One Redis round trip runs one Lua script,
so the count is exact whatever runs in parallel. Where Redis does not answer within 100 ms, and for the minute after it
was emptied or started anew, it does not know the whole minute: then the teller counts it from what is admitted
(`usage.minutes`), which is as exact and costs more. What it admits then, Redis has missed; so the teller does not
believe Redis afterwards either, for that key and in every process. A refused request is not counted.
"""

import asyncio
import datetime as dt
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from django.conf import settings

from gateway.asgi import Headers
from gateway.errors import Refusal, rate_limit_exceeded
from gateway.reading import read
from gateway.redis_pipe import RedisAway, RedisPipe
from keys.authenticating import Credential
from usage import minutes
from usage.minutes import Minute, MinuteExhausted, MinuteState

logger = logging.getLogger(__name__)

_PAUSE_S = 1.0
# What a request has used is told to Redis with the next question, or after this.
_TELL_WITHIN_S = 0.005
_MINUTE_S = 60
_SECOND_MS = 1000
_NO_LIMIT = -1
_COUNT = (Path(__file__).parent / "window.lua").read_text()
# A counter that has gone meanwhile must not come back without an expiry.
_CORRECT = """
if redis.call('HEXISTS', KEYS[1], 'r' .. ARGV[1]) == 1 then
  for kind, change in pairs({r = ARGV[2], t = ARGV[3]}) do
    if change ~= '0' then
      redis.call('HINCRBY', KEYS[1], kind .. ARGV[1], change)
      redis.call('HINCRBY', KEYS[1], string.upper(kind), change)
    end
  end
end
"""
# First of all on every connection. A Redis that was started anew may have kept old counts and lost the latest; and one
# that may not have heard how a request ended counts too little of it.
_GREET = """
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if ARGV[1] == '1' or redis.call('GET', 'minute:run') ~= run then
  redis.call('DEL', KEYS[1])
  redis.call('SET', 'minute:run', run)
end
"""
_SINCE = "minute:since"
_VOUCH = "return redis.call('SET', KEYS[1], redis.call('TIME')[1] - 61, 'NX')"


# The output limit, `max_tokens=40`, with which a request would count no more than so many tokens; empty: none would.
Fitting = Callable[[int], str]


@dataclass(slots=True)
class Counted:
    """What the minute of a key looks like with this request in it, or without it if it was refused."""

    limit_requests: int | None
    limit_tokens: int | None
    requests: int
    tokens: int
    reset_ms: int
    retry_ms: int
    second: int  # of the clock that counted; a correction goes to the same one. 0: Redis has not counted it
    refused: str  # `requests`, `tokens` or empty
    is_known: bool  # Redis knows the whole minute, as far as it can tell; else the teller has to count it

    def learn(self, state: MinuteState) -> None:
        """Take over what the teller has counted."""
        self.requests, self.tokens, self.reset_ms = state.requests, state.tokens, _MINUTE_S * _SECOND_MS

    def without(self, tokens: int) -> "Counted":
        """The same minute without this request of so many tokens."""
        return replace(self, requests=self.requests - 1, tokens=self.tokens - tokens)

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
    """The sliding minutes of all keys, in Redis."""

    def __init__(self) -> None:
        self._redis = RedisPipe(settings.REDIS_URL, _COUNT, _CORRECT, _VOUCH, greeting=(_GREET, _SINCE))
        self._away_until = 0.0
        # What is to be told of each key's seconds: requests and tokens. Many requests of a second are told as one.
        self._corrections: dict[tuple[int, int], tuple[int, int]] = {}
        self._telling: asyncio.TimerHandle | None = None

    def will_miss(self, counted: Counted, *, tokens: int) -> bool:
        """Whether Redis counts so many tokens too little of a request, and cannot be told now."""
        return tokens > 0 and counted.second > 0 and not self._redis.is_connected

    async def vouch(self) -> None:
        """Tell a new Redis that it knows the last minute: nothing was admitted in it."""
        with suppress(RedisAway):
            await self._redis.run(_VOUCH, _SINCE)

    async def count(self, credential: Credential, *, tokens: int, fitting: Fitting) -> Counted | None:
        """Count one request of about this many tokens; None for a key without limits. Raises Refusal (429)."""
        if credential.requests_per_minute is None and credential.tokens_per_minute is None:
            return None
        counted = await self._ask(credential, tokens=tokens, counts=True)
        if counted.refused:
            raise refusal_of(counted, tokens=tokens, fitting=fitting)
        return counted

    async def look(self, credential: Credential) -> Counted | None:
        """The minute as it is, without another request; None for a key without limits.

        Where Redis does not know it, PostgreSQL does. Raises Refusal (503) where that is away too.
        """
        if credential.requests_per_minute is None and credential.tokens_per_minute is None:
            return None
        counted = await self._ask(credential, tokens=0, counts=False)
        now = dt.datetime.now(dt.UTC)
        if not counted.is_known or await read(minutes.has_gap, key_id=credential.key_id, at=now):
            counted.learn(await read(minutes.state_of, key_id=credential.key_id, at=now))
        return counted

    def correct(self, credential: Credential, counted: Counted, *, requests: int = 0, tokens: int) -> None:
        """Add what a request used beyond its estimate (or give back the rest), in the second it was counted in."""
        if not counted.second or not (tokens or requests):
            return
        where = credential.key_id, counted.second
        more_requests, more_tokens = self._corrections.get(where, (0, 0))
        self._corrections[where] = more_requests + requests, more_tokens + tokens
        # Nobody waits for it: it comes before whatever this process counts next.
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(_TELL_WITHIN_S, self._tell)

    async def close(self) -> None:
        self._tell()
        await self._redis.close()

    def _tell(self) -> None:
        """Tell Redis what is to be corrected."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        corrections, self._corrections = self._corrections, {}
        for (key_id, second), (requests, tokens) in corrections.items():
            with suppress(RedisAway):
                self._redis.tell(_CORRECT, _name(key_id), second, requests, tokens)

    async def _ask(self, credential: Credential, *, tokens: int, counts: bool) -> Counted:
        limits = (credential.requests_per_minute, credential.tokens_per_minute)
        if self._corrections:
            self._tell()
        if time.monotonic() >= self._away_until:
            arguments = [_NO_LIMIT if limit is None else limit for limit in limits]
            try:
                answer = await self._redis.run(
                    _COUNT, _name(credential.key_id), *arguments, tokens, int(counts)
                )
            except RedisAway as error:
                self._stay_away(error)
            else:
                _allowed, requests, counted_tokens, reset_ms, retry_ms, second, refused, knows = answer
                return Counted(
                    *limits,
                    requests,
                    counted_tokens,
                    reset_ms,
                    retry_ms,
                    second,
                    refused.decode(),
                    bool(knows),
                )
        return Counted(*limits, 1, tokens, _MINUTE_S * _SECOND_MS, 0, second=0, refused="", is_known=False)

    def _stay_away(self, error: RedisAway) -> None:
        if time.monotonic() >= self._away_until:
            logger.warning("Redis is away (%s); the teller counts the minutes", error)
        self._away_until = time.monotonic() + _PAUSE_S


def minute_of(counted: Counted | None, *, tokens: int) -> Minute | None:
    """What the teller is told of the minute, to count it where Redis cannot know it; None where nothing limits it."""
    if counted is None:
        return None
    return Minute(counted.limit_requests, counted.limit_tokens, tokens, is_decided=counted.is_known)


def refusal_by_teller(
    counted: Counted, decision: MinuteExhausted, *, tokens: int, fitting: Fitting
) -> Refusal:
    """The refusal of a request whose minute the teller has counted."""
    counted.learn(decision.state)
    counted.refused, counted.retry_ms = decision.what, decision.state.oldest_leaves_ms
    return refusal_of(counted, tokens=tokens, fitting=fitting)


def duration(milliseconds: int) -> str:
    """A duration as OpenAI writes it: `12ms`, `1.5s`, `6m0s`."""
    if milliseconds < _SECOND_MS:
        return f"{max(milliseconds, 0)}ms"
    seconds = milliseconds / 1000
    if seconds < _MINUTE_S:
        return f"{seconds:g}s"
    minutes, rest = divmod(seconds, _MINUTE_S)
    return f"{int(minutes)}m{int(rest)}s"


def _name(key_id: int) -> str:
    return f"minute:{{{key_id}}}"


def refusal_of(counted: Counted, *, tokens: int, fitting: Fitting) -> Refusal:
    """The 429 that says which limit of the key it is, and when it frees."""
    by_requests = counted.refused == "requests"
    room = max((counted.limit_tokens or 0) - counted.tokens, 0)
    return rate_limit_exceeded(
        what=counted.refused,
        limit=(counted.limit_requests if by_requests else counted.limit_tokens) or 0,
        used=counted.requests if by_requests else counted.tokens,
        asked=1 if by_requests else tokens,
        retry_ms=counted.retry_ms,
        headers=counted.headers(),
        fitting="" if by_requests else fitting(room),
    )

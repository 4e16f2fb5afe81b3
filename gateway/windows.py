"""Stage 4: requests and tokens a minute, of one key, over all processes.

The minute slides: a request counts for 60 seconds, in steps of one. One Redis round trip runs one Lua script,
so the count is exact whatever runs in parallel. A key that is used often and far from its limits needs none for most of
its requests (`gateway.shares`). Where Redis does not answer within 100 ms, and for the minute after it
was emptied or started anew, it does not know the whole minute: then the teller counts it from what is admitted
(`usage.minutes`), which is as exact and costs more. What it admits then, Redis has missed; so the teller does not
believe Redis afterwards either, for that key and in every process. A refused request is not counted.
"""

import asyncio
import datetime as dt
import logging
import time
from contextlib import suppress
from pathlib import Path

from django.conf import settings

from gateway.counted import MINUTE_MS, Counted, Fitting, refusal_of
from gateway.reading import read
from gateway.redis_pipe import RedisAway, RedisPipe
from gateway.shares import Share
from keys.authenticating import Credential
from usage import minutes

logger = logging.getLogger(__name__)

_PAUSE_S = 1.0
# After a pause no share is asked for: what a Redis gives that is too slow to be heard is lost for a minute.
_WARY_FOR_S = 5.0
# What a request has used is told to Redis with the next question, or after this.
_TELL_WITHIN_S = 0.005
_NO_LIMIT = -1
_UNLIMITED = (None, None)
# Keys whose share is remembered; beyond that those are forgotten whose second is over.
_MOST_SHARES = 10_000
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


class Windows:
    """The sliding minutes of all keys, in Redis."""

    def __init__(self) -> None:
        self._redis = RedisPipe(settings.REDIS_URL, _COUNT, _CORRECT, _VOUCH, greeting=(_GREET, _SINCE))
        self._away_until = 0.0
        # What is to be told of each key's seconds: requests and tokens. Many requests of a second are told as one.
        self._corrections: dict[tuple[int, int], tuple[int, int]] = {}
        self._telling: asyncio.TimerHandle | None = None
        self.shares: dict[int, Share] = {}
        self._counting: set[asyncio.Task[Counted]] = set()
        self._loop = asyncio.get_running_loop()

    def will_miss(self, counted: Counted, *, tokens: int) -> bool:
        """Whether Redis counts so many tokens too little of a request, and cannot be told now."""
        return tokens > 0 and counted.second > 0 and not self._redis.is_connected

    async def vouch(self) -> None:
        """Tell a new Redis that it knows the last minute: nothing was admitted in it."""
        with suppress(RedisAway):
            await self._redis.run(_VOUCH, _SINCE)

    async def count(self, credential: Credential, *, tokens: int, fitting: Fitting) -> Counted | None:
        """Count one request of about this many tokens; None for a key without limits. Raises Refusal (429)."""
        limits = credential.minute_limits
        if limits == _UNLIMITED:
            return None
        share = self._share_of(credential.key_id)
        now = time.monotonic()
        if counted := share.take(limits, tokens=tokens, now=now):
            return counted
        self._give_back(credential.key_id, share)
        wanted = share.wanted(now) if now >= self._away_until + _WARY_FOR_S else 0
        if wanted:
            counted = await self._count_with_room(credential, share, tokens=tokens, wanted=wanted)
        else:
            counted = await self._count(credential, share, tokens=tokens, wanted=0)
        if counted.refused:
            raise refusal_of(credential, counted, tokens=tokens, fitting=fitting)
        return counted

    async def look(self, credential: Credential) -> Counted | None:
        """The minute as it is, without another request; None for a key without limits.

        Where Redis does not know it, PostgreSQL does. Raises Refusal (503) where that is away too.
        """
        if credential.minute_limits == _UNLIMITED:
            return None
        counted, _, _ = await self._ask(credential, tokens=0, counts=False)
        if share := self.shares.get(credential.key_id):
            counted = share.without(counted)
        now = dt.datetime.now(dt.UTC)
        if not counted.is_known or await read(minutes.has_gap, key_id=credential.key_id, at=now):
            counted.learn(await read(minutes.state_of, key_id=credential.key_id, at=now))
        return counted

    def correct(self, credential: Credential, counted: Counted, *, requests: int = 0, tokens: int) -> None:
        """Add what a request used beyond its estimate (or give back the rest), in the second it was counted in."""
        if not counted.second or not (tokens or requests):
            return
        share = self.shares.get(credential.key_id)
        if share is not None and share.second == counted.second:
            if share.absorb(requests=requests, tokens=tokens, now=time.monotonic()):
                return
            share.correct(requests=requests, tokens=tokens)
        self._will_tell(credential.key_id, counted.second, requests=requests, tokens=tokens)

    async def close(self) -> None:
        await asyncio.gather(*self._counting, return_exceptions=True)
        for key_id, share in self.shares.items():
            self._give_back(key_id, share)
        self._tell()
        await self._redis.close()

    def _share_of(self, key_id: int) -> Share:
        if len(self.shares) > _MOST_SHARES:
            now = time.monotonic()
            self.shares = {id_: share for id_, share in self.shares.items() if share.left_s(now) > 0}
        return self.shares.setdefault(key_id, Share())

    async def _count(self, credential: Credential, share: Share, *, tokens: int, wanted: int) -> Counted:
        """Have Redis count the request, and give room for so many more if it can."""
        counted, given, ends_at = await self._ask(credential, tokens=tokens, counts=True, wanted=wanted)
        if not counted.second or counted.refused:
            return counted
        if share.second != counted.second:
            self._give_back(credential.key_id, share)
        share.learn(counted, given=given, tokens=tokens, ends_at=ends_at)
        if given:
            self._give_back_in_time(credential.key_id, share, share.second)
        return share.without(counted)

    async def _count_with_room(
        self, credential: Credential, share: Share, *, tokens: int, wanted: int
    ) -> Counted:
        """As `_count`, but not stopped with who asks: room that nobody has heard of is lost for a minute."""
        share.is_asked_for = True
        counting = self._loop.create_task(self._count(credential, share, tokens=tokens, wanted=wanted))
        self._counting.add(counting)
        try:
            return await asyncio.shield(counting)
        finally:
            share.is_asked_for = False
            counting.add_done_callback(self._counting.discard)

    def _give_back_in_time(self, key_id: int, share: Share, second: int) -> None:
        """Give back what is left of the share when its second is over, if that is still the same."""
        if share.second != second:
            return
        if (left_s := share.left_s(time.monotonic())) > 0:
            self._loop.call_later(left_s, self._give_back_in_time, key_id, share, second)
        else:
            self._give_back(key_id, share)

    def _give_back(self, key_id: int, share: Share) -> None:
        if share.requests or share.tokens:
            requests, tokens = share.give_back()
            self._will_tell(key_id, share.second, requests=-requests, tokens=-tokens)

    def _will_tell(self, key_id: int, second: int, *, requests: int, tokens: int) -> None:
        """Nobody waits for it: it comes before whatever this process asks next."""
        more_requests, more_tokens = self._corrections.get((key_id, second), (0, 0))
        self._corrections[key_id, second] = more_requests + requests, more_tokens + tokens
        if self._telling is None:
            self._telling = self._loop.call_later(_TELL_WITHIN_S, self._tell)

    def _tell(self) -> None:
        """Tell Redis what is to be corrected."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        corrections, self._corrections = self._corrections, {}
        for (key_id, second), (requests, tokens) in corrections.items():
            with suppress(RedisAway):
                self._redis.tell(_CORRECT, _name(key_id), second, requests, tokens)

    async def _ask(
        self, credential: Credential, *, tokens: int, counts: bool, wanted: int = 0
    ) -> tuple[Counted, int, float]:
        """What Redis counts, for how many more requests it gives room, and when the second ends at the earliest."""
        limits = credential.minute_limits
        if self._corrections:
            self._tell()
        asked_at = time.monotonic()
        if asked_at >= self._away_until:
            arguments = [_NO_LIMIT if limit is None else limit for limit in limits]
            try:
                answer = await self._redis.run(
                    _COUNT, _name(credential.key_id), *arguments, tokens, int(counts), wanted
                )
            except RedisAway as error:
                self._stay_away(error)
            else:
                requests, counted_tokens, reset_ms, retry_ms, second, refused, knows, given, left_ms = answer
                counted = Counted(
                    *limits,
                    requests,
                    counted_tokens,
                    reset_ms,
                    retry_ms,
                    second,
                    refused.decode(),
                    bool(knows),
                )
                return counted, given, asked_at + left_ms / 1000
        unknown = Counted(*limits, 1, tokens, MINUTE_MS, 0, second=0, refused="", is_known=False)
        return unknown, 0, asked_at

    def _stay_away(self, error: RedisAway) -> None:
        if time.monotonic() >= self._away_until:
            logger.warning("Redis is away (%s); the teller counts the minutes", error)
        self._away_until = time.monotonic() + _PAUSE_S


def _name(key_id: int) -> str:
    return f"minute:{{{key_id}}}"

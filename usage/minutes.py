"""The last minute of a key, counted from what was admitted: for when Redis, which counts it otherwise, cannot know it.

Everything admitted is either still held or recorded, and both are written under the lock of the account's wallet, so
the count is exact over all processes.

Redis may also not know that it does not know: while it could not be reached, by all processes or by one, requests were
admitted that it has not counted. And what it has decided before it was emptied may still wait to be admitted. So
whoever is admitted without it leaves a gap in the key's minute (`MinuteGap`), under the same lock. Where there is one,
Redis is believed by nobody, until all that it has missed has left the minute.
"""

import datetime as dt
import uuid
from dataclasses import dataclass
from typing import Literal

from django.db import connection

from billing.models import Hold
from usage.models import MinuteGap, UsageRecord

# As in `gateway/window.lua`: a second longer than the minute, for what began at its very edge.
WINDOW = dt.timedelta(seconds=61)


@dataclass(slots=True)  # not frozen: it is made for every request
class Minute:
    """What a request asks of its key's minute. None: no limit. `tokens` is its own estimate."""

    requests_limit: int | None
    tokens_limit: int | None
    tokens: int
    # Redis, which knew the whole minute as far as it can tell, has found that it fits.
    is_decided: bool = False


@dataclass(slots=True)
class MinuteState:
    """What is counted in a key's minute, and in how many milliseconds the oldest of it leaves."""

    requests: int = 0
    tokens: int = 0
    oldest_leaves_ms: int = 61_000

    def refuses(self, minute: Minute) -> Literal["requests", "tokens", ""]:
        """The limit that one more request would exceed; empty: none."""
        if minute.requests_limit is not None and self.requests >= minute.requests_limit:
            return "requests"
        if minute.tokens_limit is not None and self.tokens + minute.tokens > minute.tokens_limit:
            return "tokens"
        return ""

    def add(self, minute: Minute) -> None:
        """Count one more request."""
        self.requests += 1
        self.tokens += minute.tokens


@dataclass(frozen=True, slots=True)
class MinuteExhausted:
    """The request does not fit into its key's minute."""

    what: Literal["requests", "tokens"]
    state: MinuteState


def state_of(*, key_id: int, at: dt.datetime) -> MinuteState:
    """What is counted in the key's minute, for one that only wants to know: nothing is locked."""
    # One statement, so that a request which ends meanwhile is counted once.
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT count(*), COALESCE(sum(tokens), 0)::bigint FROM (
                SELECT input_tokens::bigint + output_tokens AS tokens FROM usage_usagerecord
                WHERE key_id = %(key)s AND id >= %(since)s AND outcome <> 'refused'
                UNION ALL
                SELECT minute_tokens FROM billing_hold WHERE key_id = %(key)s AND request_id >= %(since)s
            ) AS admitted
            """,
            {"key": key_id, "since": first_id_since(at - WINDOW)},
        )
        requests, tokens = cursor.fetchone()
    return MinuteState(requests=requests, tokens=tokens)


def has_gap(*, key_id: int, at: dt.datetime) -> bool:
    """Whether Redis has missed a request that may still be in the key's minute."""
    return MinuteGap.objects.filter(pk=key_id, ends_at__gt=at).exists()


def first_id_since(at: dt.datetime) -> uuid.UUID:
    """The lowest id that a request of this moment or later can have: ids are UUIDv7, RFC 9562."""
    milliseconds = int(at.timestamp() * 1000)
    return uuid.UUID(int=(milliseconds << 80) | (7 << 76) | (2 << 62))


def has_begun_since(*, at: dt.datetime) -> bool:
    """Whether any request has been admitted since, or still runs."""
    return (
        Hold.objects.exists()
        or UsageRecord.objects.filter(pk__gte=first_id_since(at))
        .exclude(outcome=UsageRecord.Outcome.REFUSED)
        .exists()
    )

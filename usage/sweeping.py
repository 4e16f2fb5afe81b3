"""Holds that nobody will resolve any more, because the gateway process that placed them is dead."""

import datetime as dt
import logging

from django.db import connection, transaction

from billing import wallets
from usage import opening
from usage.models import UsageRecord
from usage.recording import FinishedRequest

logger = logging.getLogger(__name__)

GRACE = dt.timedelta(seconds=30)
EVERY = dt.timedelta(seconds=5)
# Whoever has not looked for so long knows nothing of who was silent meanwhile. With the heartbeat, every 5 seconds, it
# must be less than the grace.
_WATCH_GAP = dt.timedelta(seconds=15)
_BATCH = 500
# What the column holds: 24 days. Who was down for longer must not leave holds that no sweep can end.
_LONGEST_MS = 2**31 - 1

# Heartbeats are written and judged by the database's clock. Nobody can beat while PostgreSQL is down, hangs or cannot
# be reached, so silence counts from its start at the earliest, and from when the sweep began to look without a gap: a
# running gateway first gets the chance to come back and settle from its journal. It is one statement, with one now():
# PostgreSQL may hang between two.
_ORPHANS = """
    WITH watch AS (
        INSERT INTO usage_holdwatch AS w (id, began_at, looked_at) VALUES (1, now(), now())
        ON CONFLICT (id) DO UPDATE SET looked_at = now(), began_at = CASE
            WHEN w.looked_at < now() - make_interval(secs => %(gap_s)s) THEN now() ELSE w.began_at END
        RETURNING began_at
    )
    SELECT h.request FROM watch, billing_hold h LEFT JOIN billing_gatewayprocess p ON p.id = h.process_id
    WHERE greatest(coalesce(p.heartbeat_at, h.placed_at), began_at, pg_postmaster_start_time())
        < now() - make_interval(secs => %(grace_s)s)
    ORDER BY h.request_id LIMIT %(limit)s
"""
_FORGET = """
    DELETE FROM billing_gatewayprocess p WHERE p.heartbeat_at < now() - interval '1 hour'
    AND NOT EXISTS (SELECT FROM billing_hold h WHERE h.process_id = p.id)
"""


def sweep(*, at: dt.datetime, grace: dt.timedelta = GRACE) -> int:
    """Release the holds of processes that have been silent for longer than `grace`. Returns how many it resolved.

    What the upstream produced for them is unknown, so nothing is charged: the loss is ours. Each is recorded
    as interrupted. Safe to run anywhere at any time: a hold is resolved by whoever deletes it. None is, unless
    sweeps have come one after the other for as long as the grace.
    """
    resolved = 0
    while orphans := _orphans(grace):
        with transaction.atomic():
            raw = wallets.borrowed_connection()
            opened = opening.open_books(raw, admissions=(), ended=orphans)
            resolved += sum(opened.end(_interrupted(orphan, at)) for orphan in orphans)
            opened.write(raw)
        if len(orphans) < _BATCH:
            break
    with connection.cursor() as cursor:
        cursor.execute(_FORGET)
    if resolved:
        logger.warning("released %d holds of gateway processes that had died", resolved)
    return resolved


def _orphans(grace: dt.timedelta) -> list[FinishedRequest]:
    with connection.cursor() as cursor:
        seconds = {"grace_s": grace.total_seconds(), "gap_s": _WATCH_GAP.total_seconds()}
        cursor.execute(_ORPHANS, {**seconds, "limit": _BATCH})
        return [FinishedRequest.from_json(row[0]) for row in cursor.fetchall()]


def _interrupted(orphan: FinishedRequest, at: dt.datetime) -> FinishedRequest:
    orphan.outcome = UsageRecord.Outcome.INTERRUPTED
    orphan.error_code = "interrupted"
    orphan.error_message = (
        "The gateway process that served this request died. Nothing was charged; send it again."
    )
    orphan.ended_at = at
    lasted_ms = int((at - orphan.started_at).total_seconds() * 1000)
    orphan.latency_ms = min(max(lasted_ms, 0), _LONGEST_MS)
    return orphan

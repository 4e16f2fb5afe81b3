"""`Idempotency-Key`: a request that comes again gets the answer that it got, and is charged once.

The claim of a key is decided where money is, in `usage.books`; here are the header, and what a repetition is told.
"""

import datetime as dt
import re
import uuid
from hashlib import sha256

from django.utils import timezone

from gateway.answers import KeptAnswer
from gateway.asgi import Exchange, Headers
from gateway.errors import API, INVALID_REQUEST, Refusal, invalid_value, retry_after
from gateway.plant import Plant
from gateway.reading import read
from gateway.redis_pipe import RedisAway
from usage.admission import Idempotency
from usage.models import IdempotencyClaim, UsageRecord

HEADER = "Idempotency-Key"
_SENT_AS = HEADER.lower().encode()
_VISIBLE = re.compile(rb"[\x21-\x7e]{1,255}")
_RETRY_MS = 1000
# A request is on record a moment before its answer is kept.
_KEPT_WITHIN = dt.timedelta(seconds=2)


class Repetition(Exception):
    """The same request has come before; `request_id` is what it was then."""

    def __init__(self, request_id: uuid.UUID) -> None:
        super().__init__(str(request_id))
        self.request_id = request_id


def claim_of(exchange: Exchange, *, endpoint: str, body: bytes) -> Idempotency | None:
    """What the request's header claims; None without one. Raises Refusal (400)."""
    sent = exchange.headers.get(_SENT_AS)
    if sent is None:
        return None
    if _VISIBLE.fullmatch(sent) is None:
        raise invalid_value(HEADER, "it must be 1 to 255 visible ASCII characters")
    asked = sha256(endpoint.encode() + b"\0")
    asked.update(body)
    return Idempotency(digest=sha256(sent).hexdigest(), body_digest=asked.hexdigest())


async def judge_repetition(key_id: int, claim: Idempotency) -> None:
    """Look up a request that will not be admitted. Raises Repetition or Refusal (422) if its key has been claimed."""
    claimed = await read(_claimed, key_id, claim.digest)
    if claimed is None:
        return
    body_digest, request_id = claimed
    if body_digest != claim.body_digest:
        raise mismatch()
    raise Repetition(request_id)


def _claimed(key_id: int, digest: str) -> tuple[str, uuid.UUID] | None:
    """The digest of the body that came with the key, and the request's id."""
    claims = IdempotencyClaim.objects.filter(key_id=key_id, digest=digest)
    return claims.values_list("body_digest", "request_id").first()


async def answer_of(plant: Plant, request_id: uuid.UUID) -> KeptAnswer:
    """The answer that the request got when it came first. Raises Refusal (409, 503)."""
    try:
        kept = await plant.answers.find(request_id)
    except RedisAway:
        raise _out_of_reach(request_id) from None
    if kept is None:
        raise _in_progress() if await read(_is_running, request_id) else _answer_gone(request_id)
    return kept


async def answer_again(
    exchange: Exchange, kept: KeptAnswer, *, request_id: uuid.UUID, limits: Headers
) -> None:
    """Send a kept answer under the id of the request that it answered: that is the id of the receipt."""
    exchange.name(request_id)
    again: Headers = [
        (b"content-length", b"%d" % len(kept.body)),
        (b"x-tollgate-idempotent-replay", b"true"),
    ]
    await exchange.start(kept.status, [*kept.headers, *limits, *again])
    await exchange.write(kept.body, more=False)


def _is_running(request_id: uuid.UUID) -> bool:
    """Whether the first request is not answered yet, or was this very moment. One that failed may be sent again."""
    record = UsageRecord.objects.filter(pk=request_id).values_list("outcome", "ended_at").first()
    if record is None:
        return True
    outcome, ended_at = record
    return outcome != UsageRecord.Outcome.COMPLETED or timezone.now() - ended_at < _KEPT_WITHIN


def mismatch() -> Refusal:
    return Refusal(
        422,
        INVALID_REQUEST,
        "idempotency_mismatch",
        f"This {HEADER} was sent with another body or to another endpoint within the last 24 hours. Use a new one for "
        "a new request.",
        param=HEADER,
    )


def _in_progress() -> Refusal:
    return Refusal(
        409,
        INVALID_REQUEST,
        "idempotency_in_progress",
        f"The first request with this {HEADER} is still running. Send it again in a second: the answer will be the "
        "same, and is charged once.",
        param=HEADER,
        headers=retry_after(_RETRY_MS),
    )


def _answer_gone(request_id: uuid.UUID) -> Refusal:
    return Refusal(
        409,
        INVALID_REQUEST,
        "idempotency_answer_gone",
        f"The first request with this {HEADER} was answered and charged once, but its answer is no longer kept. Its "
        f"receipt is at GET /v1/generation?id={request_id}. To ask anew, use a new {HEADER}.",
        param=HEADER,
        headers=[(b"x-should-retry", b"false")],
    )


def _out_of_reach(request_id: uuid.UUID) -> Refusal:
    return Refusal(
        503,
        API,
        "temporarily_unavailable",
        f"The first request with this {HEADER} has id {request_id}; its answer cannot be read just now. Nothing more "
        "was sent upstream and nothing more was charged; try again in a second.",
        headers=retry_after(_RETRY_MS),
    )

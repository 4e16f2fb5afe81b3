"""What costs something: one request's walk through the stages, from its key to its receipt."""

import asyncio
import sys
import time
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
from django.utils import timezone

from catalog.models import AUTO
from catalog.money import usd_string
from catalog.pricing import FREE
from gateway import authorizing, idempotency, routing
from gateway.answers import KeptAnswer
from gateway.asgi import Exchange, Headers
from gateway.counted import minute_of
from gateway.credentials import RefusedCaller
from gateway.dialects.dialect import BrokenAnswerError, Dialect
from gateway.errors import QUOTA, Refusal, budget_reached, daily_allowance_exhausted, insufficient_credits
from gateway.failures import shutting_down, temporarily_unavailable, upstream_error, upstream_timeout
from gateway.fields import OutputLimitRefusal
from gateway.forwarding import Answer, Call, UpstreamsFailedError
from gateway.idempotency import Repetition
from gateway.media import judge_media
from gateway.parsing import Asked
from gateway.plant import Plant
from gateway.request_log import refuse, start_record
from gateway.streaming import relay
from gateway.walk import Walk
from keys.authenticating import Credential
from usage.admission import (
    Admission,
    Admitted,
    AllowanceExhausted,
    BudgetReached,
    CreditsInsufficient,
    Idempotency,
    Repeated,
)
from usage.minutes import MinuteExhausted
from usage.models import UsageRecord
from usage.recording import FinishedRequest

_MAX_ANSWER_BYTES = 64 * 1024 * 1024
_POLICY_READS = 3
# To how many other models a request turns of those that `auto` stands for.
_MOST_TURNS = 3
# Refusals that rest on the policy, and how often at most a key is read anew for one: who is over a rate asks often.
_REREAD_FOR_S = {
    "model_not_allowed": 0.0,
    "plan_upgrade_required": 0.0,
    "input_too_long": 0.0,
    "rate_limit_exceeded": 1.0,
}


async def complete(plant: Plant, exchange: Exchange, dialect: Dialect) -> None:
    """Serve one request. Whatever happens, what was held is settled or released, and the refusal is recorded."""
    try:
        credential = await plant.credentials.authenticate(exchange, endpoint=dialect.endpoint)
    except RefusedCaller as refused:
        await refuse(plant, exchange, refused, start_record(exchange, refused.credential, dialect.endpoint))
        return
    finished = start_record(exchange, credential, dialect.endpoint)
    walk = await _begin(plant, exchange, dialect, credential, finished)
    if walk is None:
        return
    try:
        await _serve(walk)
    except Refusal as refusal:
        walk.blame_upstream(refusal)
        walk.fail(refusal)
        await walk.settle(None, outcome=UsageRecord.Outcome.FAILED)
        await exchange.refuse(refusal)
    finally:
        # Only a bug or a shutdown comes here unsettled. The hold must not outlive the request.
        if not walk.is_settled:
            is_stopped = isinstance(sys.exception(), asyncio.CancelledError)
            walk.fail(shutting_down() if is_stopped else temporarily_unavailable("The gateway"))
            await asyncio.shield(walk.settle(None, outcome=UsageRecord.Outcome.INTERRUPTED))


async def _begin(
    plant: Plant, exchange: Exchange, dialect: Dialect, credential: Credential, finished: FinishedRequest
) -> Walk | None:
    """The admitted request; None where it is answered already: refused, or as it was when it first came."""
    walk = None
    try:
        try:
            walk = await _prepare(plant, exchange, dialect, credential, finished)
            await _admit_first(walk)
        except Repetition as repetition:
            kept = await idempotency.answer_of(plant, repetition.request_id)
            limits: Headers = []
            if walk is not None:
                limits = walk.limits()
                walk.uncount()
            await idempotency.answer_again(exchange, kept, request_id=repetition.request_id, limits=limits)
            return None
    except Refusal as refusal:
        if walk is not None:
            walk.uncount()
        await refuse(plant, exchange, refusal, finished)
        return None
    return walk


@dataclass(slots=True)  # not frozen: made for every request, and a frozen one costs twice as much
class _Call:
    """What was asked of this process, and in which dialect, before it is known who may have it."""

    plant: Plant
    exchange: Exchange
    dialect: Dialect
    finished: FinishedRequest
    asked: Asked
    idempotency: Idempotency | None


async def _prepare(
    plant: Plant, exchange: Exchange, dialect: Dialect, credential: Credential, finished: FinishedRequest
) -> Walk:
    """Read and judge what is asked. Raises Refusal; one that rests on the policy, only if that is still so.

    Raises Repetition where it cannot be served now, but was when it first came.
    """
    judge_media(exchange.headers)
    body = await exchange.read_body()
    try:
        asked = dialect.parse(body)
    except OutputLimitRefusal as refusal:
        raise authorizing.output_limit_refusal(credential, refusal, catalogue=plant.catalogue) from None
    finished.is_streamed = asked.is_streamed
    claim = idempotency.claim_of(exchange, endpoint=dialect.endpoint, body=body)
    call = _Call(plant, exchange, dialect, finished, asked, claim)
    try:
        return await _judge(call, credential)
    except Refusal as refusal:
        if refusal.code not in _REREAD_FOR_S:
            if claim is not None:
                await idempotency.judge_repetition(credential.key_id, claim)
            raise
        current = await plant.credentials.reread(
            exchange,
            credential,
            endpoint=dialect.endpoint,
            at_most_every_s=_REREAD_FOR_S[refusal.code],
        )
        if current is None:
            raise
    return await _judge(call, current)


async def _judge(call: _Call, credential: Credential) -> Walk:
    """The models, the size and the minute. Raises Refusal."""
    plant, exchange, dialect, asked = call.plant, call.exchange, call.dialect, call.asked
    named = plant.catalogue.get(asked.model)
    call.finished.model_id = named.id if named else None
    first, *others = routing.candidates(
        routing.Question(
            credential=credential,
            dialect=dialect,
            asked=asked,
            catalogue=plant.catalogue,
            health=plant.upstreams.health,
            at=exchange.started_at,
            now=time.monotonic(),
        )
    )
    walk = Walk(plant, exchange, dialect, credential, call.finished, asked, first, others, call.idempotency)
    walk.turn_to(first)
    output = asked.output_limit or min(first.model.max_output_tokens, routing.ASSUMED_OUTPUT_TOKENS)
    walk.counted_tokens = 0 if asked.is_count else asked.input_tokens + output * asked.choices
    await walk.count()
    return walk


async def _admit_first(walk: Walk) -> None:
    """Admit the request with its first model, and name those to turn to if it fails. Raises Refusal, Repetition.

    If `auto` has chosen one that cannot be paid for, one of the other tier may: that is paid from elsewhere. Dearer
    ones of the same tier need not be asked.
    """
    try:
        walk.admitted = await _admit(walk)
    except Refusal as refusal:
        if refusal.type != QUOTA or not routing.is_auto(walk.asked):
            raise
        is_premium = walk.model.is_premium
        walk.others = [other for other in walk.others if other.model.is_premium != is_premium]
        if not walk.others:
            raise
        walk.turn_to(walk.others.pop(0))
        walk.admitted = await _admit(walk)
    if AUTO in walk.asked.models:
        # Each may take a minute to fail.
        del walk.others[_MOST_TURNS:]


async def _admit(walk: Walk, *, replaces: bool = False) -> Admitted:
    """Have the teller set aside what the request may cost, instead of what it has set aside before.

    Raises Refusal, or Repetition.
    """
    plant, exchange = walk.plant, walk.exchange
    for _ in range(_POLICY_READS):
        waited_s = 0.0 if replaces else exchange.database_s
        decision = await plant.teller.admit(_admission(walk, replaces=replaces), waited_s=waited_s)
        match decision:
            case Admitted():
                if decision.minute is not None and walk.counted is not None:
                    walk.counted.learn(decision.minute)
                return decision
            case MinuteExhausted():
                raise walk.minute_refusal(decision)
            case CreditsInsufficient():
                raise insufficient_credits(decision, limit_field=walk.dialect.limit_field(walk.asked))
            case BudgetReached():
                raise budget_reached(decision, limit_field=walk.dialect.limit_field(walk.asked))
            case AllowanceExhausted():
                raise daily_allowance_exhausted(decision, now=timezone.now(), headers=walk.headers())
            case Repeated():
                raise Repetition(decision.request_id) if decision.is_same_body else idempotency.mismatch()
        # The policy has changed since it was read: judge by what holds now.
        dialect, asked, before = walk.dialect, walk.asked, walk.credential
        walk.credential = await plant.credentials.authenticate(
            exchange, endpoint=dialect.endpoint, is_fresh=True
        )
        authorizing.judge_model(
            walk.credential, name=walk.model.slug, param="model", catalogue=plant.catalogue
        )
        authorizing.judge_length(walk.credential, dialect=dialect, asked=asked)
        # What is replaced was admitted, and counted, before.
        if not replaces and walk.credential.minute_limits != before.minute_limits:
            walk.uncount()
            await walk.count()
    raise temporarily_unavailable("The key's policy is changing too fast, so it")


def _admission(walk: Walk, *, replaces: bool) -> Admission:
    asked, credential, model = walk.asked, walk.credential, walk.model
    return Admission(
        finished=walk.finished,
        key_version=credential.key_version,
        account_version=credential.account_version,
        process_id=walk.plant.teller.process_id,
        price=FREE if asked.is_count else walk.price,
        input_bytes=asked.most_input_tokens,
        input_tokens=asked.input_tokens,
        output_limit=asked.output_limit,
        max_output_tokens=(
            0 if asked.is_count else min(model.max_output_tokens, model.context_window - asked.context_tokens)
        ),
        choices=asked.choices,
        draws_allowance=not (model.is_premium or asked.is_count),
        spends_credits=credential.spends_credits,
        requests_per_day=credential.requests_per_day,
        tokens_per_day=credential.tokens_per_day,
        at=walk.exchange.started_at,
        replaces=replaces,
        idempotency=walk.idempotency,
        minute_tokens=walk.counted_tokens,
        # What is replaced has been counted already.
        minute=None if replaces else minute_of(walk.counted, tokens=walk.counted_tokens),
    )


async def _serve(walk: Walk) -> None:
    """Call the upstreams and answer. Raises Refusal while nothing has been answered yet."""
    walk.answer = await _open(walk)
    try:
        if walk.asked.is_streamed:
            await relay(walk, walk.answer)
        else:
            await _answer(walk, walk.answer)
    finally:
        walk.answer.close()


async def _open(walk: Walk) -> Answer:
    """The first answer that begins, of the model's upstreams or of the next models'. Raises Refusal: the last one's."""
    while True:
        output_limit = walk.admitted.output_limit if walk.admitted else 0
        call = Call(walk.dialect, walk.asked, output_limit, walk.exchange.headers)
        try:
            return await walk.plant.upstreams.open(walk.candidate, call)
        except UpstreamsFailedError as failed:
            if not await _turn_to_next(walk):
                raise failed.refusal from None
        finally:
            walk.finished.upstream = call.upstream


async def _turn_to_next(walk: Walk) -> bool:
    """Admit the request anew with the next model that can be had and paid for; False: there is none."""
    failed = walk.candidate
    while walk.others:
        candidate = walk.others.pop(0)
        if not authorizing.may_call(walk.credential, candidate.model):
            continue
        walk.turn_to(candidate)
        try:
            walk.admitted = await _admit(walk, replaces=True)
        except Repetition:
            # It counted as dead meanwhile, and its key is another's.
            break
        except Refusal as refusal:
            # A decision that did not come may still be made: then to ask for another would hold twice.
            if refusal.type != QUOTA:
                break
        else:
            return True
    walk.turn_to(failed)
    return False


async def _answer(walk: Walk, answer: Answer) -> None:
    """A JSON answer: read whole, metered, settled, and only then passed on as it came."""
    body = await _read(walk, answer)
    walk.finished.time_to_first_token_ms = walk.exchange.elapsed_ms
    try:
        answered = walk.dialect.read(_document(body))
    except BrokenAnswerError as error:
        raise upstream_error(walk.model.slug, str(error)) from None
    walk.finished.status = 200
    walk.finished.finish_reason = answered.finish_reason.replace("\0", "")
    await walk.settle(walk.believed(answered.usage) or walk.estimate(answered.produced_characters))
    cost: Headers = [
        (b"x-tollgate-cost-usd", usd_string(walk.charged_nanousd).encode()),
        (b"x-tollgate-held-usd", usd_string(walk.admitted.held_nanousd if walk.admitted else 0).encode()),
    ]
    if walk.idempotency is not None:
        headers = [(b"content-type", b"application/json"), *walk.served_by(), *cost]
        await walk.keep(KeptAnswer(200, headers, body))
    await walk.exchange.answer(200, body, [*walk.headers(), *cost])


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BrokenAnswerError("its answer is not JSON") from None
    if not isinstance(document, dict):
        raise BrokenAnswerError("its answer is not an object")
    return document


async def _read(walk: Walk, answer: Answer) -> bytes:
    try:
        pieces: list[bytes] = []
        size = 0
        while piece := await answer.read():
            size += len(piece)
            if size > _MAX_ANSWER_BYTES:
                raise upstream_error(walk.model.slug, "its answer is too large")
            pieces.append(piece)
        return b"".join(pieces)
    except TimeoutError:
        raise upstream_timeout(walk.model.slug, "its answer stopped half-way") from None
    except (aiohttp.ClientError, OSError):
        raise upstream_error(walk.model.slug, "the connection was cut") from None

"""Stage 6: the call upstream. Over the upstreams of one model, and only before the first byte of an answer."""

import asyncio
import errno
import ipaddress
import logging
import random
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Self

import aiohttp
import orjson
from django.conf import settings
from yarl import URL

from catalog.addresses import UnsafeAddressError, judge_address
from catalog.serving import Target, is_sandboxed
from gateway.breaker import Attempt, Health
from gateway.dialects.dialect import Dialect
from gateway.errors import Refusal, invalid_value
from gateway.failures import upstream_error, upstream_refused, upstream_timeout, upstreams_failing
from gateway.parsing import Asked
from gateway.patience import Patience, Wait
from gateway.routing import Candidate, in_turn

logger = logging.getLogger(__name__)

# Of an answer that says what is wrong with the request.
_MAX_ERROR_BYTES = 64 * 1024
_ERROR_WITHIN_S = 5.0
_MAX_REASON = 200
_OK = 200
_NOT_FOUND = 404
_REDIRECTS = range(300, 400)
_SERVER_ERRORS = 500
# The client's own mistakes, which only the upstream could see. Whatever else fails there is not the client's.
_CLIENT_MISTAKES = frozenset({400, 413, 422})
# Our key, our bill, our pace: another upstream may do better. No other 4xx is tried again.
_OURS = frozenset({401, 402, 403, 408, 429})
# What a request may bring about by itself says nothing of the upstream: many such must not close it to everybody.
_TELLING = _OURS - {403}


class UpstreamsFailedError(Exception):
    """No upstream of the model has begun an answer; another model may be asked. `refusal` is the last one's."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class _Limits:
    """How long an upstream may take, in seconds. Silence before the first byte is silence too."""

    first_byte_s: float
    idle_s: float
    total_s: float

    @classmethod
    def as_set(cls) -> Self:
        """As the settings have them; read once, for each look at a setting goes through a proxy."""
        idle_s = settings.GATEWAY_IDLE_TIMEOUT_S
        return cls(
            min(settings.GATEWAY_FIRST_BYTE_TIMEOUT_S, idle_s), idle_s, settings.GATEWAY_TOTAL_TIMEOUT_S
        )


class Answer:
    """An answer that has begun with 200, its body unread. Whoever has it closes it, and says if it broke."""

    __slots__ = ("_ends_by", "_patience", "_wait", "attempt", "response", "target")

    def __init__(
        self,
        target: Target,
        response: aiohttp.ClientResponse,
        attempt: Attempt,
        patience: Patience,
        limits: "_Limits",
    ) -> None:
        self.target = target
        self.response = response
        self.attempt = attempt
        self._ends_by = time.monotonic() + limits.total_s
        self._patience = patience
        # Nothing that leads back to this: a circle for every request would have to be found by the garbage collector.
        self._wait = Wait(limits.idle_s, partial(_give_up, response.content))
        patience.watch(self._wait)

    async def read(self) -> bytes:
        """The next piece of the body; empty at its end. Raises TimeoutError, aiohttp.ClientError, OSError."""
        self._wait.begin()
        piece = await self.response.content.readany()
        self._wait.rest()
        if time.monotonic() > self._ends_by:
            raise TimeoutError
        return piece

    def close(self) -> None:
        """Read no more of it. One that was read to its end leaves its connection to others."""
        self._patience.forget(self._wait)
        if not self.response.closed:
            self.response.close()

    def broke(self, reason: str) -> None:
        """The answer failed half-way."""
        reason = reason[:_MAX_REASON]
        self.attempt.broke(time.monotonic(), reason)
        logger.warning("upstream %s: its answer broke: %s", self.target.id, reason)


def _give_up(body: aiohttp.StreamReader) -> None:
    body.set_exception(TimeoutError())


@dataclass(slots=True)  # not frozen: it is made for every request, and a frozen one costs three times as much
class Call:
    """What is sent, to whichever upstream. `upstream` is who got it last; empty as long as nobody did."""

    dialect: Dialect
    asked: Asked
    output_limit: int
    client_headers: Mapping[bytes, bytes]
    upstream: str = ""


class Upstreams:
    """The connections to all upstreams, and how these have been doing."""

    def __init__(self, *, chance: Callable[[], float] = random.random) -> None:
        self.health = Health()
        self._chance = chance
        self._patience = Patience()
        self._limits = _Limits.as_set()
        guarded = not is_sandboxed()  # the sandbox is ours, and the only upstream there is
        self._sessions = {
            scheme: _session(partial(_guarded_socket, is_plain=scheme == "http") if guarded else None)
            for scheme in ("http", "https")
        }

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()

    async def open(self, candidate: Candidate, call: Call) -> Answer:
        """The first good answer of the candidate's upstreams.

        Raises:
            UpstreamsFailedError: none of them began an answer.
            Refusal: one of them did and would not serve the request; it is not tried again anywhere.
        """
        failure: Refusal | None = None
        model = candidate.model.slug
        for target in in_turn(candidate.targets, chance=self._chance):
            attempt = self.health.begin(target.id, time.monotonic())
            if attempt is None:
                continue
            if call.asked.is_count:
                # Providers limit it by itself. Whoever counts much must not close the way to answers.
                attempt = attempt.aside()
            call.upstream = target.name
            response = await self._ask(target, call, attempt, model)
            if isinstance(response, Refusal):
                failure = response
                continue
            answer = Answer(target, response, attempt, self._patience, self._limits)
            judged = await _judge(answer, model, call.asked)
            if isinstance(judged, Answer):
                return judged
            failure = judged
        if failure is None:
            # They were healthy when the request was judged; others have found out more since, or are finding out now.
            wait_s = self.health.wait_s([target.id for target in candidate.targets], time.monotonic())
            failure = upstreams_failing(model, wait_s or 1.0)
        raise UpstreamsFailedError(failure)

    async def _ask(
        self, target: Target, call: Call, attempt: Attempt, model: str
    ) -> aiohttp.ClientResponse | Refusal:
        """An answer that begins, whatever it is; the refusal if none did. Raises Refusal if one broke off at once."""
        try:
            url = _url(target.base_url, call.dialect.endpoint)
            body = call.dialect.outgoing(call.asked, target, call.output_limit)
            headers = call.dialect.upstream_headers(target, call.client_headers)
            try:
                return await self._post(url, body, headers)
            except aiohttp.ClientConnectionError as error:
                if isinstance(error, TimeoutError) or _has_begun(error):
                    raise
            # It failed before any byte came: it is made once more.
            return await self._post(url, body, headers)
        except TimeoutError as error:
            is_reached = not isinstance(error, aiohttp.ConnectionTimeoutError)
            why = "its answer did not begin in time" if is_reached else "it could not be reached in time"
            _note_failure(target, attempt, why)
            return upstream_timeout(model, why)
        except (aiohttp.ClientError, OSError) as error:
            failure = upstream_error(model, "the connection failed")
            _note_failure(target, attempt, _why_it_failed(error, target))
            if _has_begun(error):
                raise failure from None
            return failure
        except BaseException:
            attempt.abandoned()
            raise

    def _post(self, url: URL, body: bytes, headers: Mapping[str, str]) -> Awaitable[aiohttp.ClientResponse]:
        posting = self._sessions[url.scheme].post(url, data=body, headers=headers, allow_redirects=False)
        return self._patience.within(self._limits.first_byte_s, posting)


class _Request(aiohttp.ClientRequest):
    """A request whose body is there as a whole: it is written with the headers.

    aiohttp starts a task for each body, which on Python 3.11 writes it in another turn of the event loop.
    """

    _whole = b""

    def update_body_from_data(self, body: bytes, _stacklevel: int = 3) -> None:
        """Keep the body aside."""
        self._whole = body
        self.headers["content-length"] = str(len(body))
        super().update_body_from_data(None, _stacklevel)

    async def send(self, conn: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        """Write it behind the headers; the kernel gets both at the end of this turn. Raises aiohttp.ClientError."""
        response = await super().send(conn)
        if conn.transport is None:
            raise aiohttp.ClientConnectionResetError("the connection was lost")
        conn.transport.write(self._whole)
        return response


def _session(socket_factory: Callable[[Any], socket.socket] | None) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60, socket_factory=socket_factory),
        request_class=_Request,
        # No cookies: one client's would be sent with another's request.
        cookie_jar=aiohttp.DummyCookieJar(),
        # What comes compressed all the same is never inflated: a small answer could become a very large one.
        headers={"accept-encoding": "identity"},
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(
            total=None,  # see `Answer.read` and `Patience`: no timers for each request
            connect=settings.GATEWAY_CONNECT_TIMEOUT_S,  # with all that it takes: the look-up of the name too
            sock_read=None,
        ),
    )


def _guarded_socket(addr_info: Any, *, is_plain: bool) -> socket.socket:
    """A socket for an address, once a name has been resolved to it. Raises OSError where we do not connect."""
    family, kind, protocol, _name, address = addr_info
    try:
        judge_address(ipaddress.ip_address(str(address[0]).partition("%")[0]), is_plain=is_plain)
    except UnsafeAddressError as error:
        raise PermissionError(errno.EACCES, str(error)) from error
    return socket.socket(family, kind, protocol)


@lru_cache(maxsize=1024)
def _url(base_url: str, path: str) -> URL:
    """Made once: to parse an address costs more than to look it up."""
    return URL(f"{base_url}/{path}")


async def _judge(answer: Answer, model: str, asked: Asked) -> Answer | Refusal:
    """The answer if it is one; the refusal if another upstream may be asked. Raises Refusal where none may."""
    response, attempt, target = answer.response, answer.attempt, answer.target
    status, encoding = response.status, response.headers.get("content-encoding", "identity")
    if status == _OK and encoding.strip().lower() == "identity":
        attempt.succeeded(time.monotonic())
        return answer
    if status in _CLIENT_MISTAKES:
        attempt.succeeded(time.monotonic())
        raise await _client_mistake(answer)
    answer.close()
    if status == _NOT_FOUND and asked.is_count:
        # Not every provider that speaks the protocol counts.
        raise invalid_value(
            "model", f"the upstream of {model} counts no tokens; an answer's `usage` says them"
        )
    why = f"it answered {status}" if status != _OK else "its answer is compressed, which was not asked for"
    refusal = upstream_error(model, why)
    is_the_requests = _OK < status < _SERVER_ERRORS and status not in _TELLING and status not in _REDIRECTS
    _note_failure(target, attempt, why, is_telling=not is_the_requests)
    if status >= _SERVER_ERRORS or status in _OURS or status in _REDIRECTS:
        return refusal
    raise refusal


def _has_begun(error: Exception) -> bool:
    """Whether some of an answer had come before the connection was closed. Then the request may have been served."""
    # aiohttp gives what it has parsed of the head, and words if there was nothing.
    return isinstance(error, aiohttp.ServerDisconnectedError) and not isinstance(error.message, str)


def _why_it_failed(error: Exception, target: Target) -> str:
    """For the operator: which error, and the system's words on it. Any other words may quote what was answered."""
    if _has_begun(error):
        return "the connection was closed in the middle of the headers"
    why = f"the connection failed: {type(error).__name__}"
    return (
        f"{why}: {error}".replace(target.api_key, "…")
        if isinstance(error, OSError | aiohttp.InvalidURL)
        else why
    )


def _note_failure(target: Target, attempt: Attempt, reason: str, *, is_telling: bool = True) -> None:
    reason = reason[:_MAX_REASON]
    if is_telling:
        attempt.failed(time.monotonic(), reason)
    else:
        attempt.found_fault(reason)
    logger.warning("upstream %s: %s", target.id, reason)


async def _client_mistake(answer: Answer) -> Refusal:
    """The upstream's own words on what is wrong with the request."""
    try:
        body = await _error_body(answer)
    finally:
        answer.close()
    error, secret = _error_in(body), answer.target.api_key
    return upstream_refused(
        answer.response.status,
        message=_word(error.get("message"), secret)[:500] or "The upstream refused the request.",
        code=_word(error.get("code"), secret)[:40] or None,
        param=_word(error.get("param"), secret)[:80] or None,
    )


async def _error_body(answer: Answer) -> bytes:
    """As much of it as comes soon and is of use."""
    body = b""
    with suppress(aiohttp.ClientError, TimeoutError, OSError):
        async with asyncio.timeout(_ERROR_WITHIN_S):
            while len(body) < _MAX_ERROR_BYTES and (piece := await answer.read()):
                body += piece
    return body[:_MAX_ERROR_BYTES]


def _word(value: object, secret: str) -> str:
    """What an upstream says of an error, where it is a word or a number; never our own key there."""
    if not value or not isinstance(value, str | int | float):
        return ""
    return str(value).replace(secret, "…").replace("\0", "")


def _error_in(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    error = document.get("error") if isinstance(document, dict) else None
    return error if isinstance(error, dict) else {}

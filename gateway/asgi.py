"""The little of ASGI that the gateway needs: types, one request as it is served, and answers.

Plain ASGI on purpose: a request passes no middleware, and what it costs can be read off the stages.
"""

import asyncio
import contextlib
import datetime as dt
import ipaddress
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping
from functools import lru_cache
from typing import Any

import orjson
from django.conf import settings
from uuid_utils.compat import uuid7

from gateway.errors import Refusal, request_timed_out, request_too_large
from gateway.waiting import within
from keys.secrets import masked

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Coroutine[Any, Any, None]]
Headers = list[tuple[bytes, bytes]]

BODY_TIMEOUT_S = 30.0
# So much is written at a time; the next only when the client, or the kernel for it, has taken the last.
_SLICE_BYTES = 64 * 1024
_LINGER_S = 1.0
_MAX_CLIENT_REQUEST_ID = 64
_FAMILY = re.compile(r"[A-Za-z][\w.+-]*(?:/[A-Za-z][\w.+-]*)?")


class ClientGoneError(Exception):
    """The client has closed the connection before it has sent its request."""


class Exchange:
    """One request and its answer. The id is a UUIDv7: the request id, and the id of its receipt."""

    __slots__ = (
        "_receive",
        "_send",
        "_started",
        "database_s",
        "headers",
        "id",
        "id_header",
        "id_text",
        "is_started",
        "refusal_as_json",
        "scope",
        "started_at",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self.name(uuid7())
        self.started_at = dt.datetime.now(dt.UTC)
        self._started = time.perf_counter()
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.is_started = False
        # How long it has waited for what it had to read before it may be admitted.
        self.database_s = 0.0
        # How the dialect that is called writes a refusal; where none is, it is OpenAI's shape.
        self.refusal_as_json: Callable[[Refusal, uuid.UUID], dict[str, Any]] | None = None
        # In which header the SDKs of that dialect look for the id, where it is not `x-request-id`.
        self.id_header = b""

    def name(self, request_id: uuid.UUID) -> None:
        """Have the request this id from now on."""
        self.id = request_id
        self.id_text = str(request_id)

    @property
    def elapsed_ms(self) -> int:
        return int((time.perf_counter() - self._started) * 1000)

    @property
    def ip_address(self) -> str | None:
        """The client's address; behind a trusted proxy, the one that the proxy names."""
        client = self.scope.get("client")
        peer = client[0] if client else None
        forwarded = self.headers.get(b"x-forwarded-for")
        if peer and forwarded and _is_trusted_proxy(peer):
            return _address_or_none(forwarded.decode("latin-1").rsplit(",", 1)[-1].strip()) or peer
        return _address_or_none(peer) if peer else None

    @property
    def user_agent(self) -> str:
        """The family of the client's software, `OpenAI/Python`, without a version."""
        return _family(self.headers.get(b"user-agent", b""))

    @property
    def client_request_id(self) -> str:
        """The client's own request id, kept as it says and never used."""
        sent = self.headers.get(b"x-request-id")
        if sent is None:
            return ""
        return masked("".join(filter(str.isprintable, sent.decode("latin-1"))))[:_MAX_CLIENT_REQUEST_ID]

    async def read_body(self) -> bytes:
        """The whole body. Raises Refusal when it is too large (while reading) or slower than 30 seconds."""
        limit: int = settings.GATEWAY_MAX_BODY_BYTES
        declared = self.headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limit:
            raise request_too_large(limit_bytes=limit)
        try:
            return await within(BODY_TIMEOUT_S, self._read(limit))
        except TimeoutError:
            raise request_timed_out(timeout_s=BODY_TIMEOUT_S) from None

    async def _read(self, limit: int) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                raise request_too_large(limit_bytes=limit)
            chunks.append(chunk)
            if not message.get("more_body"):
                return b"".join(chunks)

    async def wait_for_disconnect(self) -> None:
        """Returns when the client has gone. Only after the body has been read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Send the status line and the headers, with the request id among them."""
        self.is_started = True
        named = [(b"x-request-id", self.id_text.encode()), *headers]
        if self.id_header:
            named.append((self.id_header, self.id_text.encode()))
        await self._send({"type": "http.response.start", "status": status, "headers": named})

    async def write(self, body: bytes, *, more: bool = True) -> None:
        """Send a piece of the body, once what was written before has been taken.

        How long that may take is the connection's to know, which is cut then; what is written to a client that has
        gone is dropped.
        """
        sent = 0
        while len(body) - sent > _SLICE_BYTES:
            piece = body[sent : sent + _SLICE_BYTES]
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            sent += _SLICE_BYTES
        await self._send({"type": "http.response.body", "body": body[sent:], "more_body": more})

    async def answer(self, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Send a whole JSON answer."""
        fixed: Headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        await self.start(status, [*fixed, *headers])
        await self.write(body, more=False)

    async def answer_json(self, document: object, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        await self.answer(200, orjson.dumps(document, default=str), headers)

    async def refuse(self, refusal: Refusal) -> None:
        """Send a refusal in the shape of the dialect that was called."""
        shape = self.refusal_as_json
        body = orjson.dumps(refusal.as_json() if shape is None else shape(refusal, self.id))
        if (b"connection", b"close") not in refusal.headers:
            await self.answer(refusal.status, body, refusal.headers)
            return
        # The client is still sending. A connection that is closed on it would take the answer with it.
        fixed: Headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        await self.start(refusal.status, [*fixed, *refusal.headers])
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                while (await self._receive()).get("more_body"):
                    pass
        await self._send({"type": "http.response.body", "body": b""})


@lru_cache(maxsize=4096)
def _is_trusted_proxy(peer: str) -> bool:
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    return any(address in ipaddress.ip_network(block, strict=False) for block in settings.TRUSTED_PROXIES)


@lru_cache(maxsize=1024)
def _family(user_agent: bytes) -> str:
    match = _FAMILY.match(user_agent.decode("latin-1"))
    return masked(match.group())[:40] if match else ""


@lru_cache(maxsize=4096)
def _address_or_none(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None

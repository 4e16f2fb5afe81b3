"""The HTTP edge: uvicorn's own protocol, stricter about what a request is and how long its sender may take.

The parser (llhttp) refuses what RFC 9112 calls malformed. Refused here on top of it is what a proxy in front could
read differently than we do. Every such refusal is an answer in the error shape of what was called (OpenAI's, where that
is not known), closes the connection, and repeats nothing that was sent.
"""

import asyncio
import logging
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httptools
import orjson
from uuid_utils.compat import uuid7
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from config.gathering import GatheringTransport
from config.slow_readers import SlowReader
from gateway import shapes

logger = logging.getLogger(__name__)

MAX_HEAD_BYTES = 64 * 1024
# How long the sender may go on sending after a refusal. Closed at once, the answer could be lost on the way.
_LINGER_S = 1.0
# Headers that say where a request ends, whose it is or how it reads. With two of a kind, two readers could each
# believe another one. Some proxies take an underscore for a hyphen; we do not.
_TELLING = frozenset(
    {
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"content_length",
        b"host",
        b"idempotency-key",
        b"transfer-encoding",
        b"transfer_encoding",
        b"x-api-key",
    }
)
_VERSIONS = ("1.1", "1.0")


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a request is not served: what the answer says."""

    status: HTTPStatus
    code: str
    message: str

    def as_body(self, target: bytes, request_id: str) -> bytes:
        """The answer's body, in the shape that the client of this address reads; `target` may be cut off, or empty."""
        document = (
            shapes.anthropics(
                status=self.status, message=self.message, param=None, code=self.code, request_id=request_id
            )
            if shapes.is_anthropics(target)
            else shapes.openais(
                message=self.message, type="invalid_request_error", param=None, code=self.code
            )
        )
        return orjson.dumps(document)


def _malformed(reason: str) -> Fault:
    return Fault(HTTPStatus.BAD_REQUEST, "malformed_request", f"This is not a valid HTTP request: {reason}.")


_TOO_LARGE = Fault(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "headers_too_large",
    f"The address and the headers of a request may be {MAX_HEAD_BYTES // 1024} KiB long.",
)
_TOO_SLOW = Fault(
    HTTPStatus.REQUEST_TIMEOUT,
    "request_timeout",
    "The request took too long to arrive. Send it again.",
)
_NO_UPGRADE = Fault(
    HTTPStatus.BAD_REQUEST,
    "upgrade_not_supported",
    "Only HTTP/1.1 is spoken here: send the request without an `Upgrade` header, and not as CONNECT.",
)


class _FaultFoundError(Exception):
    """Stops the parser; which fault it was is kept beside."""


class StrictHttpProtocol(HttpToolsProtocol):
    """One connection. From the first byte of a request until its last one, its sender has a deadline.

    Whoever does not take its answer is cut too. Nothing more is written as long as the kernel does not take all that
    was, so what waits for a slow reader is bounded; for everybody else that costs nothing.
    """

    # From the first byte of a request, or from the connection on, until the headers are complete.
    head_timeout_s = 30.0
    # The gateway itself cuts a slow body after 30 s. This is for bodies that nobody waits for.
    body_timeout_s = 35.0
    # Without the client taking a single byte of what waits for it.
    reader_timeout_s = 30.0

    # Of the request that is being read, as far as it has come.
    url: bytes = b""
    _fault: Fault | None = None
    _is_refused = False
    _is_head_open = False
    _is_body_open = False
    # Bytes that came since headers or a body did: headers that are not complete, trailers, empty lines.
    _unread = 0
    # Bytes of the last read.
    _segment = 0
    _deadline: asyncio.TimerHandle | None = None
    # The client, while something waits for it.
    _slow_reader: SlowReader | None = None
    # The request that is served; `cycle` is the last that came.
    _served: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(GatheringTransport(transport))  # type: ignore[arg-type]  # what uvicorn uses of one
        transport.set_write_buffer_limits(high=0)
        self._set_deadline(self.head_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unset_deadline()
        self._forget_reader()
        if self._served is not None and not self._served.response_complete:
            # uvicorn tells the last request that came; this one may have others in line behind it.
            self._served.disconnected = True
            self._served.message_event.set()
        super().connection_lost(exc)

    # --- What comes in -------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse what has come; refuse the request and close the connection if it is not one."""
        if self._is_refused:
            return
        self._unset_keepalive_if_required()
        self._segment = len(data)
        self._unread += self._segment
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(_NO_UPGRADE)
            return
        except httptools.HttpParserCallbackError:
            self._refuse(self._fault or _malformed("its address cannot be read"))
            return
        except httptools.HttpParserError as error:
            # The parser's own words; they contain nothing of the request.
            self._refuse(_malformed(str(error)))
            return
        if self._unread > MAX_HEAD_BYTES:
            self._refuse(_TOO_LARGE)
            return
        is_owing = self._is_head_open or self._is_body_open or self._unread > 0
        if not is_owing:
            self._unset_deadline()
        elif self._deadline is None:
            self._set_deadline(self.body_timeout_s if self._is_body_open else self.head_timeout_s)

    def on_message_begin(self) -> None:
        self._is_head_open = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._fault = self._judge_head()
        if self._fault is not None:
            raise _FaultFoundError
        super().on_headers_complete()
        if self.expect_100_continue:
            # A client that is answered at once may keep its body to itself, and we would wait for it.
            self.cycle.keep_alive = False
        # Trailers are not headers: they come after the headers have been judged, and are dropped.
        self.headers = []
        self._is_head_open, self._is_body_open = False, True
        self._unread = 0
        self._unset_deadline()

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_body_open = False
        self._unread = 0
        self._unset_deadline()
        super().on_message_complete()

    def _judge_head(self) -> Fault | None:
        """What is wrong with the request line and the headers, if anything is."""
        if max(self._unread, self._segment) > MAX_HEAD_BYTES and self._head_bytes() > MAX_HEAD_BYTES:
            return _TOO_LARGE
        if self.parser.should_upgrade():
            return _NO_UPGRADE
        version = self.parser.get_http_version()
        reason = _what_is_wrong(version=version, target=self.url, headers=self.headers)
        return None if reason is None else _malformed(reason)

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    # --- How long it may take ------------------------------------------------------------------------------

    def _set_deadline(self, seconds: float) -> None:
        self._deadline = self.loop.call_later(seconds, self._run_late)

    def _unset_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _run_late(self) -> None:
        self._deadline = None
        is_owing = self._is_head_open or self._is_body_open
        if self.flow.read_paused or (not is_owing and self._is_serving()):
            # We are the ones who are waited for.
            self._set_deadline(self.head_timeout_s)
        elif is_owing:
            self._refuse(_TOO_SLOW)
        else:
            self.transport.close()

    # --- Whether the answer is taken -----------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The kernel does not take all that was written: nothing more is, and the client is watched until it does."""
        super().pause_writing()
        self._slow_reader = SlowReader(self.transport, limit_s=self.reader_timeout_s)  # type: ignore[arg-type]  # ours

    def resume_writing(self) -> None:
        self._forget_reader()
        super().resume_writing()

    def _forget_reader(self) -> None:
        if self._slow_reader is not None:
            self._slow_reader.forget()
            self._slow_reader = None

    # --- What is served ------------------------------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._served = cycle
        super()._start_asgi_task(cycle, app)

    def _is_serving(self) -> bool:
        latest: RequestResponseCycle | None = self.cycle
        return latest is not None and not latest.response_complete

    # --- Refusing ------------------------------------------------------------------------------------------

    def _refuse(self, fault: Fault) -> None:
        """Answer with the fault, after all answers that come before it, and close. Nothing more is read."""
        self._is_refused = True
        self._fault = None
        self._unset_deadline()
        if self._is_body_open and self._give_up_request():
            return
        if self._is_serving():
            # Requests that came before on this connection have their answers first.
            self._fault = fault
        else:
            self._answer(fault)

    def _give_up_request(self) -> bool:
        """The request whose body broke off is not served any more; returns whether its client had its answer."""
        broken = self.cycle
        if self.pipeline and self.pipeline[0][0] is broken:
            self.pipeline.popleft()
            return False
        if broken.response_started:
            self.transport.close()
            return True
        broken.disconnected = True
        broken.response_complete = True
        broken.message_event.set()
        return False

    def on_response_complete(self) -> None:
        is_last = not self.pipeline
        super().on_response_complete()
        if self._fault is not None and is_last and not self.transport.is_closing():
            fault, self._fault = self._fault, None
            self._answer(fault)

    def _answer(self, fault: Fault) -> None:
        if self.transport.is_closing():
            return
        request_id = str(uuid7())
        logger.info("request %s was refused as %s", request_id, fault.code)
        body = fault.as_body(self.url, request_id)
        headers = [
            *self.server_state.default_headers,
            (b"x-request-id", request_id.encode()),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        lines = [name + b": " + value + b"\r\n" for name, value in headers]
        self._unset_keepalive_if_required()
        self.transport.write(b"".join([STATUS_LINE[fault.status], *lines, b"\r\n", body]))
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._deadline = self.loop.call_later(_LINGER_S, self._end_lingering)

    def _end_lingering(self) -> None:
        if self.flow.write_paused:
            # The answers before the refusal are still being taken.
            self._deadline = self.loop.call_later(_LINGER_S, self._end_lingering)
        else:
            self.transport.abort()


def _what_is_wrong(*, version: str, target: bytes, headers: list[tuple[bytes, bytes]]) -> str | None:
    """Why somebody else could read this request line or these headers differently; None if nobody could."""
    if version not in _VERSIONS:
        return "its version is neither HTTP/1.1 nor HTTP/1.0"
    telling = [(name, value) for name, value in headers if name in _TELLING]
    found = dict(telling)
    if len(found) != len(telling):
        return "a header that may be there once is there twice"
    if not _has_one_length(found, version):
        return "its length is given in a way that not everybody understands"
    if b"host" not in found and version == "1.1":
        return "it has no Host header"
    if not _has_one_address(target, found.get(b"host", b"")):
        return "its address is neither a path nor an address of this host"
    return None


def _has_one_length(found: dict[bytes, bytes], version: str) -> bool:
    if b"transfer_encoding" in found or b"content_length" in found:
        return False
    coding = found.get(b"transfer-encoding")
    return coding is None or (version == "1.1" and coding.lower() == b"chunked")


def _has_one_address(target: bytes, host: bytes) -> bool:
    if b"#" in target:
        return False
    if target.startswith(b"/"):
        return True
    scheme, _, rest = target.partition(b"://")
    authority, slash, _ = rest.partition(b"/")
    return scheme.lower() in (b"http", b"https") and bool(slash) and authority.lower() == host.lower() != b""

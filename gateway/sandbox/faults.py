"""The sandbox's end of a connection: writing at a pace, noticing that the client left, and breaking on request."""

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.asgi import Receive, Send

GARBAGE = b'{"id": "chatcmpl-garbage", "choices": [{"message": {"content": "half a docu'
GARBAGE_EVENT = b'data: {"choices": [{"delta": \xff\xfe not json\n\n'


class ClientLeft(Exception):
    """The other side closed the connection: there is nobody to answer."""


class Connection:
    """One request's connection under uvicorn."""

    def __init__(self, receive: "Receive", send: "Send") -> None:
        self._receive = receive
        self._send = send
        self._departure: asyncio.Future[Any] | None = None

    async def body(self) -> bytes:
        """All of the request's body. Raises ClientLeft."""
        parts = []
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                return b"".join(parts)

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, body: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def answer(
        self, status: int, body: bytes, *, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        """A whole JSON answer."""
        length = (b"content-length", str(len(body)).encode())
        await self.start(status, [(b"content-type", b"application/json"), length, *headers])
        await self.write(body, more=False)

    async def pause(self, seconds: float) -> None:
        """Wait; zero lets the last write leave on its own. Raises ClientLeft as soon as the client has left."""
        if seconds <= 0:
            await asyncio.sleep(0)
        else:
            await asyncio.wait({self._watch()}, timeout=seconds)
        if self._departure is not None and self._departure.done():
            raise ClientLeft

    async def hang(self) -> None:
        """Say nothing until the client gives up. Raises ClientLeft."""
        await self._watch()
        raise ClientLeft

    async def cut(self) -> None:
        """Close the socket after what was written, without ending the answer. Raises ClientLeft.

        ASGI has no word for this, so uvicorn's own transport is taken from behind its `send`.
        """
        self._send.__self__.transport.close()  # type: ignore[attr-defined]
        await self.hang()

    def finish(self) -> None:
        """Stop watching for the client; the server may reuse the connection for another request."""
        if self._departure is not None:
            self._departure.cancel()

    def _watch(self) -> "asyncio.Future[Any]":
        if self._departure is None:
            self._departure = asyncio.ensure_future(self._receive())
        return self._departure

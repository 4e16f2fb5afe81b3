"""The least that a gateway in Python can do: a bare ASGI application that hands a request on with aiohttp.

`PASSTHROUGH_UPSTREAM=http://host:port uvicorn bench.parts.passthrough:app`. No key, no limit, no money, no record.
"""

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import aiohttp

Message = MutableMapping[str, Any]
_sessions: list[aiohttp.ClientSession] = []


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """The ASGI application."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    body = b""
    is_whole = False
    while not is_whole:
        message = await receive()
        body += message.get("body", b"")
        is_whole = not message.get("more_body")
    headers = {"Content-Type": "application/json"}
    async with _sessions[0].request(scope["method"], scope["path"], data=body, headers=headers) as response:
        answer_headers = [
            (name.encode(), response.headers[name].encode())
            for name in ("content-type", "content-length")
            if name in response.headers
        ]
        await send({"type": "http.response.start", "status": response.status, "headers": answer_headers})
        async for chunk in response.content.iter_any():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _live(
    receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            connector = aiohttp.TCPConnector(limit=0)
            _sessions.append(aiohttp.ClientSession(os.environ["PASSTHROUGH_UPSTREAM"], connector=connector))
            await send({"type": "lifespan.startup.complete"})
        else:
            await _sessions.pop().close()
            await send({"type": "lifespan.shutdown.complete"})
            return

"""The body of a request to a page, which may be as long as Django would read it and no longer.

Django puts a body aside before it looks at the request, on disk where it is long. Whoever sends one without end would
fill that, and settlements are kept there when PostgreSQL is away.
"""

from collections.abc import Awaitable, Callable

from django.conf import settings

from gateway.asgi import Exchange, Message, Receive, Scope, Send
from gateway.errors import request_too_large

Application = Callable[[Scope, Receive, Send], Awaitable[None]]


async def serve(page: Application, scope: Scope, receive: Receive, send: Send) -> None:
    """Have the page answer; a body that is too large is refused (413) as soon as that is seen."""
    limit: int = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    size = 0

    async def receive_within() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size <= limit:
            return message
        await Exchange(scope, receive, send).refuse(request_too_large(limit_bytes=limit, is_page=True))
        # So Django asks for no more of it, and answers nothing.
        return {"type": "http.disconnect"}

    await page(scope, receive_within, send)

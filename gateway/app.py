"""The ASGI application for /v1/*: the lifespan of the process, and the way from an address to what serves it."""

import asyncio
import logging
from collections.abc import Awaitable, Mapping

from gateway.asgi import ClientGoneError, Exchange, Receive, Scope, Send
from gateway.completing import complete
from gateway.describing import describe
from gateway.dialects.chat import Chat
from gateway.dialects.completions import Completions
from gateway.dialects.counting import CountTokens
from gateway.dialects.dialect import Dialect
from gateway.dialects.embeddings import Embeddings
from gateway.dialects.messages import Messages
from gateway.dialects.responses import Responses
from gateway.errors import Refusal, method_not_allowed, unknown_url
from gateway.failures import shutting_down, temporarily_unavailable
from gateway.naming import served_now
from gateway.plant import Plant

logger = logging.getLogger(__name__)

_DIALECTS: Mapping[str, Dialect] = {
    dialect.endpoint: dialect
    for dialect in (Chat(), Completions(), Embeddings(), Responses(), Messages(), CountTokens())
}
_DESCRIBED = frozenset({"models", "key", "credits", "generation"})


def refuse_as(exchange: Exchange, endpoint: str) -> None:
    """Have the exchange refuse in the shape of this endpoint. What is not there has the shape of what is.

    /v1/messages/batches is refused as /v1/messages would be.
    """
    named = endpoint.removeprefix("v1/")
    dialect = _DIALECTS.get(named) or _DIALECTS.get(named.partition("/")[0])
    if dialect is not None:
        exchange.refusal_as_json = dialect.refusal
        exchange.id_header = dialect.id_header


class Gateway:
    """The data plane of one process."""

    def __init__(self) -> None:
        self._plant: Plant | None = None

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """What is to be awaited. No coroutine of its own: each one is woken with all that it awaits."""
        if scope["type"] == "http":
            return self._serve(Exchange(scope, receive, send))
        if scope["type"] == "lifespan":
            return self._live(receive, send)
        return send({"type": "websocket.close", "code": 1008})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        plant = self._plant = Plant()
        await plant.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await plant.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, exchange: Exchange) -> None:
        served_now.set(exchange.id)
        try:
            await self._route(exchange)
        except Refusal as refusal:
            await exchange.refuse(refusal)
        except ClientGoneError:
            return
        except asyncio.CancelledError:
            # Told to stop, and what was held has been given back. Raised on, it would be a traceback in the log.
            if exchange.is_started:
                raise
            await exchange.refuse(shutting_down())
        except Exception:
            # The traceback has no request in it: neither a body nor a header is ever part of a message.
            logger.exception("request %s failed in the gateway", exchange.id)
            if not exchange.is_started:
                await exchange.refuse(temporarily_unavailable("The gateway"))

    def _route(self, exchange: Exchange) -> Awaitable[None]:
        """What serves the request. Raises Refusal."""
        method, path = exchange.scope["method"], exchange.scope["path"]
        endpoint = path.removeprefix("/v1/").rstrip("/")
        dialect = _DIALECTS.get(endpoint)
        refuse_as(exchange, endpoint)
        plant = self._plant
        if plant is None:
            raise temporarily_unavailable("The gateway")
        if dialect is not None:
            if method != "POST":
                raise method_not_allowed("POST")
            return complete(plant, exchange, dialect)
        name, _, argument = endpoint.partition("/")
        if name not in _DESCRIBED or (argument and name != "models"):
            raise unknown_url(method, path)
        if method != "GET":
            raise method_not_allowed("GET")
        return describe(plant, exchange, name, argument)

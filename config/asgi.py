"""One ASGI application for both: /v1/* goes to the gateway, everything else to Django."""

import os
from typing import TYPE_CHECKING

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
console = get_asgi_application()

from config import page_bodies  # noqa: E402 - as the next ones
from gateway.app import Gateway, refuse_as  # noqa: E402 - its models need the app registry that the line above has filled
from gateway.asgi import Exchange  # noqa: E402
from gateway.endpoints import ENDPOINTS  # noqa: E402
from gateway.errors import lacks_v1  # noqa: E402

if TYPE_CHECKING:
    from gateway.asgi import Receive, Scope, Send

gateway = Gateway()


async def application(scope: "Scope", receive: "Receive", send: "Send") -> None:
    """Route by path; the gateway also owns the lifespan, which Django does not know."""
    if scope["type"] == "lifespan" or scope["path"] == "/v1" or scope["path"].startswith("/v1/"):
        await gateway(scope, receive, send)
    elif scope["type"] == "http" and scope["method"] == "POST" and scope["path"].strip("/") in ENDPOINTS:
        # A page of Django's would be no help to a client of the API.
        exchange = Exchange(scope, receive, send)
        refuse_as(exchange, scope["path"].strip("/"))
        await exchange.refuse(lacks_v1(scope["method"], scope["path"]))
    else:
        await page_bodies.serve(console, dict(scope), receive, send)  # type: ignore[arg-type]  # it types messages more narrowly

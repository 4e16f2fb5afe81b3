"""Stage 6: the call upstream. A retry or a fallback only before the first byte, and never to another model."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import aiohttp
import orjson
from django.conf import settings

from catalog.serving import Servable, Target
from gateway.dialects.dialect import Dialect
from gateway.errors import Refusal, upstream_error, upstream_refused, upstream_timeout
from gateway.parsing import Asked

logger = logging.getLogger(__name__)

_MAX_ERROR_BYTES = 64 * 1024
_ATTEMPTS = 2
_OK = 200
# The client's own mistakes, which only the upstream could see. Whatever else fails there is not the client's.
_CLIENT_MISTAKES = frozenset({400, 413, 422})


class Upstreams:
    """The connections to all upstreams."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
            # No cookies: one client's would be sent with another's request.
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=settings.GATEWAY_TOTAL_TIMEOUT_S,
                sock_connect=settings.GATEWAY_CONNECT_TIMEOUT_S,
                sock_read=settings.GATEWAY_IDLE_TIMEOUT_S,
            ),
        )

    async def close(self) -> None:
        await self._session.close()

    async def open(
        self,
        model: Servable,
        *,
        dialect: Dialect,
        asked: Asked,
        output_limit: int,
        client_headers: Mapping[bytes, bytes],
    ) -> tuple[Target, aiohttp.ClientResponse]:
        """The first good answer of the model's upstreams, its body unread. The caller closes it.

        Raises Refusal when there is none: 502, 504, or the upstream's own 4xx where the request itself is at
        fault.
        """
        refusal = upstream_error(model.slug, "it was not asked")
        for attempt in range(max(_ATTEMPTS, len(model.targets))):
            target = model.targets[attempt % len(model.targets)]
            try:
                response = await self._post(
                    target,
                    dialect.endpoint,
                    body=dialect.outgoing(asked, target, output_limit),
                    headers=dialect.upstream_headers(target, client_headers),
                )
            except aiohttp.ConnectionTimeoutError:
                refusal = upstream_timeout(model.slug, "it could not be reached in time")
            except TimeoutError:
                # It may be working on it: to ask again could be to pay twice.
                raise upstream_timeout(model.slug, "its answer did not begin in time") from None
            except (aiohttp.ClientError, OSError) as error:
                logger.warning("upstream %s: %s", target.name, type(error).__name__)
                refusal = upstream_error(model.slug, "the connection failed")
            else:
                if response.status == _OK:
                    return target, response
                refusal = await _refusal_of(response, model, target)
                if response.status in _CLIENT_MISTAKES:
                    break
        raise refusal

    async def _post(
        self, target: Target, path: str, *, body: bytes, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        async with asyncio.timeout(settings.GATEWAY_FIRST_BYTE_TIMEOUT_S):
            return await self._session.post(
                f"{target.base_url}/{path}",
                data=body,
                headers=headers,
                allow_redirects=False,
            )


async def _refusal_of(response: aiohttp.ClientResponse, model: Servable, target: Target) -> Refusal:
    """What the client hears of an answer other than 200."""
    try:
        body = await response.content.read(_MAX_ERROR_BYTES)
    except (aiohttp.ClientError, TimeoutError, OSError):
        body = b""
    finally:
        response.close()
    if response.status in _CLIENT_MISTAKES:
        error = _error_in(body)
        message = str(error.get("message") or "The upstream refused the request.").replace(
            target.api_key, "…"
        )
        code, param = error.get("code"), error.get("param")
        return upstream_refused(
            response.status,
            message=message[:500],
            code=str(code)[:40] if code else None,
            param=str(param)[:80] if param else None,
        )
    logger.warning("upstream %s answered %d for %s", target.name, response.status, model.slug)
    return upstream_error(model.slug, f"it answered {response.status}")


def _error_in(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    error = document.get("error") if isinstance(document, dict) else None
    return error if isinstance(error, dict) else {}

"""Stage 1 and 2: the key a request carries, and whose it is, kept in process by digest for a while.

A kept credential can be out of date. That is safe: the teller compares its versions before it admits
anything, a refusal is spoken only from one that was just read, and requests that are not admitted by the
teller always read it anew.
"""

import datetime as dt
import re
import time
from collections import OrderedDict
from contextlib import suppress
from urllib.parse import parse_qsl, unquote_plus

from gateway import authorizing
from gateway.asgi import Exchange
from gateway.errors import Refusal, api_key_in_query, invalid_api_key, missing_api_key
from gateway.reading import PATIENCE_S, read_within
from keys import authenticating, secrets
from keys.authenticating import Credential

_KEPT = 10_000
_KEPT_S = 60.0
_QUERY_NAMES = frozenset({"api_key", "apikey", "api-key", "key", "access_token", "token"})
_LOOKS_LIKE_A_KEY = re.compile(r"tg_(?:live|test)_[0-9A-Za-z]*")


def secret_of(exchange: Exchange) -> str:
    """The secret in `Authorization: Bearer` or `x-api-key`. Raises Refusal if there is none, or one in the query."""
    if _in_query(exchange):
        raise api_key_in_query()
    return _in_header(exchange)


def _in_query(exchange: Exchange) -> list[str]:
    """What stands in the query string and is a key, wherever it does, or is named like one."""
    query = exchange.scope.get("query_string", b"").decode("latin-1")
    if not query:
        return []
    named = [value for name, value in parse_qsl(query) if name.lower() in _QUERY_NAMES]
    return [*_LOOKS_LIKE_A_KEY.findall(unquote_plus(query)), *named]


def _in_header(exchange: Exchange) -> str:
    scheme, _, secret = exchange.headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if scheme.lower() != "bearer":
        secret = exchange.headers.get(b"x-api-key", b"").decode("latin-1")
    secret = secret.strip()
    if not secret:
        raise missing_api_key()
    if not secrets.is_well_formed(secret):
        raise invalid_api_key()
    return secret


class RefusedCaller(Refusal):
    """The refusal of a key that is known but may not call now: its account sees it in its request log."""

    def __init__(self, credential: Credential, refusal: Refusal) -> None:
        super().__init__(
            refusal.status,
            refusal.type,
            refusal.code,
            refusal.message,
            param=refusal.param,
            headers=refusal.headers,
        )
        self.credential = credential


async def _leak(exchange: Exchange, leaked: list[str]) -> Refusal:
    """The refusal of a key in the query string. Whoever owns it must learn of it, so it is looked up all the same."""
    refusal = api_key_in_query()
    sent = [next(filter(secrets.is_well_formed, leaked), "")]
    with suppress(Refusal):
        sent.append(_in_header(exchange))
    for secret in filter(None, dict.fromkeys(sent)):
        with suppress(Refusal):
            credential = await _find(exchange, secret)
            if credential is not None:
                return RefusedCaller(credential, refusal)
    return refusal


async def _find(exchange: Exchange, secret: str) -> Credential | None:
    """The credential as it is. All that a request asks takes no longer than one question may. Raises Refusal (503)."""
    asked_at = time.monotonic()
    try:
        return await read_within(
            max(PATIENCE_S - exchange.database_s, 0.0), authenticating.find, secret=secret
        )
    finally:
        exchange.database_s += time.monotonic() - asked_at


class Credentials:
    """Credentials by digest of their secret. The secret itself is not kept."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, tuple[float, Credential]] = OrderedDict()

    async def authenticate(self, exchange: Exchange, *, endpoint: str, is_fresh: bool = False) -> Credential:
        """The caller's credential, allowed to call the endpoint now. Raises Refusal.

        `is_fresh` reads it from the database whatever is kept.
        """
        if leaked := _in_query(exchange):
            raise await _leak(exchange, leaked)
        secret = _in_header(exchange)
        digest = secrets.current_digest(secret)
        kept = None if is_fresh else self._get(digest)
        if kept is not None:
            try:
                authorizing.judge_caller(
                    kept, exchange=exchange, endpoint=endpoint, at=dt.datetime.now(dt.UTC)
                )
            except Refusal:
                kept = None  # what is kept may be out of date: a refusal is spoken from what is true now
            else:
                return kept
        credential = await _find(exchange, secret)
        if credential is None:
            raise invalid_api_key()
        self._keep(digest, credential)
        try:
            authorizing.judge_caller(
                credential, exchange=exchange, endpoint=endpoint, at=dt.datetime.now(dt.UTC)
            )
        except Refusal as refusal:
            raise RefusedCaller(credential, refusal) from None
        return credential

    async def reread(
        self, exchange: Exchange, credential: Credential, *, endpoint: str, at_most_every_s: float
    ) -> Credential | None:
        """The credential as it is now; None if it is still the same, or was read less than so long ago.

        Raises Refusal where it may not call any more.
        """
        digest = secrets.current_digest(secret_of(exchange))
        kept = self._kept.get(digest)
        if kept is not None and time.monotonic() - kept[0] < at_most_every_s:
            return None
        current = await self.authenticate(exchange, endpoint=endpoint, is_fresh=True)
        is_same = (current.key_version, current.account_version) == (
            credential.key_version,
            credential.account_version,
        )
        return None if is_same else current

    def _get(self, digest: bytes) -> Credential | None:
        kept = self._kept.get(digest)
        if kept is None or time.monotonic() - kept[0] > _KEPT_S:
            return None
        return kept[1]

    def _keep(self, digest: bytes, credential: Credential) -> None:
        self._kept[digest] = (time.monotonic(), credential)
        self._kept.move_to_end(digest)
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)

"""A form that acts once, though it is sent twice: double clicks, reloads, Back and Send.

The form carries a token that its session knows. The first POST that brings the token acts, and the session
notes the key it made; every later one learns which key that was.
"""

import secrets
from collections.abc import Callable

from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.models import Session
from django.db import transaction

from keys.issuing import IssuedKey

_ENTRY = "one_time_forms"
# Forms that were opened and left. An older one answers that it has expired, and nothing is lost but a click.
_MOST_OPEN = 20


class UnknownTokenError(Exception):
    """The session does not know the token: too many forms were opened since, or it is another session."""


class AlreadyUsedError(Exception):
    """The form has acted; `key_id` says on which key."""

    def __init__(self, key_id: int) -> None:
        super().__init__(f"this form has already acted on key {key_id}")
        self.key_id = key_id


def offer(*, session: SessionBase) -> str:
    """A new token for a form."""
    token = secrets.token_urlsafe(16)
    kept = list(session.get(_ENTRY, {}).items())[-(_MOST_OPEN - 1) :]
    session[_ENTRY] = {**dict(kept), token: None}
    return token


def once(*, session: SessionBase, token: str, act: Callable[[], IssuedKey]) -> IssuedKey:
    """Call `act` in a transaction with the note that the token is used, unless it is.

    The lock on the session's row makes two clicks take turns; the note is read under it, because this request
    has loaded its session before. AlreadyUsedError, UnknownTokenError.
    """
    with transaction.atomic():
        row = Session.objects.select_for_update().filter(session_key=session.session_key).first()
        tokens = {} if row is None else row.get_decoded().get(_ENTRY, {})
        if token not in tokens:
            raise UnknownTokenError
        # Whatever happens below, a later save of this request's session must not bring old notes back.
        session[_ENTRY] = tokens
        if tokens[token] is not None:
            raise AlreadyUsedError(tokens[token])
        issued = act()
        session[_ENTRY] = {**tokens, token: issued.key.pk}
        session.save()
    return issued

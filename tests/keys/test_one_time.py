import pytest
from django.contrib.sessions.backends.db import SessionStore

from accounts.models import Account
from keys import one_time
from keys.issuing import IssuedKey
from keys.models import ApiKey
from tests.factories import make_account, make_key

pytestmark = pytest.mark.django_db


@pytest.fixture
def account() -> Account:
    return make_account()


def loaded(session_key: str | None) -> SessionStore:
    """The session as a request has it that has looked into it already."""
    session = SessionStore(session_key)
    session.get("anything")
    return session


def test_a_request_that_came_too_late_does_not_bring_the_token_back(account: Account) -> None:
    session = SessionStore()
    token = one_time.offer(session=session)
    session.save()
    first, second = loaded(session.session_key), loaded(session.session_key)

    def issue() -> IssuedKey:
        return make_key(account)

    issued = one_time.once(session=first, token=token, act=issue)
    with pytest.raises(one_time.AlreadyUsedError) as used:
        one_time.once(session=second, token=token, act=issue)
    assert used.value.key_id == issued.key.pk
    # What its middleware does for the message that it shows.
    second["message"] = "shown once"
    second.save()

    with pytest.raises(one_time.AlreadyUsedError):
        one_time.once(session=loaded(session.session_key), token=token, act=issue)
    assert ApiKey.objects.count() == 1


def test_an_act_that_fails_leaves_the_token_unused(account: Account) -> None:
    session = SessionStore()
    token = one_time.offer(session=session)
    session.save()

    def fail() -> IssuedKey:
        make_key(account)
        msg = "after the key, before the note"
        raise RuntimeError(msg)

    with pytest.raises(RuntimeError):
        one_time.once(session=session, token=token, act=fail)
    assert not ApiKey.objects.exists()
    issued = one_time.once(session=loaded(session.session_key), token=token, act=lambda: make_key(account))
    assert ApiKey.objects.get() == issued.key


def test_a_session_that_is_gone_knows_no_token(account: Account) -> None:
    session = SessionStore()
    token = one_time.offer(session=session)
    with pytest.raises(one_time.UnknownTokenError):
        one_time.once(session=session, token=token, act=lambda: make_key(account))

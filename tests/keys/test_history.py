import pytest

from accounts import auditing
from keys import revoking
from keys.history import history
from tests.factories import make_account, make_key, make_user, now

pytestmark = pytest.mark.django_db


def test_the_latest_act_comes_first_with_who_did_it() -> None:
    user = make_user()
    key = make_key(make_account(user=user)).key
    revoking.disable(key=key, actor=user, at=now())
    entries = history(key=key)
    assert [(entry.title, entry.actor) for entry in entries] == [("Disabled", user.email), ("Created", None)]


def test_an_act_that_nobody_has_named_yet_is_shown_by_its_action() -> None:
    key = make_key().key
    auditing.record(
        account=key.account, actor=None, action="key.frozen", subject_type="key", subject_id=key.pk
    )
    assert history(key=key, limit=1)[0].title == "key.frozen"


def test_the_acts_on_other_keys_are_not_shown() -> None:
    account = make_account()
    key = make_key(account).key
    make_key(account)
    assert len(history(key=key)) == 1

"""A secret that the console's page calls dead is dead on every process, under whatever load."""

import re
import time
from collections import Counter
from http.cookies import SimpleCookie

import httpx2 as httpx
import pytest
from django.conf import settings
from django.test import Client

from accounts.models import Account, Membership
from catalog.models import Model
from keys.issuing import IssuedKey
from tests.factories import make_key, now
from tests.gateway.conftest import Stage, chat, wait_for
from tests.gateway.load import Load
from usage.models import UsageRecord

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("four processes")]

PER_SECOND = 200


class Console:
    """The account's owner at the real pages of the running server, signed in."""

    def __init__(self, stage: Stage, account: Account) -> None:
        owner = Membership.objects.get(account=account).user
        browser = Client()
        browser.force_login(owner)
        cookies: SimpleCookie = browser.cookies
        token = "a" * 32
        self._form = {"csrfmiddlewaretoken": token}
        self._http = httpx.Client(
            base_url=stage.gateway.origin,
            cookies={
                settings.SESSION_COOKIE_NAME: cookies[settings.SESSION_COOKIE_NAME].value,
                settings.CSRF_COOKIE_NAME: token,
            },
            timeout=30,
        )

    def open(self, path: str) -> dict[str, str]:
        """What the form on this page would send as it stands."""
        page = self._http.get(path)
        assert page.status_code == 200, page.text
        fields = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page.text)
        return {**dict(fields), **self._form}

    def send(self, path: str, form: dict[str, str]) -> tuple[float, str]:
        """Send a form; returns the moment of the monotonic clock at which the page had answered, and the page."""
        answer = self._http.post(path, data=form)
        answered = time.monotonic()
        assert answer.status_code in (200, 302), answer.text
        return answered, answer.text


@pytest.mark.parametrize("act", ["rotate", "revoke", "disable"])
def test_no_request_that_starts_after_the_pages_answer_is_admitted(crowd: Stage, act: str) -> None:
    model = crowd.model(tier=Model.Tier.PREMIUM)
    account = crowd.account(credit="100")
    issued: IssuedKey = make_key(account)
    console, page = Console(crowd, account), f"/keys/{issued.key.pk}/{act}/"
    form = console.open(page) | ({"overlap": "0"} if act == "rotate" else {})

    with Load(crowd.gateway, chat(model, max_tokens=1), per_second=PER_SECOND) as load:
        load.secrets.append(issued.secret)
        wait_for(lambda: len(load.calls) >= PER_SECOND, patience_s=30)
        asked_at = time.monotonic()
        answered, text = console.send(page, form)
        answered_at = now()
        wait_for(lambda: len(load.since(answered)) >= PER_SECOND, patience_s=30)

    before = Counter(call.status for call in load.calls if call.started < asked_at - 0.5)
    after = Counter((call.status, call.code) for call in load.calls if call.started > answered)
    assert set(before) == {200}
    dead = {
        "rotate": (401, "revoked_api_key"),
        "revoke": (401, "revoked_api_key"),
        "disable": (403, "key_disabled"),
    }
    assert set(after) == {dead[act]}
    if act == "rotate":
        (fresh,) = set(re.findall(r"tg_\w{40,}", text))
        assert crowd.post(fresh, chat(model, max_tokens=1)).status_code == 200
        return  # the key itself goes on
    # Not by the clients' clock alone.
    assert not UsageRecord.objects.filter(
        key=issued.key, outcome="completed", started_at__gt=answered_at
    ).exists()

"""Redis only counts: without it people still sign in, and attempts are still limited."""

from typing import Any

import pytest
from django.core.cache import caches
from django.test import Client

from tests.factories import make_user

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _redis_is_away(settings: Any) -> None:
    settings.CACHES = {
        "default": {
            "BACKEND": "config.cache.SteadyCache",
            "LOCATION": "redis://127.0.0.1:1/0",
            "OPTIONS": {"socket_connect_timeout": 0.2},
        }
    }
    caches["default"].clear()


def attempt(client: Client, email: str, password: str) -> int:
    return client.post("/accounts/login/", {"login": email, "password": password}).status_code


def test_a_sign_in_works_while_redis_is_away(client: Client) -> None:
    user = make_user()

    # Its address is not confirmed yet, so a code is asked for: the password was right.
    assert attempt(client, user.email, "correct horse 9") == 302
    assert attempt(Client(), user.email, "wrong") == 200


def test_attempts_are_limited_while_redis_is_away(client: Client) -> None:
    user = make_user()

    answers = [attempt(client, user.email, "wrong") for _ in range(12)]
    pages = [client.post("/accounts/login/", {"login": user.email, "password": "wrong"}).content.decode()]

    assert 429 in answers or "Too many failed" in pages[0]

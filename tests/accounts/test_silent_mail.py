"""A page that sends a mail while the mail server accepts and never answers: bounded, honest, and harmless to others."""

import time
from collections.abc import Iterator

import pytest
from django.core import mail
from django.core.cache import cache
from django.core.mail.backends.smtp import EmailBackend
from django.db import connection
from django.test import Client
from pytest_django import Settings

from accounts.models import Account
from tests.silent_mail import SilentMailServer, silent_mail_server

pytestmark = pytest.mark.django_db(transaction=True)

NEWCOMER = {"email": "new@example.com", "password1": "a long enough one"}
SAID = "The e-mail could not be sent"


@pytest.fixture(autouse=True)
def _no_attempts_yet() -> None:
    """Rate limits count in Redis, which outlives a test."""
    cache.clear()


@pytest.fixture
def silence(settings: Settings) -> Iterator[SilentMailServer]:
    with silent_mail_server() as server:
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_TIMEOUT = "127.0.0.1", server.port, 0.3
        yield server


def test_a_sign_up_says_that_its_mail_could_not_be_sent_and_can_be_ended_later(
    silence: SilentMailServer, client: Client, settings: Settings
) -> None:
    began = time.monotonic()
    page = client.post("/accounts/signup/", NEWCOMER, follow=True)
    assert time.monotonic() - began < 5
    assert len(silence.callers) == 1
    assert page.status_code == 200
    assert page.request["PATH_INFO"] == "/accounts/confirm-email/"
    assert SAID in page.content.decode()
    assert "email sent to" not in page.content.decode()
    assert Account.objects.count() == 1
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    cache.clear()  # three minutes later
    Client().post("/accounts/login/", {"login": NEWCOMER["email"], "password": NEWCOMER["password1"]})
    assert [message.to for message in mail.outbox] == [[NEWCOMER["email"]]]


def test_nothing_tells_whether_an_address_is_known(silence: SilentMailServer) -> None:
    Client().post("/accounts/signup/", NEWCOMER)
    cache.clear()  # three minutes later
    again = Client().post("/accounts/signup/", NEWCOMER, follow=True)
    assert again.redirect_chain == [("/accounts/confirm-email/", 302)]
    assert SAID in again.content.decode()
    for address in (NEWCOMER["email"], "nobody@example.com"):
        reset = Client().post("/accounts/password/reset/", {"email": address}, follow=True)
        assert (reset.status_code, SAID in reset.content.decode()) == (200, True)


def test_who_waits_for_the_mail_server_keeps_no_connection_to_the_database(
    silence: SilentMailServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[bool] = []
    open_ = EmailBackend.open

    def opening(backend: EmailBackend) -> bool | None:
        held.append(connection.connection is not None)
        return open_(backend)

    monkeypatch.setattr(EmailBackend, "open", opening)
    client.post("/accounts/signup/", NEWCOMER)
    assert held == [False]

"""Mail of embedded mode, and who may read it."""

from pathlib import Path
from typing import Any

import pytest
from django.core.mail import EmailMessage, get_connection
from django.test import Client
from pytest_django.fixtures import Settings

from config import outbox

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _own_folder(settings: Settings, tmp_path: Path) -> None:
    settings.EMBEDDED = True
    settings.TOLLGATE_HOME = tmp_path


def send(subject: str, body: str) -> None:
    message = EmailMessage(subject, body, "Tollgate <t@localhost>", ["ada@example.com"])
    message.connection = get_connection("config.outbox.OutboxBackend")
    message.send()


def read(client: Client, peer: str = "127.0.0.1", host: str = "localhost:8000", **extra: Any) -> Any:
    return client.get("/outbox/", REMOTE_ADDR=peer, HTTP_HOST=host, **extra)


def test_mails_are_shown_the_newest_first_with_their_code_and_links(client: Client) -> None:
    send("first", "Open http://localhost/settings/ please")
    send("second", "Enter this:\n\nABCD-1234\n\nÄ¢ü <b>")

    page = read(client).content.decode()

    assert page.index("second") < page.index("first")
    assert '<code id="code-' in page
    assert ">ABCD-1234</code>" in page
    assert '<a href="http://localhost/settings/"' in page
    assert "Ä¢ü &lt;b&gt;" in page
    assert "To ada@example.com" in page


def test_a_mail_without_a_code_shows_none(client: Client) -> None:
    send("no code", "Your key spent $40.00")

    assert b'class="mail-code"' not in read(client).content


def test_an_empty_outbox_says_how_mail_comes(client: Client) -> None:
    assert b"No mail yet" in read(client).content


def test_mail_files_are_for_the_owner_only(tmp_path: Path) -> None:
    send("first", "hello")

    assert (tmp_path / "outbox").stat().st_mode & 0o777 == 0o700
    assert len(outbox.newest()) == 1


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_this_machine_may_read(client: Client, peer: str) -> None:
    assert read(client, peer=peer).status_code == 200


@pytest.mark.parametrize("peer", ["203.0.113.5", "10.0.0.1", "2001:db8::1", "::ffff:203.0.113.5", "", "unix"])
def test_no_other_machine_may_read(client: Client, peer: str) -> None:
    assert read(client, peer=peer).status_code == 404


@pytest.mark.parametrize("header", ["HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_X_REAL_IP", "HTTP_VIA"])
def test_nobody_reads_through_a_proxy(client: Client, header: str) -> None:
    assert read(client, **{header: "127.0.0.1"}).status_code == 404


def test_a_page_elsewhere_that_points_its_name_here_may_not_read(client: Client, settings: Settings) -> None:
    settings.ALLOWED_HOSTS = ["*"]

    assert read(client, host="evil.example").status_code == 404
    assert read(client, host="localhost.evil.example").status_code == 404
    assert read(client, host="[::1]:8000").status_code == 200


def test_outside_embedded_mode_there_is_no_such_page(client: Client, settings: Settings) -> None:
    settings.EMBEDDED = False

    assert read(client).status_code == 404


@pytest.mark.django_db
@pytest.mark.parametrize("is_kept", [True, False])
def test_pages_send_people_to_the_outbox_only_where_mail_is_kept(
    client: Client, settings: Settings, is_kept: bool
) -> None:
    settings.EMBEDDED, settings.MAIL_IS_KEPT = True, is_kept

    page = client.get("/accounts/login/").content

    assert (b"/outbox/" in page) is is_kept

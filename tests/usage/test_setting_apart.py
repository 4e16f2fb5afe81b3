"""Settlements that the database refuses: the operator hears of each line once."""

import smtplib
import uuid
from pathlib import Path

import pytest
from django.core.mail import EmailMessage
from pytest_django.fixtures import Settings
from uuid_utils.compat import uuid7

from accounts import mailing
from catalog.pricing import TokenPrice
from gateway.journal import Journal
from tests.factories import now
from usage import set_apart, tasks
from usage.recording import FinishedRequest

PRICE = TokenPrice(input_micro=1_000_000, output_micro=2_000_000, cached_input_micro=0, cache_write_micro=0)


@pytest.fixture
def journal(tmp_path: Path, settings: Settings) -> Journal:
    """A journal where the worker looks for it."""
    settings.TOLLGATE_HOME = tmp_path
    settings.OPERATOR_EMAILS = ["operator@example.com"]
    return Journal(directory=tmp_path / "journal", process_id=uuid.uuid4())


def used(output_tokens: int) -> FinishedRequest:
    at = now()
    finished = FinishedRequest(
        id=uuid7(),
        account_id=7,
        key_id=2,
        endpoint="chat/completions",
        outcome="completed",
        status=200,
        started_at=at,
        ended_at=at,
        output_tokens=output_tokens,
    )
    finished.set_price(PRICE)
    return finished


def test_the_operator_hears_of_each_line_once(journal: Journal, mailoutbox: list[EmailMessage]) -> None:
    first, second, third = used(1_000_000), used(500_000), used(1)
    journal.set_apart(first)
    journal.set_apart(second)

    tasks.mail_set_apart()
    tasks.mail_set_apart()

    (mail,) = mailoutbox
    assert mail.to == ["operator@example.com"]
    assert mail.subject == "$3.000000000 of usage could not be booked"
    assert f"$2.00  request {first.id} of account 7" in mail.body
    assert str(second.id) in mail.body
    journal.set_apart(third)
    tasks.mail_set_apart()
    assert len(mailoutbox) == 2
    assert str(third.id) in mailoutbox[1].body
    assert str(first.id) not in mailoutbox[1].body


def test_what_was_set_apart_while_there_was_nobody_to_tell_is_told_when_there_is(
    journal: Journal, mailoutbox: list[EmailMessage], settings: Settings
) -> None:
    settings.OPERATOR_EMAILS = []
    journal.set_apart(used(5))
    tasks.mail_set_apart()
    settings.OPERATOR_EMAILS = ["operator@example.com"]
    tasks.mail_set_apart()
    assert len(mailoutbox) == 1


def test_a_mail_that_the_server_refuses_is_sent_again(
    journal: Journal, mailoutbox: list[EmailMessage], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.set_apart(used(5))

    def refuse(**_: object) -> None:
        raise smtplib.SMTPServerDisconnected

    with monkeypatch.context() as patched:
        patched.setattr(mailing, "send", refuse)
        tasks.mail_set_apart()
    assert mailoutbox == []

    tasks.mail_set_apart()

    assert len(mailoutbox) == 1


def test_a_line_that_is_being_written_is_told_when_it_is_whole(
    journal: Journal, tmp_path: Path, mailoutbox: list[EmailMessage]
) -> None:
    journal.set_apart(used(5))
    (path,) = (tmp_path / "journal").glob("*.refused")
    line = path.read_bytes()
    path.write_bytes(line[:-40])
    assert set_apart.untold(directory=path.parent) == []

    path.write_bytes(line)
    tasks.mail_set_apart()

    assert len(mailoutbox) == 1


def test_many_lines_are_counted_and_not_all_shown(journal: Journal, mailoutbox: list[EmailMessage]) -> None:
    for _ in range(53):
        journal.set_apart(used(1))

    tasks.mail_set_apart()

    assert "… and 3 more" in mailoutbox[0].body


def test_a_file_that_was_removed_and_begun_anew_is_told_from_its_beginning(
    journal: Journal, tmp_path: Path, mailoutbox: list[EmailMessage]
) -> None:
    journal.set_apart(used(5))
    journal.set_apart(used(6))
    tasks.mail_set_apart()
    next((tmp_path / "journal").glob("*.refused")).unlink()
    for _ in range(5):
        journal.set_apart(used(70_000))

    tasks.mail_set_apart()

    assert mailoutbox[-1].subject == "$0.700000000 of usage could not be booked"


def test_lines_that_this_version_cannot_read_are_counted_and_keep_no_others_from_being_told(
    journal: Journal, tmp_path: Path, mailoutbox: list[EmailMessage]
) -> None:
    (tmp_path / "journal" / "dead.jsonl").write_bytes(b"{}\nnonsense\n" + used(1_000_000).as_json() + b"\n")
    journal.adopt()
    (readable,) = journal.read(10)
    journal.set_apart(readable)

    tasks.mail_set_apart()

    (mail,) = mailoutbox
    assert str(readable.id) in mail.body
    assert "2 lines of a journal cannot be read by this version" in mail.body


def test_nothing_is_mailed_where_nothing_was_set_apart(
    journal: Journal, mailoutbox: list[EmailMessage]
) -> None:
    journal.append(used(5))

    tasks.mail_set_apart()

    assert mailoutbox == []

"""The audit of the night: silent in the mail over right books, and a mail that says everything over wrong ones."""

import logging
import smtplib

import pytest
from django.core.mail import EmailMessage
from pytest_django import Settings

from accounts import mailing
from billing.models import ChainHead, LedgerTransaction
from config import celery
from tests import factories
from tests.usage.audited import plant
from usage import alerting, tasks

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _operators(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.OPERATOR_EMAILS = ["operator@example.com"]
    # The mail is a task of its own: here it is done at once.
    monkeypatch.setitem(celery.app.conf, "task_always_eager", True)


def test_right_books_are_logged_with_the_head_of_the_chain(
    mailoutbox: list[EmailMessage], caplog: pytest.LogCaptureFixture
) -> None:
    factories.make_account(credit="5")
    with caplog.at_level(logging.INFO, logger="usage.tasks"):
        tasks.audit()
    head = ChainHead.objects.get().hash
    assert f"the books agree; the head of the ledger is 1:{head}" in caplog.text
    assert mailoutbox == []


def test_whatever_is_wrong_is_mailed_to_the_operators(
    mailoutbox: list[EmailMessage], caplog: pytest.LogCaptureFixture
) -> None:
    account = factories.make_account(credit="5")
    plant("UPDATE billing_wallet SET balance_nanousd = balance_nanousd - 1")
    plant("UPDATE billing_ledgertransaction SET description = 'nothing to see'")
    tasks.audit()
    (mail,) = mailoutbox
    assert mail.to == ["operator@example.com"]
    assert mail.subject == "The books are wrong: 2 discrepancies"
    reference = LedgerTransaction.objects.get().reference
    for part in (
        f"account {account.pk}: its wallet says 4.999999999 USD",
        f"ledger transaction 1 ({reference}) is not what was posted",
        ChainHead.objects.get().hash,
        "1 accounts",
    ):
        assert part in mail.body
    assert caplog.text.count("the books are wrong: ") == 2


def test_one_discrepancy_is_one(mailoutbox: list[EmailMessage]) -> None:
    factories.make_account(credit="5")
    plant("UPDATE billing_wallet SET balance_nanousd = balance_nanousd - 1")
    tasks.audit()
    assert mailoutbox[0].subject == "The books are wrong: 1 discrepancy"
    assert "The first that is wrong in the chain" not in mailoutbox[0].body


def test_a_mail_has_as_many_as_somebody_reads(
    mailoutbox: list[EmailMessage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerting, "_MOST_DISCREPANCIES", 1)
    for _ in range(3):
        factories.make_account(credit="5")
    plant("UPDATE billing_wallet SET balance_nanousd = balance_nanousd - 1")
    tasks.audit()
    assert mailoutbox[0].body.count("its wallet says") == 1
    assert "… and 2 more." in mailoutbox[0].body


def test_a_mail_that_is_refused_is_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(**_mail: object) -> None:
        raise smtplib.SMTPException

    monkeypatch.setattr(mailing, "send", refuse)
    factories.make_account(credit="5")
    plant("UPDATE billing_wallet SET balance_nanousd = balance_nanousd - 1")
    tasks.audit()
    assert "could not mail that the books are wrong" in caplog.text

"""Receipts: numbers without gaps, who bought as it was, a PDF and one e-mail."""

import datetime as dt
from importlib import import_module
from io import BytesIO

import pytest
from django.core import mail
from django.db import IntegrityError, connection, transaction
from pypdf import PdfReader
from pytest_django import Settings

from accounts.models import Account
from billing import owed_mail, receipt_pdf
from billing.models import BillingDetails, Receipt, ReceiptNumbers
from billing.tasks.receipts import mail_receipts
from tests import factories
from tests.billing.test_billing_pages import make_topup, sign_in, text_of
from tests.billing.test_topping_up import finish, start
from tests.concurrency import in_parallel
from tests.invariants import check_books

AT = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
USD = 10**9


def describe(account: Account, **details: str) -> None:
    BillingDetails.objects.update_or_create(account=account, defaults=details)


def text_of_pdf(receipt: Receipt) -> str:
    [page] = PdfReader(BytesIO(receipt_pdf.render(receipt=receipt))).pages
    return page.extract_text()


@pytest.mark.django_db
def test_receipts_are_numbered_by_year_without_a_gap() -> None:
    account = factories.make_account()
    for at in (AT, AT, dt.datetime(2027, 1, 1, tzinfo=dt.UTC), AT):
        finish(start(account), at=at)
    assert [receipt.number for receipt in Receipt.objects.order_by("pk")] == [
        "R-2026-000001",
        "R-2026-000002",
        "R-2027-000001",
        "R-2026-000003",
    ]
    check_books(idle=True)


@pytest.mark.django_db(transaction=True)
def test_payments_at_once_get_different_numbers_in_a_row() -> None:
    topups = [start(factories.make_account()) for _ in range(8)]
    in_parallel(lambda number: finish(topups[number]), times=8)
    assert sorted(Receipt.objects.values_list("number_in_year", flat=True)) == list(range(1, 9))
    check_books(idle=True)


@pytest.mark.django_db(transaction=True)
def test_a_payment_that_is_rolled_back_leaves_no_gap() -> None:
    account = factories.make_account()
    topup = start(account)

    def crash() -> None:
        with transaction.atomic():
            finish(topup)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        crash()
    finish(topup)
    assert Receipt.objects.get().number == "R-2026-000001"
    check_books(idle=True)


@pytest.mark.django_db(transaction=True)
def test_a_payment_that_is_reported_often_has_one_receipt() -> None:
    topup = start(factories.make_account())
    in_parallel(lambda _: finish(topup), times=10)
    assert Receipt.objects.count() == 1
    assert ReceiptNumbers.objects.get().issued == 1


@pytest.mark.django_db
def test_a_receipt_keeps_who_bought_and_who_sold(settings: Settings) -> None:
    settings.SELLER_NAME, settings.SELLER_ADDRESS, settings.SELLER_TAX_ID = (
        "Acme AI",
        "1 Road | Berlin",
        "DE1",
    )
    account = factories.make_account()
    describe(account, company_name="Ada Ltd", city="London", postal_code="N1", tax_id="GB2")
    topup = finish(start(account))
    describe(account, company_name="Another Ltd")
    settings.SELLER_NAME = "Another"
    page = text_of(sign_in(account), f"/billing/topups/{topup.pk}/")
    for kept in (
        "Receipt R-2026-000001",
        "Acme AI",
        "1 Road",
        "Berlin",
        "DE1",
        "Ada Ltd",
        "N1 London",
        "GB2",
    ):
        assert kept in page
    assert "Another" not in page


@pytest.mark.django_db
def test_the_database_refuses_to_change_a_receipt() -> None:
    finish(start(factories.make_account()))
    changes: list[dict[str, object]] = [{"number_in_year": 7}, {"buyer": {}}, {"credit_nanousd": 1}]
    for change in changes:
        with pytest.raises(IntegrityError, match="immutable"), transaction.atomic():
            Receipt.objects.update(**change)
    with pytest.raises(IntegrityError, match="immutable"), transaction.atomic():
        Receipt.objects.all().delete()


@pytest.mark.django_db
def test_what_was_paid_before_there_were_receipts_has_one_in_the_order_of_payment() -> None:
    account = factories.make_account()
    third, first, second = (
        finish(start(account), at=at)
        for at in (dt.datetime(2027, 1, 1, tzinfo=dt.UTC), AT, AT + dt.timedelta(days=1))
    )
    migration = import_module("billing.migrations.0007_after_buying")
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(migration.THAW_RECEIPTS)
        cursor.execute("DELETE FROM billing_receipt")
        cursor.execute("DELETE FROM billing_receiptnumbers")
        cursor.execute(migration.ISSUE_RECEIPTS)
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(migration.FREEZE_RECEIPTS)
        cursor.execute("SET CONSTRAINTS ALL DEFERRED")
    numbers = [Receipt.objects.get(topup=topup).number for topup in (first, second, third)]
    assert numbers == ["R-2026-000001", "R-2026-000002", "R-2027-000001"]
    assert Receipt.objects.filter(mail_due_at=None).count() == 3
    assert account.name in text_of_pdf(Receipt.objects.earliest("pk"))
    assert finish(start(account), at=AT).receipt.number == "R-2026-000003"
    check_books(idle=True)


@pytest.mark.django_db
def test_a_top_up_that_is_not_paid_has_no_receipt() -> None:
    account = factories.make_account()
    topup = make_topup(account, is_paid=False)
    assert not Receipt.objects.exists()
    assert "receipt.pdf" not in text_of(sign_in(account), f"/billing/topups/{topup.pk}/")
    assert sign_in(account).get(f"/billing/topups/{topup.pk}/receipt.pdf").status_code == 404


@pytest.mark.django_db
def test_a_receipt_is_mailed_once_with_its_pdf() -> None:
    account = factories.make_account()
    finish(start(account))
    mail_receipts()
    mail_receipts()
    [sent] = mail.outbox
    assert sent.to == [account.members.get().email]
    assert sent.subject == "Receipt R-2026-000001 for your credit"
    assert "no money was taken" in sent.body
    [(name, content, kind)] = sent.attachments
    assert (name, kind) == ("receipt-R-2026-000001.pdf", "application/pdf")
    assert bytes(content).startswith(b"%PDF-")


@pytest.mark.django_db
def test_a_receipt_goes_to_the_address_that_was_entered_for_it() -> None:
    account = factories.make_account()
    describe(account, receipts_email="books@example.com")
    finish(start(account))
    mail_receipts()
    assert mail.outbox[0].to == ["books@example.com"]


@pytest.mark.django_db
def test_a_receipt_that_the_mail_server_refuses_is_sent_later(settings: Settings) -> None:
    finish(start(factories.make_account()))
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    mail_receipts()
    due_at = Receipt.objects.get().mail_due_at
    assert due_at is not None
    assert owed_mail.claim(rows=Receipt.objects.all(), at=due_at - dt.timedelta(seconds=1)) is None
    assert owed_mail.claim(rows=Receipt.objects.all(), at=due_at) is not None


@pytest.mark.django_db(transaction=True)
def test_an_owed_mail_is_leased_to_one_sender() -> None:
    finish(start(factories.make_account()))
    claimed = in_parallel(lambda _: owed_mail.claim(rows=Receipt.objects.all(), at=factories.now()), times=6)
    assert len([row for row in claimed if row is not None]) == 1

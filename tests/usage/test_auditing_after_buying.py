"""The audit over receipts, refunds and disputes: one line for each way in which they can be wrong."""

from importlib import import_module

import pytest
from django.db import connection
from pytest_django import Settings

from billing.models import Dispute, Receipt, Refund, RefundReport, TopUp, WebhookEvent
from tests.billing import test_disputing, test_refunding, test_withheld_credit
from tests.invariants import check_books
from usage import auditing

AT = test_refunding.AT


@pytest.fixture(autouse=True)
def topup(db: None, settings: Settings) -> TopUp:
    """Two payments: one partly refunded, and one with a dispute that is open and one that was lost."""
    settings.TOPUP_PROVIDERS = ["sandbox"]
    refunded, disputed = test_refunding.bought(), test_refunding.bought(usd=30)
    test_refunding.refund(refunded, usd="8")
    test_disputing.hear(disputed, "open", cents=1000)
    test_disputing.hear(disputed, "lost", cents=500, dispute="dp_2")
    check_books(idle=True)
    return refunded


def plant(statement: str) -> list[str]:
    """Run what no code of ours would, past the triggers that would refuse it. What the audit then finds."""
    tables = (
        "billing_posting",
        "billing_ledgertransaction",
        "billing_receipt",
        "billing_promotionalcredit",
        "billing_refundreport",
        "billing_webhookevent",
    )
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in tables:
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        cursor.execute(statement)
        for table in tables:
            cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
    return auditing.audit_ledger(at=AT).discrepancies


def tell(kind: str, number: int, **news: object) -> None:
    """What the company says of the payment of that number, as if it had been acted on."""
    topup = TopUp.objects.order_by("pk")[number]
    WebhookEvent.objects.create(
        provider=topup.provider,
        event=f"evt_{WebhookEvent.objects.count() + 1}",
        type="about a payment",
        news={"kind": kind, "payment": topup.provider_payment, "currency": "usd", **news},
        occurred_at=AT,
        outcome="done",
        processed_at=AT,
    )


def test_events_that_say_what_the_books_say_are_right() -> None:
    refund, dispute = Refund.objects.get(), {"reason": "fraudulent", "respond_by": ""}
    by_reference = {"refund": "theirs", "reference": refund.reference}
    by_name = {"refund": refund.provider_refund, "reference": ""}
    for name, status in ((by_reference, "pending"), (by_name, "succeeded")):
        tell("RefundChanged", 0, amount_cents=1000, status=status, message="", **name)
    tell("DisputeChanged", 1, amount_cents=1000, status="open", dispute="dp_1", **dispute)
    # The bank wanted more at first.
    tell("DisputeChanged", 1, amount_cents=900, status="open", dispute="dp_2", **dispute)
    tell("DisputeChanged", 1, amount_cents=500, status="lost", dispute="dp_2", **dispute)
    assert plant("SELECT 1") == []


@pytest.mark.parametrize(
    ("news", "line"),
    [
        ({"amount_cents": 999}, "it is of 9.990000000 USD, the books have 10.000000000 USD"),
        ({"refund": "other"}, "it is of 10.000000000 USD, the books have nothing"),
        ({"refund": "other", "status": "failed"}, "it is of 10.000000000 USD, the books have nothing"),
        ({"status": "failed"}, "it says failed, the books say succeeded"),
    ],
)
def test_an_event_of_a_refund_that_the_books_do_not_have_is_found(news: dict[str, object], line: str) -> None:
    told = {
        "refund": Refund.objects.get().provider_refund,
        "amount_cents": 1000,
        "status": "succeeded",
        **news,
    }
    tell("RefundChanged", 0, reference="", message="", **told)
    assert plant("SELECT 1") == [f"sandbox event evt_1 of refund {told['refund']}: {line}"]


@pytest.mark.parametrize(
    ("news", "line"),
    [
        ({"amount_cents": 999}, "it is of 9.990000000 USD, the books have 10.000000000 USD"),
        ({"dispute": "dp_3"}, "it is of 10.000000000 USD, the books have nothing"),
        ({"payment": "other"}, "it is of 10.000000000 USD, the books have nothing"),
        ({"status": "lost"}, "it says lost, the books say open"),
    ],
)
def test_an_event_of_a_dispute_that_the_books_do_not_have_is_found(
    news: dict[str, object], line: str
) -> None:
    told = {"dispute": "dp_1", "amount_cents": 1000, "status": "open", **news}
    tell("DisputeChanged", 1, reason="fraudulent", respond_by="", **told)
    assert plant("SELECT 1") == [f"sandbox event evt_1 of dispute {told['dispute']}: {line}"]


def test_a_refund_of_another_amount_than_was_booked_is_found() -> None:
    made = Refund.objects.get()
    found = plant("UPDATE billing_refund SET fee_nanousd = 1000000000")
    assert (
        f"refund {made.pk} of account {made.account_id}, fee: the ledger says 2.000000000 USD,"
        " the refund or dispute says 1.000000000 USD"
    ) in found
    assert len(found) == 2


def test_a_refund_that_failed_and_was_not_posted_back_is_found() -> None:
    found = plant("UPDATE billing_refund SET status = 'failed'")
    assert [line.partition(", ")[2].partition(":")[0] for line in found[:3]] == ["credit", "fee", "paid back"]
    assert found[3].endswith(
        "its company has said of it succeeded as sandbox-r-1, and it is failed as sandbox-r-1"
    )


@pytest.mark.parametrize(
    ("statement", "said", "status"),
    [
        ("UPDATE billing_refund SET status = 'pending', ended_at = NULL", "succeeded as {}", "pending as {}"),
        (
            "UPDATE billing_refund SET provider_refund = 're_other'",
            "succeeded as {}",
            "succeeded as re_other",
        ),
        ("UPDATE billing_refund SET provider_refund = NULL", "succeeded as {}", "succeeded"),
        ("UPDATE billing_refundreport SET status = 'pending'", "pending as {}", "succeeded as {}"),
        ("DELETE FROM billing_refundreport", "nothing", "succeeded as {}"),
    ],
)
def test_a_refund_that_stands_otherwise_than_its_company_has_said_is_found(
    statement: str, said: str, status: str
) -> None:
    refund = Refund.objects.get()
    name = refund.provider_refund
    assert plant(statement) == [
        f"refund {refund.pk}: its company has said of it {said.format(name)}, and it is {status.format(name)}"
    ]


def test_refunds_from_before_reports_were_kept_are_taken_for_reported() -> None:
    assert len(plant("DELETE FROM billing_refundreport")) == 1
    assert plant(import_module("billing.migrations.0020_what_stays").REFUNDS) == []
    assert RefundReport.objects.get().is_assumed


def test_a_refund_in_the_ledger_alone_is_found() -> None:
    assert any("says nothing" in line for line in plant("DELETE FROM billing_refund"))


def test_a_dispute_that_froze_another_amount_than_was_booked_is_found() -> None:
    dispute = Dispute.objects.get(status="open")
    found = plant(
        "UPDATE billing_dispute SET frozen_nanousd = frozen_nanousd - 1, loss_nanousd = 1 WHERE status = 'open'"
    )
    subject = f"dispute {dispute.pk} of account {dispute.account_id}"
    assert [line.partition(":")[0] for line in found] == [f"{subject}, credit", f"{subject}, frozen"]


def test_a_lost_dispute_that_is_still_frozen_in_the_ledger_is_found() -> None:
    found = plant("UPDATE billing_dispute SET status = 'lost', closed_at = opened_at WHERE status = 'open'")
    assert any(", frozen: the ledger says 8.000000000 USD" in line for line in found)


def test_a_dispute_that_waits_for_credit_its_wallet_does_not_hold_is_found() -> None:
    dispute = Dispute.objects.get(status="open")
    found = plant(
        "UPDATE billing_dispute SET frozen_nanousd = frozen_nanousd - 1, loss_nanousd = 1, to_take_nanousd = 1"
        " WHERE status = 'open'"
    )
    account = f"account {dispute.account_id}: its wallet"
    assert [line.partition(" 0.")[0] for line in found if line.startswith("account")] == [
        f"{account} holds",
        f"{account} says",
    ]


def test_a_lot_that_lost_more_to_a_refund_than_that_took_is_found(topup: TopUp) -> None:
    test_withheld_credit.grant(topup, usd=8)
    made = Refund.objects.get()
    found = plant(
        "INSERT INTO billing_withheldcredit (lot_id, refund_id, amount_nanousd)"
        " SELECT c.id, r.id, r.credit_nanousd + 1 FROM billing_refund r, billing_promotionalcredit c"
    )
    lot = topup.account.promotional_credits.get()
    assert found == [
        (
            f"refund {made.pk} of account {made.account_id}: promotional credit lost 8.000000001 USD to it,"
            " and it took 8.000000000 USD"
        ),
        (
            f"promotional credit {lot.pk}: 16.000000001 USD remains, has expired or may come back, of an amount of"
            " 8.000000000 USD"
        ),
    ]


def test_more_given_back_than_was_paid_is_found(topup: TopUp) -> None:
    found = plant("UPDATE billing_refund SET credit_nanousd = 40000000000")
    assert (
        f"top-up {topup.pk}: what went back of the payment is 42.000000000 USD, more than its 25.000000000 USD"
    ) in found


def test_a_receipt_of_another_amount_is_found(topup: TopUp) -> None:
    assert plant("UPDATE billing_receipt SET fee_nanousd = 1 WHERE number_in_year = 1") == [
        f"top-up {topup.pk}, fee: its receipt says 0.000000001 USD, the paid top-up says 5.000000000 USD"
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE billing_receipt SET number_in_year = 3 WHERE number_in_year = 2",
        "UPDATE billing_receiptnumbers SET issued = 3",
        "DELETE FROM billing_receiptnumbers",
    ],
)
def test_a_gap_between_receipts_is_found(statement: str) -> None:
    year = Receipt.objects.latest("id").year
    assert plant(statement)[0].startswith(f"receipts of {year}: 2 were issued, the last number is ")


def test_a_receipt_that_is_missing_is_found() -> None:
    assert len(plant("DELETE FROM billing_receipt WHERE number_in_year = 1")) == 3

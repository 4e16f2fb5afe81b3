"""What the rows of billing are called where people read them: in the admin, in logs, in the audit."""

import uuid

import pytest

from billing.models import (
    BillingDetails,
    ChainHead,
    GatewayProcess,
    Hold,
    PromotionalCredit,
    ReceiptNumbers,
    WithheldCredit,
)


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (BillingDetails(company_name="Acme", account_id=7), "Acme"),
        (BillingDetails(account_id=7), "billing details of account 7"),
        (ChainHead(count=3, hash="ab"), "3 transactions, the last one ab"),
        (ReceiptNumbers(year=2026, issued=4), "4 receipts in 2026"),
        (WithheldCredit(lot=PromotionalCredit(pk=5)), "of promotional credit 5"),
        (Hold(request_id=uuid.UUID(int=1)), str(uuid.UUID(int=1))),
        (GatewayProcess(id=uuid.UUID(int=2)), str(uuid.UUID(int=2))),
    ],
)
def test_a_row_says_what_it_is(row: object, name: str) -> None:
    assert str(row) == name

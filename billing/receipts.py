"""Receipts: a number without gaps, and who bought what of whom as it was when the payment arrived."""

import datetime as dt

from django.conf import settings
from django.db import connection

from accounts.models import Account
from billing.models import BillingDetails, Receipt, TopUp
from billing.providers import offering

# Whoever issues the next receipt of the year waits here until this one is committed, or takes its number if it is not.
_NEXT_NUMBER = """
    INSERT INTO billing_receiptnumbers AS n (year, issued) VALUES (%s, 1)
    ON CONFLICT (year) DO UPDATE SET issued = n.issued + 1 RETURNING issued
"""


def issue(*, topup: TopUp, at: dt.datetime) -> Receipt:
    """The receipt of a payment that has just arrived, inside the transaction that credits it.

    The number counts within the UTC year of `at`. The e-mail with it is due at once: see `owed_mail`.
    """
    provider = offering.named(slug=topup.provider)
    year = at.astimezone(dt.UTC).year
    with connection.cursor() as cursor:
        cursor.execute(_NEXT_NUMBER, [year])
        (number,) = cursor.fetchone()
    return Receipt.objects.create(
        topup=topup,
        account_id=topup.account_id,
        year=year,
        number_in_year=number,
        issued_at=at,
        buyer=_buyer(topup.account),
        seller={
            "name": settings.SELLER_NAME,
            "address": [line.strip() for line in settings.SELLER_ADDRESS.split("|") if line.strip()],
            "tax_id": settings.SELLER_TAX_ID,
        },
        credit_nanousd=topup.credit_nanousd,
        fee_nanousd=topup.fee_nanousd,
        provider_name=provider.name if provider else topup.provider,
        payment=topup.provider_payment,
        mail_due_at=at,
    )


def _buyer(account: Account) -> dict[str, object]:
    details = BillingDetails.objects.filter(account=account).first() or BillingDetails()
    town = f"{details.postal_code} {details.city}".strip()
    lines = [details.address_line_1, details.address_line_2, town, details.region, details.country]
    return {
        "name": details.company_name or account.name,
        "address": [line for line in lines if line],
        "tax_id": details.tax_id,
        "account": account.name,
    }

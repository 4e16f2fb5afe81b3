"""The e-mail that brings a receipt. Sent outside every transaction."""

from django.urls import reverse

from accounts import mailing
from billing import receipt_pdf
from billing.models import BillingDetails, Receipt
from billing.providers.sandbox import SANDBOX


def send(*, receipt: Receipt) -> None:
    """Mail the receipt to the address for receipts, else to the account's owners and admins.

    Raises mailing.SendingErrors.
    """
    details = BillingDetails.objects.filter(account=receipt.account_id).first()
    pdf = receipt_pdf.render(receipt=receipt)
    mailing.send(
        subject=f"Receipt {receipt.number} for your credit",
        template="billing/mail/receipt.txt",
        context={
            "receipt": receipt,
            "took_no_money": receipt.topup.provider == SANDBOX.slug,
            "receipt_url": mailing.public_url(reverse("billing:receipt", args=[receipt.topup_id])),
        },
        to=[details.receipts_email]
        if details and details.receipts_email
        else mailing.recipients(account=receipt.account),
        attachment=(receipt_pdf.file_name(receipt), pdf, "application/pdf"),
    )

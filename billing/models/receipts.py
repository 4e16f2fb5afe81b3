"""The papers for accountants: one numbered receipt for each payment."""

from typing import ClassVar

from django.db import models

from accounts.models import Account
from billing.models.mail_due import MailDue
from billing.models.topups import TopUp


class ReceiptNumbers(models.Model):
    """How many receipts a year has. The row is counted up in the transaction that issues one, so none is skipped."""

    year = models.PositiveSmallIntegerField(primary_key=True)
    issued = models.PositiveIntegerField()

    def __str__(self) -> str:
        return f"{self.issued} receipts in {self.year}"


class Receipt(MailDue):
    """What was bought, by whom, from whom, as it was when the payment arrived. The database refuses to change it.

    `buyer` and `seller` hold name, address and tax id by name; the amounts are the top-up's, in nano-USD.
    """

    topup = models.OneToOneField(
        TopUp, on_delete=models.PROTECT, related_name="receipt", verbose_name="top-up"
    )
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="receipts")
    year = models.PositiveSmallIntegerField()
    number_in_year = models.PositiveIntegerField()
    issued_at = models.DateTimeField()
    buyer = models.JSONField()
    seller = models.JSONField()
    credit_nanousd = models.BigIntegerField()
    fee_nanousd = models.BigIntegerField()
    provider_name = models.CharField(max_length=60)
    payment = models.CharField(max_length=120)

    class Meta:
        ordering: ClassVar = ["-id"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["year", "number_in_year"], name="receipt_number_once"),
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["mail_due_at"], name="receipt_mail_due", condition=models.Q(mail_due_at__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return self.number

    @property
    def number(self) -> str:
        """As it is written: `R-2026-000001`."""
        return f"R-{self.year}-{self.number_in_year:06d}"

    @property
    def total_nanousd(self) -> int:
        return self.credit_nanousd + self.fee_nanousd

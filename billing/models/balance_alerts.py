"""When an account wants to hear that its credit runs low."""

from typing import ClassVar

from django.db import models

from accounts.models import Account
from billing.models.mail_due import MailDue

# $5.
DEFAULT_THRESHOLD_NANOUSD = 5_000_000_000


class BalanceAlert(MailDue):
    """The low-balance e-mail of an account. One without a row has not chosen, and was never told: the defaults hold."""

    account = models.OneToOneField(Account, on_delete=models.CASCADE, related_name="balance_alert")
    is_on = models.BooleanField(default=True)
    threshold_nanousd = models.BigIntegerField(default=DEFAULT_THRESHOLD_NANOUSD)
    # Since when they know, or are owed the e-mail; null: the balance has not been low, or has recovered.
    told_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(threshold_nanousd__gt=0), name="balance_alert_threshold_positive"
            ),
        ]

    def __str__(self) -> str:
        return f"low-balance alert of account {self.account_id}"

"""Credit that is bought without anybody asking."""

from typing import ClassVar

from django.db import models

from accounts.models import Account, User
from billing.models.mail_due import MailDue


class AutoTopUp(MailDue):
    """What an account has agreed to: below the threshold, buy the amount, within a month's cap.

    In nano-USD. What is charged is the account's default payment method. The cap is on what is charged, with the fees,
    in a UTC month. The e-mail it may owe says why nothing is bought: it is off, its cap is reached, or a purchase is
    not decided.
    """

    account = models.OneToOneField(Account, on_delete=models.CASCADE, related_name="auto_topup")
    is_on = models.BooleanField(default=False)
    threshold_nanousd = models.BigIntegerField()
    amount_nanousd = models.BigIntegerField()
    monthly_cap_nanousd = models.BigIntegerField()
    # What is charged each time, as it was shown to whoever agreed; a fee that has grown since asks them again.
    agreed_total_nanousd = models.BigIntegerField()
    agreed_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    agreed_at = models.DateTimeField()
    # In a row; the outcome of every automatic top-up up to `counted_topup_id` is counted.
    failures = models.PositiveSmallIntegerField(default=0, editable=False)
    counted_topup_id = models.BigIntegerField(default=0, editable=False)
    # Nothing is bought before then: a payment has just failed, or the month's cap is reached.
    not_before = models.DateTimeField(null=True, editable=False)
    # When the provider was last asked to charge the top-up that waits; nobody else asks for a while.
    asked_at = models.DateTimeField(null=True, editable=False)
    # The purchase of which the account was told that it is not decided for long.
    told_topup_id = models.BigIntegerField(default=0, editable=False)
    # Why it was switched off, and when, if nobody of the account did it.
    off_reason = models.CharField(max_length=400, blank=True, editable=False)
    off_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        verbose_name = "auto top-up"
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(threshold_nanousd__gt=0, amount_nanousd__gt=0)
                & models.Q(agreed_total_nanousd__gte=models.F("amount_nanousd"))
                & models.Q(monthly_cap_nanousd__gte=models.F("agreed_total_nanousd")),
                name="auto_topup_fits_its_cap",
            ),
            models.CheckConstraint(
                condition=models.Q(is_on=False) | models.Q(off_reason="", off_at=None),
                name="auto_topup_on_without_reason_to_be_off",
            ),
        ]

    def __str__(self) -> str:
        return f"auto top-up of account {self.account_id}"

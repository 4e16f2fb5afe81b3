"""Credit that nobody paid for."""

from typing import ClassVar

from django.db import models

from accounts.models import Account, User
from billing.models.disputes import Dispute
from billing.models.ledger import LedgerTransaction
from billing.models.mail_due import MailDue
from billing.models.refunds import Refund


class PromotionalCredit(MailDue):
    """A lot of granted credit: what is left of it, and perhaps a date from which nothing is. In nano-USD.

    What is left is as of the last look: see `billing.promotions`, which alone writes it, under the wallet's lock.
    """

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="promotional_credits")
    transaction = models.OneToOneField(LedgerTransaction, on_delete=models.PROTECT, related_name="lot")
    amount_nanousd = models.BigIntegerField()
    remaining_nanousd = models.BigIntegerField()
    # What was not spent in time; the rest of the amount that does not remain was spent, or taken away otherwise.
    expired_nanousd = models.BigIntegerField(default=0)
    # What the account had ever been charged when this was granted: so much, at least, this lot has not paid for.
    charged_before_nanousd = models.BigIntegerField(default=0, db_default=0, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    reason = models.CharField(max_length=200)
    granted_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    granted_at = models.DateTimeField()
    # When its account's members were told that it is about to expire, or were owed the e-mail that says so.
    noticed_at = models.DateTimeField(null=True, blank=True)
    # When a look found nothing left.
    closed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering: ClassVar = ["-id"]
        verbose_name_plural = "promotional credit"
        indexes: ClassVar = [
            models.Index(fields=["account"], name="promotion_open", condition=models.Q(closed_at=None)),
            models.Index(
                fields=["expires_at"],
                name="promotion_expiring",
                condition=models.Q(closed_at=None, expires_at__isnull=False),
            ),
        ]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(amount_nanousd__gt=0, remaining_nanousd__gte=0, expired_nanousd__gte=0)
                & models.Q(amount_nanousd__gte=models.F("remaining_nanousd") + models.F("expired_nanousd")),
                name="promotion_within_its_amount",
            ),
            models.CheckConstraint(
                condition=models.Q(remaining_nanousd=0, closed_at__isnull=False)
                | models.Q(remaining_nanousd__gt=0, closed_at=None),
                name="promotion_closed_iff_nothing_remains",
            ),
            models.CheckConstraint(
                condition=models.Q(expired_nanousd=0) | models.Q(expires_at__isnull=False),
                name="promotion_without_date_never_expires",
            ),
        ]

    def __str__(self) -> str:
        return f"promotional credit {self.pk}"


class WithheldCredit(models.Model):
    """What a lot has lost to a dispute or a refund, in nano-USD: the lot gets it again if that is undone."""

    lot = models.ForeignKey(PromotionalCredit, on_delete=models.PROTECT, related_name="withheld")
    dispute = models.ForeignKey(
        Dispute, on_delete=models.PROTECT, null=True, blank=True, related_name="withheld"
    )
    refund = models.ForeignKey(
        Refund, on_delete=models.PROTECT, null=True, blank=True, related_name="withheld"
    )
    amount_nanousd = models.BigIntegerField()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(amount_nanousd__gt=0), name="withheld_credit_is_positive"
            ),
            models.CheckConstraint(
                condition=models.Q(dispute=None, refund__isnull=False)
                | models.Q(dispute__isnull=False, refund=None),
                name="withheld_credit_of_a_dispute_or_a_refund",
            ),
        ]

    def __str__(self) -> str:
        return f"of {self.lot}"

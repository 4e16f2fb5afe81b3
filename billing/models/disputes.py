"""Payments that the buyer's bank takes back."""

from typing import ClassVar

from django.db import models
from django.utils import timezone

from accounts.models import Account
from billing.models.mail_due import MailDue, OperatorsMailDue
from billing.models.topups import TopUp


class Dispute(MailDue, OperatorsMailDue):
    """A payment of which the bank wants an amount back, in nano-USD, and what that does to the account's credit.

    The amount is `frozen`, `fee` and `loss` together as soon as the books know of it: what the wallet had of it, the
    fee's share, and what the wallet no longer had.
    """

    class Status(models.TextChoices):
        OPEN = "open", "Open"
        WON = "won", "Won"
        LOST = "lost", "Lost"

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="disputes")
    topup = models.ForeignKey(TopUp, on_delete=models.PROTECT, related_name="disputes", verbose_name="top-up")
    # The company's name for it.
    provider_dispute = models.CharField(max_length=120)
    reason = models.CharField(max_length=120)
    status = models.CharField(max_length=8, choices=Status)
    amount_nanousd = models.BigIntegerField()
    # When the company said so: an earlier telling that is heard later does not change the amount.
    amount_told_at = models.DateTimeField(default=timezone.now)
    frozen_nanousd = models.BigIntegerField(default=0)
    fee_nanousd = models.BigIntegerField(default=0)
    loss_nanousd = models.BigIntegerField(default=0)
    # Of the loss, what requests hold that ran when it was frozen: it is taken when they leave it.
    to_take_nanousd = models.BigIntegerField(default=0)
    # How often credit was frozen for it: a bank that changes its mind is booked again, under another reference.
    bookings = models.PositiveSmallIntegerField(default=0)
    opened_at = models.DateTimeField(default=timezone.now)
    # Until when the company takes evidence; null: it has not said.
    respond_by = models.DateTimeField(null=True, blank=True)
    closed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering: ClassVar = ["-id"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["topup", "provider_dispute"], name="dispute_once"),
            models.CheckConstraint(
                condition=models.Q(amount_nanousd__gt=0, frozen_nanousd__gte=0)
                & models.Q(fee_nanousd__gte=0, to_take_nanousd__gte=0)
                & models.Q(loss_nanousd__gte=models.F("to_take_nanousd")),
                name="dispute_not_negative",
            ),
            models.CheckConstraint(
                condition=models.Q(status="won", frozen_nanousd=0, fee_nanousd=0, loss_nanousd=0)
                | ~models.Q(status="won")
                & models.Q(
                    amount_nanousd=models.F("frozen_nanousd")
                    + models.F("fee_nanousd")
                    + models.F("loss_nanousd")
                ),
                name="dispute_amount_is_shared_out_unless_won",
            ),
            models.CheckConstraint(
                condition=models.Q(status="open", closed_at=None)
                | (~models.Q(status="open") & models.Q(closed_at__isnull=False)),
                name="dispute_closed_at_iff_closed",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["account", "-id"], name="dispute_by_account"),
            models.Index(
                fields=["account"], name="dispute_to_take", condition=models.Q(to_take_nanousd__gt=0)
            ),
        ]

    def __str__(self) -> str:
        return f"dispute {self.pk}"

    def took_later(self, amount_nanousd: int) -> None:
        """What was a loss is credit after all."""
        self.frozen_nanousd += amount_nanousd
        self.loss_nanousd -= amount_nanousd
        self.save(update_fields=["frozen_nanousd", "loss_nanousd", "to_take_nanousd"])

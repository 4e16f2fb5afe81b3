"""Money that goes back to the buyer because the operator wants it so."""

from typing import ClassVar

from django.db import models
from django.utils import timezone

from accounts.models import Account, User
from billing.models.mail_due import MailDue, OperatorsMailDue
from billing.models.topups import TopUp


class Refund(MailDue, OperatorsMailDue):
    """A part of a payment that is given back, in nano-USD, a whole number of cents in total.

    What the buyer gets is credit that was taken out of the wallet, the fee's share, and, for a refund that was made at
    the company's own dashboard, what the wallet no longer had: that is the platform's loss. Of one that had failed
    there before it was heard of, nothing was ever taken: it has no bookings, and says what would have been.
    """

    class Status(models.TextChoices):
        PENDING = "pending", "On its way"
        SUCCEEDED = "succeeded", "Given back"
        FAILED = "failed", "Failed"

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="refunds")
    topup = models.ForeignKey(TopUp, on_delete=models.PROTECT, related_name="refunds", verbose_name="top-up")
    # Ours: the company does what it names once, however often it is asked.
    reference = models.CharField(max_length=120, unique=True)
    # The company's name for it; null until it has told us.
    provider_refund = models.CharField(max_length=120, null=True, blank=True)  # noqa: DJ001 - unique where known
    credit_nanousd = models.BigIntegerField()
    fee_nanousd = models.BigIntegerField()
    loss_nanousd = models.BigIntegerField(default=0)
    # Of the loss, what requests hold that ran when it was booked: it is taken when they leave it.
    to_take_nanousd = models.BigIntegerField(default=0)
    # How often credit was taken for it: one that was refused and is made all the same is booked again. 0: it had failed
    # before it was heard of.
    bookings = models.PositiveSmallIntegerField(default=1)
    status = models.CharField(max_length=16, choices=Status, default=Status.PENDING)
    reason = models.CharField(max_length=200)
    # Of a failure: what the company says.
    message = models.CharField(max_length=300, blank=True)
    # Null: it was made at the company's own dashboard.
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True, blank=True)
    # When the company was last asked for it; null: it is not ours to ask for.
    asked_at = models.DateTimeField(null=True, blank=True)
    # When the company was last asked what became of it, because it had not said so.
    looked_up_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering: ClassVar = ["-id"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["topup", "provider_refund"], name="refund_once_per_provider_refund"
            ),
            models.CheckConstraint(
                condition=models.Q(credit_nanousd__gte=0, fee_nanousd__gte=0, loss_nanousd__gte=0)
                & (
                    models.Q(credit_nanousd__gt=0)
                    | models.Q(fee_nanousd__gt=0)
                    | models.Q(loss_nanousd__gt=0)
                ),
                name="refund_gives_something_back",
            ),
            models.CheckConstraint(
                condition=models.Q(to_take_nanousd__gte=0, to_take_nanousd__lte=models.F("loss_nanousd"))
                & (models.Q(to_take_nanousd=0) | ~models.Q(status="failed")),
                name="refund_takes_later_what_was_lost",
            ),
            models.CheckConstraint(
                condition=models.Q(bookings__gt=0) | models.Q(status="failed", provider_refund__isnull=False),
                name="refund_is_booked_unless_it_had_failed",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["account", "-id"], name="refund_by_account"),
            models.Index(
                fields=["status", "asked_at"], name="refund_pending", condition=models.Q(status="pending")
            ),
            models.Index(
                fields=["account"], name="refund_to_take", condition=models.Q(to_take_nanousd__gt=0)
            ),
        ]

    def __str__(self) -> str:
        return f"refund {self.pk}"

    @property
    def total_nanousd(self) -> int:
        return self.credit_nanousd + self.fee_nanousd + self.loss_nanousd

    @property
    def moved_nothing(self) -> bool:
        """It had failed at the payment company before it was heard of."""
        return not self.bookings

    def took_later(self, amount_nanousd: int) -> None:
        """What was a loss is credit after all."""
        self.credit_nanousd += amount_nanousd
        self.loss_nanousd -= amount_nanousd
        self.save(update_fields=["credit_nanousd", "loss_nanousd", "to_take_nanousd"])

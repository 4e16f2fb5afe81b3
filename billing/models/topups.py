"""Credit that was bought, or is being bought."""

from typing import ClassVar

from django.db import models
from django.utils import timezone

from accounts.models import Account, User


class TopUp(models.Model):
    """Credit bought or being bought. The amounts are the quote, and the quote is what is charged. In nano-USD."""

    class Status(models.TextChoices):
        PENDING = "pending", "Waiting for payment"
        PAID = "paid", "Paid"
        CANCELED = "canceled", "Canceled"

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="topups")
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    provider = models.CharField(max_length=20)
    # The provider's own name for the payment; unguessable for the sandbox.
    provider_reference = models.CharField(max_length=120)
    credit_nanousd = models.BigIntegerField()
    fee_nanousd = models.BigIntegerField()
    total_nanousd = models.BigIntegerField()
    fee_rate = models.DecimalField(max_digits=5, decimal_places=4)
    status = models.CharField(max_length=16, choices=Status, default=Status.PENDING)
    created_at = models.DateTimeField(default=timezone.now)
    paid_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering: ClassVar = ["-id"]
        indexes: ClassVar = [models.Index(fields=["account", "-id"], name="topup_by_account")]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["provider", "provider_reference"], name="topup_once_per_payment"),
            models.CheckConstraint(
                condition=models.Q(credit_nanousd__gt=0, fee_nanousd__gte=0)
                & models.Q(total_nanousd=models.F("credit_nanousd") + models.F("fee_nanousd")),
                name="topup_total_is_credit_and_fee",
            ),
            models.CheckConstraint(
                condition=models.Q(status="paid", paid_at__isnull=False)
                | (~models.Q(status="paid") & models.Q(paid_at=None)),
                name="topup_paid_at_iff_paid",
            ),
        ]

    def __str__(self) -> str:
        return f"top-up {self.pk}"

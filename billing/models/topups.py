"""Credit that was bought, or is being bought."""

from typing import ClassVar

from django.db import models
from django.utils import timezone

from accounts.models import Account, User
from billing.models.methods import SavedPaymentMethod


class TopUp(models.Model):
    """Credit bought or being bought. The amounts are the quote, and the quote is what is charged. In nano-USD."""

    class Status(models.TextChoices):
        PENDING = "pending", "Waiting for payment"
        PAID = "paid", "Paid"
        CANCELED = "canceled", "Canceled"
        # The provider says that no payment will come: `failure` says why.
        FAILED = "failed", "Not paid"

    class Origin(models.TextChoices):
        PAGE = "page", "Bought on the page"
        AUTOMATIC = "automatic", "Auto top-up"

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="topups")
    origin = models.CharField(max_length=12, choices=Origin, default=Origin.PAGE)
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    provider = models.CharField(max_length=20)
    # Our name for the payment at the provider; unguessable.
    provider_reference = models.CharField(max_length=120)
    # The provider's name for the payer, where this is not their first payment.
    provider_customer = models.CharField(max_length=120, blank=True)
    # The provider's name for the payment that was made: refunds and disputes name it.
    provider_payment = models.CharField(max_length=120, blank=True)
    # The provider's page on which it can be paid, until then.
    checkout_session = models.CharField(max_length=120, blank=True)
    checkout_url = models.TextField(blank=True)
    checkout_expires_at = models.DateTimeField(null=True, blank=True)
    # The buyer allows us to charge the payment method again.
    saves_method = models.BooleanField(default=False)
    # The saved method that is charged without the buyer; null: they pay on a page.
    method = models.ForeignKey(SavedPaymentMethod, on_delete=models.PROTECT, null=True, related_name="topups")
    # What makes a form that is sent twice one top-up; null: it came from no form.
    submission = models.CharField(max_length=64, null=True, editable=False)  # noqa: DJ001  # empty is not unique
    # Why no payment came, for people to read.
    failure = models.CharField(max_length=300, blank=True)
    # When the provider was last asked what became of it, because it had not said so.
    looked_up_at = models.DateTimeField(null=True, editable=False)
    credit_nanousd = models.BigIntegerField()
    fee_nanousd = models.BigIntegerField()
    total_nanousd = models.BigIntegerField()
    fee_rate = models.DecimalField(max_digits=5, decimal_places=4)
    status = models.CharField(max_length=16, choices=Status, default=Status.PENDING)
    created_at = models.DateTimeField(default=timezone.now)
    paid_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "top-up"
        ordering: ClassVar = ["-id"]
        indexes: ClassVar = [
            models.Index(fields=["account", "-id"], name="topup_by_account"),
            models.Index(fields=["created_at"], condition=models.Q(status="pending"), name="topup_pending"),
            # Those that are over, and that a payment may still come for.
            models.Index(
                fields=["created_at"],
                condition=models.Q(status__in=["failed", "canceled"]),
                name="topup_closed",
            ),
            models.Index(
                fields=["account", "-id"], condition=models.Q(origin="automatic"), name="topup_automatic"
            ),
        ]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["provider", "provider_reference"], name="topup_once_per_payment"),
            models.UniqueConstraint(
                fields=["provider", "provider_payment"],
                condition=~models.Q(provider_payment=""),
                name="payment_pays_one_topup",
            ),
            models.UniqueConstraint(fields=["account", "submission"], name="topup_once_per_submission"),
            # Whatever runs in parallel, auto top-up buys one at a time.
            models.UniqueConstraint(
                fields=["account"],
                condition=models.Q(status="pending", origin="automatic"),
                name="topup_one_automatic_at_a_time",
            ),
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

    @property
    def fee_percent(self) -> str:
        """The fee's rate as people read it: 25, or 12.5."""
        return f"{(self.fee_rate * 100).normalize():f}"

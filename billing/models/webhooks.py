"""What payment providers have told us, and what of it nobody waited for."""

from decimal import Decimal
from typing import ClassVar

from django.db import models
from django.db.models import F
from django.db.models.fields.json import KT
from django.utils import timezone

from accounts.models import User
from billing.models.mail_due import OperatorsMailDue
from billing.models.topups import TopUp


class WebhookEvent(OperatorsMailDue):
    """A webhook that was genuine, recorded before anything is done about it, so that no crash can lose it.

    It owes the operators an e-mail from a day after it came, if it still waits then.
    """

    class Outcome(models.TextChoices):
        WAITING = "waiting", "Waiting"
        DONE = "done", "Done"
        IGNORED = "ignored", "Does not concern us"
        UNMATCHED = "unmatched", "Fits no top-up"

    provider = models.CharField(max_length=20)
    event = models.CharField(max_length=120)
    type = models.CharField(max_length=80)
    # What it says, as `webhooks.written` writes it: enough to process it, and nothing of a card. Null: nothing for us.
    news = models.JSONField(null=True)
    occurred_at = models.DateTimeField()
    received_at = models.DateTimeField(default=timezone.now)
    outcome = models.CharField(max_length=12, choices=Outcome, default=Outcome.WAITING)
    processed_at = models.DateTimeField(null=True)
    # Of processing: how often it was tried, what stood in the way, and when it is tried again.
    attempts = models.PositiveIntegerField(default=0)
    problem = models.CharField(max_length=500, blank=True)
    due_at = models.DateTimeField(default=timezone.now)
    # By an operator, who has settled elsewhere what it says: from then on it is never acted on.
    closed_at = models.DateTimeField(null=True, blank=True)
    closed_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    note = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering: ClassVar = ["-id"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["provider", "event"], name="webhook_event_once"),
            models.CheckConstraint(
                condition=models.Q(closed_at=None, note="")
                | (models.Q(closed_at__isnull=False) & ~models.Q(note="") & ~models.Q(outcome="waiting")),
                name="webhook_event_closed_with_a_note",
            ),
            models.CheckConstraint(
                condition=models.Q(outcome="waiting", processed_at=None)
                | (~models.Q(outcome="waiting") & models.Q(processed_at__isnull=False)),
                name="webhook_event_processed_at_iff_processed",
            ),
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["due_at"], condition=models.Q(processed_at=None), name="webhook_event_waiting"
            ),
            # Refunds and disputes name the payment that they are of, which may be known only later.
            models.Index(F("provider"), KT("news__payment"), name="webhook_event_by_payment"),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.event}"


class PaymentReport(models.Model):
    """That a provider has said of a payment that it came: in a webhook, when it was asked, or when it charged.

    Written before anything is credited for it, once for each thing that was said; the database refuses to change it.
    """

    provider = models.CharField(max_length=20)
    payment = models.CharField(max_length=120)
    # The top-up that it names, as the provider tells it.
    reference = models.CharField(max_length=120, blank=True)
    # In the smallest unit of the currency.
    amount_cents = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    said_at = models.DateTimeField()
    # Of a payment from before this was written down: nothing but its top-up says that it came.
    is_assumed = models.BooleanField(default=False)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["provider", "payment", "reference", "amount_cents", "currency"],
                name="payment_report_once",
            ),
        ]

    def __str__(self) -> str:
        return f"report of payment {self.payment}"

    @property
    def amount(self) -> str:
        """What was said to have come, to read."""
        return _amount(self.amount_cents, self.currency)


class RefundReport(models.Model):
    """That a provider has said of a refund how it stands: in a webhook, when it was asked, or when it gave back.

    Written with the change that it makes, once for each thing that was said; the database refuses to change it.
    """

    # `Refund.reference`, which is ours and unique.
    reference = models.CharField(max_length=120)
    # The provider's name for it.
    refund = models.CharField(max_length=120)
    status = models.CharField(max_length=16)
    said_at = models.DateTimeField()
    # Of a refund from before this was written down: nothing but itself says so.
    is_assumed = models.BooleanField(default=False)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["reference", "refund", "status"], name="refund_report_once"),
        ]

    def __str__(self) -> str:
        return f"report of refund {self.refund}"


class UnmatchedPayment(OperatorsMailDue):
    """Money that a provider says has come, and that fits no top-up: a person decides. Nothing was credited."""

    provider = models.CharField(max_length=20)
    payment = models.CharField(max_length=120)
    # The top-up it names, as the provider tells it.
    reference = models.CharField(max_length=120, blank=True)
    # In the smallest unit of the currency.
    amount_cents = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    why = models.CharField(max_length=300)
    event = models.ForeignKey(WebhookEvent, on_delete=models.PROTECT, null=True, related_name="+")
    seen_at = models.DateTimeField(default=timezone.now)
    # When the operators were told.
    mailed_at = models.DateTimeField(null=True)
    resolved_at = models.DateTimeField(null=True)
    resolved_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    note = models.CharField(max_length=300, blank=True)
    # Where its credit went, if it was credited.
    topup = models.ForeignKey(
        TopUp, on_delete=models.PROTECT, null=True, related_name="+", verbose_name="top-up"
    )

    class Meta:
        ordering: ClassVar = ["-id"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["provider", "payment"], name="unmatched_payment_once"),
        ]

    def __str__(self) -> str:
        return f"payment {self.payment}"

    @property
    def amount(self) -> str:
        """What came, to read."""
        return _amount(self.amount_cents, self.currency)


class PaymentClosing(models.Model):
    """That an operator has closed an unmatched payment with a note, and nothing was credited for it.

    Written by the act itself; the database refuses to change it. So that it stays, the operator is a number.
    """

    provider = models.CharField(max_length=20)
    payment = models.CharField(max_length=120)
    closed_at = models.DateTimeField()
    operator_id = models.BigIntegerField(null=True)
    note = models.CharField(max_length=300)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["provider", "payment"], name="payment_closing_once"),
        ]

    def __str__(self) -> str:
        return f"closing of payment {self.payment}"


def _amount(cents: int, currency: str) -> str:
    """How many decimals another currency has is not known here."""
    if currency == "usd":
        return f"{Decimal(cents).scaleb(-2):,.2f} USD"
    return f"{cents} of the smallest unit of {currency.upper()}"

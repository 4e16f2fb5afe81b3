"""Payment methods that buyers left with a payment provider."""

from typing import ClassVar

from django.db import models
from django.utils import timezone

from accounts.models import Account, User


class SavedPaymentMethod(models.Model):
    """A payment method that may be charged without the buyer. The provider keeps it; here is only what names it."""

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="payment_methods")
    provider = models.CharField(max_length=20)
    # The provider's names for the payer and for the method.
    customer = models.CharField(max_length=120)
    method = models.CharField(max_length=120)
    brand = models.CharField(max_length=40)
    last4 = models.CharField(max_length=4, blank=True)
    # The last day on which it is good; null: it does not expire.
    expires = models.DateField(null=True)
    # The one that auto top-up charges.
    is_default = models.BooleanField(default=False)
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    # From then on nothing here charges it; the provider has let it go when it says so.
    removed_at = models.DateTimeField(null=True)
    forgotten_at = models.DateTimeField(null=True)

    class Meta:
        ordering: ClassVar = ["-id"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["account", "provider", "method"],
                condition=models.Q(removed_at=None),
                name="payment_method_saved_once",
            ),
            models.UniqueConstraint(
                fields=["account"],
                condition=models.Q(removed_at=None, is_default=True),
                name="payment_method_one_default",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.brand} ending in {self.last4}" if self.last4 else self.brand

"""Who the account is on paper: what an accountant needs to see on a receipt."""

from django.db import models

from accounts.models import Account


class BillingDetails(models.Model):
    """As the account's people have entered them, all optional. A receipt keeps its own copy."""

    account = models.OneToOneField(
        Account, on_delete=models.CASCADE, primary_key=True, related_name="billing_details"
    )
    company_name = models.CharField("Company or name", max_length=120, blank=True)
    address_line_1 = models.CharField("Address", max_length=120, blank=True)
    address_line_2 = models.CharField("Address, second line", max_length=120, blank=True)
    postal_code = models.CharField("Postal code", max_length=20, blank=True)
    city = models.CharField("City", max_length=80, blank=True)
    region = models.CharField("State or region", max_length=80, blank=True)
    country = models.CharField("Country", max_length=80, blank=True)
    tax_id = models.CharField("Tax id", max_length=40, blank=True, help_text="As VAT number, EIN or GSTIN.")
    receipts_email = models.EmailField(
        "E-mail for receipts",
        blank=True,
        help_text="Empty: receipts go to the owners and admins of the account.",
    )

    class Meta:
        verbose_name_plural = "billing details"

    def __str__(self) -> str:
        return self.company_name or f"billing details of account {self.account_id}"

"""What people type on the billing pages: amounts of USD, as people write them."""

import datetime as dt
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone

from accounts.models import Plan
from billing import topping_up
from billing.models import BillingDetails, Budget
from catalog.money import nano_from_usd

if TYPE_CHECKING:
    _DetailsForm = forms.ModelForm[BillingDetails]
else:  # Django's class takes no type argument at run time.
    _DetailsForm = forms.ModelForm

# Thousands separators only where they can be nothing else: "20,50" is refused, not read as 2050.
_GROUPED = re.compile(r"\d{1,3}(,\d{3})+(\.\d*)?")


_FILLED_IN_BY_BROWSERS = {
    "company_name": "organization",
    "address_line_1": "address-line1",
    "address_line_2": "address-line2",
    "postal_code": "postal-code",
    "city": "address-level2",
    "region": "address-level1",
    "country": "country-name",
}


class USDField(forms.DecimalField):
    """An amount of USD in whole cents; `$1,250.00` is as good as `1250`. Cleans to nano-USD."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("widget", forms.TextInput(attrs={"inputmode": "decimal", "autocomplete": "off"}))
        messages = {
            "required": "Give an amount in USD.",
            "invalid": "Give an amount in USD, like 20 or 12.50.",
            "max_decimal_places": "Choose an amount in whole cents.",
        }
        super().__init__(max_digits=14, decimal_places=2, error_messages=messages, **kwargs)

    def to_python(self, value: Any) -> Decimal | None:  # type: ignore[override]  # the stubs have IntegerField's
        text = str(value or "").strip().removeprefix("$").strip()
        return super().to_python(text.replace(",", "") if _GROUPED.fullmatch(text) else text)

    def clean(self, value: Any) -> Any:
        usd = super().clean(value)
        return None if usd is None else nano_from_usd(usd)


class BuyForm(forms.Form):
    """How much credit; `seen_total` is the total that the buyer has seen, in cents, or nothing."""

    credit = USDField(label="Credit", help_text="What arrives in your wallet, in USD.")
    seen_total = forms.IntegerField(required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, plan: Plan, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.plan = plan
        self.quote: topping_up.Quote | None = None

    def clean_credit(self) -> int:
        credit_nanousd: int = self.cleaned_data["credit"]
        try:
            self.quote = topping_up.quote(credit_nanousd=credit_nanousd, fee_rate=self.plan.topup_fee_rate)
        except topping_up.AmountNotOffered as refused:
            raise ValidationError(str(refused)) from refused
        return credit_nanousd


class BillingDetailsForm(_DetailsForm):
    """Company, address and tax id, all optional; browsers may fill them in."""

    class Meta:
        model = BillingDetails
        fields: ClassVar = [*_FILLED_IN_BY_BROWSERS, "tax_id", "receipts_email"]
        widgets: ClassVar = {
            name: forms.TextInput(attrs={"autocomplete": autocomplete})
            for name, autocomplete in _FILLED_IN_BY_BROWSERS.items()
        }


class BudgetForm(forms.Form):
    """A key's own spend limit."""

    limit = USDField(
        label="Limit", min_value=Decimal(0), help_text="In USD. 0 stops all spending of this key."
    )
    period = forms.ChoiceField(label="Period", choices=Budget.Period.choices)


class BalanceAlertForm(forms.Form):
    """When to be told that credit runs low."""

    is_on = forms.BooleanField(label="Send the e-mail", required=False)
    threshold = USDField(label="Below", min_value=Decimal("0.01"), help_text="In USD.")


class GrantForm(forms.Form):
    """Credit that an operator gives. The token makes a form that is sent twice grant once."""

    amount = USDField(label="Amount", min_value=Decimal("0.01"), help_text="In USD, whole cents.")
    reason = forms.CharField(
        label="Reason",
        max_length=200,
        help_text="The account's members read it in their ledger.",
        widget=forms.TextInput(attrs={"class": "vTextField"}),
    )
    last_day = forms.DateField(
        label="Last day",
        required=False,
        help_text="Optional. What is not spent by the end of this day (UTC) expires, with a notice before.",
        widget=forms.DateInput(attrs={"type": "date", "class": "vDateField"}),
    )
    token = forms.UUIDField(widget=forms.HiddenInput)

    def clean_last_day(self) -> dt.date | None:
        day: dt.date | None = self.cleaned_data["last_day"]
        if day is not None and not timezone.now().date() <= day < dt.date.max:
            msg = "Choose today or a later day."
            raise ValidationError(msg)
        return day

    @property
    def expires_at(self) -> dt.datetime | None:
        """When the last day is over, in UTC; None: never. Of a valid form."""
        day: dt.date | None = self.cleaned_data["last_day"]
        return (
            None if day is None else dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), tzinfo=dt.UTC)
        )

"""What people type on the billing pages: amounts of USD, as people write them."""

import datetime as dt
import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.core.exceptions import ValidationError
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html

from accounts.models import Account, Plan
from billing import payment_methods, refunding, topping_up, wording
from billing.budget_alerts import USUAL_PERCENTS
from billing.budgets import Scope
from billing.models import BillingDetails, Budget, SavedPaymentMethod
from billing.providers.provider import PaymentProvider
from catalog.money import nano_from_usd, usd_from_nano
from keys.models import ApiKey

if TYPE_CHECKING:
    _DetailsForm = forms.ModelForm[BillingDetails]
else:  # Django's class takes no type argument at run time.
    _DetailsForm = forms.ModelForm

# Thousands separators only where they can be nothing else: "20,50" is refused, not read as 2050.
_GROUPED = re.compile(r"[0-9]{1,3}(,[0-9]{3})+(\.[0-9]*)?")
# As people write amounts, and as the page of buying reads them while they type: Python's "1_000" and "1e5" are a slip.
_PLAIN = re.compile(r"-?([0-9]+\.?[0-9]*|\.[0-9]+)")
_WHOLE = 100  # percent
_TOO_MUCH = f"Give at most ${topping_up.MOST_USD:,}."


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
            "invalid": "Give an amount in USD, with a point before the cents, like 20 or 12.50.",
            "max_decimal_places": "Choose an amount in whole cents.",
            "max_digits": _TOO_MUCH,
            "max_whole_digits": _TOO_MUCH,
            "max_value": _TOO_MUCH,
            "min_value": "Give $%(limit_value)s or more.",
        }
        super().__init__(
            max_value=topping_up.MOST_USD, max_digits=14, decimal_places=2, error_messages=messages, **kwargs
        )

    def to_python(self, value: Any) -> Decimal | None:  # type: ignore[override]  # the stubs have IntegerField's
        text = str(value or "").strip().removeprefix("$").strip()
        if _GROUPED.fullmatch(text):
            text = text.replace(",", "")
        if text and not _PLAIN.fullmatch(text):
            raise ValidationError(self.error_messages["invalid"], code="invalid")
        return super().to_python(text)

    def clean(self, value: Any) -> Any:
        usd = super().clean(value)
        return None if usd is None else nano_from_usd(usd)


class BuyForm(forms.Form):
    """How much credit, and who takes the money; `seen_total` is the total that the buyer has seen, in cents.

    `token` is of the page that was shown: the same purchase sent twice from one page is one purchase.
    """

    credit = USDField(label="Credit", help_text="What arrives in your wallet, in USD.")
    seen_total = forms.IntegerField(required=False, widget=forms.HiddenInput)
    token = forms.CharField(required=False, max_length=64, widget=forms.HiddenInput)
    provider = forms.ChoiceField(label="Pay with", required=False)
    keep_method = forms.BooleanField(label="Keep this payment method for auto top-up", required=False)

    def __init__(self, *args: Any, plan: Plan, offered: Sequence[PaymentProvider], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.plan = plan
        self.offered = {provider.slug: provider for provider in offered}
        self.quote: topping_up.Quote | None = None
        choice = self.fields["provider"]
        assert isinstance(choice, forms.ChoiceField)  # noqa: S101  # for the types
        choice.choices = [(slug, provider.name) for slug, provider in self.offered.items()]

    @property
    def chosen(self) -> PaymentProvider:
        """The provider that was chosen, or the first."""
        return self.offered.get(self["provider"].value() or "") or next(iter(self.offered.values()))

    @property
    def keeps_method(self) -> bool:
        return bool(self.cleaned_data["keep_method"]) and self.chosen.saves_methods

    @property
    def submission(self) -> str | None:
        """What is the same only for the same purchase from the same page."""
        if not self.cleaned_data["token"] or self.quote is None:
            return None
        purchase = (
            f"{self.quote.credit_nanousd}:{self.quote.total_nanousd}:{self.chosen.slug}:{self.keeps_method}"
        )
        return hashlib.sha256(f"{self.cleaned_data['token']}:{purchase}".encode()).hexdigest()

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
    """What a budget says: its limit, and what happens on the way to it and there."""

    limit = USDField(
        label="Limit",
        min_value=Decimal(0),
        help_text="In USD. 0 stops all spending; the free daily allowance goes on.",
    )
    stops = forms.BooleanField(
        label="Refuse requests that could go beyond it",
        required=False,
        initial=True,
        help_text="They get 402 before they cost anything. Without this, the budget only alerts.",
    )
    alerts = forms.CharField(
        label="E-mail at, in percent",
        required=False,
        max_length=60,
        initial=", ".join(map(str, USUAL_PERCENTS)),
        help_text="Of the limit that is spent, like 50, 80, 100. Empty: no e-mail. Owners and admins get it.",
    )

    def clean_alerts(self) -> list[int]:
        words = self.cleaned_data["alerts"].replace("%", " ").replace(",", " ").split()
        if not all(word.isascii() and word.isdecimal() and 1 <= int(word) <= _WHOLE for word in words):
            raise ValidationError("Give whole percentages from 1 to 100, like 50, 80, 100.")
        return sorted({int(word) for word in words})

    def terms(self) -> dict[str, Any]:
        """What `usage.budgeting.set_budget` takes of it."""
        return {
            "limit_nanousd": self.cleaned_data["limit"],
            "is_hard_stop": self.cleaned_data["stops"],
            "alert_percents": self.cleaned_data["alerts"],
        }


class NewBudgetForm(BudgetForm):
    """A budget, and whose spending it limits: `account`, `environment:staging` or `key:5`. Cleans to a Scope."""

    scope = forms.ChoiceField(label="What it limits")
    period = forms.ChoiceField(
        label="Period",
        choices=Budget.Period.choices,
        initial=Budget.Period.MONTH,
        help_text="Periods begin at 00:00 UTC, weeks on Monday. What was spent in the running one already counts.",
    )
    field_order = ("scope", "limit", "period", "stops", "alerts")

    def __init__(self, *args: Any, account: Account, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._account_id = account.pk
        keys = (
            ApiKey.objects.filter(account=account)
            .exclude(status=ApiKey.Status.REVOKED)
            .order_by("name", "pk")
        )
        choices = [
            ("account", "The whole account"),
            *((f"environment:{value}", f"{label} keys") for value, label in ApiKey.Environment.choices),
            *((f"key:{key.pk}", f"Key {key.name}") for key in keys),
        ]
        self.fields["scope"].choices = choices  # type: ignore[attr-defined]  # it is a ChoiceField

    def clean_scope(self) -> Scope:
        kind, _, of = self.cleaned_data["scope"].partition(":")
        if kind == "key":
            return Scope(self._account_id, key_id=int(of))
        return Scope(self._account_id, environment=of)

    def clean(self) -> dict[str, Any]:
        cleaned = self.cleaned_data
        if {"scope", "period"} <= cleaned.keys() and (
            there := Budget.objects.filter(**asdict(cleaned["scope"]), period=cleaned["period"]).first()
        ):
            link = format_html(
                'There is a budget for this period already: <a href="{}">change that one</a>.',
                reverse("budget_change", args=[there.pk]),
            )
            self.add_error("period", link)
        return cleaned


class AutoTopUpForm(forms.Form):
    """Below which credit to buy how much, with what, and how much a month may cost.

    `agreed_total` is what each purchase charges, in cents, as whoever agrees has seen it.
    """

    threshold = USDField(
        label="When available credit falls below",
        min_value=Decimal("0.01"),
        help_text="In USD. What running requests hold is not available.",
    )
    amount = USDField(label="Buy this much credit", help_text="In USD. The fee comes on top.")
    monthly_cap = USDField(
        label="Charge at most, in a month",
        help_text="In USD, with the fees, for automatic purchases alone. Months begin on the 1st, 00:00 UTC.",
    )
    agreed_total = forms.IntegerField(required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, account: Account, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.plan = account.plan
        self.quote: topping_up.Quote | None = None
        usable = [method.pk for method in payment_methods.usable(account=account)]
        self.fields["method"] = forms.ModelChoiceField(
            label="Payment method",
            queryset=SavedPaymentMethod.objects.filter(pk__in=usable).order_by("-is_default", "-pk"),
            empty_label=None,
            error_messages={"invalid_choice": "This payment method cannot be charged any more."},
        )

    def clean_amount(self) -> int:
        amount_nanousd: int = self.cleaned_data["amount"]
        try:
            self.quote = topping_up.quote(credit_nanousd=amount_nanousd, fee_rate=self.plan.topup_fee_rate)
        except topping_up.AmountNotOffered as refused:
            raise ValidationError(str(refused)) from refused
        return amount_nanousd

    def clean(self) -> None:
        cap_nanousd = self.cleaned_data.get("monthly_cap")
        if cap_nanousd is not None and self.quote is not None and cap_nanousd < self.quote.total_nanousd:
            total = usd_from_nano(self.quote.total_nanousd)
            self.add_error("monthly_cap", f"Each purchase charges ${total:,.2f}; the month must allow one.")


class BalanceAlertForm(forms.Form):
    """When to be told that credit runs low."""

    is_on = forms.BooleanField(label="Send the e-mail", required=False)
    threshold = USDField(label="Below", min_value=Decimal("0.01"), help_text="In USD.")


def _reason() -> forms.CharField:
    return forms.CharField(
        label="Reason",
        max_length=200,
        help_text="The account's members read it.",
        error_messages={"required": "Give a reason."},
        widget=forms.TextInput(attrs={"class": "vTextField"}),
    )


class GrantForm(forms.Form):
    """Credit that an operator gives. The token makes a form that is sent twice grant once."""

    amount = USDField(label="Amount", min_value=Decimal("0.01"), help_text="In USD, whole cents.")
    reason = _reason()
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


class ResolveForm(forms.Form):
    """What becomes of a payment that fits no top-up: credited to an account, or closed with a note alone."""

    account = forms.IntegerField(
        label="Account",
        required=False,
        min_value=1,
        help_text="The number of the account that gets the credit. Empty: it is closed, and no money moves here.",
    )
    note = forms.CharField(
        label="Note",
        max_length=300,
        help_text="Why. Operators read it, and the audit log of the account keeps it.",
        widget=forms.TextInput(attrs={"class": "vTextField"}),
    )

    def clean_account(self) -> Account | None:
        number = self.cleaned_data["account"]
        if number is None:
            return None
        account = Account.objects.filter(pk=number).first() if number < 2**63 else None
        if account is None:
            msg = "There is no account of this number."
            raise ValidationError(msg)
        return account


class CloseEventForm(forms.Form):
    """Why an event of a payment company is never acted on."""

    note = forms.CharField(
        label="Note",
        max_length=300,
        help_text="Why, and how it was settled. It is kept with the event, and in the audit log of the account.",
        widget=forms.TextInput(attrs={"class": "vTextField"}),
    )


class LedgerFilterForm(forms.Form):
    """Which movements of the ledger are shown. A kind that does not exist shows all of them."""

    kind = forms.ChoiceField(choices=[("", "Everything"), *wording.KINDS], required=False, label="Show")

    def __init__(self, data: Any) -> None:
        super().__init__(data)
        self.fields["kind"].widget.attrs["class"] = "form-select"

    @property
    def chosen(self) -> str:
        """What was asked for; empty: all kinds."""
        return str(self.cleaned_data["kind"]) if self.is_valid() else ""


class TakeForm(forms.Form):
    """Credit that an operator takes. The token makes a form that is sent twice take once."""

    amount = USDField(label="Amount", min_value=Decimal("0.01"), help_text="In USD, whole cents.")
    reason = _reason()
    token = forms.UUIDField(widget=forms.HiddenInput)


class RefundForm(forms.Form):
    """What of a top-up's credit goes back. The token makes a form that is sent twice give back once."""

    credit = USDField(
        label="Credit",
        min_value=Decimal("0.01"),
        help_text="In USD, whole cents. The share of the fee is added.",
    )
    reason = _reason()
    token = forms.UUIDField(widget=forms.HiddenInput)

    def __init__(self, *args: Any, possible: refunding.Refundable, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.possible = possible

    def clean_credit(self) -> int:
        credit_nanousd: int = self.cleaned_data["credit"]
        if credit_nanousd > self.possible.credit_nanousd:
            msg = f"At most ${usd_from_nano(self.possible.credit_nanousd):,.2f}. {self.possible.because}"
            raise ValidationError(msg)
        return credit_nanousd

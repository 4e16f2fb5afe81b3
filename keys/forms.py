"""The forms of a key's policy. What is allowed is decided by `keys.policies`; these read what people type."""

import datetime as dt
import re
from typing import Any, cast

from django import forms
from django.core.exceptions import ValidationError
from django.utils.html import format_html
from django.utils.safestring import SafeString

from accounts.models import Account, User
from catalog.models import Model
from keys.models import ApiKey
from keys.policies import ENDPOINTS, PolicyChange

_MOMENT = "%Y-%m-%dT%H:%M"
_ADVANCED = (
    "allowed_models",
    "allowed_endpoints",
    "allowed_networks",
    "requests_per_minute",
    "tokens_per_minute",
)


class PolicyForm(forms.Form):
    """What a key is called and what it may do. `at` is the moment of the request."""

    name = forms.CharField(
        max_length=80,
        help_text="What uses it: “checkout service”, “Ada's laptop”.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    purpose = forms.CharField(
        max_length=300, required=False, help_text="For whoever wonders, in a year, whether it can go."
    )
    owner = forms.ModelChoiceField(
        queryset=User.objects.none(),
        required=False,
        empty_label="Nobody in particular",
        help_text="Whom to ask about it. It does not change what the key may do.",
    )
    expires_at = forms.DateTimeField(
        label="Expires (UTC)",
        required=False,
        widget=forms.DateTimeInput(format=_MOMENT, attrs={"type": "datetime-local"}),
        help_text="From this moment it is refused. Leave it empty for a key that does not expire.",
    )
    allowed_models = forms.MultipleChoiceField(
        label="Models",
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="Choose none to allow every model of the plan.",
    )
    allowed_endpoints = forms.MultipleChoiceField(
        label="Endpoints",
        required=False,
        choices=[(endpoint, f"/v1/{endpoint}") for endpoint in ENDPOINTS],
        widget=forms.CheckboxSelectMultiple,
        help_text="Choose none to allow every endpoint.",
    )
    allowed_networks = forms.CharField(
        label="Networks",
        required=False,
        widget=forms.Textarea(attrs={"rows": 3, "placeholder": "203.0.113.0/24", "spellcheck": "false"}),
        help_text="One address or CIDR block a line. Leave it empty to allow calls from anywhere.",
    )
    requests_per_minute = forms.IntegerField(label="Requests a minute", required=False, min_value=1)
    tokens_per_minute = forms.IntegerField(label="Tokens a minute", required=False, min_value=1)

    def __init__(
        self, *args: Any, account: Account, at: dt.datetime, key: ApiKey | None = None, **kwargs: Any
    ) -> None:
        if key is not None:
            kwargs["initial"] = _initial(key)
        super().__init__(*args, **kwargs)
        self.at = at
        owner = cast("forms.ModelChoiceField[User]", self.fields["owner"])
        owner.queryset = User.objects.filter(memberships__account=account).order_by("email")
        models = cast("forms.MultipleChoiceField", self.fields["allowed_models"])
        models.choices = _model_choices(() if key is None else key.allowed_models)
        for name, of_plan in (
            ("requests_per_minute", account.plan.requests_per_minute),
            ("tokens_per_minute", account.plan.tokens_per_minute),
        ):
            self.fields[name].help_text = _limit_help(of_plan)
        for field in self.fields.values():
            _dress(field.widget)

    def clean_allowed_networks(self) -> list[str]:
        """One network a line; commas and spaces part them as well."""
        return [text for text in re.split(r"[\s,;]+", self.cleaned_data["allowed_networks"]) if text]

    def clean_expires_at(self) -> dt.datetime | None:
        expires_at: dt.datetime | None = self.cleaned_data["expires_at"]
        if expires_at is not None and expires_at <= self.at and "expires_at" in self.changed_data:
            msg = "This moment has passed. Choose a later one; to stop a key now, disable or revoke it."
            raise ValidationError(msg)
        return expires_at

    def add_error(self, field: str | None, error: Any) -> None:
        super().add_error(field, error)
        for name in self.errors.keys() & self.fields.keys():
            widget = self.fields[name].widget
            if "is-invalid" not in widget.attrs["class"]:
                widget.attrs["class"] += " is-invalid"

    def policy(self) -> PolicyChange:
        """What was typed, as the domain functions take it."""
        names = PolicyChange.__annotations__
        return cast("PolicyChange", {name: self.cleaned_data[name] for name in names})

    def changes(self) -> PolicyChange:
        """As `policy`, but only what differs from what the form showed at first."""
        return cast("PolicyChange", {name: self.cleaned_data[name] for name in self.changed_data})

    @property
    def is_advanced(self) -> bool:
        """Whether the part that is folded away has something to show: a value or an error."""
        return any(self[name].value() or name in self.errors for name in _ADVANCED)


class CreateForm(PolicyForm):
    """A policy, and the environment, which a key keeps for life: its secrets carry it in their prefix."""

    environment = forms.ChoiceField(
        choices=ApiKey.Environment.choices,
        initial=ApiKey.Environment.DEVELOPMENT,
        widget=forms.RadioSelect(attrs={"class": "form-selectgroup-input"}),
    )


class RotateForm(forms.Form):
    """How long the earlier secret stays good beside the new one."""

    OVERLAPS = (
        ("0", "At once"),
        ("3600", "After 1 hour"),
        ("86400", "After 24 hours"),
        ("604800", "After 7 days"),
    )

    overlap = forms.ChoiceField(
        label="The old secret stops working",
        choices=OVERLAPS,
        initial="0",
        widget=forms.RadioSelect(attrs={"class": "form-check-input"}),
    )

    def overlap_chosen(self) -> dt.timedelta:
        return dt.timedelta(seconds=int(self.cleaned_data["overlap"]))


def _initial(key: ApiKey) -> dict[str, Any]:
    return {
        "name": key.name,
        "purpose": key.purpose,
        "owner": key.owner_id,
        # The input has no seconds: with them, every save would look like a change of the expiry.
        "expires_at": key.expires_at and key.expires_at.replace(second=0, microsecond=0),
        "allowed_models": key.allowed_models,
        "allowed_endpoints": key.allowed_endpoints,
        "allowed_networks": "\n".join(key.allowed_networks),
        "requests_per_minute": key.requests_per_minute,
        "tokens_per_minute": key.tokens_per_minute,
    }


def _model_choices(kept: list[str] | tuple[str, ...]) -> list[tuple[str, SafeString]]:
    """The catalog, the basic tier first, and what the key lists beside it: unlisting it must be a choice."""
    tiers = dict(Model.objects.filter(is_enabled=True).order_by("tier", "slug").values_list("slug", "tier"))
    listed = [
        (slug, format_html('{} <span class="text-secondary">{}</span>', slug, tier))
        for slug, tier in tiers.items()
    ]
    gone = [
        (slug, format_html('{} <span class="text-secondary">not in the catalog now</span>', slug))
        for slug in kept
        if slug not in tiers
    ]
    return listed + gone


def _limit_help(of_plan: int | None) -> str:
    if of_plan is None:
        return "Leave it empty for no limit: your plan sets none."
    return f"Leave it empty for your plan's {of_plan:,}. A higher number changes nothing."


def _dress(widget: forms.Widget) -> None:
    if isinstance(widget, forms.CheckboxSelectMultiple):
        dress = "form-check-input"
    elif isinstance(widget, forms.Select):
        dress = "form-select"
    else:
        dress = "form-control"
    widget.attrs.setdefault("class", dress)

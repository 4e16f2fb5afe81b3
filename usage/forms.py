"""What the usage pages are asked for, by their query strings."""

import datetime as dt
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlencode

from django import forms

from accounts.models import Account
from catalog.models import Model
from keys.models import ApiKey
from usage import request_log
from usage.live import Filters
from usage.models import UsageRecord
from usage.queries import Dimension, Metric, Step

RANGES = [("today", "Today"), ("7d", "7 days"), ("30d", "30 days"), ("custom", "Custom dates")]
DIMENSIONS = [("model", "Model"), ("key", "Key"), ("environment", "Environment"), ("outcome", "Status")]
STEPS = [("day", "By day"), ("hour", "By hour")]
METRICS = [("charged", "Spend"), ("cost", "List price"), ("tokens", "Tokens"), ("requests", "Requests")]
# 31 days of hours are as many bars as a screen can tell apart.
_MOST_HOURLY_DAYS = 31
_MOST_DAYS = 366
_HOUR_FORMAT = "%Y-%m-%dT%H:%M"
_DAYS = {"today": 1, "7d": 7, "30d": 30}


@dataclass(frozen=True, slots=True)
class Selection:
    """What the usage page shows: a range of UTC hours, and how it is cut."""

    range: str
    start: dt.datetime
    end: dt.datetime
    by: Dimension
    step: Step
    metric: Metric | None
    filters: Filters

    @property
    def last_day(self) -> dt.date:
        return (self.end - dt.timedelta(days=1)).date()


class SelectionForm(forms.Form):
    """The controls over the chart. Each may be absent; what is wrong is said, and the last 7 days are shown."""

    range = forms.ChoiceField(choices=RANGES, required=False, label="Range")
    start = forms.DateField(required=False, label="From")
    end = forms.DateField(required=False, label="To")
    by = forms.ChoiceField(choices=DIMENSIONS, required=False, label="Stacked by")
    step = forms.ChoiceField(choices=[("", "Automatic"), *STEPS], required=False, label="Bars")
    metric = forms.ChoiceField(choices=[("", "Automatic"), *METRICS], required=False, label="Measure")
    key = forms.ModelChoiceField(ApiKey.objects.none(), required=False, empty_label="All keys", label="Key")
    model = forms.ModelChoiceField(
        Model.objects.all(), required=False, empty_label="All models", to_field_name="slug", label="Model"
    )

    def __init__(self, data: Any, *, account: Account) -> None:
        super().__init__(data)
        cast("forms.ModelChoiceField[ApiKey]", self.fields["key"]).queryset = account.api_keys.all()
        _style(self)

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if cleaned.get("range") == "custom":
            start, end = cleaned.get("start"), cleaned.get("end")
            if start is None or end is None:
                if not self.errors:
                    self.add_error("start" if start is None else "end", "Give both dates.")
            elif end < start:
                self.add_error("end", "The range ends before it starts.")
            elif (end - start).days >= _MOST_DAYS:
                self.add_error("end", f"At most {_MOST_DAYS} days.")
        return cleaned

    def selection(self, *, at: dt.datetime) -> Selection:
        """What was asked for, in whole UTC days; where it is wrong, the last 7 days."""
        asked = self.cleaned_data if self.is_valid() else {}
        today = at.astimezone(dt.UTC).date()
        if asked.get("range") == "custom":
            first, last = asked["start"], asked["end"]
        else:
            last = today
            first = today - dt.timedelta(days=_DAYS[asked.get("range") or "7d"] - 1)
        days = (last - first).days + 1
        step = asked.get("step") or ("hour" if days == 1 else "day")
        key, model = asked.get("key"), asked.get("model")
        return Selection(
            range=asked.get("range") or "7d",
            start=dt.datetime.combine(first, dt.time(), dt.UTC),
            end=dt.datetime.combine(last + dt.timedelta(days=1), dt.time(), dt.UTC),
            by=cast("Dimension", asked.get("by") or "model"),
            step="hour" if step == "hour" and days <= _MOST_HOURLY_DAYS else "day",
            metric=cast("Metric | None", asked.get("metric") or None),
            filters={"key_id": key.pk if key else None, "model_id": model.pk if model else None},
        )

    def query(self, **changes: str) -> str:
        """The query string of the same selection with these changes, for links."""
        asked = {name: value for name, value in self.data.items() if name in self.fields and value}
        return urlencode({**asked, **changes})


class RequestFilterForm(forms.Form):
    """The filters of the request log. A value that does not exist filters nothing and is said to be wrong."""

    key = forms.ModelChoiceField(ApiKey.objects.none(), required=False, empty_label="All keys", label="Key")
    model = forms.ModelChoiceField(
        Model.objects.all(), required=False, empty_label="All models", to_field_name="slug", label="Model"
    )
    outcome = forms.ChoiceField(
        choices=[("", "All outcomes"), *UsageRecord.Outcome.choices], required=False, label="Outcome"
    )
    status = forms.IntegerField(required=False, min_value=100, max_value=599, label="HTTP status")
    hour = forms.DateTimeField(
        required=False,
        input_formats=[_HOUR_FORMAT],
        widget=forms.DateTimeInput(format=_HOUR_FORMAT, attrs={"type": "datetime-local", "step": 3600}),
        label="Hour (UTC)",
    )

    def __init__(self, data: Any, *, account: Account) -> None:
        super().__init__(data)
        cast("forms.ModelChoiceField[ApiKey]", self.fields["key"]).queryset = account.api_keys.all()
        self.fields["status"].widget.attrs["placeholder"] = "Any"
        _style(self)

    def filters(self) -> dict[str, Any]:
        """Conditions on UsageRecord; those that were not asked for are left out."""
        asked = dict(self.cleaned_data) if self.is_valid() else {}
        hour = asked.pop("hour", None)
        if hour is not None:
            start = hour.replace(minute=0)
            asked |= request_log.within(start=start, end=start + dt.timedelta(hours=1))
        return {name: value for name, value in asked.items() if value not in {None, ""}}

    def query(self, **changes: str) -> str:
        """The query string of the same filters with these changes, for links."""
        asked = {name: value for name, value in self.data.items() if name in self.fields and value}
        return urlencode({**asked, **changes})


def _style(form: forms.Form) -> None:
    for field in form.fields.values():
        is_choice = isinstance(field, forms.ChoiceField)
        field.widget.attrs["class"] = "form-select" if is_choice else "form-control"

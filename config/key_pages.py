"""The list of keys and the page of one: they join a key with what billing and usage know about it."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from django.db.models import Prefetch, Q, QuerySet
from django.http import HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.utils.cache import patch_vary_headers

from accounts.acting import AccountRequest, acting_account_required
from accounts.models import Account
from billing.models import Budget
from keys import examples
from keys.history import history
from keys.models import ApiKey, KeySecret
from keys.standing import Standing, standing, standing_as
from usage import queries
from usage.queries import KeyFacts

PAGE_SIZE = 50
_CHART_DAYS = 30


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key as a line of the list."""

    key: ApiKey
    secret: KeySecret | None
    standing: Standing
    facts: KeyFacts
    budgets: list[Budget]


@dataclass(frozen=True, slots=True)
class KeyFilter:
    """What the list is narrowed to; an unknown value narrows nothing."""

    name: str
    environment: str
    standing: str
    before: int | None

    @classmethod
    def read(cls, query: QueryDict) -> "KeyFilter":
        environment, status = query.get("environment", ""), query.get("status", "")
        before = query.get("before", "")
        return cls(
            name=query.get("q", "").replace("\x00", "").strip(),
            environment=environment if environment in ApiKey.Environment.values else "",
            standing=status if status in Standing.values else "",
            before=int(before) if before.isascii() and before.isdecimal() else None,
        )

    @property
    def is_narrow(self) -> bool:
        return bool(self.name or self.environment or self.standing)

    def apply(self, keys: QuerySet[ApiKey], *, at: dt.datetime) -> QuerySet[ApiKey]:
        if self.name:
            keys = keys.filter(Q(name__icontains=self.name) | Q(purpose__icontains=self.name))
        if self.environment:
            keys = keys.filter(environment=self.environment)
        if self.standing:
            keys = standing_as(keys, wanted=Standing(self.standing), at=at)
        return keys if self.before is None else keys.filter(pk__lt=self.before)

    def address(self, *, before: int | None) -> str:
        """The query string of another page of the same list."""
        named = {"q": self.name, "environment": self.environment, "status": self.standing, "before": before}
        return "?" + urlencode({name: value for name, value in named.items() if value})


@acting_account_required
def key_list(request: AccountRequest) -> HttpResponse:
    """Every key of the account, the newest first; htmx asks for the table alone."""
    at = timezone.now()
    narrowed = KeyFilter.read(request.GET)
    keys = narrowed.apply(_with_secrets(request.account), at=at)
    page = list(keys.select_related("owner")[: PAGE_SIZE + 1])
    rows = _rows(account=request.account, keys=page[:PAGE_SIZE], at=at)
    context = {
        "rows": rows,
        "filter": narrowed,
        "environments": ApiKey.Environment.choices,
        "standings": Standing.choices,
        "newer_href": narrowed.address(before=None) if narrowed.before else "",
        "older_href": narrowed.address(before=rows[-1].key.pk) if len(page) > PAGE_SIZE else "",
        "at": at,
    }
    response = render(request, "keys/_key_table.html" if request.htmx else "keys/key_list.html", context)
    patch_vary_headers(response, ["HX-Request"])
    return response


@acting_account_required
def key_detail(request: AccountRequest, key_id: int) -> HttpResponse:
    """One key: what it may do, what it did, what was done to it, and what can be done."""
    at = timezone.now()
    keys = _with_secrets(request.account).select_related("owner")
    key = get_object_or_404(keys, pk=key_id)
    (row,) = _rows(account=request.account, keys=[key], at=at)
    context = {
        "row": row,
        "key": key,
        "ending_secrets": key.secrets.filter(retires_at__gt=at),
        "series": queries.series(
            account=request.account,
            start=at - dt.timedelta(days=_CHART_DAYS - 1),
            end=at,
            # A plan that spends no credits would show an empty chart of money.
            metric="charged" if request.account.plan.spends_credits else "tokens",
            key_id=key.pk,
        ),
        "chart_days": _CHART_DAYS,
        "records": queries.recent_requests(account=request.account, key=key),
        "history": history(key=key),
        "example_model": examples.example_model(key=key),
    }
    return render(request, "keys/key_detail.html", context)


def _with_secrets(account: Account) -> QuerySet[ApiKey]:
    """The account's keys, each with its budgets, and its one current secret in `current_secrets`."""
    current = KeySecret.objects.filter(retires_at=None)
    return ApiKey.objects.filter(account=account).prefetch_related(
        Prefetch("secrets", queryset=current, to_attr="current_secrets"),
        Prefetch("budgets", queryset=Budget.objects.order_by("limit_nanousd")),
    )


def _rows(*, account: Account, keys: Sequence[ApiKey], at: dt.datetime) -> list[KeyRow]:
    facts = queries.key_facts(account=account, key_ids=[key.pk for key in keys], at=at)
    return [
        KeyRow(
            key=key,
            secret=next(iter(getattr(key, "current_secrets", ())), None),
            standing=standing(key=key, at=at),
            facts=facts[key.pk],
            budgets=list(key.budgets.all()),
        )
        for key in keys
    ]

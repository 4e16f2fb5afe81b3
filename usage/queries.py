"""What pages read about usage: live figures that equal the ledger.

Each is one statement over the hourly sums and the records not yet in them, so it is exact to the nano-dollar
at any instant, whatever the tasks have or have not done.

An hour is a UTC hour and belongs to the requests that started in it. A range is `start <= hour < end`, where
`start` is first moved back to its full hour; an `end` within an hour includes it, as "until now" should.
"""

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass, field
from decimal import Decimal
from operator import attrgetter
from typing import Any, Literal, Unpack

from accounts.models import Account
from keys.models import ApiKey
from usage import live
from usage.live import Filters
from usage.models import Anomaly, DailyAllowance, HourlyUsage, UsageRecord

Dimension = Literal["model", "key", "environment", "outcome"]
Step = Literal["hour", "day"]
Metric = Literal["charged", "cost", "requests", "tokens"]

OTHER = "other"


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over some requests. `requests` counts the completed ones; what went otherwise is counted apart.

    `cost_nanousd` is the list price of what was used, `charged_nanousd` what was taken from credits.
    """

    requests: int = 0
    refused: int = 0
    failed: int = 0
    interrupted: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    cost_nanousd: int = 0
    charged_nanousd: int = 0
    allowance_tokens: int = 0

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    @property
    def all_requests(self) -> int:
        """Whatever became of them: one usage record each."""
        return self.requests + self.not_completed

    @property
    def not_completed(self) -> int:
        return self.refused + self.failed + self.interrupted


@dataclass(frozen=True, slots=True)
class Row:
    """The totals of one model, key, environment or outcome; `ident` is its id or value ("": no model)."""

    ident: str
    label: str
    totals: Totals


@dataclass(slots=True)
class Dataset:
    """One color of a stacked chart: a value per label of its series, in nano-USD, tokens or requests."""

    ident: str
    label: str
    values: list[int] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.values)


@dataclass(frozen=True, slots=True)
class Series:
    """A stacked chart: the starts of its hours or days (UTC), and datasets, the largest first."""

    metric: Metric
    step: Step
    labels: list[dt.datetime]
    datasets: list[Dataset]

    @property
    def is_money(self) -> bool:
        return self.metric in {"charged", "cost"}

    @property
    def total(self) -> int:
        return sum(dataset.total for dataset in self.datasets)

    @property
    def rows(self) -> list[tuple[dt.datetime, list[int], int]]:
        """The same as a table: the start of the period, a value per dataset, and their sum."""
        columns = [dataset.values for dataset in self.datasets]
        lines = [[column[i] for column in columns] for i in range(len(self.labels))]
        return [(label, line, sum(line)) for label, line in zip(self.labels, lines, strict=True)]

    def as_chart(self) -> dict[str, Any]:
        """For `json_script` and static/js/usage-chart.js. Money in USD, rounded to what a chart can show."""
        written = "%Y-%m-%d %H:%M" if self.step == "hour" else "%Y-%m-%d"
        scale = 1e-9 if self.is_money else 1
        return {
            "unit": "usd" if self.is_money else self.metric,
            "step": self.step,
            "labels": [label.strftime(written) for label in self.labels],
            "datasets": [
                {
                    "ident": dataset.ident,
                    "label": dataset.label,
                    "data": [round(value * scale, 9) for value in dataset.values],
                }
                for dataset in self.datasets
            ],
        }


@dataclass(frozen=True, slots=True)
class Report:
    """One reading of usage in three forms, which therefore agree: a chart, a row per model (or key, …), the totals."""

    series: Series
    rows: list[Row]
    totals: Totals


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """When a key was last presented (a refusal counts), and what it took from credits this UTC month."""

    last_used_at: dt.datetime | None
    spent_this_month_nanousd: int


@dataclass(frozen=True, slots=True)
class AllowanceFacts:
    """The daily allowance of an account: drawn, reserved by running requests, and the limits of its plan."""

    requests: int
    requests_limit: int
    tokens: int
    held_tokens: int
    tokens_limit: int
    # Of the tighter limit; 1 is all of it.
    share: Decimal
    resets_at: dt.datetime

    @property
    def percent(self) -> int:
        """Whole percent of the tighter limit, rounded down: 100 only when it is used up."""
        return int(self.share * 100)


_SUMS = """
    COALESCE(sum(requests) FILTER (WHERE outcome = 'completed'), 0)::bigint,
    COALESCE(sum(requests) FILTER (WHERE outcome = 'refused'), 0)::bigint,
    COALESCE(sum(requests) FILTER (WHERE outcome = 'failed'), 0)::bigint,
    COALESCE(sum(requests) FILTER (WHERE outcome = 'interrupted'), 0)::bigint,
    COALESCE(sum(input_tokens), 0)::bigint,
    COALESCE(sum(cached_input_tokens), 0)::bigint,
    COALESCE(sum(output_tokens), 0)::bigint,
    COALESCE(sum(cost_nanousd), 0)::bigint,
    COALESCE(sum(charged_nanousd), 0)::bigint,
    COALESCE(sum(allowance_tokens), 0)::bigint
"""
# What identifies a row, and what it is called.
_DIMENSIONS: dict[Dimension, str] = {
    "model": "COALESCE(model_id::text, ''), COALESCE(model_slug, 'No model')",
    "key": "key_id::text, key_name",
    "environment": "environment, environment",
    "outcome": "outcome, outcome",
}
_ALL_REQUESTS: Callable[[Totals], int] = attrgetter("all_requests")
_MEASURES: dict[Metric, Callable[[Totals], int]] = {
    "charged": attrgetter("charged_nanousd"),
    "cost": attrgetter("cost_nanousd"),
    "tokens": attrgetter("tokens"),
    "requests": attrgetter("requests"),
}
_LABELS: dict[str, str] = {
    str(value): str(label) for value, label in [*ApiKey.Environment.choices, *UsageRecord.Outcome.choices]
}


def totals(*, account: Account, start: dt.datetime, end: dt.datetime, **filters: Unpack[Filters]) -> Totals:
    """The sums over the range."""
    statement = f"{live.USED} SELECT {_SUMS} FROM narrowed"  # noqa: S608 - constants
    (row,) = live.select(statement, live.parameters(account, start, end, filters))
    return Totals(*row)


def breakdown(
    *, account: Account, start: dt.datetime, end: dt.datetime, by: Dimension, **filters: Unpack[Filters]
) -> list[Row]:
    """The sums over the range by model, key, environment or outcome, the dearest first."""
    statement = f"{live.USED} SELECT {_DIMENSIONS[by]}, {_SUMS} FROM narrowed GROUP BY 1, 2"  # noqa: S608 - constants
    found = live.select(statement, live.parameters(account, start, end, filters))
    rows = [Row(ident, _label(by, label), Totals(*sums)) for ident, label, *sums in found]
    return sorted(rows, key=_dearest_first)


def series(
    *,
    account: Account,
    start: dt.datetime,
    end: dt.datetime,
    by: Dimension = "model",
    step: Step = "day",
    metric: Metric | None = "charged",
    most: int = 8,
    **filters: Unpack[Filters],
) -> Series:
    """The chart of `report` alone."""
    return report(
        account=account, start=start, end=end, by=by, step=step, metric=metric, most=most, **filters
    ).series


def report(
    *,
    account: Account,
    start: dt.datetime,
    end: dt.datetime,
    by: Dimension = "model",
    step: Step = "day",
    metric: Metric | None = None,
    most: int = 8,
    **filters: Unpack[Filters],
) -> Report:
    """Everything about the range in one reading. Without a metric: what was charged, or tokens if nothing was.

    Beyond `most` datasets, the smallest become "Other". The chart counts completed requests, as `Totals.requests`
    does, unless it is about what became of them.
    """
    statement = (
        f"{live.USED} SELECT date_trunc(%(step)s, hour, 'UTC'), {_DIMENSIONS[by]}, {_SUMS} "  # noqa: S608 - constants
        "FROM narrowed GROUP BY 1, 2, 3"
    )
    parameters = live.parameters(account, start, end, filters)
    cells = [
        (bucket, ident, _label(by, label), Totals(*sums))
        for bucket, ident, label, *sums in live.select(statement, {**parameters, "step": step})
    ]
    rows: dict[str, Row] = {}
    for _bucket, ident, label, part in cells:
        rows[ident] = Row(ident, label, rows[ident].totals + part if ident in rows else part)
    ordered = sorted(rows.values(), key=_dearest_first)
    whole = sum((row.totals for row in ordered), Totals())
    metric = metric or ("charged" if whole.charged_nanousd else "tokens")
    measure = _ALL_REQUESTS if by == "outcome" and metric == "requests" else _MEASURES[metric]
    labels = _buckets(start=parameters["start"], end=end, step=step)
    index = {label: i for i, label in enumerate(labels)}
    datasets = {row.ident: Dataset(row.ident, row.label, [0] * len(labels)) for row in ordered}
    for bucket, ident, _label_of, part in cells:
        datasets[ident].values[index[bucket]] = measure(part)
    drawn = sorted((d for d in datasets.values() if d.total), key=lambda d: (-d.total, d.label))
    return Report(Series(metric, step, labels, _with_other(drawn, most)), ordered, whole)


def key_facts(*, account: Account, key_ids: Iterable[int], at: dt.datetime) -> dict[int, KeyFacts]:
    """Facts of these keys of the account, by key id; the id of another account's key is left out."""
    month = at.astimezone(dt.UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    # What was spent is summed up once for all keys, as a sum for each may read all that is not rolled up each time. The
    # latest request is looked for at the key or, where that has none, at the next that has one: so there is one way
    # only, along the index by key. "Of this key, by id" may go back through the requests of everybody instead.
    statement = """
        SELECT keys_apikey.id, latest.started_at, COALESCE(spent.charged_nanousd, 0)::bigint
        FROM keys_apikey
        LEFT JOIN LATERAL (
            SELECT key_id, started_at FROM usage_usagerecord
            WHERE key_id >= keys_apikey.id ORDER BY key_id, id DESC LIMIT 1
        ) AS latest ON latest.key_id = keys_apikey.id
        LEFT JOIN (
            SELECT key_id, sum(charged_nanousd) AS charged_nanousd FROM (
                SELECT key_id, charged_nanousd FROM usage_hourlyusage
                WHERE account_id = %(account)s AND key_id = ANY(%(keys)s) AND hour >= %(month)s
                UNION ALL
                SELECT key_id, charged_nanousd FROM usage_usagerecord
                WHERE account_id = %(account)s AND key_id = ANY(%(keys)s) AND NOT is_rolled_up
                  AND started_at >= %(month)s
            ) AS used GROUP BY key_id
        ) AS spent ON spent.key_id = keys_apikey.id
        WHERE keys_apikey.account_id = %(account)s AND keys_apikey.id = ANY(%(keys)s)
    """
    rows = live.select(statement, {"account": account.pk, "month": month, "keys": list(key_ids)})
    return {key_id: KeyFacts(last_used_at, spent) for key_id, last_used_at, spent in rows}


def dearest_key(*, account: Account, start: dt.datetime, end: dt.datetime) -> ApiKey | None:
    """The key that took most from credits in the range; None where nothing was used."""
    rows = breakdown(account=account, start=start, end=end, by="key")
    return ApiKey.objects.get(pk=int(rows[0].ident)) if rows else None


def recent_requests(*, account: Account, key: ApiKey | None = None, limit: int = 20) -> list[UsageRecord]:
    """The latest requests of the account, or of one of its keys, with their keys and models loaded."""
    records = UsageRecord.objects.filter(account=account).select_related("key", "model").order_by("-id")
    if key is not None:
        records = records.filter(key=key)
    return list(records[:limit])


def today_allowance(*, account: Account, at: dt.datetime) -> AllowanceFacts:
    """The allowance of the UTC day of `at`, against the limits of the plan that the account has now."""
    day = at.astimezone(dt.UTC).date()
    drawn = DailyAllowance.objects.filter(account=account, day=day).first() or DailyAllowance()
    plan = account.plan
    return AllowanceFacts(
        requests=drawn.requests,
        requests_limit=plan.requests_per_day,
        tokens=drawn.tokens,
        held_tokens=drawn.held_tokens,
        tokens_limit=plan.tokens_per_day,
        share=max(_share(drawn.requests, plan.requests_per_day), _share(drawn.tokens, plan.tokens_per_day)),
        resets_at=dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), dt.UTC),
    )


def open_anomalies(*, account: Account) -> list[Anomaly]:
    """The alerts that nobody has acknowledged, the newest first, with their keys and models loaded."""
    return list(Anomaly.objects.filter(account=account, acknowledged_at=None).select_related("key", "model"))


def has_called(*, account: Account) -> bool:
    """Whether a request of the account was ever completed. A page polls this, so it reads little."""
    completed = UsageRecord.Outcome.COMPLETED
    return (
        UsageRecord.objects.filter(account=account, is_rolled_up=False, outcome=completed).exists()
        or HourlyUsage.objects.filter(account=account, outcome=completed).exists()
    )


def _dearest_first(row: Row) -> tuple[int, int, int, str]:
    return (-row.totals.charged_nanousd, -row.totals.cost_nanousd, -row.totals.all_requests, row.label)


def _label(by: Dimension, label: str) -> str:
    return _LABELS.get(label, label) if by in {"environment", "outcome"} else label


def _buckets(*, start: dt.datetime, end: dt.datetime, step: Step) -> list[dt.datetime]:
    """The starts of all hours or days that touch the range, empty ones too, so that a gap shows as one."""
    width = dt.timedelta(hours=1) if step == "hour" else dt.timedelta(days=1)
    bucket = start if step == "hour" else start.replace(hour=0)
    starts = []
    while bucket < end:
        starts.append(bucket)
        bucket += width
    return starts


def _with_other(ordered: list[Dataset], most: int) -> list[Dataset]:
    if len(ordered) <= most:
        return ordered
    kept, rest = ordered[: most - 1], ordered[most - 1 :]
    summed = [sum(values) for values in zip(*(dataset.values for dataset in rest), strict=True)]
    return [*kept, Dataset(OTHER, f"Other ({len(rest)})", summed)]


def _share(used: int, limit: int) -> Decimal:
    return (Decimal(used) / limit) if limit else Decimal(0)

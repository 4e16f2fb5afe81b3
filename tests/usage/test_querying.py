"""What pages read equals the records, the wallet and the ledger at every instant."""

import datetime as dt
import random
from collections.abc import Callable
from decimal import Decimal

import pytest
from django.db.models import Sum
from pytest_django import DjangoAssertNumQueries

from accounts.models import Account, Plan
from billing.models import Wallet
from tests import factories
from tests.usage.rows import assert_wallet_is_ledger_less_unposted, ledger_balance, make_record, unposted
from usage import posting, queries, rollups
from usage.models import Anomaly, DailyAllowance, UsageRecord
from usage.queries import Dimension, Metric, Step

START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
END = START + dt.timedelta(days=4)
CREDIT_NANOUSD = 5_000_000_000


@pytest.fixture
def account(db: None) -> Account:
    return factories.make_account(credit="5")


def scatter(account: Account, *, count: int = 60, seed: int = 7) -> None:
    """Random records of three keys and three models over the four days, some refused, some free."""
    chance = random.Random(seed)  # noqa: S311 - the same every time
    environments = ("production", "staging", "production")
    keys = [factories.make_key(account, environment=environment).key for environment in environments]
    models = [factories.make_model(f"m{seed}-{i}") for i in range(3)]
    for _ in range(count):
        outcome = chance.choice(["completed"] * 5 + ["refused", "failed", "interrupted"])
        is_refused = outcome == "refused"
        cost = 0 if is_refused else chance.randrange(1, 9_999_999)
        is_free = chance.random() < 0.2
        make_record(
            account=account,
            key=chance.choice(keys),
            model=None if is_refused else chance.choice(models),
            at=START + dt.timedelta(seconds=chance.randrange(4 * 86_400)),
            outcome=outcome,
            input_tokens=0 if is_refused else chance.randrange(500),
            output_tokens=0 if is_refused else chance.randrange(500),
            cost_nanousd=cost,
            charged_nanousd=0 if is_free else cost,
            allowance_tokens=chance.randrange(1000) if is_free else 0,
        )


def expected(account: Account) -> queries.Totals:
    """The totals by the records alone."""
    records = UsageRecord.objects.filter(account=account)
    columns = ("input_tokens", "cached_input_tokens", "output_tokens")
    money = ("cost_nanousd", "charged_nanousd", "allowance_tokens")
    sums = records.aggregate(**{name: Sum(name) for name in columns + money})
    counts = {outcome: records.filter(outcome=outcome).count() for outcome in UsageRecord.Outcome.values}
    return queries.Totals(
        requests=counts["completed"],
        refused=counts["refused"],
        failed=counts["failed"],
        interrupted=counts["interrupted"],
        **sums,
    )


def test_figures_equal_records_wallet_and_ledger_however_far_the_tasks_have_come(account: Account) -> None:
    scatter(account)
    scatter(factories.make_account(credit="5"), seed=8)
    whole = expected(account)
    stages: list[Callable[[], object]] = [
        lambda: None,
        lambda: rollups.roll_up(at=factories.now(), batch=17),
        lambda: posting.post_hours(at=START + dt.timedelta(days=2)),
        lambda: rollups.roll_up(at=factories.now(), batch=50),
        lambda: posting.post_hours(at=START + dt.timedelta(days=3)),
        lambda: rollups.roll_up(at=factories.now()),
        lambda: posting.post_hours(at=END),
    ]
    for stage in stages:
        stage()
        assert queries.totals(account=account, start=START, end=END) == whole
        assert_wallet_is_ledger_less_unposted(account)
        wallet = Wallet.objects.get(account=account)
        assert whole.charged_nanousd == CREDIT_NANOUSD - wallet.balance_nanousd
        for by in ("model", "key", "environment", "outcome"):
            check_dimension(account, by=by, whole=whole)
    assert unposted(account) == 0
    assert whole.charged_nanousd == CREDIT_NANOUSD - ledger_balance(account)


def check_dimension(account: Account, *, by: Dimension, whole: queries.Totals) -> None:
    rows = queries.breakdown(account=account, start=START, end=END, by=by)
    assert sum((row.totals for row in rows), queries.Totals()) == whole
    steps: tuple[Step, ...] = ("hour", "day")
    for step in steps:
        report = queries.report(account=account, start=START, end=END, by=by, step=step)
        assert report.rows == rows
        assert report.totals == whole
        assert report.series.metric == "charged"
        assert report.series.total == whole.charged_nanousd
        assert sum(total for _label, _values, total in report.series.rows) == whole.charged_nanousd
        assert len(report.series.labels) == (96 if step == "hour" else 4)


@pytest.mark.parametrize(
    ("metric", "by", "name"),
    [
        ("cost", "model", "cost_nanousd"),
        ("tokens", "model", "tokens"),
        ("requests", "key", "requests"),
        ("requests", "outcome", "all_requests"),
    ],
)
def test_a_chart_sums_to_its_figure(account: Account, metric: Metric, by: Dimension, name: str) -> None:
    scatter(account)
    rollups.roll_up(at=factories.now(), batch=20)
    series = queries.series(account=account, start=START, end=END, by=by, metric=metric, most=2)
    assert series.total == getattr(expected(account), name)
    assert len(series.datasets) <= 2


def test_a_filter_narrows_every_figure(account: Account) -> None:
    scatter(account)
    rollups.roll_up(at=factories.now(), batch=20)
    for by in ("key", "model", "environment", "outcome"):
        for row in queries.breakdown(account=account, start=START, end=END, by=by):
            if not row.ident:
                continue
            value = int(row.ident) if by in {"key", "model"} else row.ident
            name = f"{by}_id" if by in {"key", "model"} else by
            narrowed = queries.totals(account=account, start=START, end=END, **{name: value})  # type: ignore[arg-type]
            assert narrowed == row.totals


def test_a_filter_that_does_not_exist_is_an_error_and_not_everything(account: Account) -> None:
    with pytest.raises(TypeError, match="kye_id"):
        queries.totals(account=account, start=START, end=END, kye_id=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("is_rolled_up", [False, True])
def test_a_range_is_whole_hours_from_start_to_before_end(account: Account, is_rolled_up: bool) -> None:
    key, model = factories.make_key(account).key, factories.make_model()
    for minutes in (-1, 0, 59, 60, 119, 120):
        make_record(account=account, key=key, model=model, at=START + dt.timedelta(minutes=minutes))
    if is_rolled_up:
        rollups.roll_up(at=factories.now())

    def count(start: int, end: int) -> int:
        minutes = dt.timedelta(minutes=1)
        return queries.totals(
            account=account, start=START + start * minutes, end=START + end * minutes
        ).requests

    assert count(0, 60) == 2
    assert count(0, 120) == 4
    assert count(30, 61) == 4  # the running hour counts until now, the first one from its start
    assert count(0, 0) == 0


def test_a_gap_is_drawn_as_one_and_the_smallest_are_summed_as_other(account: Account) -> None:
    key = factories.make_key(account).key
    for i in range(4):
        at = START + dt.timedelta(days=3 if i == 3 else 0)
        model = factories.make_model(f"m{i}")
        make_record(account=account, key=key, model=model, at=at, cost_nanousd=(i + 1) * 1_000_000)
    series = queries.series(account=account, start=START, end=END, most=3)
    assert [(d.label, d.values) for d in series.datasets] == [
        ("m3", [0, 0, 0, 4_000_000]),
        ("m2", [3_000_000, 0, 0, 0]),
        ("Other (2)", [3_000_000, 0, 0, 0]),
    ]
    chart = series.as_chart()
    assert chart["labels"] == ["2026-03-01", "2026-03-02", "2026-03-03", "2026-03-04"]
    assert chart["datasets"][0]["data"] == [0, 0, 0, 0.004]
    assert chart["unit"] == "usd"


def test_without_a_metric_tokens_are_drawn_where_nothing_was_charged(account: Account) -> None:
    key, model = factories.make_key(account).key, factories.make_model()
    make_record(account=account, key=key, model=model, at=START, charged_nanousd=0)
    assert queries.report(account=account, start=START, end=END).series.metric == "tokens"


def test_each_figure_is_one_statement(
    account: Account, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    scatter(account, count=5)
    with django_assert_num_queries(4):
        queries.totals(account=account, start=START, end=END)
        queries.breakdown(account=account, start=START, end=END, by="key")
        queries.report(account=account, start=START, end=END)
        queries.key_facts(account=account, key_ids=[1, 2, 3], at=END)


def test_facts_of_keys_are_those_of_the_month_and_of_the_account(account: Account) -> None:
    model = factories.make_model()
    used, unused = factories.make_key(account).key, factories.make_key(account).key
    foreign = factories.make_key().key
    for at in (START - dt.timedelta(seconds=1), START, END):
        make_record(account=account, key=used, model=model, at=at)
        rollups.roll_up(at=factories.now(), batch=1)
    last = make_record(
        account=account,
        key=used,
        model=None,
        at=END + dt.timedelta(hours=1),
        outcome="refused",
    )
    facts = queries.key_facts(account=account, key_ids=[used.pk, unused.pk, foreign.pk], at=END)
    assert facts == {
        used.pk: queries.KeyFacts(last.started_at, 2_000_000),
        unused.pk: queries.KeyFacts(None, 0),
    }


def test_recent_requests_are_the_accounts_own_newest_first(account: Account) -> None:
    model = factories.make_model()
    one, two = factories.make_key(account).key, factories.make_key(account).key
    stranger = factories.make_key().key
    make_record(account=stranger.account, key=stranger, model=model, at=START, charged_nanousd=0)
    records = [
        make_record(account=account, key=key, model=model, at=START + dt.timedelta(seconds=i))
        for i, key in enumerate([one, two, one])
    ]
    assert queries.recent_requests(account=account) == records[::-1]
    assert queries.recent_requests(account=account, key=one, limit=1) == [records[2]]


def test_todays_allowance_is_against_the_plan_of_now(account: Account) -> None:
    at = dt.datetime(2026, 3, 4, 23, 59, 59, tzinfo=dt.UTC)
    assert queries.today_allowance(account=account, at=at) == queries.AllowanceFacts(
        requests=0,
        requests_limit=7_200,
        tokens=0,
        held_tokens=0,
        tokens_limit=200_000,
        share=Decimal(0),
        resets_at=dt.datetime(2026, 3, 5, tzinfo=dt.UTC),
    )
    DailyAllowance.objects.create(account=account, day=at.date(), requests=72, tokens=199_999, held_tokens=1)
    facts = queries.today_allowance(account=account, at=at)
    assert (facts.requests, facts.held_tokens, facts.percent) == (72, 1, 99)
    Plan.objects.filter(pk=account.plan_id).update(tokens_per_day=0)
    account.plan.refresh_from_db()
    assert queries.today_allowance(account=account, at=at).share == Decimal("0.01")


def test_open_anomalies_are_those_nobody_acknowledged(account: Account) -> None:
    amounts = {"expected_nanousd": 1, "threshold_nanousd": 2, "observed_nanousd": 3}
    known = Anomaly.objects.create(account=account, hour=START, **amounts)
    Anomaly.objects.create(account=account, hour=END, acknowledged_at=END, **amounts)
    Anomaly.objects.create(account=factories.make_account(), hour=START, **amounts)
    assert queries.open_anomalies(account=account) == [known]


def test_an_account_has_called_once_a_request_was_completed(account: Account) -> None:
    key, model = factories.make_key(account).key, factories.make_model()
    make_record(account=account, key=key, model=None, at=START, outcome="refused")
    assert not queries.has_called(account=account)
    make_record(account=account, key=key, model=model, at=START)
    assert queries.has_called(account=account)
    rollups.roll_up(at=factories.now())
    assert queries.has_called(account=account)


def test_the_dearest_key_of_a_range_is_found(account: Account) -> None:
    assert queries.dearest_key(account=account, start=START, end=END) is None
    model = factories.make_model()
    cheap, dear = factories.make_key(account).key, factories.make_key(account).key
    make_record(account=account, key=cheap, model=model, at=START)
    make_record(account=account, key=dear, model=model, at=START, cost_nanousd=5_000_000)
    assert queries.dearest_key(account=account, start=START, end=END) == dear

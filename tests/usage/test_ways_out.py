"""What a receipt advises to do, which must be true of what was charged."""

import pytest

from tests.factories import make_account, make_key, make_model, now
from tests.usage.rows import make_record
from usage.models import UsageRecord
from usage.refusals import way_out

pytestmark = pytest.mark.django_db


def ended(code: str, **facts: object) -> UsageRecord:
    account = make_account(credit="1")
    return make_record(
        account=account,
        key=make_key(account).key,
        model=make_model(),
        at=now(),
        **{"outcome": "failed", "error_code": code, **facts},
    )


def advice(record: UsageRecord) -> str:
    way = way_out(record=record)
    assert way is not None
    return way.text


@pytest.mark.parametrize("code", ["upstream_error", "upstream_timeout", "temporarily_unavailable"])
def test_a_failure_is_said_to_be_free_only_where_it_was(code: str) -> None:
    free = {"cost_nanousd": 0}
    drawn = {"charged_nanousd": 0, "allowance_tokens": 120}

    before = advice(ended(code, status=502, **free))
    broken = advice(ended(code, status=200))
    of_the_day = advice(ended(code, status=200, **drawn))

    assert before.startswith("Nothing was charged. Try again")
    assert "Nothing was charged" not in broken + of_the_day
    assert "was charged" in broken
    assert "daily allowance" in of_the_day
    for text in (broken, of_the_day, advice(ended(code, status=200, **free))):
        assert "SDKs do not repeat a stream that has begun" in text


def test_nobody_is_told_to_wait_for_what_no_waiting_gives() -> None:
    assert "wait" not in advice(ended("rate_limit_exceeded", outcome="refused", status=429)).lower()


def test_what_needs_no_advice_gets_none() -> None:
    assert way_out(record=ended("", outcome="completed")) is None

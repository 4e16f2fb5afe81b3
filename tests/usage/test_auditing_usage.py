"""The audit of usage: hours, keys, budgets, allowances and holds against the requests that made them."""

import pytest
from pytest_django import Settings

from billing.models import Hold
from tests import factories
from tests.usage import rows
from tests.usage.audited import AT, Books, found, make_books, of_budget, plant
from usage.models import UsageRecord


@pytest.fixture
def books(db: None, settings: Settings) -> Books:
    return make_books(settings)


def test_hours_that_count_more_as_posted_than_the_ledger_are_found(books: Books) -> None:
    plant("UPDATE usage_hourlyusage SET posted_nanousd = posted_nanousd - 1 WHERE posted_nanousd > 0")
    lines = found()
    assert len(lines) == 2
    assert "its hours count 0.001000004 USD as posted, its ledger has usage of 0.001000005 USD" in lines[1]


def test_a_loss_that_is_not_booked_is_found(books: Books) -> None:
    plant(
        "UPDATE usage_usagerecord SET loss_nanousd = 5, cost_nanousd = 10, output_usd_per_mtok = 0.0005"
        " WHERE loss_nanousd = 4"
    )
    plant("UPDATE usage_hourlyusage SET cost_nanousd = cost_nanousd + 1 WHERE posted_nanousd > 0")
    (line,) = found()
    assert line.endswith(": its ledger has platform losses of 0.000000004 USD, its requests 0.000000005 USD")


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("requests", "requests"),
        ("input_tokens", "input tokens"),
        ("cached_input_tokens", "cached input tokens"),
        ("output_tokens", "output tokens"),
        ("allowance_tokens", "allowance tokens"),
        ("cost_nanousd", "cost"),
        ("charged_nanousd", "charge"),
    ],
)
def test_an_hour_that_is_not_its_requests_is_found(books: Books, column: str, name: str) -> None:
    plant(f"UPDATE usage_hourlyusage SET {column} = {column} + 1 WHERE posted_nanousd > 0")  # noqa: S608
    (line,) = [line for line in found() if "the hour says" in line]
    assert line.startswith(
        f"account {books.account.pk}, key {books.key.pk}, model {books.model.pk}, completed,"
        f" 2026-03-04 13:00 UTC, {name}: the hour says "
    )


def test_requests_that_are_marked_but_in_no_hour_are_found(books: Books) -> None:
    plant("UPDATE usage_usagerecord SET is_rolled_up = true")
    assert any("requests: the hour says nothing, its requests say 1" in line for line in found())


def test_an_hour_without_requests_is_found(books: Books) -> None:
    plant("DELETE FROM usage_usagerecord WHERE outcome = 'refused'")
    assert found()[0] == (
        f"account {books.account.pk}, key {books.key.pk}, model none, refused, 2026-03-04 14:00 UTC, requests:"
        " the hour says 1, its requests say nothing"
    )


def test_usage_of_another_accounts_key_is_found(books: Books) -> None:
    key = factories.make_key(books.other).key
    plant("UPDATE usage_usagerecord SET key_id = %(key)s WHERE NOT is_rolled_up", key=key.pk)
    assert sorted(found()) == sorted(
        [
            f"account {books.account.pk}: its keys were charged 0.002000005 USD, the account 0.003000005 USD",
            f"account {books.other.pk}: its keys were charged 0.001000000 USD, the account nothing",
            of_budget(books, figure="spent", found="0.003000005", expected="0.002000005"),
        ]
    )


def test_a_budget_that_holds_more_than_its_holds_is_found(books: Books) -> None:
    plant("UPDATE billing_budget SET held_nanousd = 299")
    assert found() == [of_budget(books, figure="held", found="0.000000299", expected="0.000000300")]


def test_a_budget_that_has_spent_less_than_its_requests_is_found(books: Books) -> None:
    plant("UPDATE billing_budget SET spent_nanousd = spent_nanousd - 1, previous_spent_nanousd = 7")
    assert found() == [
        of_budget(books, figure="spent", found="0.003000004", expected="0.003000005"),
        of_budget(books, figure="spent", found="0.000000007", expected="0.000000000").replace("-04", "-03"),
    ]


@pytest.mark.parametrize(
    ("statement", "held"),
    [
        ("UPDATE usage_dailyallowance SET held_tokens = 49", "49"),
        ("DELETE FROM usage_dailyallowance", "nothing"),
    ],
)
def test_an_allowance_that_does_not_hold_what_is_reserved_is_found(
    books: Books, statement: str, held: str
) -> None:
    plant(statement)
    assert (
        f"account {books.account.pk} on 2026-03-04: its allowance holds {held} tokens, its open holds are 50"
        in found()
    )


@pytest.mark.parametrize(
    ("statement", "figure", "said", "expected"),
    [
        ("UPDATE usage_dailyallowance SET requests = 0", "requests", "0", "2"),
        ("UPDATE usage_dailyallowance SET requests = 3", "requests", "3", "2"),
        ("UPDATE usage_dailyallowance SET tokens = 0", "tokens", "0", "120"),
    ],
)
def test_an_allowance_that_counts_other_than_its_requests_is_found(
    books: Books, statement: str, figure: str, said: str, expected: str
) -> None:
    plant(statement)
    assert found() == [
        (
            f"the allowance of account {books.account.pk} on 2026-03-04, {figure}: it says {said},"
            f" its requests and open holds of the day say {expected}"
        )
    ]


def test_an_embedding_of_no_tokens_may_have_been_paid_by_the_allowance(books: Books) -> None:
    rows.make_record(
        account=books.account,
        key=books.key,
        model=books.model,
        at=AT,
        endpoint="embeddings",
        input_tokens=0,
        output_tokens=0,
        cost_nanousd=0,
    )
    assert found() == []
    plant("UPDATE usage_dailyallowance SET requests = 3")
    assert found() == []
    plant("UPDATE usage_dailyallowance SET requests = 4")
    assert len(found()) == 1


def test_a_hold_of_a_request_that_has_ended_is_found(books: Books) -> None:
    record = rows.make_record(account=books.account, key=books.key, model=books.model, at=AT)
    plant("UPDATE billing_hold SET request_id = %(record)s WHERE amount_nanousd = 300", record=record.pk)
    assert found() == [
        f"request {record.pk}: it still holds 0.000000300 USD, and was charged 0.001000000 USD already",
        of_budget(books, figure="spent", found="0.003000005", expected="0.004000005"),
    ]


def test_a_hold_of_another_accounts_key_is_found(books: Books) -> None:
    hold = Hold.objects.first()
    assert hold is not None
    plant("UPDATE billing_hold SET key_id = 0 WHERE request_id = %(id)s", id=hold.pk)
    assert f"hold of request {hold.pk}: what it refers to does not exist" in found()


def test_a_record_of_a_model_that_does_not_exist_is_found(books: Books) -> None:
    record = UsageRecord.objects.filter(is_rolled_up=False).first()
    assert record is not None
    plant("UPDATE usage_usagerecord SET model_id = 0 WHERE id = %(id)s", id=record.pk)
    assert f"usage record {record.pk}: what it refers to does not exist" in found()


def test_a_cost_that_is_not_its_tokens_at_its_price_is_found(books: Books) -> None:
    plant("UPDATE usage_usagerecord SET cost_nanousd = cost_nanousd + 1 WHERE NOT is_rolled_up")
    (line,) = found()
    assert line.endswith(
        ", cost: the record says 0.001000001 USD, its tokens at its price say 0.001000000 USD"
    )


def test_a_charge_for_what_the_allowance_paid_is_found(books: Books) -> None:
    plant("UPDATE usage_usagerecord SET allowance_tokens = 1 WHERE NOT is_rolled_up")
    plant("UPDATE usage_dailyallowance SET requests = requests + 1, tokens = tokens + 1")
    (line,) = found()
    assert line.endswith(
        ", charge and loss: the record says 0.001000000 USD, its tokens at its price say 0.000000000 USD"
    )

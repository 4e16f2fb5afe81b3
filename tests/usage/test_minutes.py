"""The minute of a key, counted from what is admitted."""

import datetime as dt

import pytest
from django.db import transaction

from billing import wallets
from tests.concurrency import in_parallel
from tests.factories import now
from tests.usage.desk import Desk
from usage import minutes, opening
from usage.admission import Admission, Admitted, Decision
from usage.minutes import Minute, MinuteExhausted
from usage.models import MinuteGap, UsageRecord

pytestmark = pytest.mark.django_db


def missed(desk: Desk, *, limit: int = 2) -> Admission:
    """A request of which Redis does not know whether it fits."""
    return desk.request(minute=Minute(limit, None, 5), minute_tokens=5)


def decided(desk: Desk, *, limit: int = 2) -> Admission:
    """A request that Redis has counted and found to fit."""
    return desk.request(minute=Minute(limit, None, 5, is_decided=True), minute_tokens=5)


def kinds(decisions: list[Decision]) -> list[type[Decision]]:
    return [type(decision) for decision in decisions]


def test_the_minute_is_counted_from_what_is_admitted_where_redis_cannot_know_it() -> None:
    desk = Desk(credit="1")
    by_requests = [desk.request(minute=minutes.Minute(2, None, 5), minute_tokens=5) for _ in range(3)]

    decisions = desk.admit(*by_requests)

    assert [type(decision) for decision in decisions] == [Admitted, Admitted, minutes.MinuteExhausted]
    desk.end(by_requests[0], input_tokens=30, output_tokens=10)
    # One has ended at 40 tokens, one still runs at its estimate of 5.
    (by_tokens,) = desk.admit(desk.request(minute=minutes.Minute(None, 54, 10), minute_tokens=10))
    (fitting,) = desk.admit(desk.request(minute=minutes.Minute(3, 55, 10), minute_tokens=10))
    assert isinstance(by_tokens, minutes.MinuteExhausted)
    assert (by_tokens.what, by_tokens.state.requests, by_tokens.state.tokens) == ("tokens", 2, 45)
    assert 55_000 <= by_tokens.state.oldest_leaves_ms <= 61_000
    assert isinstance(fitting, Admitted)
    assert fitting.minute is not None
    assert (fitting.minute.requests, fitting.minute.tokens) == (3, 55)


def test_who_only_wants_to_know_is_told_the_same_of_the_minute() -> None:
    desk = Desk(credit="1")
    first, second, refused = (desk.request(minute_tokens=5) for _ in range(3))
    desk.admit(first, second)
    desk.end(first, input_tokens=30, output_tokens=10)
    refused.finished.outcome = UsageRecord.Outcome.REFUSED
    with transaction.atomic():
        opened = opening.open_books(wallets.borrowed_connection(), admissions=(), ended=[refused.finished])
        opened.record(refused.finished)
        opened.write(wallets.borrowed_connection())

    state = minutes.state_of(key_id=desk.key.pk, at=now())

    assert (state.requests, state.tokens) == (2, 45)
    later = now() + dt.timedelta(seconds=62)
    assert minutes.state_of(key_id=desk.key.pk, at=later).requests == 0


def test_what_began_more_than_a_minute_ago_and_what_was_refused_does_not_count() -> None:
    desk = Desk(credit="1")
    old, refused = desk.request(), desk.request()
    old.finished.id = minutes.first_id_since(now() - dt.timedelta(seconds=62))
    desk.admit(old)
    desk.end(old, output_tokens=10)
    with transaction.atomic():
        opened = opening.open_books(wallets.borrowed_connection(), admissions=(), ended=[refused.finished])
        refused.finished.outcome = UsageRecord.Outcome.REFUSED
        opened.record(refused.finished)
        opened.write(wallets.borrowed_connection())

    (decision,) = desk.admit(desk.request(minute=minutes.Minute(1, None, 5)))

    assert isinstance(decision, Admitted)


def test_what_redis_has_missed_counts_for_those_that_it_finds_to_fit() -> None:
    desk = Desk(credit="1")

    assert kinds(desk.admit(missed(desk))) == [Admitted]

    assert minutes.has_gap(key_id=desk.key.pk, at=now() + dt.timedelta(seconds=61))
    assert kinds(desk.admit(decided(desk))) == [Admitted]
    assert kinds(desk.admit(decided(desk))) == [MinuteExhausted]


def test_in_one_batch_too() -> None:
    desk = Desk(credit="1")

    decisions = desk.admit(decided(desk), missed(desk), decided(desk))

    assert kinds(decisions) == [Admitted, Admitted, MinuteExhausted]


def test_what_redis_has_decided_before_it_was_emptied_is_counted_when_it_is_admitted() -> None:
    desk = Desk(credit="1")
    on_its_way = decided(desk, limit=1)

    assert kinds(desk.admit(missed(desk, limit=1))) == [Admitted]

    assert kinds(desk.admit(on_its_way)) == [MinuteExhausted]


def test_redis_is_believed_where_it_has_missed_nothing() -> None:
    desk = Desk(credit="1")
    desk.admit(desk.request())

    assert kinds(desk.admit(decided(desk, limit=1))) == [Admitted]

    assert not MinuteGap.objects.exists()


def test_redis_is_believed_again_when_all_that_it_missed_has_left_the_minute() -> None:
    desk = Desk(credit="1")
    desk.admit(missed(desk))
    MinuteGap.objects.update(ends_at=now())

    assert not minutes.has_gap(key_id=desk.key.pk, at=now())
    assert kinds(desk.admit(decided(desk, limit=1))) == [Admitted]


def test_a_gap_is_made_longer_before_it_is_too_short() -> None:
    desk = Desk(credit="1")
    desk.admit(missed(desk))
    first = MinuteGap.objects.get().ends_at
    desk.admit(missed(desk))
    assert MinuteGap.objects.get().ends_at == first

    MinuteGap.objects.update(ends_at=now() + dt.timedelta(seconds=70))
    desk.admit(missed(desk, limit=3))

    assert MinuteGap.objects.get().ends_at > now() + dt.timedelta(seconds=140)


def test_an_end_that_redis_cannot_be_told_leaves_a_gap() -> None:
    desk = Desk(credit="1")
    request = decided(desk)
    desk.admit(request)
    request.finished.miss()

    desk.end(request, output_tokens=50)

    (too_many,) = desk.admit(desk.request(minute=Minute(None, 54, 5, is_decided=True)))
    assert isinstance(too_many, MinuteExhausted)


def test_a_refused_request_leaves_no_gap() -> None:
    desk = Desk()

    desk.admit(missed(desk), missed(desk, limit=0))

    assert not MinuteGap.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_of_processes_with_and_without_redis_none_admits_beyond_the_limit() -> None:
    desk = Desk(credit="1")
    # Of the twelve Redis has counted six: to it all of them fit.
    asking = [missed(desk, limit=6) if number % 2 else decided(desk, limit=6) for number in range(12)]
    desk.admit(missed(desk, limit=6))

    decisions = in_parallel(lambda number: desk.admit(asking[number])[0], times=12)

    assert kinds(decisions).count(Admitted) == 5

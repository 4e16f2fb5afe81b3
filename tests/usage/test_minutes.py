"""The minute of a key, counted from what is admitted."""

import datetime as dt

import pytest
from django.db import transaction

from billing import wallets
from tests.factories import now
from tests.usage.desk import Desk
from usage import minutes, opening
from usage.admission import Admitted
from usage.models import UsageRecord

pytestmark = pytest.mark.django_db


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

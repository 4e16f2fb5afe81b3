"""The breaker's rules, with a clock that the tests move."""

import datetime as dt

import pytest

from gateway.breaker import Attempt, Breaker, Health

AT = dt.datetime(2026, 6, 1, 12, 0, tzinfo=dt.UTC)


def attempt(breaker: Breaker, now: float) -> Attempt:
    begun = breaker.begin(now)
    assert begun is not None
    return begun


def send(breaker: Breaker, now: float, *, succeeding: int = 0, failing: int = 0) -> None:
    for _ in range(succeeding):
        attempt(breaker, now).succeeded(now)
    for _ in range(failing):
        attempt(breaker, now).failed(now, "it answered 500")


def opened(now: float = 100.0) -> Breaker:
    breaker = Breaker(0.0)
    send(breaker, now, failing=20)
    assert not breaker.allows(now)
    return breaker


def test_half_of_twenty_failures_open_it() -> None:
    breaker = Breaker(0.0)

    send(breaker, 100.0, succeeding=10, failing=9)
    assert breaker.allows(100.0)
    send(breaker, 101.0, failing=1)

    assert not breaker.allows(101.0)
    assert breaker.begin(101.0) is None


@pytest.mark.parametrize(("succeeding", "failing"), [(0, 19), (11, 10), (1000, 999)])
def test_fewer_requests_or_fewer_failures_do_not(succeeding: int, failing: int) -> None:
    breaker = Breaker(0.0)

    send(breaker, 100.0, succeeding=succeeding, failing=failing)

    assert breaker.allows(100.0)


def test_failures_of_half_a_minute_ago_are_forgotten() -> None:
    breaker = Breaker(0.0)

    send(breaker, 100.0, failing=19)
    send(breaker, 130.0, failing=19)

    assert breaker.allows(130.0)
    assert breaker.counted(130.0) == (19, 19)
    assert breaker.counted(159.9) == (19, 19)
    assert breaker.counted(160.0) == (0, 0)


def test_one_probe_is_let_through_after_ten_seconds() -> None:
    breaker = opened(100.0)

    assert breaker.begin(109.9) is None
    assert breaker.wait_s(105.0) == pytest.approx(5.0)
    probe = breaker.begin(110.0)

    assert probe is not None
    assert probe.is_probe
    assert breaker.begin(110.0) is None
    assert breaker.wait_s(110.0) == 1.0


def test_a_probe_that_succeeds_closes_it_and_the_past_is_forgotten() -> None:
    breaker = opened(100.0)

    attempt(breaker, 110.0).succeeded(111.0)

    assert breaker.counted(111.0) == (1, 0)
    send(breaker, 111.0, failing=18)
    assert breaker.allows(111.0)
    assert breaker.wait_s(111.0) == 0.0


def test_a_probe_that_fails_keeps_it_open_for_ten_more_seconds() -> None:
    breaker = opened(100.0)

    attempt(breaker, 110.0).failed(112.0, "the connection failed")

    assert breaker.begin(121.9) is None
    assert attempt(breaker, 122.0).is_probe


def test_a_probe_that_nobody_waited_for_leaves_the_way_to_the_next() -> None:
    breaker = opened(100.0)

    attempt(breaker, 110.0).abandoned()

    assert attempt(breaker, 110.0).is_probe


def test_an_answer_that_was_on_its_way_when_it_opened_does_not_close_it() -> None:
    breaker = Breaker(0.0)
    early = attempt(breaker, 99.0)
    send(breaker, 100.0, failing=20)

    early.succeeded(101.0)
    early.abandoned()

    assert not breaker.allows(101.0)


def test_streams_that_break_half_way_count_as_failures() -> None:
    breaker = Breaker(0.0)

    for _ in range(20):
        begun = attempt(breaker, 100.0)
        begun.succeeded(100.0)
        begun.broke(101.0, "its stream stopped")

    # The tenth of nineteen would have been too few requests.
    assert not breaker.allows(101.0)
    assert breaker.counted(101.0) == (20, 20)


def test_an_operator_is_told_the_state_since_when_and_why() -> None:
    breaker = opened(100.0)

    assert breaker.described(104.0, AT) == {
        "state": "open",
        "requests": 20,
        "failures": 20,
        "since": "2026-06-01T11:59:56+00:00",
        "last_error": "it answered 500",
    }
    assert breaker.described(110.0, AT)["state"] == "half-open"
    attempt(breaker, 110.0).succeeded(110.0)
    assert breaker.described(110.0, AT)["state"] == "closed"


def test_health_knows_each_upstream_by_itself() -> None:
    health = Health()
    for _ in range(20):
        begun = health.begin("acme/a", 100.0)
        assert begun is not None
        begun.failed(100.0, "it answered 500")

    assert not health.allows("acme/a", 101.0)
    assert health.allows("other/a", 101.0)
    assert health.wait_s(["acme/a"], 101.0) == pytest.approx(9.0)
    assert health.wait_s(["acme/a", "other/a"], 101.0) == 0.0
    assert list(health.described(101.0, AT)) == ["acme/a"]


def test_what_is_no_longer_in_the_catalogue_is_forgotten() -> None:
    health = Health()
    health.begin("acme/a", 100.0)
    health.begin("acme/b", 100.0)

    health.keep_only(["acme/b", "acme/c"])

    assert list(health.described(100.0, AT)) == ["acme/b"]

"""What a share of a minute has left, as requests take from it: without Redis."""

from gateway.counted import Counted
from gateway.shares import Share

TOKENS = 10
LIMITS = 1_000, 100_000


def share_of(*, given: int, ends_at: float = 10.0, second: int = 7) -> Share:
    share = Share()
    answer = Counted(*LIMITS, 1 + given, (1 + given) * TOKENS, 60_500, 0, second, "", is_known=True)
    share.learn(answer, given=given, tokens=TOKENS, ends_at=ends_at)
    return share


def test_a_share_serves_what_it_has_room_for_until_its_second_ends() -> None:
    share = share_of(given=2)

    assert share.take(LIMITS, tokens=21, now=9.5) is None
    assert share.take((1_000, None), tokens=TOKENS, now=9.5) is None
    assert share.take(LIMITS, tokens=TOKENS, now=10.0) is None
    first = share.take(LIMITS, tokens=15, now=9.5)
    assert first == Counted(*LIMITS, 2, TOKENS + 15, 60_500, 0, 7, "", is_known=True)
    assert share.take(LIMITS, tokens=TOKENS, now=9.5) is None  # five tokens are left
    assert share.give_back() == (1, 5)
    assert share.give_back() == (0, 0)


def test_a_share_takes_what_requests_of_its_second_used_only_while_that_will_go_back() -> None:
    share = share_of(given=2)

    share.take(LIMITS, tokens=TOKENS, now=9.5)

    assert not share.absorb(requests=0, tokens=-5, now=10.0)
    assert not share.absorb(requests=0, tokens=TOKENS + 1, now=9.5)
    assert not share.absorb(requests=2, tokens=0, now=9.5)
    # More than Redis gave would be kept from others.
    assert not share.absorb(requests=0, tokens=-TOKENS - 1, now=9.5)
    assert share.absorb(requests=0, tokens=5, now=9.5)
    assert share.absorb(requests=0, tokens=-8, now=9.5)
    assert share.give_back() == (1, TOKENS + 3)
    # What was given back cannot be added to: nobody would give it back.
    assert not share.absorb(requests=0, tokens=-5, now=9.5)


def test_tokens_without_a_limit_keep_no_request_from_its_share() -> None:
    unlimited = 1_000, None
    share = Share()
    answer = Counted(*unlimited, 3, 3 * TOKENS, 60_500, 0, 7, "", is_known=True)
    share.learn(answer, given=2, tokens=TOKENS, ends_at=10.0)

    counted = [share.take(unlimited, tokens=15 * TOKENS, now=9.5) for _ in range(2)]

    assert [each and each.tokens for each in counted] == [16 * TOKENS, 31 * TOKENS]
    assert share.give_back() == (0, -28 * TOKENS)


def test_a_process_asks_for_as_many_as_it_has_counted_lately() -> None:
    share = share_of(given=2)
    assert share.wanted(9.5) == 0  # it has counted one
    for _ in range(2):
        share.take(LIMITS, tokens=TOKENS, now=9.5)
    share.learn(Counted(*LIMITS, 4, 40, 60_400, 0, 7, "", is_known=True), given=0, tokens=TOKENS, ends_at=9.9)

    assert share.wanted(9.5) == 4
    assert share.wanted(10.9) == 4  # of the second before
    assert share.wanted(11.0) == 0  # of long ago
    share.is_asked_for = True
    assert share.wanted(9.5) == 0
    assert share.left_s(9.5) == 0.5  # the later of two ends is as certain, and closer


def test_a_new_second_is_counted_anew() -> None:
    share = share_of(given=4)
    for _ in range(4):
        share.take(LIMITS, tokens=TOKENS, now=9.5)
    share.learn(
        Counted(*LIMITS, 6, 60, 60_900, 0, 8, "", is_known=True), given=0, tokens=TOKENS, ends_at=11.0
    )

    assert share.wanted(10.5) == 0
    assert share.left_s(10.5) == 0.5

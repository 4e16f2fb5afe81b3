"""A process counts a busy key's minute by itself for a second, with room that Redis has counted already."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from gateway import windows as windowing
from gateway.counted import Counted
from gateway.errors import Refusal
from gateway.windows import Windows
from keys import authenticating
from keys.authenticating import Credential
from tests.factories import make_key
from tests.gateway.redis_listener import Listener, stored

pytestmark = pytest.mark.django_db

TOKENS = 10


def credential_with(*, requests_per_minute: int, tokens_per_minute: int | None = None) -> Credential:
    found = authenticating.find(secret=make_key().secret)
    assert found is not None
    return replace(found, requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute)


def requests_in(credential: Credential) -> int:
    return int(stored().hget(f"minute:{{{credential.key_id}}}", "R") or 0)


def run(act: Callable[[Callable[[], Awaitable[Windows]]], Awaitable[None]]) -> None:
    """Run it with a maker of windows, each as a process of its own has them, on a Redis that knows the minute."""

    async def go() -> None:
        async with opened() as windows:
            await act(windows)

    asyncio.run(go())


@asynccontextmanager
async def opened() -> AsyncIterator[Callable[[], Awaitable[Windows]]]:
    made: list[Windows] = []

    async def windows() -> Windows:
        made.append(Windows())
        await made[-1].vouch()  # so that it is connected, and has greeted
        stored().set("minute:since", int(time.time()) - 3600)
        return made[-1]

    try:
        yield windows
    finally:
        stored().set("minute:since", int(time.time()) - 3600)
        for each in made:
            await each.close()


async def count(windows: Windows, credential: Credential, *, tokens: int = TOKENS) -> Counted | None:
    """What is counted; None: the request was refused."""
    try:
        return await windows.count(credential, tokens=tokens, fitting=lambda _: "")
    except Refusal:
        return None


async def early_in_a_second() -> None:
    """Return when the Redis's second has just begun, so that what follows is in one."""
    _, microseconds = stored().time()
    await asyncio.sleep(1 - int(microseconds) / 1e6 + 0.005)


def test_a_busy_key_asks_redis_for_few_of_its_requests() -> None:
    credential = credential_with(requests_per_minute=1_000_000)

    async def act(windows: Callable[[], Awaitable[Windows]]) -> None:
        process = await windows()
        await early_in_a_second()
        for _ in range(500):
            assert await count(process, credential)

    with Listener(credential) as listener:
        run(act)

    # 4 one by one, then for 4, 9, 19, 39, ... more; and what is left goes back.
    assert listener.heard <= 20
    assert requests_in(credential) == 500


def test_a_key_that_is_used_now_and_then_asks_for_each() -> None:
    credential = credential_with(requests_per_minute=1_000_000)

    async def act(windows: Callable[[], Awaitable[Windows]]) -> None:
        process = await windows()
        await early_in_a_second()
        for _ in range(4):
            await count(process, credential)

    with Listener(credential) as listener:
        run(act)

    assert listener.heard == 4


def test_requests_and_tokens_are_shown_one_by_one() -> None:
    credential = credential_with(requests_per_minute=10_000, tokens_per_minute=1_000_000)

    async def act(windows: Callable[[], Awaitable[Windows]]) -> None:
        process = await windows()
        shown = [await count(process, credential) for _ in range(50)]
        assert [counted and counted.requests for counted in shown] == list(range(1, 51))
        assert [counted and counted.tokens for counted in shown] == list(range(TOKENS, 51 * TOKENS, TOKENS))
        assert all(counted and 60_000 <= counted.reset_ms <= 61_000 for counted in shown)
        looked = await process.look(credential)
        assert looked is not None
        assert (looked.requests, looked.tokens) == (50, 50 * TOKENS)

    run(act)


def test_what_requests_used_is_shown_to_those_that_come_after_them() -> None:
    credential = credential_with(requests_per_minute=10_000, tokens_per_minute=1_000_000)

    async def act(windows: Callable[[], Awaitable[Windows]]) -> None:
        process = await windows()
        await early_in_a_second()
        for before in range(50):
            counted = await count(process, credential)
            assert counted is not None
            assert counted.tokens == before * 2 + TOKENS
            process.correct(credential, counted, tokens=2 - TOKENS)

    run(act)


def test_what_requests_used_is_told_to_redis_when_the_second_is_over() -> None:
    credential = credential_with(requests_per_minute=1_000_000, tokens_per_minute=10_000_000)

    async def act(windows: Callable[[], Awaitable[Windows]]) -> None:
        process = await windows()
        await early_in_a_second()
        for _ in range(200):
            counted = await count(process, credential)
            assert counted is not None
            await asyncio.sleep(0.001)
            process.correct(credential, counted, tokens=2 - TOKENS)

    with Listener(credential) as listener:
        run(act)

    assert listener.heard <= 60
    assert int(stored().hget(f"minute:{{{credential.key_id}}}", "T") or 0) == 400


def test_processes_together_admit_exactly_what_a_minute_has() -> None:
    credential = credential_with(requests_per_minute=400)

    async def act(windows: Callable[[], Awaitable[Windows]]) -> None:
        processes = [await windows() for _ in range(4)]

        async def ask(times: int) -> int:
            turns = itertools.islice(itertools.cycle(processes), times)
            answers = await asyncio.gather(*[count(process, credential) for process in turns])
            return sum(counted is not None for counted in answers)

        served = 0
        for _ in range(60):
            served += await ask(12)
            assert served <= 400
            await asyncio.sleep(0.01)
        # What lay unused with one process is back after a second.
        await asyncio.sleep(1.1)
        served += await ask(400)
        assert served == 400

    run(act)


def test_tokens_of_a_share_are_counted_before_they_are_used() -> None:
    credential = credential_with(requests_per_minute=1_000_000, tokens_per_minute=20_000)

    async def act(windows: Callable[[], Awaitable[Windows]]) -> None:
        one, other = await windows(), await windows()
        used = 0
        for size in itertools.islice(itertools.cycle((10, 40, 15, 300)), 400):
            for process in (one, other):
                if await count(process, credential, tokens=size):
                    used += size
                    assert used <= 20_000
        # The last one that was refused would have been one of 300 at most.
        await asyncio.sleep(1.1)
        while await count(one, credential, tokens=10):
            used += 10
        assert used == 20_000

    run(act)


def test_what_is_left_goes_back_when_the_second_is_over() -> None:
    credential = credential_with(requests_per_minute=1_000_000)

    async def act(windows: Callable[[], Awaitable[Windows]]) -> None:
        process = await windows()
        await early_in_a_second()
        for _ in range(21):
            await count(process, credential)
        assert requests_in(credential) > 21
        await asyncio.sleep(1.1)
        assert requests_in(credential) == 21

    run(act)


def test_what_is_left_goes_back_when_the_process_ends() -> None:
    credential = credential_with(requests_per_minute=1_000_000)

    async def act(windows: Callable[[], Awaitable[Windows]]) -> None:
        process = await windows()
        await early_in_a_second()
        for _ in range(21):
            await count(process, credential)
        await process.close()
        assert requests_in(credential) == 21

    run(act)


@pytest.mark.parametrize(("limits", "tokens"), [((600, None), TOKENS), ((600, 20_000), 20_000 - 21 * TOKENS)])
def test_who_is_refused_for_what_lies_unused_is_told_to_come_back_when_the_second_is_over(
    limits: tuple[int, int | None], tokens: int
) -> None:
    credential = credential_with(requests_per_minute=limits[0], tokens_per_minute=limits[1])

    async def act(windows: Callable[[], Awaitable[Windows]]) -> None:
        idle, busy = await windows(), await windows()
        await early_in_a_second()
        for _ in range(21):
            await count(idle, credential)
        served = 0
        refusal = None
        while refusal is None:
            try:
                served += bool(await busy.count(credential, tokens=tokens, fitting=lambda _: ""))
            except Refusal as refused:
                refusal = refused
        assert served < 600 - 21
        assert int(dict(refusal.headers)[b"retry-after-ms"]) <= 1_050
        await asyncio.sleep(1.1)
        assert await count(busy, credential, tokens=tokens)

    run(act)


def test_what_one_process_gives_back_is_not_kept_from_others() -> None:
    credential = credential_with(requests_per_minute=1_000_000, tokens_per_minute=1_000_000)

    async def act(windows: Callable[[], Awaitable[Windows]]) -> None:
        one, other = await windows(), await windows()
        await early_in_a_second()
        counted = [await count(one, credential, tokens=2_000) for _ in range(220)]
        for each in counted:
            assert each is not None
            one.correct(credential, each, tokens=50 - 2_000)
        await asyncio.sleep(0.01)
        left = one.shares[credential.key_id]
        assert left.tokens <= 1_000_000 // 32
        served = 0
        while await count(other, credential, tokens=2_000):
            served += 1
        assert served >= (1_000_000 - 220 * 50 - 1_000_000 // 32) // 2_000 - 32

    run(act)


def test_room_is_not_lost_with_who_has_asked_for_it() -> None:
    credential = credential_with(requests_per_minute=1_000_000)

    async def act(windows: Callable[[], Awaitable[Windows]]) -> None:
        process = await windows()
        await early_in_a_second()
        for _ in range(4):
            await count(process, credential)
        asking = asyncio.create_task(count(process, credential))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await process.close()
        # The four, and the one whose answer nobody waited for.
        assert requests_in(credential) == 5

    run(act)


def test_no_room_is_asked_for_soon_after_redis_was_away(monkeypatch: pytest.MonkeyPatch) -> None:
    credential = credential_with(requests_per_minute=1_000_000)

    async def act(windows: Callable[[], Awaitable[Windows]]) -> None:
        process = await windows()
        monkeypatch.setattr(process, "_away_until", time.monotonic() - 1)
        await early_in_a_second()
        for _ in range(20):
            await count(process, credential)
        assert requests_in(credential) == 20

    run(act)


def test_a_changed_limit_is_judged_by_redis_whatever_the_process_has() -> None:
    credential = credential_with(requests_per_minute=1_000_000)
    lowered = replace(credential, requests_per_minute=21)

    async def act(windows: Callable[[], Awaitable[Windows]]) -> None:
        process = await windows()
        await early_in_a_second()
        for _ in range(20):
            await count(process, credential)
        assert await count(process, lowered)
        assert await count(process, lowered) is None

    run(act)


def test_redis_gives_no_share_where_half_of_the_minute_is_used_nor_where_it_does_not_know_the_minute() -> (
    None
):
    used, unknown = (credential_with(requests_per_minute=1_000) for _ in range(2))

    async def act(windows: Callable[[], Awaitable[Windows]]) -> None:
        process = await windows()
        for _ in range(600):
            assert await count(process, used)
        counted = requests_in(used)
        for _ in range(20):
            assert await count(process, used)
        assert requests_in(used) == counted + 20
        stored().set("minute:since", int(time.time()))
        for _ in range(20):
            answer = await count(process, unknown)
            assert answer is not None
            assert not answer.is_known
        assert requests_in(unknown) == 20

    run(act)


def test_keys_whose_second_is_over_are_forgotten_where_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(windowing, "_MOST_SHARES", 1)
    early, late, last = (credential_with(requests_per_minute=1_000) for _ in range(3))

    async def act(windows: Callable[[], Awaitable[Windows]]) -> None:
        process = await windows()
        await early_in_a_second()
        await count(process, early)
        await asyncio.sleep(1.1)
        await count(process, late)
        await count(process, last)
        assert [key.key_id in process.shares for key in (early, late, last)] == [False, True, True]

    run(act)

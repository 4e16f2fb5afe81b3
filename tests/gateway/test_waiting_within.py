"""A limit for what has to wait, and none for what need not."""

import asyncio

import pytest

from gateway.waiting import Certain, within


def test_what_need_not_wait_is_done_at_once() -> None:
    async def answer() -> int:
        return 7

    assert asyncio.run(within(0, answer())) == 7


def test_what_waits_within_the_limit_gets_its_result_and_its_errors() -> None:
    async def wait(error: Exception | None) -> str:
        for _ in range(3):
            await asyncio.sleep(0.001)
        if error is not None:
            raise error
        return "done"

    assert asyncio.run(within(5, wait(None))) == "done"
    with pytest.raises(KeyError):
        asyncio.run(within(5, wait(KeyError("mine"))))


def test_what_waits_too_long_is_cut_and_may_clean_up() -> None:
    seen: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.sleep(5)
        finally:
            seen.append("cleaned up")

    with pytest.raises(TimeoutError):
        asyncio.run(within(0.01, wait()))
    assert seen == ["cleaned up"]


def test_somebody_elses_cancellation_stays_one() -> None:
    async def go() -> None:
        task = asyncio.get_running_loop().create_task(within(5, asyncio.sleep(5)))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(go())


def test_what_makes_something_of_its_cut_keeps_its_result() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            await asyncio.sleep(0.001)
        return "late"

    assert asyncio.run(within(0.01, stubborn())) == "late"


def test_who_waits_for_what_is_certain_hears_that_it_is_to_stop_when_that_has_happened() -> None:
    async def go() -> None:
        certain = Certain(loop=asyncio.get_running_loop())
        waiting = asyncio.create_task(_wait_for(certain))
        await asyncio.sleep(0)

        waiting.cancel()
        await asyncio.sleep(0.01)
        assert not waiting.done()
        certain.set_result(None)

        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert certain.result() is None

    asyncio.run(go())


def test_who_is_told_twice_waits_no_more() -> None:
    async def go() -> None:
        certain = Certain(loop=asyncio.get_running_loop())
        waiting = asyncio.create_task(_wait_for(certain))
        await asyncio.sleep(0)

        waiting.cancel()
        waiting.cancel()

        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert certain.cancelled()

    asyncio.run(go())


async def _wait_for(certain: Certain) -> None:
    await certain

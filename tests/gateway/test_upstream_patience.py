"""Limits without a timer of their own: kept to a tenth of a second, and only while somebody waits."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from gateway.patience import Patience, Wait


def run(act: Callable[[Patience], Coroutine[Any, Any, None]]) -> None:
    async def go() -> None:
        await act(Patience())

    asyncio.run(go())


def test_what_comes_in_time_is_the_result_and_leaves_no_timer() -> None:
    async def act(patience: Patience) -> None:
        assert await patience.within(5, asyncio.sleep(0.01, "here")) == "here"
        await asyncio.sleep(0.15)
        assert patience._timer is None

    run(act)


def test_what_does_not_come_is_given_up() -> None:
    async def act(patience: Patience) -> None:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            await patience.within(0.15, asyncio.sleep(5))
        assert 0.15 <= time.monotonic() - began < 2
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()

    run(act)


def test_somebody_elses_cancellation_stays_one_even_at_the_same_moment() -> None:
    async def act(patience: Patience) -> None:
        task = asyncio.create_task(patience.within(0.05, asyncio.sleep(5)))
        await asyncio.sleep(0.01)
        (wait,) = patience._waits
        wait.is_over = True
        wait.give_up()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        task = asyncio.create_task(patience.within(5, asyncio.sleep(5)))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not patience._waits

    run(act)


def test_rest_does_not_count() -> None:
    async def act(patience: Patience) -> None:
        given_up: list[str] = []
        resting = Wait(0.05, lambda: given_up.append("resting"))
        waiting = Wait(0.05, lambda: given_up.append("waiting"))
        for wait in (resting, waiting):
            wait.begin()
            patience.watch(wait)
        resting.rest()
        await asyncio.sleep(0.3)
        assert given_up == ["waiting"]
        resting.begin()
        await asyncio.sleep(0.3)
        assert given_up == ["waiting", "resting"]

    run(act)

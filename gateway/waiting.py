"""A time limit that costs nothing where there is nothing to wait for.

`asyncio.timeout` takes several microseconds, and a stream of fifty chunks is fifty writes. Nearly every one of them is
done before it comes to waiting at all; only the others need a limit.
"""

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


async def within(seconds: float, coroutine: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result. Raises TimeoutError if it has to wait, and waits longer than this."""
    try:
        waited_for = coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    async with asyncio.timeout(seconds):
        return await _resumed(coroutine, waited_for)


@types.coroutine
def _resumed(coroutine: Coroutine[Any, Any, T], waited_for: Any) -> Generator[Any, Any, T]:
    """The rest of a coroutine that has begun and waits for something."""
    while True:
        try:
            try:
                sent = yield waited_for
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is the coroutine's to handle
                waited_for = coroutine.throw(error)
            else:
                waited_for = coroutine.send(sent)
        except StopIteration as done:
            result: T = done.value
            return result

"""A time limit that costs nothing where there is nothing to wait for.

`asyncio.timeout` takes several microseconds, and a stream of fifty chunks is fifty writes. Nearly every one of them is
done before it comes to waiting at all; only the others need a limit.
"""

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


class Certain(asyncio.Future[None]):
    """What will happen whoever is told to stop. Who waits for it then goes on waiting, and hears of that afterwards.

    Who is told a second time is let go: by then it may not happen any more.
    """

    is_certain = True

    def cancel(self, msg: Any | None = None) -> bool:
        """Not the first time."""
        was_certain, self.is_certain = self.is_certain, False
        return False if was_certain else super().cancel(msg)


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

"""What becomes of a batch, told to those who wait for it and kept where it was not booked."""

import asyncio
from collections.abc import Callable

from gateway.arrears import Arrears
from gateway.failures import temporarily_unavailable
from gateway.items import Admit, Item, Settle, unserved
from usage.admission import Admission, Admitted, Decision

# Of a large batch so many are told in one turn of the event loop, at whose end all that was written in it is sent. What
# the first ones send is then with the upstream while the others are served. In one turn, all would wait for it.
_AT_ONCE = 16


class Outcomes:
    """`give_back` is called for a hold that nobody has heard of."""

    def __init__(self, arrears: Arrears, *, give_back: Callable[[Admission], None]) -> None:
        self._arrears = arrears
        self._give_back = give_back
        self._loop = asyncio.get_running_loop()

    def deliver_in_parts(self, batch: list[Item], decisions: list[Decision | None]) -> None:
        """Tell those who wait, the first of them at once, and the others in the next turns of the event loop."""
        if len(batch) > _AT_ONCE:
            self._loop.call_soon(self.deliver_in_parts, batch[_AT_ONCE:], decisions[_AT_ONCE:])
        self.deliver(batch[:_AT_ONCE], decisions[:_AT_ONCE])

    def deliver(self, batch: list[Item], decisions: list[Decision | None]) -> None:
        """Tell those who wait what was decided, or that they have been settled."""
        for item, decision in zip(batch, decisions, strict=True):
            if isinstance(item, Settle):
                if item.is_arrear:
                    self._arrears.settled(item.finished)
                elif item.future is not None and not item.future.done():
                    item.future.set_result(None)
            elif decision is not None and not item.future.done():
                item.future.set_result(decision)
            elif isinstance(decision, Admitted):
                # Whoever asked has been refused meanwhile.
                self._give_back(item.request)

    async def fail(self, batch: list[Item], *, is_in_doubt: bool = False, what: str = "The database") -> None:
        """The batch was not booked; `is_in_doubt`: we only did not hear whether it was. Nothing is lost either way."""
        settled = [item for item in batch if isinstance(item, Settle)]
        owed = [item.finished for item in settled if not (item.is_note or item.is_arrear)]
        if is_in_doubt:
            # If the commit got through after all, this gives the holds back.
            owed += [unserved(item.request) for item in batch if isinstance(item, Admit)]
        await self._arrears.keep(owed, notes=[item.finished for item in settled if item.is_note])
        if arrears := [item.finished for item in settled if item.is_arrear]:
            self._arrears.put_back(arrears)
        for item in batch:
            if item.future is None or item.future.done():
                continue
            if isinstance(item, Settle):
                item.future.set_result(None)
            else:
                item.future.set_exception(temporarily_unavailable(what))

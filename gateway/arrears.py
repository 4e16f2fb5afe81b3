"""What the books are still owed: settlements that PostgreSQL could not take when they came.

They are in the journal, or, while the disk refuses them too, in memory. From here the teller takes a few at a time, so
that nobody who asks has to wait for a long journal.
"""

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Collection, Iterable, Sequence

from gateway import condition
from gateway.journal import Journal
from usage.recording import FinishedRequest

logger = logging.getLogger(__name__)

_PAUSE_S = 0.5
# Refused requests hold nothing: of those of a long time without PostgreSQL, the log gets as many as fit in here.
_NOTES_BYTES = 16 * 1024 * 1024
_NOTES_IN_MEMORY = 1_000


class Arrears:
    """Lives on the teller's event loop, and keeps what it is given while the process lives, whatever the disk does."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        # Read from the journal, or never written there; those that failed are behind the others.
        self._waiting: deque[FinishedRequest] = deque()
        # Of these, what is on no disk.
        self._unwritten: dict[uuid.UUID, FinishedRequest] = {}
        # Taken from the journal or refused by it, and not settled; those that the teller has taken are among them.
        self._in_hand = 0
        self._settled = 0
        self._dropped_notes = 0
        self._next_try_at = 0.0
        self._next_write_at = 0.0
        self._loop = asyncio.get_running_loop()

    @property
    def is_empty(self) -> bool:
        return not self._in_hand and self._journal.is_empty

    @property
    def is_due(self) -> bool:
        """Whether it is time to try to settle, or to write down, some of it."""
        return not self.is_empty and self._loop.time() >= self._next_try_at

    async def adopt(self) -> None:
        """Take over what dead processes have left."""
        await asyncio.to_thread(self._journal.adopt)

    async def keep(self, owed: Sequence[FinishedRequest], notes: Sequence[FinishedRequest] = ()) -> None:
        """Keep settlements; `notes`, of requests that hold nothing, as far as there is room. Raises nothing.

        On disk when this returns; where the disk refuses, in memory, and the process says that it is not ready.
        """
        if self._journal.own_bytes >= _NOTES_BYTES or len(self._unwritten) >= _NOTES_IN_MEMORY:
            self._dropped_notes += len(notes)
            notes = ()
        kept = (*owed, *notes)
        if not kept:
            return
        try:
            await asyncio.to_thread(self._journal.append, *kept)
        except OSError as error:
            logger.critical(
                "the journal cannot be written (%s): %d requests are kept in memory", error, len(kept)
            )
            for finished in kept:
                if finished.id not in self._unwritten:
                    self._unwritten[finished.id] = finished
                    self._waiting.append(finished)
                    self._in_hand += 1
            self._next_write_at = self._loop.time() + _PAUSE_S
            condition.journal = condition.NOT_WRITABLE

    async def write_down(self) -> None:
        """Try the disk again for what is in memory alone."""
        if not self._unwritten or self._loop.time() < self._next_write_at:
            return
        tried = dict(self._unwritten)
        try:
            await asyncio.to_thread(self._journal.append, *tried.values())
        except OSError:
            self._next_write_at = self._loop.time() + _PAUSE_S
            return
        # From now on they are found where all others are.
        still_waiting = deque(finished for finished in self._waiting if finished.id not in tried)
        # One that was read from the journal before may be among them a second time.
        self._in_hand -= len(self._waiting) - len(still_waiting)
        self._waiting = still_waiting
        self._forget_unwritten(tried)
        logger.info("the journal can be written again")

    async def take(self, count: int, *, but_not_of: Collection[int]) -> list[FinishedRequest]:
        """The next few to be settled, of other accounts than these. Each is to be named to `settled` or `put_back`."""
        taken = self._taken(count, but_not_of)
        if len(taken) < count and self._journal.has_unread:
            try:
                read = await asyncio.to_thread(self._journal.read, count)
            except OSError:
                logger.exception("the journal cannot be read; it is tried again")
                self._next_try_at = self._loop.time() + _PAUSE_S
                return taken
            self._in_hand += len(read)
            self._waiting.extend(read)
            taken += self._taken(count - len(taken), but_not_of)
        if not (taken or self._journal.has_unread):
            self._next_try_at = self._loop.time() + _PAUSE_S
        return taken

    def settled(self, finished: FinishedRequest) -> None:
        self._in_hand -= 1
        self._settled += 1
        self._forget_unwritten([finished.id])

    def put_back(self, finished: Iterable[FinishedRequest]) -> None:
        """They could not be settled: again a little later, behind the others."""
        self._waiting.extend(finished)
        self._next_try_at = self._loop.time() + _PAUSE_S

    def try_now(self) -> None:
        """Not a little later: there is none."""
        self._next_try_at = 0.0

    async def set_apart(self, finished: FinishedRequest) -> None:
        """Keep one that the database refuses where no replay finds it."""
        try:
            await asyncio.to_thread(self._journal.set_apart, finished)
        except OSError:
            logger.exception("request %s could not be kept apart; it is tried again", finished.id)
            self.put_back([finished])
        else:
            self._in_hand -= 1
            self._forget_unwritten([finished.id])

    async def tidy(self) -> None:
        """Empty the journal, once all of it is settled."""
        if self._in_hand or self._journal.is_empty or self._journal.has_unread:
            return
        await asyncio.to_thread(self._journal.forget)
        if self._settled:
            logger.info("replayed %d settlements from the journal", self._settled)
        if self._dropped_notes:
            logger.warning("%d refused requests were not kept for the log", self._dropped_notes)
        self._settled = self._dropped_notes = 0

    async def close(self) -> None:
        """What is left is for the next process to find."""
        self._next_write_at = 0.0
        await self.write_down()
        for finished in self._unwritten.values():
            logger.critical(
                "the settlement of request %s is lost: %s", finished.id, finished.as_json().decode()
            )
        self._journal.close()

    def _taken(self, count: int, but_not_of: Collection[int]) -> list[FinishedRequest]:
        taken: list[FinishedRequest] = []
        for _ in range(len(self._waiting)):
            if len(taken) == count:
                break
            finished = self._waiting.popleft()
            if finished.account_id in but_not_of:
                self._waiting.append(finished)
            else:
                taken.append(finished)
        return taken

    def _forget_unwritten(self, ids: Iterable[uuid.UUID]) -> None:
        for id_ in ids:
            self._unwritten.pop(id_, None)
        if not self._unwritten:
            condition.journal = condition.OK

"""The teller's connection to PostgreSQL: made anew whenever it was lost, and what was lost is seen to its end."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from gateway.postgres_pipe import CallRefused, PostgresAway, PostgresPipe, first_line
from usage.foreseeing import Foresight

logger = logging.getLogger(__name__)

_RECONNECT_S = 0.25
_CONNECT_TIMEOUT_S = 2.0
# How often it is said that an old connection is still there.
_SAY_EVERY_S = 10.0


class StandingConnection:
    """At most one is open. With it goes what is believed of the books: after a break nobody knows what was done."""

    # PostgreSQL's own limits are tighter; this is for one that has stopped answering at all.
    answer_timeout_s = 6.0

    def __init__(
        self, connect: Callable[[], Awaitable[PostgresPipe]], *, on_connect: Callable[[], None]
    ) -> None:
        self.pipe: PostgresPipe | None = None
        self.foresight = Foresight()
        # Those that broke. What was sent on them may still arrive and be done, until PostgreSQL has ended them.
        # With the time at which to say that this lasts.
        self.severed: dict[str, float] = {}
        self._connect = connect
        self._on_connect = on_connect
        self._connect_after = 0.0
        self._loop = asyncio.get_running_loop()

    async def connected(self) -> PostgresPipe | None:
        """Made anew if it was lost; None while PostgreSQL is away."""
        if self.pipe is None and self._loop.time() >= self._connect_after:
            try:
                async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                    self.pipe = await self._connect()
            except (PostgresAway, CallRefused, TimeoutError) as error:
                self.lose(error)
                self.pause()
            else:
                self._on_connect()
        return self.pipe

    def lose(self, error: Exception) -> None:
        logger.warning("the teller has no database: %s", first_line(error))
        self.close()

    def close(self) -> None:
        if self.pipe is not None:
            self.severed[self.pipe.session] = self._loop.time() + _SAY_EVERY_S
            self.pipe.close()
        self.pipe = None
        self.foresight = Foresight()

    def pause(self) -> None:
        """Do not try again at once."""
        self._connect_after = self._loop.time() + _RECONNECT_S

    async def end_severed(self, pipe: PostgresPipe) -> None:
        """Have PostgreSQL end the connections that broke, and forget those that it has ended.

        A batch that we gave up may still be on its way. Before anybody settles what it left, it must be over.
        """
        for session, say_at in list(self.severed.items()):
            try:
                is_gone = await pipe.end(session)
            except CallRefused as error:
                logger.warning("an old connection (%s) cannot be ended: %s", session, error)
                is_gone = True
            if is_gone:
                del self.severed[session]
            elif self._loop.time() >= say_at:
                logger.warning(
                    "an old connection (%s) has not ended yet; until then no settlement is replayed", session
                )
                self.severed[session] = self._loop.time() + _SAY_EVERY_S

"""Batches on their way to PostgreSQL: decided on what their books should be, before anything is asked.

While PostgreSQL works on one, the next is decided on what that one leaves and sent behind it. PostgreSQL compares each
with the books under their lock before it writes: see `usage.foreseeing`. What was decided on anything else is asked.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from gateway.asking import Asking
from gateway.items import Item, decide, question_of
from gateway.outcomes import Outcomes
from gateway.postgres_pipe import Answers, CallRefused, PostgresAway, judged
from gateway.standing_connection import StandingConnection
from usage.admission import Decision
from usage.books import Books
from usage.foreseeing import Foresight, attempt
from usage.opening import Question

logger = logging.getLogger(__name__)

# Batches that may be on their way at once: while PostgreSQL works on one, the next is decided and sent.
_AHEAD = 2


@dataclass(slots=True, eq=False)
class _Flight:
    batch: list[Item]
    question: Question
    decisions: list[Decision | None]
    answers: asyncio.Future[Answers]


class Flights:
    """Those of one connection, in the order of their answers. `on_answer` is called when there is one to `land`."""

    def __init__(
        self,
        connection: StandingConnection,
        asking: Asking,
        outcomes: Outcomes,
        *,
        on_answer: Callable[[], None],
    ) -> None:
        # Batches that have to be asked first, for which nothing else may be on its way.
        self.to_ask: deque[list[Item]] = deque()
        # Those that waited in vain for a wallet that somebody keeps locked.
        self.to_part: deque[list[Item]] = deque()
        # Since when PostgreSQL owes an answer to what it was last asked.
        self.busy_since: float | None = None
        self._connection = connection
        self._asking = asking
        self._outcomes = outcomes
        self._on_answer = on_answer
        self._flights: deque[_Flight] = deque()
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def has_answer(self) -> bool:
        """Whether there is one to `land`."""
        return bool(self._flights) and self._flights[0].answers.done()

    @property
    def are_full(self) -> bool:
        return len(self._flights) == _AHEAD

    @property
    def last_size(self) -> int:
        """The requests in the batch behind which another one would have to wait."""
        return len(self._flights[-1].batch)

    @property
    def is_apart(self) -> bool:
        """Whether one of them has to be seen to while nothing is on its way."""
        return bool(self.to_ask or self.to_part)

    @property
    def busy_s(self) -> float:
        """For how long PostgreSQL has owed the answer to what it was last asked."""
        return 0.0 if self.busy_since is None else self._loop.time() - self.busy_since

    def begin_to_wait(self) -> None:
        """For PostgreSQL. As long as it is away, we have waited since it last answered."""
        if self._connection.pipe is not None or self.busy_since is None:
            self.busy_since = self._loop.time()

    def give_up(self) -> None:
        """Nobody knows what becomes of them."""
        self._flights.clear()
        self.busy_since = 0.0

    def send(self, batch: list[Item]) -> None:
        """Decide a batch on what its books should be, and have it written if they are so; else it is to be asked."""
        question, pipe = question_of(batch), self._connection.pipe
        foreseen = self._connection.foresight.of(question) if pipe is not None else None
        if pipe is None or foreseen is None:
            self._ask(batch)
            return
        try:
            opened = Books.foreseen(foreseen)
            decisions = decide(opened, batch)
            call = attempt(question, foreseen, opened)
        except Exception:
            # One of them cannot be decided: which one shows when they are asked.
            logger.exception("a batch of %d could not be decided", len(batch))
            self._ask(batch)
            return
        try:
            answers = pipe.send(call, on_answer=self._on_answer)
        except PostgresAway as error:
            answers = self._loop.create_future()
            answers.set_exception(error)
            self._loop.call_soon(self._on_answer)
        if not self._flights:
            self.busy_since = self._loop.time()
        self._flights.append(_Flight(batch, question, decisions, answers))
        # The next batch is decided on what this one leaves. If it leaves something else, neither finds what it expects.
        self._connection.foresight.learn(question, opened.left())

    def deliver_written(self) -> None:
        """Deliver those that were written as they were decided, up to the first that was not or is not answered."""
        while self._flights and _is_written(self._flights[0].answers):
            flight = self._flights.popleft()
            self.busy_since = self._loop.time() if self._flights else None
            self._outcomes.deliver_in_parts(flight.batch, flight.decisions)

    async def land(self) -> None:
        """See to every one that has been answered, whatever the answer is."""
        while self.has_answer:
            await self._land(self._flights.popleft())

    def _ask(self, batch: list[Item]) -> None:
        self.to_ask.append(batch)
        self._on_answer()

    async def _land(self, flight: _Flight) -> None:
        since = self.busy_since
        self.busy_since = self._loop.time() if self._flights else None
        try:
            was_written = judged(flight.answers.result())
        except PostgresAway as error:
            self.busy_since = since
            self._connection.lose(error)
            await self._outcomes.fail(flight.batch, is_in_doubt=True)
        except CallRefused as error:
            if error.is_conflict:
                self._ask_after_all(flight)
                return
            self._connection.foresight = Foresight()
            if error.is_lock:
                self.to_part.append(flight.batch)
            elif error.is_transient:
                await self._asking.give_up(flight.batch, error)
            else:
                # One request must not take the others of its batch down with it.
                for item in flight.batch:
                    item.finished.fit()
                self.to_ask += [[item] for item in flight.batch]
        else:
            if was_written:
                self._outcomes.deliver_in_parts(flight.batch, flight.decisions)
            else:
                self._ask_after_all(flight)

    def _ask_after_all(self, flight: _Flight) -> None:
        """Its books are not as they were foreseen, and nothing is written."""
        self._connection.foresight.was_wrong(flight.question.accounts)
        self.to_ask.append(flight.batch)


def _is_written(answers: asyncio.Future[Answers]) -> bool:
    """Whether a batch has been committed as it was decided."""
    if not answers.done():
        return False
    try:
        return bool(judged(answers.result()))
    except (PostgresAway, CallRefused):
        return False

"""Stage 5: the one place where a request meets the database.

One connection, driven by the event loop. Whatever requests are waiting form one batch: admissions and settlements
share one transaction and one commit, so a single request pays one commit and a thousand share theirs. What is decided,
and that it is decided once, is `usage.books`; here is how requests get there, and what happens when PostgreSQL is away:
admissions are refused within two seconds, settlements go to the journal and are replayed.
"""

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
from django.conf import settings

from gateway.failures import temporarily_unavailable
from gateway.journal import Journal
from gateway.postgres_pipe import CallRefused, PostgresAway, PostgresPipe, first_line
from gateway.waiting import Certain
from usage import batches
from usage.admission import Admission, Admitted, Decision
from usage.batches import TRY, WRITE, Call, as_json
from usage.books import Books
from usage.foreseeing import Foresight
from usage.models import UsageRecord
from usage.opening import Question
from usage.recording import FinishedRequest

logger = logging.getLogger(__name__)

_BATCH = 256
_HEARTBEAT_S = 5.0
_RECONNECT_S = 0.25
_CONNECT_TIMEOUT_S = 2.0
_BATCH_TIMEOUT_S = (
    6.0  # PostgreSQL's own limits are tighter; this is for one that has stopped answering at all
)
_LOOK_S = 0.1
# Counted from the asking, while PostgreSQL answers nothing. As long as it does, a crowd may take longer.
_ADMIT_TIMEOUT_S = 1.8
_SETTLE_TIMEOUT_S = 2.5
_STALLED_AFTER_S = 1.0
# A request that PostgreSQL has kept waiting so long before has only the rest of its patience.
_SLOW_S = 0.2
_CROWD_TIMEOUT_S = 10.0
_BEAT = """
    INSERT INTO billing_gatewayprocess (id, started_at, heartbeat_at, upstreams) VALUES ($1, now(), now(), $2)
    ON CONFLICT (id) DO UPDATE SET heartbeat_at = now(), upstreams = excluded.upstreams
"""
_STATEMENTS = (batches.OPEN, WRITE, TRY, _BEAT)


@dataclass(slots=True, eq=False)
class _Admit:
    request: Admission
    future: asyncio.Future[Decision]
    asked_at: float

    @property
    def finished(self) -> FinishedRequest:
        return self.request.finished


@dataclass(slots=True, eq=False)
class _Settle:
    finished: FinishedRequest
    future: asyncio.Future[None] | None  # None: nobody waits
    asked_at: float


_Item = _Admit | _Settle
_Decided = tuple[Books, list[Decision | None]]


class Teller:
    """Admits and settles for the requests of one event loop."""

    def __init__(self, *, process_id: uuid.UUID, journal: Journal) -> None:
        self.process_id = process_id
        # What each beat says of the upstreams, as JSON.
        self.health: Callable[[], object] = dict
        self._journal = journal
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Item] = deque()
        # Everyone who waits for an answer, in the order of asking; looked through for those who have waited too long.
        self._patience: deque[_Item] = deque()
        self._arrival = asyncio.Event()
        self._is_stopping = False
        self._pipe: PostgresPipe | None = None
        self._foresight = Foresight()
        self._connect_after = 0.0
        self._busy_since: float | None = None
        self._beat_at = 0.0
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._running = self._loop.create_task(self._run())
        self._loop.call_later(_LOOK_S, self._look)

    async def stop(self) -> None:
        """Finish what is queued, then end."""
        self._is_stopping = True
        self._arrival.set()
        if self._running is not None:
            await self._running

    async def admit(self, request: Admission, *, waited_s: float = 0.0) -> Decision:
        """Decide whether the request may go ahead. Raises Refusal (503) if PostgreSQL cannot say so in time.

        `waited_s` is how long the request has waited for PostgreSQL before.
        """
        item = _Admit(request, self._loop.create_future(), self._loop.time())
        self._enqueue(item)
        self._patience.append(item)
        if waited_s > _SLOW_S:
            self._loop.call_later(max(_ADMIT_TIMEOUT_S - waited_s, _SLOW_S), self._lose_patience, item)
        return await item.future

    def _lose_patience(self, item: _Admit) -> None:
        """The request has waited for long enough, unless PostgreSQL is answering just now."""
        if not item.future.done() and self._busy_s() >= _SLOW_S:
            item.future.set_exception(temporarily_unavailable("The database"))

    async def settle(self, finished: FinishedRequest) -> None:
        """Settle an admitted request. When this returns, it is committed, or in the journal.

        Only what is committed has its charge filled in. Whoever is told to stop meanwhile is not stopped: what is
        charged is answered.
        """
        future = Certain(loop=self._loop)
        future.is_certain = self._running is not None and not self._running.done()
        item = _Settle(finished, future, self._loop.time())
        self._enqueue(item)
        self._patience.append(item)
        try:
            await future
        except (asyncio.CancelledError, TimeoutError):
            if future.exception() is not None:
                await asyncio.to_thread(self._journal.append, finished)

    def note(self, finished: FinishedRequest) -> None:
        """Record a refused request, some time soon."""
        self._enqueue(_Settle(finished, None, self._loop.time()))

    def _enqueue(self, item: _Item) -> None:
        self._queue.append(item)
        self._arrival.set()

    # --- One batch after the other ---------------------------------------------------------------------------

    async def _run(self) -> None:
        await asyncio.to_thread(self._journal.adopt)
        while True:
            self._busy_since = self._loop.time()
            await self._keep_up()
            if self._queue:
                self._busy_since = self._loop.time()
                # Whoever is about to ask in this turn of the loop shares the batch.
                await asyncio.sleep(0)
                await self._process([self._queue.popleft() for _ in range(min(len(self._queue), _BATCH))])
            elif self._is_stopping:
                break
            else:
                self._busy_since = None
                self._arrival.clear()
                await self._arrival.wait()
        if self._pipe is not None:
            self._pipe.close()
        self._journal.close()

    def _busy_s(self) -> float:
        """For how long PostgreSQL has owed the answer to what it was last asked."""
        return 0.0 if self._busy_since is None else self._loop.time() - self._busy_since

    def _look(self) -> None:
        """Ten times a second: let go of who has waited too long, and see whether something is due."""
        if self._running is None or self._running.done():
            return
        self._loop.call_later(_LOOK_S, self._look)
        now = self._loop.time()
        is_stalled = self._busy_s() >= _STALLED_AFTER_S
        admit_s, settle_s = (
            (_ADMIT_TIMEOUT_S, _SETTLE_TIMEOUT_S) if is_stalled else (_CROWD_TIMEOUT_S, _CROWD_TIMEOUT_S)
        )
        kept: list[_Item] = []
        while self._patience and now - self._patience[0].asked_at >= admit_s:
            item = self._patience.popleft()
            if item.future is None or item.future.done():
                continue
            if isinstance(item, _Admit):
                item.future.set_exception(temporarily_unavailable("The database"))
            elif now - item.asked_at >= settle_s:
                item.future.set_exception(TimeoutError())
            else:
                kept.append(item)
        self._patience.extendleft(reversed(kept))
        while self._patience and (future := self._patience[0].future) is not None and future.done():
            self._patience.popleft()
        if now >= self._beat_at or not self._journal.is_empty:
            self._arrival.set()

    async def _process(self, batch: list[_Item]) -> None:
        pipe = await self._connected()
        if pipe is None:
            await self._fail(batch)
            return
        try:
            decisions = await self._transact(pipe, batch)
        except PostgresAway as error:
            self._lose_connection(error)
            await self._fail(batch, is_in_doubt=True)
        except CallRefused as error:
            if error.is_transient:
                logger.warning("a batch of %d was given up: %s", len(batch), error)
                await self._fail(batch)
            else:
                await self._process_each(batch, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the transaction must not be committed
            self._lose_connection(error)
            await self._process_each(batch, error)
        else:
            self._deliver(batch, decisions)

    async def _process_each(self, batch: list[_Item], error: Exception) -> None:
        """One request must not take the others of its batch down with it."""
        if len(batch) > 1:
            for item in batch:
                item.finished.fit()
                await self._process([item])
            return
        logger.error("request %s could not be booked", batch[0].finished.id, exc_info=error)
        await self._fail(batch)

    async def _transact(self, pipe: PostgresPipe, batch: list[_Item]) -> list[Decision | None]:
        """One batch, one transaction: in one round trip where its books were foreseen rightly, else in two."""
        question = Question.of(
            admissions=[item.request for item in batch if isinstance(item, _Admit)],
            ended=[item.finished for item in batch if isinstance(item, _Settle)],
        )
        try:
            async with asyncio.timeout(_BATCH_TIMEOUT_S):
                opened, decisions = await self._try(pipe, question, batch) or await self._ask(
                    pipe, question, batch
                )
        except TimeoutError:
            raise PostgresAway("no answer in time") from None
        self._foresight.learn(question, opened.left())
        return decisions

    async def _try(self, pipe: PostgresPipe, question: Question, batch: list[_Item]) -> _Decided | None:
        """Decide on what the books should be, and have it written if they are so; None: it was not."""
        foreseen = self._foresight.of(question)
        if foreseen is None:
            return None
        opened = Books.foreseen(foreseen)
        decisions = _decide(opened, batch)
        call = Call(TRY, [*question.parameters(), as_json(foreseen), *opened.changes()])
        (answer,) = await pipe.commit(call)
        if answer:
            self._foresight.was_wrong(question.accounts)
            return None
        return opened, decisions

    @staticmethod
    async def _ask(pipe: PostgresPipe, question: Question, batch: list[_Item]) -> _Decided:
        """Lock and read, decide, write."""
        (answer,) = await pipe.ask(question.call())
        opened = Books.of(answer)
        decisions = _decide(opened, batch)
        await pipe.commit(Call(WRITE, opened.changes()))
        return opened, decisions

    # --- Keeping up ------------------------------------------------------------------------------------------

    async def _keep_up(self) -> None:
        """Beat, and replay the journal, as soon as PostgreSQL is there."""
        is_due = self._loop.time() >= self._beat_at
        if not is_due and self._journal.is_empty:
            return
        pipe = await self._connected()
        if pipe is None:
            return
        try:
            if is_due:
                await self._beat(pipe)
            if not self._journal.is_empty:
                await self._replay(pipe)
        except Exception as error:  # noqa: BLE001 - whatever it is, the teller goes on
            self._lose_connection(error)
            self._connect_after = self._loop.time() + _RECONNECT_S

    async def _replay(self, pipe: PostgresPipe) -> None:
        """Settle what the journal holds."""
        owed = await asyncio.to_thread(self._journal.read)
        for start in range(0, len(owed), _BATCH):
            batch: list[_Item] = [_Settle(finished, None, 0.0) for finished in owed[start : start + _BATCH]]
            try:
                await self._transact(pipe, batch)
            except PostgresAway:
                raise
            except Exception as error:
                if isinstance(error, CallRefused) and error.is_transient:
                    raise
                for item in batch:
                    await self._replay_alone(item)
        await asyncio.to_thread(self._journal.forget, len(owed))
        logger.info("replayed %d settlements from the journal", len(owed))

    async def _replay_alone(self, item: _Item) -> None:
        """Settle one request on a connection of its own; one that cannot be booked is set apart."""
        pipe = await PostgresPipe.connect(*_STATEMENTS, **connection_parameters())
        try:
            await self._transact(pipe, [item])
        except PostgresAway:
            raise
        except Exception as error:
            if isinstance(error, CallRefused) and error.is_transient:
                raise
            logger.exception("request %s could not be booked; its line is kept apart", item.finished.id)
            self._journal.set_apart(item.finished)
        finally:
            pipe.close()

    async def _beat(self, pipe: PostgresPipe) -> None:
        await pipe.commit(Call(_BEAT, [str(self.process_id), orjson.dumps(self.health()).decode()]))
        self._beat_at = self._loop.time() + _HEARTBEAT_S

    async def _connected(self) -> PostgresPipe | None:
        """Our connection, made anew if it was lost; None while PostgreSQL is away."""
        if self._pipe is None and self._loop.time() >= self._connect_after:
            try:
                async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                    self._pipe = await PostgresPipe.connect(*_STATEMENTS, **connection_parameters())
                self._beat_at = 0.0
            except (PostgresAway, CallRefused, TimeoutError) as error:
                self._lose_connection(error)
                self._connect_after = self._loop.time() + _RECONNECT_S
        return self._pipe

    def _lose_connection(self, error: Exception) -> None:
        logger.warning("the teller has no database: %s", first_line(error))
        if self._pipe is not None:
            self._pipe.close()
        self._pipe = None
        # What became of the last batch is not known.
        self._foresight = Foresight()

    # --- Back to who asked -----------------------------------------------------------------------------------

    def _deliver(self, batch: list[_Item], decisions: list[Decision | None]) -> None:
        for item, decision in zip(batch, decisions, strict=True):
            if isinstance(item, _Settle):
                if item.future is not None and not item.future.done():
                    item.future.set_result(None)
            elif decision is not None and not item.future.done():
                item.future.set_result(decision)
            elif isinstance(decision, Admitted):
                # Whoever asked has been refused meanwhile.
                self.note(_unserved(item.request))

    async def _fail(self, batch: list[_Item], *, is_in_doubt: bool = False) -> None:
        """The batch was not booked; `is_in_doubt`: we only did not hear whether it was. Nothing is lost either way."""
        owed = [item.finished for item in batch if isinstance(item, _Settle)]
        if is_in_doubt:
            # If the commit got through after all, this gives the holds back.
            owed += [_unserved(item.request) for item in batch if isinstance(item, _Admit)]
        if owed:
            await asyncio.to_thread(self._journal.append, *owed)
        for item in batch:
            if item.future is None or item.future.done():
                continue
            if isinstance(item, _Settle):
                item.future.set_result(None)
            else:
                item.future.set_exception(temporarily_unavailable("The database"))


def connection_parameters() -> dict[str, Any]:
    """How to connect outside Django's pool, as one who gives up on PostgreSQL sooner than a client would."""
    database = settings.DATABASES["default"]
    options = {name: value for name, value in database["OPTIONS"].items() if name != "pool"}
    return {
        "dbname": database["NAME"],
        "user": database["USER"] or None,
        "password": database["PASSWORD"] or None,
        "host": database["HOST"] or None,
        "port": database["PORT"] or None,
        "application_name": "tollgate-teller",
        # A lock on a wallet is held for milliseconds; who waits longer waits for somebody's open console.
        "options": "-c lock_timeout=1500 -c statement_timeout=5000 -c timezone=UTC",
        **options,
    }


def _decide(opened: Books, batch: list[_Item]) -> list[Decision | None]:
    """Settlements first, for what they free; None for each of them."""
    for item in batch:
        if isinstance(item, _Settle) and not opened.end(item.finished):
            # Refused before it held anything, or resolved before; then its record exists and stays as it is.
            opened.record(item.finished)
    return [opened.admit(item.request) if isinstance(item, _Admit) else None for item in batch]


def _unserved(request: Admission) -> FinishedRequest:
    finished = request.finished
    finished.outcome = UsageRecord.Outcome.REFUSED
    finished.status = 503
    finished.error_code = "temporarily_unavailable"
    finished.error_message = "The database did not answer in time. Nothing was charged; try again."
    finished.ended_at = finished.started_at
    return finished

"""Stage 5: the one place where a request meets the database.

One connection, driven by the event loop. Whatever requests are waiting form one batch: admissions and settlements
share one transaction and one commit, so a single request pays one commit and a thousand share theirs. What is decided,
and that it is decided once, is `usage.books`; here is how requests get there, and what happens when PostgreSQL is away:
admissions are refused within two seconds, settlements go to the journal and are replayed.

Nobody waits for what is another's: neither for a wallet that somebody keeps locked nor for a long journal. If this ends
otherwise than by being told to, the process ends too: whoever starts it again finds everything in the journal.
"""

import asyncio
import logging
import os
import signal
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any

import orjson
from django.conf import settings

from gateway.arrears import Arrears
from gateway.asking import Asking
from gateway.failures import temporarily_unavailable
from gateway.flights import Flights
from gateway.items import Admit, Item, Settle, is_admitted, unserved
from gateway.journal import Journal
from gateway.outcomes import Outcomes
from gateway.postgres_pipe import PostgresAway, PostgresPipe
from gateway.queueing import Queue
from gateway.standing_connection import StandingConnection
from gateway.waiting import Certain
from usage import batches
from usage.admission import Admission, Admitted, Decision
from usage.batches import TRY, WRITE, Call
from usage.recording import FinishedRequest

logger = logging.getLogger(__name__)

# So many of what is owed are replayed at once.
_REPLAYED = 256
# Who is told to stop replays for no longer. The rest is for whoever comes after.
_LAST_REPLAY_S = 5.0
_HEARTBEAT_S = 5.0
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
# All that is asked is rows by their keys. A plan of its own for each batch would often take longer than the rest, and
# one that was made while a table was nearly empty, and reads all of it, would be kept when it no longer is.
_PLANS = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off"
_STATEMENTS = (batches.OPEN, WRITE, TRY, _BEAT)


class Teller:
    """Admits and settles for the requests of one event loop."""

    def __init__(self, *, process_id: uuid.UUID, journal: Journal) -> None:
        self.process_id = process_id
        # What each beat says of the upstreams, as JSON.
        self.health: Callable[[], object] = dict
        self._arrears = Arrears(journal)
        self._connection = StandingConnection(
            lambda: PostgresPipe.connect(*_STATEMENTS, **connection_parameters()),
            on_connect=self._beat_at_once,
        )
        self._outcomes = Outcomes(self._arrears, give_back=self._give_back)
        self._asking = Asking(self._connection, self._arrears, self._outcomes)
        self._flights = Flights(self._connection, self._asking, self._outcomes, on_answer=self._on_answer)
        self._loop = asyncio.get_running_loop()
        self._queue = Queue()
        # Everyone who waits for an answer, in the order of asking; looked through for those who have waited too long.
        self._patience: deque[Item] = deque()
        self._arrival = asyncio.Event()
        self._is_stopping = False
        self._replays_until = float("inf")
        self._is_over = False
        # `_run` has nothing to do: whoever comes may send, and what was written is delivered, without waking it.
        self._is_resting = False
        self._beat_at = 0.0
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._running = self._loop.create_task(self._live())
        self._loop.call_later(_LOOK_S, self._look)

    async def stop(self) -> None:
        """Finish what is queued, then end."""
        self._is_stopping = True
        self._replays_until = self._loop.time() + _LAST_REPLAY_S
        self._arrears.try_now()
        self._arrival.set()
        if self._running is not None:
            await self._running
        self._is_over = True
        self._connection.close()
        await self._arrears.close()

    async def admit(self, request: Admission, *, waited_s: float = 0.0) -> Decision:
        """Decide whether the request may go ahead. Raises Refusal (503) if PostgreSQL cannot say so in time.

        `waited_s` is how long the request has waited for PostgreSQL before.
        """
        item = Admit(request, self._loop.create_future(), self._loop.time())
        has_hold = request.replaces
        if not has_hold:
            self._queue.opened()
        self._enqueue(item)
        self._patience.append(item)
        if waited_s > _SLOW_S:
            self._loop.call_later(max(_ADMIT_TIMEOUT_S - waited_s, _SLOW_S), self._lose_patience, item)
        try:
            decision = await item.future
        except asyncio.CancelledError:
            # Told to stop after the decision was made, and before it was heard. (What is replaced has its walk.)
            if not request.replaces and is_admitted(item.future):
                self._give_back(request)
            raise
        else:
            has_hold = has_hold or isinstance(decision, Admitted)
            return decision
        finally:
            if not has_hold:
                self._queue.closed()

    def _lose_patience(self, item: Admit) -> None:
        """The request has waited for long enough, unless PostgreSQL is answering just now."""
        if not item.future.done() and self._flights.busy_s >= _SLOW_S / 2:
            item.future.set_exception(temporarily_unavailable("The database"))

    async def settle(self, finished: FinishedRequest) -> None:
        """Settle an admitted request. When this returns, it is committed, or kept: see `gateway.arrears`.

        Only what is committed has its charge filled in. Whoever is told to stop meanwhile is not stopped: what is
        charged is answered.
        """
        future = Certain(loop=self._loop)
        future.is_certain = not self._is_over
        item = Settle(finished, future, self._loop.time())
        self._enqueue(item)
        self._patience.append(item)
        try:
            await future
        except (asyncio.CancelledError, TimeoutError):
            if future.cancelled():
                if not self._is_over:
                    await asyncio.shield(self._arrears.keep([finished]))
                raise
            if future.exception() is not None:
                await self._arrears.keep([finished])
        finally:
            self._queue.closed()

    def note(self, finished: FinishedRequest) -> None:
        """Record a refused request, some time soon."""
        self._enqueue(Settle(finished, None, self._loop.time(), is_note=True))

    def _give_back(self, request: Admission) -> None:
        """Release what nobody has heard of that it is held."""
        self._enqueue(Settle(unserved(request), None, self._loop.time()))

    def _enqueue(self, item: Item) -> None:
        self._queue.append(item)
        is_awaited = item.future is not None
        if is_awaited and self._is_resting and self._queue.is_half and self._may_send_at_once():
            try:
                self._flights.send(self._queue.take())
            except Exception as error:  # noqa: BLE001 - whatever it is, it is not the one's who has asked
                self._end_process(error)
        else:
            self._arrival.set()

    # --- One batch after the other ---------------------------------------------------------------------------

    async def _live(self) -> None:
        try:
            await self._run()
        except Exception as error:  # noqa: BLE001 - whatever it is
            self._end_process(error)

    def _end_process(self, error: Exception) -> None:
        """Nobody knows what became of a batch. What waits is refused or kept by `_look`, what is held is swept."""
        logger.critical("the teller has ended; this process stops, to be started again", exc_info=error)
        self._flights.give_up()
        os.kill(os.getpid(), signal.SIGTERM)

    async def _run(self) -> None:
        self._flights.begin_to_wait()
        await self._arrears.adopt()
        while True:
            self._arrival.clear()
            await self._flights.land()
            has_replayed = False
            if not self._flights:
                has_replayed = await self._do_apart()
            if self._queue and self._may_send():
                # Whoever is about to ask in this turn of the loop shares the batch.
                await asyncio.sleep(0)
                batch = self._queue.take()
                if self._asking.locked.accounts:
                    batch = await self._asking.refuse_locked(batch)
                if batch:
                    self._flights.send(batch)
            elif has_replayed:
                continue
            elif self._is_stopping and not (self._queue or self._flights or self._flights.is_apart):
                break
            elif not self._arrival.is_set():
                self._is_resting = True
                await self._arrival.wait()
                self._is_resting = False

    async def _do_apart(self) -> bool:
        """What has to be done while nothing is on its way; whether there may be more of it."""
        flights = self._flights
        flights.begin_to_wait()
        await self._keep_up()
        while flights.to_part:
            flights.begin_to_wait()
            await self._asking.part(flights.to_part.popleft())
        while flights.to_ask:
            flights.begin_to_wait()
            await self._asking.process(flights.to_ask.popleft())
        may_replay = self._arrears.is_due and self._loop.time() < self._replays_until
        has_replayed = may_replay and await self._replay()
        if self._connection.pipe is not None:
            flights.busy_since = None
        return has_replayed

    def _may_send(self) -> bool:
        """Whether the next batch need not wait for those on their way."""
        if not self._flights:
            return True
        if self._flights.are_full or self._has_apart():
            return False
        return len(self._queue) >= self._flights.last_size

    def _may_send_at_once(self) -> bool:
        """Whether the next batch may go without a look at anything else."""
        is_apart = self._connection.pipe is None or self._asking.locked.accounts or self._has_apart()
        return not is_apart and self._may_send()

    def _has_apart(self) -> bool:
        """Whether something has to be done while nothing is on its way."""
        return self._flights.is_apart or self._is_due()

    def _is_due(self) -> bool:
        """Whether there is something to do beside the queue."""
        is_beat = self._loop.time() >= self._beat_at
        return is_beat or self._arrears.is_due or self._asking.locked.is_due or bool(self._connection.severed)

    def _on_answer(self) -> None:
        if self._is_resting:
            self._flights.deliver_written()
            if not (self._flights.has_answer or self._queue or self._is_stopping or self._has_apart()):
                return
        self._arrival.set()

    def _look(self) -> None:
        """Ten times a second: let go of who has waited too long, and see whether something is due."""
        if self._is_over:
            return
        self._loop.call_later(_LOOK_S, self._look)
        now = self._loop.time()
        is_stalled = self._flights.busy_s >= _STALLED_AFTER_S
        admit_s, settle_s = (
            (_ADMIT_TIMEOUT_S, _SETTLE_TIMEOUT_S) if is_stalled else (_CROWD_TIMEOUT_S, _CROWD_TIMEOUT_S)
        )
        kept: list[Item] = []
        while self._patience and now - self._patience[0].asked_at >= admit_s:
            item = self._patience.popleft()
            if item.future is None or item.future.done():
                continue
            if isinstance(item, Admit):
                item.future.set_exception(temporarily_unavailable("The database"))
            elif now - item.asked_at >= settle_s:
                item.future.set_exception(TimeoutError())
            else:
                kept.append(item)
        self._patience.extendleft(reversed(kept))
        while self._patience and (future := self._patience[0].future) is not None and future.done():
            self._patience.popleft()
        if self._flights.busy_s >= _LOOK_S and self._connection.pipe is not None:
            self._connection.pipe.look()
        if self._flights and self._flights.busy_s >= self._connection.answer_timeout_s:
            self._connection.lose(PostgresAway("no answer in time"))
        if self._is_due():
            self._arrival.set()

    # --- Keeping up ------------------------------------------------------------------------------------------

    async def _keep_up(self) -> None:
        """Do what is due beside the queue, as soon as PostgreSQL is there."""
        if not self._is_due():
            return
        await self._arrears.write_down()
        pipe = await self._connection.connected()
        if pipe is None:
            return
        try:
            async with asyncio.timeout(self._connection.answer_timeout_s):
                if self._loop.time() >= self._beat_at:
                    await self._beat(pipe)
                await self._connection.end_severed(pipe)
                if self._asking.locked.is_due:
                    await self._asking.locked.look_again(pipe)
        except Exception as error:  # noqa: BLE001 - whatever it is, the teller goes on
            self._connection.lose(error)
            self._connection.pause()

    async def _replay(self) -> bool:
        """Settle the next few of what is owed; whether there were any."""
        if self._connection.pipe is None or self._connection.severed:
            return False
        owed = await self._arrears.take(_REPLAYED, but_not_of=self._asking.locked.accounts)
        if owed:
            await self._asking.process([Settle(finished, None, 0.0, is_arrear=True) for finished in owed])
        await self._arrears.tidy()
        return bool(owed)

    async def _beat(self, pipe: PostgresPipe) -> None:
        await pipe.commit(Call(_BEAT, [str(self.process_id).encode(), orjson.dumps(self.health())]))
        self._beat_at = self._loop.time() + _HEARTBEAT_S

    def _beat_at_once(self) -> None:
        self._beat_at = 0.0


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
        # A lock on a wallet is held for milliseconds; who waits longer waits for somebody's open console. Two batches
        # may wait one after the other, and what is left of the two seconds is for all others of them.
        "options": f"-c lock_timeout=700 -c statement_timeout=5000 -c timezone=UTC {_PLANS}",
        **options,
    }

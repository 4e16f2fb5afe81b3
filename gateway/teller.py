"""Stage 5: the one place where a request meets the database.

One thread with one connection. Whatever requests are waiting form one batch: admissions and settlements share
one transaction and one commit, so a single request pays one commit and a thousand share theirs. What is
decided, and that it is decided once, is `usage.books`; here is how requests get there, and what happens when
PostgreSQL is away: admissions are refused within two seconds, settlements go to the journal and are replayed.
"""

import asyncio
import contextlib
import logging
import queue
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from django.conf import settings
from psycopg.pq import TransactionStatus

from billing.wallets import Connection
from gateway.errors import temporarily_unavailable
from gateway.journal import Journal
from usage import books
from usage.admission import Admission, Admitted, Decision
from usage.models import UsageRecord
from usage.recording import FinishedRequest

logger = logging.getLogger(__name__)

_BATCH = 256
_HEARTBEAT_S = 5.0
_RECONNECT_S = 0.25
_ADMIT_TIMEOUT_S = 1.8
_SETTLE_TIMEOUT_S = 2.5
_BEAT = """
    INSERT INTO billing_gatewayprocess (id, started_at, heartbeat_at) VALUES (%s, now(), now())
    ON CONFLICT (id) DO UPDATE SET heartbeat_at = now()
"""
_ALIVE = "SELECT count(*) FROM billing_gatewayprocess WHERE heartbeat_at > now() - interval '15 seconds'"


@dataclass(slots=True, eq=False)
class _Admit:
    request: Admission
    future: asyncio.Future[Decision]


@dataclass(slots=True, eq=False)
class _Settle:
    finished: FinishedRequest
    future: asyncio.Future[None] | None  # None: nobody waits


_Item = _Admit | _Settle
_STOP = object()


class Teller:
    """Admits and settles for the requests of one event loop."""

    def __init__(self, *, process_id: uuid.UUID, journal: Journal) -> None:
        self.process_id = process_id
        self.alive_processes = settings.GATEWAY_PROCESSES
        self._journal = journal
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._connect_after = 0.0
        self._beat_at = 0.0
        self._thread = threading.Thread(target=self._run, name="teller", daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        """Finish what is queued, then end the thread."""
        self._queue.put(_STOP)
        await asyncio.to_thread(self._thread.join)

    async def admit(self, request: Admission) -> Decision:
        """Decide whether the request may go ahead. Raises Refusal (503) if PostgreSQL cannot say so in time."""
        future: asyncio.Future[Decision] = self._loop.create_future()
        self._queue.put(_Admit(request, future))
        try:
            async with asyncio.timeout(_ADMIT_TIMEOUT_S):
                return await future
        except TimeoutError:
            raise temporarily_unavailable("The database") from None

    async def settle(self, finished: FinishedRequest) -> None:
        """Settle an admitted request. When this returns, it is committed, or in the journal.

        Only what is committed has its charge filled in.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        self._queue.put(_Settle(finished, future))
        try:
            async with asyncio.timeout(_SETTLE_TIMEOUT_S):
                await future
        except TimeoutError:
            await asyncio.to_thread(self._journal.append, finished)

    def note(self, finished: FinishedRequest) -> None:
        """Record a refused request, some time soon."""
        self._queue.put(_Settle(finished, None))

    # --- In the thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._journal.adopt()
        self._keep_up()
        while True:
            batch, is_last = self._next_batch()
            if batch:
                self._process(batch)
            self._keep_up()
            if is_last:
                break
        if self._connection is not None:
            self._connection.close()
        self._journal.close()

    def _next_batch(self) -> tuple[list[_Item], bool]:
        """What is waiting, up to 256 requests; waits for a first one until something else is due."""
        batch: list[_Item] = []
        try:
            wait = _RECONNECT_S if self._connection is None or not self._journal.is_empty else _HEARTBEAT_S
            item = self._queue.get(timeout=wait)
            while True:
                if item is _STOP:
                    return batch, True
                batch.append(item)
                if len(batch) == _BATCH:
                    return batch, False
                item = self._queue.get_nowait()
        except queue.Empty:
            return batch, False

    def _process(self, batch: list[_Item]) -> None:
        connection = self._connected()
        if connection is None:
            self._fail(batch)
            return
        try:
            decisions = self._transact(connection, batch)
        except psycopg.OperationalError as error:
            is_lost = connection.broken
            if is_lost:
                self._lose_connection(error)
            else:
                logger.warning("a batch of %d was given up: %s", len(batch), _first_line(error))
            self._fail(batch, is_in_doubt=is_lost)
        except Exception:
            # One request must not take the others of its batch down with it.
            if len(batch) > 1:
                for item in batch:
                    self._process([item])
                return
            logger.exception("request %s could not be booked", _id_of(batch[0]))
            self._fail(batch)
        else:
            self._loop.call_soon_threadsafe(self._deliver, batch, decisions)

    @staticmethod
    def _transact(connection: Connection, batch: list[_Item]) -> list[Decision | None]:
        """One batch, one transaction, two round trips: settlements first, for what they free."""
        settling = [item.finished for item in batch if isinstance(item, _Settle)]
        admitting = [item.request for item in batch if isinstance(item, _Admit)]
        with one_transaction(connection):
            opened = books.open_books(connection, admissions=admitting, ended=settling)
            for finished in settling:
                if not opened.end(finished):
                    # Refused before it held anything, or resolved before; then its record exists and stays as
                    # it is.
                    opened.record(finished)
            decided = {request.finished.id: opened.admit(request) for request in admitting}
            opened.write()
        return [decided[item.request.finished.id] if isinstance(item, _Admit) else None for item in batch]

    def _keep_up(self) -> None:
        """Beat, and replay the journal, as soon as PostgreSQL is there."""
        connection = self._connected()
        if connection is None:
            return
        try:
            if time.monotonic() >= self._beat_at:
                self._beat(connection)
            if not self._journal.is_empty:
                self._replay(connection)
        except psycopg.OperationalError as error:
            self._lose_connection(error)

    def _replay(self, connection: Connection) -> None:
        """Settle what the journal holds."""
        owed = self._journal.read()
        for start in range(0, len(owed), _BATCH):
            batch: list[_Item] = [_Settle(finished, None) for finished in owed[start : start + _BATCH]]
            try:
                self._transact(connection, batch)
            except psycopg.OperationalError:
                raise
            except Exception:  # noqa: BLE001 - whatever it is, find the one that cannot be booked and set it apart
                for item in batch:
                    self._replay_alone(connection, item)
        self._journal.forget(len(owed))
        logger.info("replayed %d settlements from the journal", len(owed))

    def _replay_alone(self, connection: Connection, item: _Item) -> None:
        try:
            self._transact(connection, [item])
        except psycopg.OperationalError:
            raise
        except Exception:
            logger.exception("request %s could not be booked; its line is kept apart", _id_of(item))
            if isinstance(item, _Settle):
                self._journal.set_apart(item.finished)

    def _beat(self, connection: Connection) -> None:
        with connection.transaction():
            connection.execute(_BEAT, (self.process_id,))
            row = connection.execute(_ALIVE).fetchone()
        self.alive_processes = row[0] if row else 1
        self._beat_at = time.monotonic() + _HEARTBEAT_S

    def _connected(self) -> Connection | None:
        """Our connection, made anew if it was lost; None while PostgreSQL is away."""
        if self._connection is None and time.monotonic() >= self._connect_after:
            try:
                self._connection = connect()
                self._beat_at = 0.0
            except psycopg.OperationalError as error:
                self._lose_connection(error)
                self._connect_after = time.monotonic() + _RECONNECT_S
        return self._connection

    def _lose_connection(self, error: Exception) -> None:
        logger.warning("the teller has no database: %s", _first_line(error))
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _fail(self, batch: list[_Item], *, is_in_doubt: bool = False) -> None:
        """The batch was not booked; `is_in_doubt`: we only did not hear whether it was. Nothing is lost either way."""
        for item in batch:
            if isinstance(item, _Settle):
                self._journal.append(item.finished)
            elif is_in_doubt:
                # If the commit got through after all, this gives the hold back.
                self._journal.append(_unserved(item.request))
        self._loop.call_soon_threadsafe(self._deliver_failure, batch)

    # --- Back on the event loop ----------------------------------------------------------------------------

    def _deliver(self, batch: list[_Item], decisions: list[Decision | None]) -> None:
        for item, decision in zip(batch, decisions, strict=True):
            if isinstance(item, _Settle):
                if item.future is not None and not item.future.done():
                    item.future.set_result(None)
            elif decision is not None and not item.future.done():
                item.future.set_result(decision)
            elif isinstance(decision, Admitted):
                # Whoever asked has been refused meanwhile.
                self._queue.put(_Settle(_unserved(item.request), None))

    def _deliver_failure(self, batch: list[_Item]) -> None:
        for item in batch:
            if item.future is None or item.future.done():
                continue
            if isinstance(item, _Settle):
                item.future.set_result(None)
            else:
                item.future.set_exception(temporarily_unavailable("The database"))


def connect() -> Connection:
    """A connection of our own, outside Django's pool, that gives up on PostgreSQL sooner than a client would."""
    database = settings.DATABASES["default"]
    options = {name: value for name, value in database["OPTIONS"].items() if name != "pool"}
    return psycopg.connect(
        dbname=database["NAME"],
        user=database["USER"] or None,
        password=database["PASSWORD"] or None,
        host=database["HOST"] or None,
        port=database["PORT"] or None,
        autocommit=True,
        application_name="tollgate-teller",
        # A lock on a wallet is held for milliseconds; who waits longer waits for somebody's open console.
        **{"options": "-c lock_timeout=1500 -c statement_timeout=5000 -c timezone=UTC", **options},
    )


@contextlib.contextmanager
def one_transaction(connection: Connection) -> Iterator[None]:
    """A transaction in a pipeline, in as few round trips as what is read in it needs.

    psycopg's own `transaction()` synchronizes the pipeline at each of its ends, which is three more.
    """
    try:
        with connection.pipeline():
            connection.execute("BEGIN")
            yield
            connection.execute("COMMIT")
    except BaseException:
        if connection.info.transaction_status != TransactionStatus.IDLE and not connection.broken:
            connection.execute("ROLLBACK")
        raise


def _unserved(request: Admission) -> FinishedRequest:
    finished = request.finished
    finished.outcome = UsageRecord.Outcome.REFUSED
    finished.status = 503
    finished.error_code = "temporarily_unavailable"
    finished.error_message = "The database did not answer in time. Nothing was charged; try again."
    finished.ended_at = finished.started_at
    return finished


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def _id_of(item: _Item) -> uuid.UUID:
    return item.finished.id if isinstance(item, _Settle) else item.request.finished.id

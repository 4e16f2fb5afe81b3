"""One connection to PostgreSQL that the event loop drives itself: a few calls in a row, answers in the same order.

psycopg makes the connection and speaks libpq for us; what is left out is what it does for each statement beside that
(cursors, adaptation of types, two more round trips for a transaction in a pipeline), which costs more than the rest of
an admission. Statements that are called often are prepared once; all get their parameters as text.

Calls up to a `commit` are one transaction: PostgreSQL commits a pipeline at its Sync message, so nothing is sent for
BEGIN and COMMIT. Answers come before that with a Flush message. A `commit` may be sent while others are on their way.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import psycopg
from psycopg import pq

from usage.batches import Call

# Which connection this is, to PostgreSQL too: a process id alone may pass to another.
_WHO_AM_I = """
    SELECT pid::text || ' since ' || backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()
"""
_END = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE pid::text || ' since ' || backend_start::text = $1
"""
_GOOD = frozenset({pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK, pq.ExecStatus.PIPELINE_SYNC})


class PostgresAway(Exception):
    """PostgreSQL cannot be reached, or the connection broke: what was running may or may not be committed."""


class CallRefused(Exception):
    """PostgreSQL refused a call; nothing of its transaction is in force. `is_transient`: it may go well later."""

    def __init__(self, message: str, sqlstate: str) -> None:
        super().__init__(message)
        # Lock and statement time limits, deadlock, serialization, shutdown, no more resources.
        self.is_transient = sqlstate[:2] in {"40", "53", "55", "57"}
        self.is_lock = sqlstate == "55P03"
        # What it rests on is not so.
        self.is_conflict = sqlstate == "40001"


Answers = list[pq.abc.PGresult]


class _Exchange:
    """Calls that were sent together, and their answers as far as they have come."""

    __slots__ = ("_awaited", "_on_whole", "answers", "whole")

    def __init__(
        self, whole: asyncio.Future[Answers], awaited: int | None, on_whole: Callable[[], None] | None
    ) -> None:
        """`awaited` is how many answers come; None: they end with that to a Sync. A commit that fails is one more."""
        self.whole = whole
        self._awaited = awaited
        self._on_whole = on_whole
        self.answers: Answers = []

    def take(self, answer: pq.abc.PGresult) -> bool:
        """Whether it was the last one."""
        self.answers.append(answer)
        if self._awaited is None:
            return answer.status == pq.ExecStatus.PIPELINE_SYNC
        return len(self.answers) == self._awaited

    def hand_over(self) -> None:
        """Nothing more will come: give the answers to whoever waits."""
        if not self.whole.done():
            self.whole.set_result(self.answers)
            self.tell()

    def tell(self) -> None:
        if self._on_whole is not None:
            self._on_whole()


class PostgresPipe:
    """An open connection. One transaction after the other; lives on one event loop."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection  # kept: it owns the libpq connection
        self._libpq = connection.pgconn
        self.session = ""
        self._loop = asyncio.get_running_loop()
        self._names: dict[str, bytes] = {}
        # In the order of their answers.
        self._exchanges: deque[_Exchange] = deque()
        self._libpq.nonblocking = 1
        self._libpq.enter_pipeline_mode()
        self._socket = self._libpq.socket
        self._loop.add_reader(self._socket, self._on_readable)

    @classmethod
    async def connect(cls, *statements: str, **parameters: Any) -> "PostgresPipe":
        """Connect, and prepare the statements that will be called often. Raises PostgresAway, CallRefused."""
        try:
            pipe = cls(await psycopg.AsyncConnection.connect(autocommit=True, **parameters))
            try:
                await pipe._prepare(statements)
                pipe.session = (await pipe.commit(Call(_WHO_AM_I, [])))[0].decode()
            except BaseException:
                pipe.close()
                raise
        except psycopg.Error as error:
            raise PostgresAway(first_line(error)) from None
        return pipe

    async def ask(self, *calls: Call) -> list[bytes]:
        """Run calls in an open transaction; the first column of the first row of each.

        Nothing else may be on its way. Raises PostgresAway; CallRefused, and then the transaction is over.
        """
        try:
            return judged(await self._send(calls, is_last=False))
        except CallRefused:
            await self._send((), is_last=True)
            raise

    async def commit(self, *calls: Call) -> list[bytes]:
        """Run calls and commit them with what was asked before. Raises PostgresAway, CallRefused."""
        return judged(await self._send(calls, is_last=True))

    def send(self, call: Call, *, on_answer: Callable[[], None]) -> asyncio.Future[Answers]:
        """Have a call run as a transaction of its own, after those that are on their way.

        The future's result is for `judged`; it may raise PostgresAway, and so may this. `on_answer` is called when it
        has one: at once, where a callback of the future would come a turn of the loop later.
        """
        return self._send([call], is_last=True, on_answer=on_answer)

    async def end(self, session: str) -> bool:
        """Have PostgreSQL end another of our connections; whether it has gone. Raises PostgresAway, CallRefused."""
        return not await self.commit(Call(_END, [session.encode()]))

    def look(self) -> None:
        """See whether something has come, or the connection has gone, without being told.

        Where a backend ends while something lies unread before it, the event loop (libuv) is told of an error once, and
        never of the end.
        """
        if self._socket >= 0:
            self._on_readable()

    def close(self) -> None:
        """Drop the connection; a transaction that was open is rolled back."""
        self._lose("the connection was closed")
        self._libpq.finish()

    async def _prepare(self, statements: Iterable[str]) -> None:
        for number, statement in enumerate(statements):
            name = self._names[statement] = f"s{number}".encode()
            self._libpq.send_prepare(name, statement.encode())
        self._libpq.pipeline_sync()
        judged(await self._flush(None))

    def _send(
        self, calls: Sequence[Call], *, is_last: bool, on_answer: Callable[[], None] | None = None
    ) -> asyncio.Future[Answers]:
        unprepared = 0
        try:
            for call in calls:
                name = self._names.get(call.statement, b"")
                if not name:
                    self._libpq.send_prepare(name, call.statement.encode())
                    unprepared += 1
                self._libpq.send_query_prepared(name, call.parameters)
            if is_last:
                self._libpq.pipeline_sync()
            else:
                self._libpq.send_flush_request()
            return self._flush(None if is_last else unprepared + len(calls), on_answer)
        except psycopg.OperationalError as error:
            raise PostgresAway(first_line(error)) from None

    def _flush(
        self, awaited: int | None, on_whole: Callable[[], None] | None = None
    ) -> asyncio.Future[Answers]:
        """Send what is buffered, to which so many answers will come; None: those up to the Sync's."""
        if self._socket < 0:
            raise PostgresAway("the connection is closed")
        exchange = _Exchange(self._loop.create_future(), awaited, on_whole)
        self._exchanges.append(exchange)
        if self._libpq.flush():
            self._loop.add_writer(self._socket, self._on_writable)
        return exchange.whole

    def _on_writable(self) -> None:
        try:
            if not self._libpq.flush():
                self._loop.remove_writer(self._socket)
        except psycopg.OperationalError as error:
            self._lose(first_line(error))

    def _on_readable(self) -> None:
        try:
            self._libpq.consume_input()
            self._collect()
        except psycopg.OperationalError as error:
            self._lose(first_line(error))

    def _collect(self) -> None:
        """Take the answers that have come whole."""
        is_between = False
        while self._exchanges and not self._libpq.is_busy():
            answer = self._libpq.get_result()
            if answer is not None:
                self._take(answer)
                is_between = False
            elif is_between:
                return  # libpq puts one None after an answer. A second one: there are no more, the connection broke
            else:
                is_between = True

    def _take(self, answer: pq.abc.PGresult) -> None:
        exchange = self._exchanges[0]
        if exchange.take(answer):
            self._exchanges.popleft()
            exchange.hand_over()

    def _lose(self, why: str) -> None:
        if self._socket >= 0:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket = -1
        lost = [exchange for exchange in self._exchanges if not exchange.whole.done()]
        self._exchanges.clear()
        for exchange in lost:
            exchange.whole.set_exception(PostgresAway(why))
        for exchange in lost:
            exchange.tell()


def judged(answers: Answers) -> list[bytes]:
    """The first column of the first row of each answer that has rows. Raises CallRefused."""
    for answer in answers:
        if answer.status not in _GOOD:
            state = answer.error_field(pq.DiagnosticField.SQLSTATE) or b""
            raise CallRefused(first_line(answer.get_error_message()), state.decode())
    return [answer.get_value(0, 0) or b"" for answer in answers if answer.ntuples]


def first_line(error: object) -> str:
    """The first line of what PostgreSQL says, which is what a log needs."""
    return str(error).strip().split("\n")[0]

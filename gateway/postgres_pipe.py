"""One connection to PostgreSQL that the event loop drives itself: a few calls in a row, answers in the same order.

psycopg makes the connection and speaks libpq for us; what is left out is what it does for each statement beside that
(cursors, adaptation of types, two more round trips for a transaction in a pipeline), which costs more than the rest of
an admission. Statements are prepared once and get their parameters as text.

Calls between two ends of `transaction` are one transaction: PostgreSQL commits a pipeline at its Sync message, so
nothing is sent for BEGIN and COMMIT. Answers come before that with a Flush message.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

import psycopg
from psycopg import pq

from usage.batches import Call

_GOOD = frozenset({pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK, pq.ExecStatus.PIPELINE_SYNC})


class PostgresAway(Exception):
    """PostgreSQL cannot be reached, or the connection broke: what was running may or may not be committed."""


class CallRefused(Exception):
    """PostgreSQL refused a call; nothing of its transaction is in force. `is_transient`: it may go well later."""

    def __init__(self, message: str, sqlstate: str) -> None:
        super().__init__(message)
        # Lock and statement time limits, deadlock, serialization, shutdown, no more resources.
        self.is_transient = sqlstate[:2] in {"40", "53", "55", "57"}


class PostgresPipe:
    """An open connection. One transaction at a time; lives on one event loop."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection  # kept: it owns the libpq connection
        self._libpq = connection.pgconn
        self._loop = asyncio.get_running_loop()
        self._names: dict[str, bytes] = {}
        self._awaited = 0
        self._answers: list[pq.abc.PGresult] = []
        self._answered: asyncio.Future[None] | None = None
        self._libpq.nonblocking = 1
        self._libpq.enter_pipeline_mode()
        self._socket = self._libpq.socket
        self._loop.add_reader(self._socket, self._on_readable)

    @classmethod
    async def connect(cls, *statements: str, **parameters: Any) -> "PostgresPipe":
        """Connect, and prepare the statements that will be called. Raises PostgresAway, CallRefused."""
        try:
            pipe = cls(await psycopg.AsyncConnection.connect(autocommit=True, **parameters))
        except psycopg.Error as error:
            raise PostgresAway(first_line(error)) from None
        try:
            await pipe._prepare(statements)
        except BaseException:
            pipe.close()
            raise
        return pipe

    async def ask(self, *calls: Call) -> list[bytes]:
        """Run calls in an open transaction; the first column of the first row of each.

        Raises PostgresAway; CallRefused, and then the transaction is over.
        """
        return await self._run(calls, is_last=False)

    async def commit(self, *calls: Call) -> list[bytes]:
        """Run calls and commit them with what was asked before. Raises PostgresAway, CallRefused."""
        return await self._run(calls, is_last=True)

    def close(self) -> None:
        """Drop the connection; a transaction that was open is rolled back."""
        self._lose("the connection was closed")
        self._libpq.finish()

    async def _prepare(self, statements: Iterable[str]) -> None:
        for number, statement in enumerate(statements):
            name = self._names[statement] = f"s{number}".encode()
            self._libpq.send_prepare(name, statement.encode())
            self._awaited += 1
        await self._run((), is_last=True)

    async def _run(self, calls: Iterable[Call], *, is_last: bool) -> list[bytes]:
        try:
            for call in calls:
                values = [None if value is None else value.encode() for value in call.parameters]
                self._libpq.send_query_prepared(self._names[call.statement], values)
                self._awaited += 1
            if is_last:
                self._libpq.pipeline_sync()
                self._awaited += 1
            else:
                self._libpq.send_flush_request()
            answers = await self._exchange()
            for answer in answers:
                if answer.status not in _GOOD:
                    if not is_last:
                        await self._leave_failed_transaction()
                    state = answer.error_field(pq.DiagnosticField.SQLSTATE) or b""
                    raise CallRefused(first_line(answer.get_error_message()), state.decode())
        except psycopg.OperationalError as error:
            raise PostgresAway(first_line(error)) from None
        return [answer.get_value(0, 0) or b"" for answer in answers if answer.ntuples]

    async def _leave_failed_transaction(self) -> None:
        self._libpq.pipeline_sync()
        self._awaited += 1
        await self._exchange()

    async def _exchange(self) -> list[pq.abc.PGresult]:
        """Send what is buffered and wait for every awaited answer."""
        if self._socket < 0:
            raise psycopg.OperationalError("the connection is closed")
        self._answered = self._loop.create_future()
        if self._libpq.flush():
            self._loop.add_writer(self._socket, self._on_writable)
        await self._answered
        answers, self._answers = self._answers, []
        return answers

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
        while self._awaited and not self._libpq.is_busy():
            answer = self._libpq.get_result()
            if answer is not None:
                self._answers.append(answer)
                self._awaited -= 1
                is_between = False
            elif is_between:
                return  # libpq puts one None after an answer. A second one: there are no more, the connection broke
            else:
                is_between = True
        if not self._awaited and self._answered is not None and not self._answered.done():
            self._answered.set_result(None)

    def _lose(self, why: str) -> None:
        if self._socket >= 0:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket = -1
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(psycopg.OperationalError(why))


def first_line(error: object) -> str:
    """The first line of what PostgreSQL says, which is what a log needs."""
    return str(error).strip().split("\n")[0]

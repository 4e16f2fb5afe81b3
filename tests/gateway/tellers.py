"""A teller on an event loop of its own, for tests whose own connection to the database stays outside."""

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from django.db import connection

from accounts.models import Account
from gateway import teller as telling
from gateway.journal import Journal
from gateway.teller import Teller
from tests.gateway.conftest import wait_for


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Teller]:
    process_id = uuid.uuid4()
    teller = Teller(process_id=process_id, journal=Journal(directory=folder, process_id=process_id))
    teller.start()
    try:
        yield teller
    finally:
        await teller.stop()


def run(act: Callable[[Teller], Coroutine[Any, Any, None]], folder: Path) -> None:
    """Run the coroutine with a teller on a loop of its own; the test's own connection stays outside."""

    async def go() -> None:
        async with running(folder) as teller:
            await act(teller)

    failures: list[BaseException] = []
    thread = threading.Thread(target=lambda: _guard(go, failures))
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    if failures:
        raise failures[0]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for it in another thread, whose connection does not outlive it: the database is dropped at the end."""

    def wait() -> None:
        try:
            wait_for(condition)
        finally:
            connection.close()

    await asyncio.to_thread(wait)


def journaled(folder: Path) -> bool:
    return any(path.stat().st_size for path in folder.glob("*.jsonl"))


def _guard(go: Callable[[], Coroutine[Any, Any, None]], failures: list[BaseException]) -> None:
    try:
        asyncio.run(go())
    except BaseException as failure:  # noqa: BLE001 - it belongs to the test, in the thread that waits
        failures.append(failure)
    finally:
        connection.close()


@contextmanager
def console() -> Iterator[psycopg.Connection[Any]]:
    """Somebody else's connection, as if by hand."""
    with psycopg.connect(autocommit=True, **telling.connection_parameters()) as other:
        yield other


@contextmanager
def locked(*accounts: Account) -> Iterator[psycopg.Connection[Any]]:
    """In here somebody keeps the wallets of these accounts locked, unless they roll back sooner."""
    with console() as other:
        other.execute("BEGIN")
        other.execute(
            "SELECT 1 FROM billing_wallet WHERE account_id = ANY(%s) FOR UPDATE",
            [[account.pk for account in accounts]],
        )
        yield other
        other.execute("ROLLBACK")

"""The teller's connection to PostgreSQL, on the event loop that the server runs on."""

import asyncio
import threading
import time

import psycopg
import pytest
import uvloop

from gateway import teller as telling
from gateway.postgres_pipe import PostgresAway, PostgresPipe, judged
from usage.batches import Call

pytestmark = pytest.mark.django_db(transaction=True)

_NAME = "tollgate-pipe-test"
_SLOW = "SELECT pg_sleep(0.02), $1::text"
_TRIES = 20


def _nothing() -> None:
    """Nobody is told by a call."""


def end_backend() -> None:
    with psycopg.connect(autocommit=True, **telling.connection_parameters()) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s", [_NAME]
        )


async def lose_it_with_one_behind() -> bool:
    """Whether both who wait hear that the connection has gone, when it goes with a second batch unread."""
    pipe = await PostgresPipe.connect(_SLOW, **{**telling.connection_parameters(), "application_name": _NAME})
    waiting = [pipe.send(Call(_SLOW, [b"x" * 3000]), on_answer=_nothing)]
    await asyncio.to_thread(time.sleep, 0.002)
    waiting.append(pipe.send(Call(_SLOW, [b"x" * 60_000]), on_answer=_nothing))
    await asyncio.to_thread(end_backend)
    for _ in range(20):
        await asyncio.wait(waiting, timeout=0.02)
        pipe.look()
    heard = [future.done() and isinstance(future.exception(), PostgresAway) for future in waiting]
    pipe.close()
    for future in waiting:
        future.exception()
    return all(heard)


def tries() -> list[bool]:
    """On a loop of its own, in a thread of its own: Django's connection stays outside."""
    heard: list[bool] = []

    async def go() -> None:
        heard.extend([await lose_it_with_one_behind() for _ in range(_TRIES)])

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(go())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    return heard


def test_a_backend_that_ends_with_a_batch_unread_is_noticed_by_who_looks() -> None:
    assert tries() == [True] * _TRIES


def test_answers_are_told_whether_somebody_looks_or_not() -> None:
    async def go() -> list[bytes]:
        pipe = await PostgresPipe.connect(**telling.connection_parameters())
        answer = pipe.send(Call("SELECT $1::text", [b"heard"]), on_answer=_nothing)
        pipe.look()
        await answer
        pipe.look()
        pipe.close()
        pipe.look()
        return judged(answer.result())

    assert asyncio.run(go()) == [b"heard"]


def test_who_has_a_call_run_is_told_when_it_is_answered_and_when_the_connection_goes() -> None:
    async def go() -> None:
        told: list[str] = []
        pipe = await PostgresPipe.connect(**telling.connection_parameters())
        answered = pipe.send(Call("SELECT 1", []), on_answer=lambda: told.append("answered"))
        await answered
        # At once: nothing waits for a turn of the loop of its own.
        assert told == ["answered"]
        cut = pipe.send(Call("SELECT 2", []), on_answer=lambda: told.append("cut"))
        pipe.close()
        assert told == ["answered", "cut"]
        assert isinstance(cut.exception(), PostgresAway)

    asyncio.run(go())

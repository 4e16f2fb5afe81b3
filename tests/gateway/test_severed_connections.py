"""The way to PostgreSQL breaks under a batch: whatever becomes of it there, no hold is left behind."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.conf import settings
from django.db import connection

from gateway import teller as telling
from gateway.errors import Refusal
from gateway.postgres_pipe import CallRefused, PostgresPipe
from gateway.standing_connection import StandingConnection
from gateway.teller import Teller
from tests.gateway import link
from tests.gateway.tellers import console, run, until
from tests.invariants import check_books
from tests.usage.desk import Desk
from usage.admission import Admission, Admitted
from usage.models import UsageRecord

pytestmark = pytest.mark.django_db(transaction=True)

_OURS = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"


@pytest.fixture
def way(monkeypatch: pytest.MonkeyPatch) -> Iterator[link.Link]:
    """The way of tellers to PostgreSQL, over TCP."""
    database = settings.DATABASES["default"]
    host, port = database["HOST"], database["PORT"] or "5432"
    far = Path(host) / f".s.PGSQL.{port}" if host.startswith("/") else (host, int(port))
    direct = telling.connection_parameters
    with link.linked(far) as way:
        monkeypatch.setattr(
            telling, "connection_parameters", lambda: {**direct(), "host": "127.0.0.1", "port": way.port}
        )
        yield way


def complete(request: Admission) -> None:
    request.finished.outcome = UsageRecord.Outcome.COMPLETED
    request.finished.output_tokens = 1


def is_recorded(request: Admission) -> bool:
    return UsageRecord.objects.filter(pk=request.finished.id).exists()


def is_over(session: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(_OURS, [int(session.split(maxsplit=1)[0])])
        return bool(cursor.fetchone() == (0,))


async def lose_a_batch(teller: Teller, way: link.Link, *, first: Admission, lost: Admission) -> str:
    """Have a batch of one round trip be stuck on its way; the connection that was given up over it."""
    assert isinstance(await teller.admit(first), Admitted)
    complete(first)
    await teller.settle(first.finished)
    pipe = teller._connection.pipe
    assert pipe is not None
    way.stall()
    with pytest.raises(Refusal):
        await teller.admit(lost)
    return pipe.session


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is given up sooner, to spare the suite the waiting."""
    monkeypatch.setattr(StandingConnection, "answer_timeout_s", 0.7)


@pytest.mark.usefixtures("soon")
def test_a_batch_that_arrives_after_it_was_given_up_leaves_no_hold(tmp_path: Path, way: link.Link) -> None:
    desk = Desk(credit="1")
    first, lost, last = desk.request(), desk.request(), desk.request()

    async def act(teller: Teller) -> None:
        session = await lose_a_batch(teller, way, first=first, lost=lost)
        await until(lambda: is_recorded(lost))
        way.heal()
        await until(lambda: is_over(session))
        assert isinstance(await teller.admit(last), Admitted)
        complete(last)
        await teller.settle(last.finished)

    run(act, tmp_path)
    assert UsageRecord.objects.get(pk=lost.finished.id).outcome == UsageRecord.Outcome.REFUSED
    check_books(idle=True)


@pytest.mark.usefixtures("soon")
def test_nothing_is_settled_while_an_old_connection_is_not_over(
    tmp_path: Path, way: link.Link, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It takes PostgreSQL a while to end it; meanwhile the batch arrives, and is done."""
    monkeypatch.setattr("gateway.standing_connection._SAY_EVERY_S", 0.2)
    desk = Desk(credit="1")
    first, lost = desk.request(), desk.request()
    is_ending = False
    end = PostgresPipe.end

    async def end_later(self: PostgresPipe, session: str) -> bool:
        return is_ending and await end(self, session)

    monkeypatch.setattr(PostgresPipe, "end", end_later)

    def is_recorded_now() -> bool:
        with console() as other:
            found = other.execute("SELECT 1 FROM usage_usagerecord WHERE id = %s", [lost.finished.id])
            return found.fetchone() is not None

    async def act(teller: Teller) -> None:
        nonlocal is_ending
        session = await lose_a_batch(teller, way, first=first, lost=lost)
        await until(lambda: bool(teller._connection.severed) and teller._connection.pipe is not None)
        await asyncio.sleep(0.7)
        assert not await asyncio.to_thread(is_recorded_now)
        assert "has not ended yet" in caplog.text
        way.heal()
        await until(lambda: is_over(session))
        is_ending = True
        await until(lambda: is_recorded(lost))

    run(act, tmp_path)
    check_books(idle=True)


@pytest.mark.usefixtures("soon")
def test_where_connections_may_not_be_ended_it_is_said_and_goes_on(
    tmp_path: Path, way: link.Link, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(credit="1")
    first, lost = desk.request(), desk.request()

    async def refuse(self: PostgresPipe, session: str) -> bool:
        raise CallRefused("permission denied for function pg_terminate_backend", "42501")

    monkeypatch.setattr(PostgresPipe, "end", refuse)

    async def act(teller: Teller) -> None:
        await lose_a_batch(teller, way, first=first, lost=lost)
        await until(lambda: is_recorded(lost))
        assert "cannot be ended" in caplog.text
        await teller.stop()
        with console() as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tollgate-teller' "
                "AND pid <> pg_backend_pid() AND datname = current_database()"
            )
        way.heal()

    run(act, tmp_path)
    check_books(idle=True)


@pytest.mark.usefixtures("soon")
def test_a_batch_that_is_stuck_while_it_is_asked_leaves_no_hold(tmp_path: Path, way: link.Link) -> None:
    """Its books could not be foreseen, so it asks first."""
    desk = Desk(credit="1")
    lost, last = desk.request(), desk.request()

    async def act(teller: Teller) -> None:
        await until(lambda: teller._connection.pipe is not None and not teller._is_due())
        way.stall()
        with pytest.raises(Refusal):
            await teller.admit(lost)
        await until(lambda: is_recorded(lost))
        way.heal()
        assert isinstance(await teller.admit(last), Admitted)
        complete(last)
        await teller.settle(last.finished)

    run(act, tmp_path)
    check_books(idle=True)


def test_a_connection_that_was_lost_while_nobody_used_it_is_noticed_by_the_first_who_does(
    tmp_path: Path,
) -> None:
    desk = Desk(credit="1")
    requests = [desk.request() for _ in range(3)]

    async def act(teller: Teller) -> None:
        await teller.admit(requests[0])
        pipe = teller._connection.pipe
        assert pipe is not None
        with console() as other:
            other.execute("SELECT pg_terminate_backend(%s)", [int(pipe.session.split()[0])])
        await until(lambda: pipe._socket < 0)
        complete(requests[0])
        await teller.settle(requests[0].finished)
        await until(lambda: is_recorded(requests[0]))
        assert isinstance(await teller.admit(requests[1]), Admitted)
        complete(requests[1])
        await teller.settle(requests[1].finished)

    run(act, tmp_path)
    check_books(idle=True)


@pytest.mark.usefixtures("soon")
def test_a_heartbeat_that_is_stuck_on_its_way_is_given_up(
    tmp_path: Path, way: link.Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(credit="1")
    request = desk.request()
    monkeypatch.setattr(telling, "_HEARTBEAT_S", 0.1)

    async def act(teller: Teller) -> None:
        await until(lambda: teller._connection.pipe is not None)
        way.stall()
        await asyncio.sleep(1.5)
        assert isinstance(await teller.admit(request), Admitted)
        complete(request)
        await teller.settle(request.finished)

    run(act, tmp_path)
    way.heal()
    check_books(idle=True)


def limits_of(pgconn: Any) -> tuple[int, ...]:
    with socket.socket(fileno=socket.dup(pgconn.socket)) as its:
        return (
            its.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            its.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
            its.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
            its.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
            its.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
        )


def test_a_network_that_swallows_everything_is_noticed_in_seconds(way: link.Link) -> None:
    """The teller's connection and those of Django's pool, as their sockets have it."""
    teller = telling.connection_parameters()
    options = {
        name: value for name, value in settings.DATABASES["default"]["OPTIONS"].items() if name != "pool"
    }
    django = {name: teller[name] for name in ("dbname", "user", "password", "host", "port")} | options
    for parameters in (teller, django):
        with psycopg.connect(**parameters) as connected:
            assert limits_of(connected.pgconn) == (1, 5, 2, 3, 10_000)

"""What the teller does when the database does not answer, answers late, or refuses a row."""

import asyncio
import time
import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest

from billing.models import GatewayProcess, Hold
from gateway import teller as telling
from gateway.errors import Refusal
from gateway.journal import Journal
from gateway.postgres_pipe import PostgresAway, PostgresPipe
from gateway.teller import Teller
from tests.gateway.tellers import journaled, run, until
from tests.invariants import check_books
from tests.usage.desk import Desk
from usage.admission import Admitted, Idempotency
from usage.models import IdempotencyClaim, UsageRecord

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_running_teller_beats(tmp_path: Path) -> None:
    async def act(teller: Teller) -> None:
        alive = GatewayProcess.objects.filter(pk=teller.process_id)
        await until(alive.exists)

    run(act, tmp_path)


def test_many_requests_share_transactions_and_each_gets_its_own_answer(tmp_path: Path) -> None:
    desk = Desk(credit="1")
    requests = [desk.request() for _ in range(60)]

    async def act(teller: Teller) -> None:
        decisions = await asyncio.gather(*[teller.admit(request) for request in requests])
        assert all(isinstance(decision, Admitted) for decision in decisions)
        for request in requests:
            request.finished.outcome = UsageRecord.Outcome.COMPLETED
            request.finished.output_tokens = 1
        await asyncio.gather(*[teller.settle(request.finished) for request in requests])

    run(act, tmp_path)
    assert desk.wallet.balance_nanousd == 1_000_000_000 - 60 * 2_000
    check_books(idle=True)


def test_a_lock_that_is_held_too_long_refuses_the_request_and_leaves_no_hold(tmp_path: Path) -> None:
    desk = Desk(credit="1")
    request = desk.request()

    async def act(teller: Teller) -> None:
        with psycopg.connect(autocommit=True, **telling.connection_parameters()) as other:
            other.execute("BEGIN")
            other.execute("SELECT 1 FROM billing_wallet FOR UPDATE")
            started = time.monotonic()
            with pytest.raises(Refusal) as refused:
                await teller.admit(request)
            assert time.monotonic() - started < 2
            assert refused.value.status == 503
            other.execute("ROLLBACK")
        again = await teller.admit(desk_request)
        assert isinstance(again, Admitted)
        desk_request.finished.outcome = UsageRecord.Outcome.COMPLETED
        desk_request.finished.output_tokens = 1
        await teller.settle(desk_request.finished)

    desk_request = desk.request()
    run(act, tmp_path)
    assert not Hold.objects.exists()
    check_books(idle=True)


def test_an_answer_that_comes_too_late_gives_its_hold_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(credit="1")
    claim = Idempotency(digest="a" * 64, body_digest="b" * 64)
    request = desk.request(idempotency=claim)
    monkeypatch.setattr(telling, "_ADMIT_TIMEOUT_S", 0.3)
    monkeypatch.setattr(telling, "_STALLED_AFTER_S", 0.1)

    async def act(teller: Teller) -> None:
        with psycopg.connect(autocommit=True, **telling.connection_parameters()) as other:
            other.execute("BEGIN")
            other.execute("SELECT 1 FROM billing_wallet FOR UPDATE")
            with pytest.raises(Refusal):
                await teller.admit(request)
            other.execute("ROLLBACK")
        # Admitted now, though nobody waits for it any more.
        await until(lambda: UsageRecord.objects.filter(pk=request.finished.id).exists())

    run(act, tmp_path)
    assert desk.wallet.available_nanousd == 1_000_000_000
    assert not IdempotencyClaim.objects.exists()
    check_books(idle=True)


def test_a_settlement_that_waits_too_long_is_in_the_journal_and_booked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(credit="1")
    request = desk.request()
    monkeypatch.setattr(telling, "_SETTLE_TIMEOUT_S", 0.2)

    async def act(teller: Teller) -> None:
        await teller.admit(request)
        request.finished.outcome = UsageRecord.Outcome.COMPLETED
        request.finished.output_tokens = 10
        with psycopg.connect(autocommit=True, **telling.connection_parameters()) as other:
            other.execute("BEGIN")
            other.execute("SELECT 1 FROM billing_wallet FOR UPDATE")
            await teller.settle(request.finished)
            assert journaled(tmp_path)
            other.execute("ROLLBACK")
        await until(lambda: UsageRecord.objects.filter(pk=request.finished.id).exists())

    run(act, tmp_path)
    assert desk.wallet.balance_nanousd == 1_000_000_000 - 20_000
    assert list(tmp_path.iterdir()) == []
    check_books(idle=True)


def test_a_connection_that_is_cut_is_made_anew(tmp_path: Path) -> None:
    desk = Desk(credit="1")
    requests = [desk.request() for _ in range(2)]

    async def act(teller: Teller) -> None:
        assert isinstance(await teller.admit(requests[0]), Admitted)
        with psycopg.connect(autocommit=True, **telling.connection_parameters()) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'tollgate-teller' AND pid <> pg_backend_pid() "
                "AND datname = current_database()"
            )
        requests[0].finished.outcome = UsageRecord.Outcome.COMPLETED
        requests[0].finished.output_tokens = 1
        await teller.settle(requests[0].finished)
        await until(lambda: UsageRecord.objects.filter(pk=requests[0].finished.id).exists())
        assert isinstance(await teller.admit(requests[1]), Admitted)

    run(act, tmp_path)
    assert desk.wallet.balance_nanousd == 1_000_000_000 - 2_000
    Hold.objects.filter(pk=requests[1].finished.id).delete()


@pytest.mark.usefixtures("shared_batches")
def test_one_request_that_cannot_be_booked_takes_no_other_down(tmp_path: Path) -> None:
    desk = Desk(credit="1")
    good, bad = desk.request(), desk.request()

    async def act(teller: Teller) -> None:
        await asyncio.gather(teller.admit(good), teller.admit(bad))
        for request in (good, bad):
            request.finished.outcome = UsageRecord.Outcome.COMPLETED
            request.finished.output_tokens = 10
        bad.finished.latency_ms = 2**40  # more than its column can hold
        await asyncio.gather(teller.settle(good.finished), teller.settle(bad.finished))
        await until(lambda: bool(list(tmp_path.glob("*.refused"))))

    run(act, tmp_path)
    assert UsageRecord.objects.filter(pk=good.finished.id).exists()
    assert not UsageRecord.objects.filter(pk=bad.finished.id).exists()
    # What could not be booked keeps its hold: nobody spends it, and the operator finds its line.
    assert Hold.objects.get().request_id == bad.finished.id
    assert desk.wallet.held_nanousd == 300_000


def test_the_journal_of_a_dead_process_is_settled_by_the_next_one(tmp_path: Path) -> None:
    desk = Desk(credit="1")
    request = desk.request()
    desk.admit(request)
    request.finished.outcome = UsageRecord.Outcome.COMPLETED
    request.finished.output_tokens = 10
    dead = Journal(directory=tmp_path, process_id=uuid.uuid4())
    dead.append(request.finished)
    dead.close()

    async def act(teller: Teller) -> None:
        await until(lambda: UsageRecord.objects.filter(pk=request.finished.id).exists())

    run(act, tmp_path)
    assert desk.wallet.balance_nanousd == 1_000_000_000 - 20_000
    check_books(idle=True)


def test_without_a_database_admissions_are_refused_and_settlements_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(credit="1")
    request = desk.request()
    is_away = True
    reach = PostgresPipe.connect

    async def connect(*statements: str, **parameters: Any) -> PostgresPipe:
        if is_away:
            raise PostgresAway("nobody there")
        return await reach(*statements, **parameters)

    monkeypatch.setattr(PostgresPipe, "connect", connect)

    async def act(teller: Teller) -> None:
        nonlocal is_away
        with pytest.raises(Refusal) as refused:
            await teller.admit(request)
        assert refused.value.code == "temporarily_unavailable"
        request.finished.outcome = UsageRecord.Outcome.REFUSED
        teller.note(request.finished)
        await until(lambda: journaled(tmp_path))
        is_away = False
        await until(lambda: UsageRecord.objects.filter(pk=request.finished.id).exists())

    run(act, tmp_path)
    check_books(idle=True)


def test_a_settlement_whose_request_is_told_to_stop_is_waited_for(tmp_path: Path) -> None:
    desk = Desk(credit="1")
    request = desk.request()

    async def act(teller: Teller) -> None:
        assert isinstance(await teller.admit(request), Admitted)
        request.finished.outcome = UsageRecord.Outcome.COMPLETED
        request.finished.output_tokens = 1
        with psycopg.connect(autocommit=True, **telling.connection_parameters()) as other:
            other.execute("BEGIN")
            other.execute("SELECT 1 FROM billing_wallet FOR UPDATE")
            settling = asyncio.create_task(teller.settle(request.finished))
            await asyncio.sleep(0.1)
            settling.cancel()
            await asyncio.sleep(0.1)
            assert not settling.done()
            other.execute("ROLLBACK")
        await settling
        assert request.finished.charged_nanousd == 2_000

    run(act, tmp_path)
    check_books(idle=True)


def test_a_settlement_that_takes_too_long_is_in_the_journal_even_if_its_request_is_told_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(credit="1")
    request = desk.request()
    monkeypatch.setattr(telling, "_SETTLE_TIMEOUT_S", 0.3)
    monkeypatch.setattr(telling, "_ADMIT_TIMEOUT_S", 0.3)

    async def act(teller: Teller) -> None:
        assert isinstance(await teller.admit(request), Admitted)
        request.finished.outcome = UsageRecord.Outcome.COMPLETED
        with psycopg.connect(autocommit=True, **telling.connection_parameters()) as other:
            other.execute("BEGIN")
            other.execute("SELECT 1 FROM billing_wallet FOR UPDATE")
            settling = asyncio.create_task(teller.settle(request.finished))
            await asyncio.sleep(0.1)
            settling.cancel()
            await settling
            assert journaled(tmp_path)
            other.execute("ROLLBACK")
        await until(lambda: not Hold.objects.exists())

    run(act, tmp_path)
    check_books(idle=True)


def test_who_waits_for_a_teller_that_has_ended_can_be_stopped(tmp_path: Path) -> None:
    request = Desk(credit="1").request()

    async def act(teller: Teller) -> None:
        await teller.stop()
        settling = asyncio.create_task(teller.settle(request.finished))
        await asyncio.sleep(0)
        settling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await settling

    run(act, tmp_path)


def test_a_request_that_has_waited_for_postgresql_before_has_only_the_rest_of_its_patience(
    tmp_path: Path,
) -> None:
    desk = Desk(credit="1")
    early, late, in_time = desk.request(), desk.request(), desk.request()

    async def act(teller: Teller) -> None:
        assert isinstance(await teller.admit(in_time, waited_s=1.7), Admitted)
        in_time.finished.outcome = UsageRecord.Outcome.COMPLETED
        await teller.settle(in_time.finished)
        with psycopg.connect(autocommit=True, **telling.connection_parameters()) as other:
            other.execute("BEGIN")
            other.execute("SELECT 1 FROM billing_wallet FOR UPDATE")
            began = time.monotonic()
            first = asyncio.create_task(teller.admit(early))
            with pytest.raises(Refusal) as refused:
                await teller.admit(late, waited_s=1.7)
            assert time.monotonic() - began < 0.3 + 0.1
            assert refused.value.status == 503
            with pytest.raises(Refusal):
                await first
            assert time.monotonic() - began > 0.5  # as long as a lock is waited for
            other.execute("ROLLBACK")
        await asyncio.sleep(telling._ADMIT_TIMEOUT_S)

    run(act, tmp_path)
    assert not Hold.objects.exists()
    check_books(idle=True)

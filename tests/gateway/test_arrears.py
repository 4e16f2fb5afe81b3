"""What is owed to the books: a long journal keeps nobody waiting, and a disk that refuses it loses nothing."""

import asyncio
import resource
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest
from uuid_utils.compat import uuid7

from gateway import arrears as owing
from gateway import condition
from gateway import teller as telling
from gateway.errors import Refusal
from gateway.items import Item
from gateway.journal import Journal
from gateway.outcomes import Outcomes
from gateway.teller import Teller
from tests.factories import now
from tests.gateway.tellers import console, journaled, locked, run, until
from tests.invariants import check_books
from tests.usage.desk import Desk
from usage.admission import Admission, Admitted, Decision
from usage.models import UsageRecord
from usage.recording import FinishedRequest

pytestmark = pytest.mark.django_db(transaction=True)

LINES = 12_000
USUAL_S = 0.5


@contextmanager
def full_disk() -> Iterator[None]:
    """In here no file of this process takes more than half a line."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def refused(desk: Desk) -> FinishedRequest:
    at = now()
    return FinishedRequest(
        id=uuid7(),
        account_id=desk.account.pk,
        key_id=desk.key.pk,
        endpoint="chat/completions",
        outcome=UsageRecord.Outcome.REFUSED,
        status=503,
        started_at=at,
        ended_at=at,
    )


def leave_long_journal(folder: Path, desk: Desk) -> None:
    """As a process that died would."""
    dead = Journal(directory=folder, process_id=uuid.uuid4())
    dead.append(*[refused(desk) for _ in range(LINES)])
    dead.close()


def complete(request: Admission) -> FinishedRequest:
    request.finished.outcome = UsageRecord.Outcome.COMPLETED
    request.finished.output_tokens = 10
    return request.finished


def is_booked(request: Admission) -> bool:
    return UsageRecord.objects.filter(pk=request.finished.id).exists()


def records_now() -> int:
    with console() as other:
        row = other.execute("SELECT count(*) FROM usage_usagerecord").fetchone()
    assert row is not None
    return int(row[0])


def test_while_a_long_journal_is_settled_requests_are_admitted_and_the_process_beats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(credit="1")
    leave_long_journal(tmp_path, desk)
    monkeypatch.setattr(telling, "_HEARTBEAT_S", 0.1)
    stock = [desk.request() for _ in range(200)]

    async def act(teller: Teller) -> None:
        took_s, beats, served = [], set(), []
        while await asyncio.to_thread(records_now) < LINES:
            started = time.monotonic()
            served.append(stock.pop())
            assert isinstance(await teller.admit(served[-1]), Admitted)
            await teller.settle(complete(served[-1]))
            took_s.append(time.monotonic() - started)
            beats.add(await asyncio.to_thread(last_beat, teller))
        assert len(took_s) > 5, "the journal was not long enough to show anything"
        assert max(took_s) < USUAL_S
        assert len(beats) > 3

    def last_beat(teller: Teller) -> object:
        with console() as other:
            return other.execute(
                "SELECT heartbeat_at FROM billing_gatewayprocess WHERE id = %s", [teller.process_id]
            ).fetchone()

    run(act, tmp_path)
    assert list(tmp_path.iterdir()) == []
    check_books(idle=True)


def test_a_process_that_is_told_to_stop_leaves_the_rest_of_a_long_journal_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(credit="1")
    leave_long_journal(tmp_path, desk)
    monkeypatch.setattr(telling, "_LAST_REPLAY_S", 0.0)

    async def stop_in_the_middle(teller: Teller) -> None:
        await until(lambda: records_now() > 0)
        await teller.stop()

    run(stop_in_the_middle, tmp_path)
    assert 0 < records_now() < LINES
    assert journaled(tmp_path)

    async def go_on(teller: Teller) -> None:
        await until(lambda: records_now() == LINES)

    run(go_on, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_loses_no_settlement_and_the_process_is_not_ready_meanwhile(tmp_path: Path) -> None:
    desk = Desk(credit="1")
    requests = [desk.request() for _ in range(3)]

    async def act(teller: Teller) -> None:
        for request in requests:
            await teller.admit(request)
        with locked(desk.account) as other, full_disk():
            await asyncio.gather(*[teller.settle(complete(request)) for request in requests])
            assert condition.journal == condition.NOT_WRITABLE
            assert not journaled(tmp_path)
            other.execute("ROLLBACK")
            # It needs no disk, once PostgreSQL takes it.
            await until(lambda: all(is_booked(request) for request in requests))
            assert condition.journal == condition.OK

    run(act, tmp_path)
    assert desk.wallet.balance_nanousd == 1_000_000_000 - 3 * 20_000
    assert list(tmp_path.iterdir()) == []
    check_books(idle=True)


def test_what_a_full_disk_refused_is_written_as_soon_as_there_is_room(tmp_path: Path) -> None:
    desk = Desk(credit="1")
    requests = [desk.request() for _ in range(3)]

    async def act(teller: Teller) -> None:
        for request in requests:
            await teller.admit(request)
        with locked(desk.account):
            with full_disk():
                await asyncio.gather(*[teller.settle(complete(request)) for request in requests])
                await asyncio.sleep(2 * owing._PAUSE_S)
                assert condition.journal == condition.NOT_WRITABLE
            await until(lambda: journaled(tmp_path))
            await until(lambda: condition.journal == condition.OK)
        await until(lambda: all(is_booked(request) for request in requests))

    run(act, tmp_path)
    assert desk.wallet.balance_nanousd == 1_000_000_000 - 3 * 20_000
    check_books(idle=True)


def test_what_waits_twice_is_waited_for_no_longer_once_it_is_settled(tmp_path: Path) -> None:
    finished = refused(Desk(credit="1"))

    async def act() -> None:
        arrears = owing.Arrears(Journal(directory=tmp_path, process_id=uuid.uuid4()))
        await arrears.keep([finished])
        arrears.put_back(await arrears.take(10, but_not_of=()))
        with full_disk():
            await arrears.keep([finished])
        arrears._next_write_at = 0.0
        await arrears.write_down()
        for again in await arrears.take(10, but_not_of=()):
            arrears.settled(again)
        await arrears.tidy()
        assert arrears.is_empty
        await arrears.close()

    asyncio.run(act())


def test_a_process_that_ends_while_neither_takes_them_says_what_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(credit="1")
    request = desk.request()
    request.finished.outcome = UsageRecord.Outcome.COMPLETED

    async def act() -> None:
        owed = owing.Arrears(Journal(directory=tmp_path, process_id=uuid.uuid4()))
        with full_disk():
            # Because it waited too long, and because its batch failed.
            await owed.keep([request.finished])
            await owed.keep([request.finished])
            await owed.close()

    asyncio.run(act())
    assert caplog.text.count(f"the settlement of request {request.finished.id} is lost") == 1
    condition.journal = condition.OK


def test_refused_requests_are_kept_for_the_log_as_far_as_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(credit="1")
    request = desk.request()
    notes = [refused(desk) for _ in range(4)]
    monkeypatch.setattr(owing, "_NOTES_BYTES", 1_000)

    async def act(teller: Teller) -> None:
        await teller.admit(request)
        with locked(desk.account):
            await teller.settle(complete(request))
            for note in notes:
                teller.note(note)
                await asyncio.sleep(0.05)
        await until(lambda: is_booked(request))

    run(act, tmp_path)
    kept = UsageRecord.objects.filter(outcome="refused").count()
    assert 0 < kept < 4
    assert f"{4 - kept} refused requests were not kept for the log" in caplog.text
    check_books(idle=True)


def test_a_line_that_cannot_be_read_waits_for_room_to_be_kept_apart(tmp_path: Path) -> None:
    async def act() -> None:
        journal = Journal(directory=tmp_path, process_id=uuid.uuid4())
        owed = owing.Arrears(journal)
        await owed.adopt()
        with full_disk():
            assert await owed.take(10, but_not_of=()) == []
            assert not owed.is_due
            assert not list(kept_apart())
        assert await owed.take(10, but_not_of=()) == []
        await owed.close()

    def kept_apart() -> Iterator[int]:
        return (size for path in tmp_path.glob("*.refused") if (size := path.stat().st_size))

    (tmp_path / "dead.jsonl").write_bytes(b"nonsense" * 50 + b"\n")
    asyncio.run(act())
    assert list(kept_apart()) == [401]


def test_what_cannot_be_kept_apart_either_is_tried_again(tmp_path: Path) -> None:
    desk = Desk(credit="1")
    request = desk.request()

    async def act(teller: Teller) -> None:
        await teller.admit(request)
        request.finished.latency_ms = 2**40  # more than its column can hold
        with full_disk():
            await teller.settle(complete(request))
            await asyncio.sleep(2 * owing._PAUSE_S)
            assert condition.journal == condition.NOT_WRITABLE
        await until(lambda: any(path.stat().st_size for path in tmp_path.glob("*.refused")))
        await until(lambda: condition.journal == condition.OK)

    run(act, tmp_path)
    (apart,) = tmp_path.glob("*.refused")
    assert apart.read_bytes().count(b"\n") == 1


def test_a_decision_that_nobody_hears_any_more_gives_its_hold_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told to stop between the decision and its being heard, which is one turn of the event loop."""
    desk = Desk(credit="1")
    request, insufficient = desk.request(), desk.request(output_limit=100_000_000)
    deliver = Outcomes.deliver

    def deliver_and_cancel(self: Outcomes, batch: list[Item], decisions: list[Decision | None]) -> None:
        deliver(self, batch, decisions)
        for task in asking:
            task.cancel()

    asking: list[asyncio.Task[Decision]] = []
    monkeypatch.setattr(Outcomes, "deliver", deliver_and_cancel)

    async def act(teller: Teller) -> None:
        asking.extend(asyncio.create_task(teller.admit(asked)) for asked in (request, insufficient))
        assert all(
            isinstance(heard, asyncio.CancelledError)
            for heard in await asyncio.gather(*asking, return_exceptions=True)
        )

    run(act, tmp_path)
    assert not is_booked(insufficient)
    assert UsageRecord.objects.get(pk=request.finished.id).charged_nanousd == 0
    check_books(idle=True)


@pytest.mark.parametrize("where", ["land", "send", "_do_apart"])
def test_a_teller_that_fails_refuses_whoever_waits_keeps_what_is_owed_and_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    desk = Desk(credit="1")
    admitted, refused_later = desk.request(), desk.request()
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    async def act(teller: Teller) -> None:
        await teller.admit(admitted)

        def fail(*_: object) -> None:
            raise RuntimeError("a defect")

        monkeypatch.setattr(teller if where == "_do_apart" else teller._flights, where, fail)
        if where != "send":
            # It is not looked at before something is due.
            teller._arrival.set()
            await asyncio.sleep(0)
        settling = asyncio.create_task(teller.settle(complete(admitted)))
        await asyncio.sleep(0.2)
        started = time.monotonic()
        with pytest.raises(Refusal) as refusal:
            await teller.admit(refused_later)
        assert refusal.value.status == 503
        assert time.monotonic() - started < 2 + 0.5
        await settling
        assert journaled(tmp_path)
        assert await asyncio.to_thread(ended.wait, 5)

    before = signal.signal(signal.SIGTERM, end)
    try:
        run(act, tmp_path)
    finally:
        signal.signal(signal.SIGTERM, before)

    # Whoever is started in its place books it.
    async def succeed(teller: Teller) -> None:
        await until(lambda: is_booked(admitted))

    run(succeed, tmp_path)
    assert desk.wallet.balance_nanousd == 1_000_000_000 - 20_000
    check_books(idle=True)

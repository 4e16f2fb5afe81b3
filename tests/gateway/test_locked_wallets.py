"""Somebody keeps a wallet locked: its account's requests are refused, and nobody else's wait for it."""

import asyncio
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import Refusal
from gateway.locked_wallets import LockedWallets
from gateway.postgres_pipe import PostgresAway, PostgresPipe
from gateway.standing_connection import StandingConnection
from gateway.teller import Teller
from tests.gateway.tellers import console, journaled, locked, run, until
from tests.invariants import check_books
from tests.usage.desk import Desk
from usage.admission import Admission, Admitted, Decision
from usage.models import UsageRecord

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("shared_batches")]

# What a batch waits for a lock, and the way there and back on a machine that does other things too.
ONE_WAIT_S = 1.0 + 0.7
AT_ONCE_S = 0.5


async def timed(teller: Teller, request: Admission) -> tuple[Decision | Refusal, float]:
    """What became of the request, and after how long."""
    started = time.monotonic()
    try:
        decision: Decision | Refusal = await teller.admit(request)
    except Refusal as refusal:
        decision = refusal
    return decision, time.monotonic() - started


async def end(teller: Teller, *requests: Admission) -> None:
    for request in requests:
        request.finished.outcome = UsageRecord.Outcome.COMPLETED
        request.finished.output_tokens = 1
    await asyncio.gather(*[teller.settle(request.finished) for request in requests])


def is_booked(request: Admission) -> bool:
    return UsageRecord.objects.filter(pk=request.finished.id).exists()


def count_connections(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    made: list[float] = []
    reach = PostgresPipe.connect

    async def connect(*statements: str, **parameters: Any) -> PostgresPipe:
        made.append(time.monotonic())
        return await reach(*statements, **parameters)

    monkeypatch.setattr(PostgresPipe, "connect", connect)
    return made


def test_a_locked_wallet_refuses_its_own_account_and_nobody_else_waits_for_it_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, *others = [Desk(credit="1") for _ in range(4)]
    before = victim.request()
    connections = count_connections(monkeypatch)

    async def act(teller: Teller) -> None:
        await teller.admit(before)
        with locked(victim.account):
            first, *served = await asyncio.gather(
                timed(teller, in_the_way), *[timed(teller, request) for request in first_of_others]
            )
            assert isinstance(first[0], Refusal)
            assert first[0].status == 503
            assert dict(first[0].headers)[b"retry-after"] == b"1"
            assert all(isinstance(decision, Admitted) for decision, _ in served)
            assert max(took_s for _, took_s in (first, *served)) < ONE_WAIT_S

            # From now on nobody waits at all, for as long as it takes.
            teller.note(in_the_way.finished)
            await asyncio.wait_for(end(teller, before), AT_ONCE_S)
            assert journaled(tmp_path)
            until_then = time.monotonic() + 2
            while time.monotonic() < until_then:
                refused, *served = await asyncio.gather(
                    timed(teller, victim_asks()), *[timed(teller, other_asks(desk)) for desk in others]
                )
                assert isinstance(refused[0], Refusal)
                assert all(isinstance(decision, Admitted) for decision, _ in served)
                assert max(took_s for _, took_s in (refused, *served)) < AT_ONCE_S
                await asyncio.sleep(0.05)
        again, took_s = await timed(teller, last)
        assert isinstance(again, Admitted)
        assert took_s < AT_ONCE_S
        await end(teller, last, *asked, *first_of_others)
        await until(lambda: is_booked(before) and is_booked(in_the_way))

    in_the_way, last = victim.request(), victim.request()
    first_of_others = [desk.request() for desk in others]
    stock = {desk: [desk.request() for _ in range(60)] for desk in (victim, *others)}
    asked: list[Admission] = []

    def victim_asks() -> Admission:
        return stock[victim].pop()

    def other_asks(desk: Desk) -> Admission:
        asked.append(stock[desk].pop())
        return asked[-1]

    in_the_way.finished.outcome = UsageRecord.Outcome.REFUSED
    run(act, tmp_path)

    assert len(connections) == 1
    assert victim.wallet.balance_nanousd == 1_000_000_000 - 2 * 2_000
    assert list(tmp_path.iterdir()) == []
    check_books(idle=True)


def test_what_the_journal_owes_for_a_locked_wallet_keeps_nothing_else_of_it_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, other = Desk(credit="1"), Desk(credit="1")
    requests = [victim.request(), other.request(), victim.request()]
    connections = count_connections(monkeypatch)
    monkeypatch.setattr("gateway.teller._REPLAYED", 1)

    async def act(teller: Teller) -> None:
        for request in requests:
            await teller.admit(request)
        with locked(victim.account):
            for request in requests:
                request.finished.outcome = UsageRecord.Outcome.COMPLETED
                request.finished.output_tokens = 1
            await teller._arrears.keep([request.finished for request in requests])
            await until(lambda: is_booked(requests[1]))
            decision, took_s = await timed(teller, last)
            assert isinstance(decision, Admitted)
            assert took_s < ONE_WAIT_S
            assert not is_booked_sync(requests[0])
        await until(lambda: is_booked(requests[0]) and is_booked(requests[2]))
        await end(teller, last)

    def is_booked_sync(request: Admission) -> bool:
        with console() as other_connection:
            row = other_connection.execute(
                "SELECT 1 FROM usage_usagerecord WHERE id = %s", [request.finished.id]
            ).fetchone()
        return row is not None

    last = other.request()
    run(act, tmp_path)

    assert len(connections) == 1
    assert victim.wallet.balance_nanousd == 1_000_000_000 - 2 * 2_000
    check_books(idle=True)


Among = Callable[[PostgresPipe, Collection[int]], Any]


def at_the_search(
    monkeypatch: pytest.MonkeyPatch, *, before: Callable[[], Any], after: Callable[[], Any]
) -> None:
    """Do something just before and just after the locked wallets are looked for."""
    search = LockedWallets.among

    async def among(self: LockedWallets, pipe: PostgresPipe, accounts: Collection[int]) -> list[int]:
        before()
        found = await search(self, pipe, accounts)
        after()
        return found

    monkeypatch.setattr(LockedWallets, "among", among)


def nothing() -> None:
    pass


def test_a_wallet_that_only_another_batch_has_just_then_refuses_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, busy = Desk(credit="1"), Desk(credit="1")
    requests = [victim.request(), busy.request()]

    async def act(teller: Teller) -> None:
        with locked(victim.account), console() as another:

            def begin() -> None:
                another.execute("BEGIN")
                another.execute(
                    "SELECT 1 FROM billing_wallet WHERE account_id = %s FOR UPDATE", [busy.account.pk]
                )

            at_the_search(monkeypatch, before=begin, after=lambda: another.execute("ROLLBACK"))
            (refused, _), (served, _) = await asyncio.gather(
                *[timed(teller, request) for request in requests]
            )
        assert isinstance(refused, Refusal)
        assert isinstance(served, Admitted)
        await end(teller, requests[1])

    run(act, tmp_path)
    check_books(idle=True)


def test_a_lock_that_goes_while_it_is_looked_for_refuses_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desks = [Desk(credit="1") for _ in range(2)]
    requests = [desk.request() for desk in desks]

    async def act(teller: Teller) -> None:
        with locked(desks[0].account) as other:
            at_the_search(monkeypatch, before=lambda: other.execute("ROLLBACK"), after=nothing)
            decisions = await asyncio.gather(*[timed(teller, request) for request in requests])
        assert all(isinstance(decision, Admitted) for decision, _ in decisions)
        await end(teller, *requests)

    run(act, tmp_path)
    check_books(idle=True)


def test_many_locked_wallets_delay_the_others_hardly_more_than_one(tmp_path: Path) -> None:
    *victims, other = [Desk(credit="1") for _ in range(12)]
    requests = [desk.request() for desk in (*victims, other)]

    async def act(teller: Teller) -> None:
        with locked(*[victim.account for victim in victims]):
            *refused, (served, took_s) = await asyncio.gather(
                *[timed(teller, request) for request in requests]
            )
            assert all(isinstance(decision, Refusal) for decision, _ in refused)
            assert max(took_s for _, took_s in refused) < 2 + 0.5
            assert isinstance(served, Admitted)
            assert took_s < ONE_WAIT_S
        await end(teller, requests[-1])

    run(act, tmp_path)
    check_books(idle=True)


def test_two_batches_on_their_way_that_wait_for_one_wallet_serve_all_others_in_time(tmp_path: Path) -> None:
    desks = [Desk(credit="1") for _ in range(3)]
    victim = desks[0]
    warm = [desk.request() for desk in desks]
    first, second = ([desk.request() for desk in pair] for pair in (desks[:2], desks[::2]))

    async def act(teller: Teller) -> None:
        # From here on the books of these can be foreseen.
        await asyncio.gather(*[teller.admit(request) for request in warm])
        await end(teller, *warm)
        with locked(victim.account):
            early = [asyncio.create_task(timed(teller, request)) for request in first]
            await asyncio.sleep(0.1)
            (refused, _), (served, took_s), (other, _), (late, late_s) = await asyncio.gather(
                *early, *[timed(teller, request) for request in second]
            )
        assert isinstance(refused, Refusal)
        assert isinstance(other, Refusal)
        assert isinstance(served, Admitted)
        assert isinstance(late, Admitted)
        assert max(took_s, late_s) < 2
        await end(teller, first[1], second[1])

    run(act, tmp_path)
    check_books(idle=True)


def test_a_locked_wallet_in_a_locked_table_stays_locked_and_the_connection_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = Desk(credit="1")
    requests = [victim.request() for _ in range(3)]
    connections = count_connections(monkeypatch)

    async def act(teller: Teller) -> None:
        with locked(victim.account) as other:
            assert isinstance((await timed(teller, requests[0]))[0], Refusal)
            other.execute("LOCK TABLE billing_wallet IN EXCLUSIVE MODE")
            assert isinstance((await timed(teller, requests[1]))[0], Refusal)
        assert isinstance((await timed(teller, requests[2]))[0], Admitted)
        await end(teller, requests[2])

    run(act, tmp_path)
    assert len(connections) == 1
    check_books(idle=True)


def test_a_batch_that_waited_in_vain_is_refused_where_there_is_no_connection_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desks = [Desk(credit="1") for _ in range(2)]
    warm, requests = ([desk.request() for desk in desks] for _ in range(2))

    async def none(_: StandingConnection) -> None:
        return None

    async def act(teller: Teller) -> None:
        await asyncio.gather(*[teller.admit(request) for request in warm])
        await end(teller, *warm)
        with locked(desks[0].account), monkeypatch.context() as broken:
            broken.setattr(StandingConnection, "connected", none)
            heard = await asyncio.gather(*[timed(teller, request) for request in requests])
        assert all(isinstance(refusal, Refusal) for refusal, _ in heard)

    run(act, tmp_path)
    check_books(idle=True)


@pytest.mark.parametrize("is_known", [False, True])
def test_a_connection_that_breaks_while_locked_wallets_are_looked_for_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    desks = [Desk(credit="1") for _ in range(2)]
    requests, again = ([desk.request() for desk in desks] for _ in range(2))

    async def away(*_: object) -> list[int]:
        raise PostgresAway("the connection broke")

    async def act(teller: Teller) -> None:
        with locked(desks[0].account):
            if is_known:
                assert isinstance((await timed(teller, before))[0], Refusal)
            with monkeypatch.context() as broken:
                broken.setattr(LockedWallets, "among", away)
                heard = await asyncio.gather(*[timed(teller, request) for request in requests])
        assert isinstance(heard[0][0], Refusal)
        served = await asyncio.gather(*[timed(teller, request) for request in again])
        assert all(isinstance(decision, Admitted) for decision, _ in served)
        await end(
            teller, *again, *[r for r, (d, _) in zip(requests, heard, strict=True) if isinstance(d, Admitted)]
        )

    before = desks[0].request()
    run(act, tmp_path)
    check_books(idle=True)


def test_while_the_whole_table_is_locked_everybody_is_refused_and_afterwards_nobody(tmp_path: Path) -> None:
    desks = [Desk(credit="1") for _ in range(2)]
    requests = [desk.request() for desk in desks]
    again = [desk.request() for desk in desks]

    async def act(teller: Teller) -> None:
        with console() as other:
            other.execute("BEGIN")
            other.execute("LOCK TABLE billing_wallet IN EXCLUSIVE MODE")
            refused = await asyncio.gather(*[timed(teller, request) for request in requests])
            assert all(isinstance(decision, Refusal) for decision, _ in refused)
            assert max(took_s for _, took_s in refused) < 2 + 0.5
            other.execute("ROLLBACK")
        served = await asyncio.gather(*[timed(teller, request) for request in again])
        assert all(isinstance(decision, Admitted) for decision, _ in served)
        await end(teller, *again)

    run(act, tmp_path)
    check_books(idle=True)

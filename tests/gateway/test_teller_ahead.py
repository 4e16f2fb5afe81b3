"""Batches that are sent before the one ahead of them is answered: each is written only on what it was decided on."""

import asyncio
import time
from pathlib import Path

import psycopg
import pytest

from billing.models import Hold
from gateway import teller as telling
from gateway.errors import Refusal
from gateway.postgres_pipe import CallRefused, PostgresPipe, judged
from gateway.teller import Teller
from tests.gateway.tellers import locked, run, until
from tests.invariants import check_books
from tests.usage.desk import Desk
from usage.admission import Admission, Admitted, CreditsInsufficient, Decision
from usage.batches import Call
from usage.models import UsageRecord

pytestmark = pytest.mark.django_db(transaction=True)

# What a request of the desk holds: 100 bytes of input and 100 tokens of output.
HELD = 300_000


class Counter:
    """A desk whose books the teller knows, and a way to have two of its requests on their way in two batches."""

    def __init__(self, teller: Teller, desk: Desk) -> None:
        self.teller = teller
        self.desk = desk

    async def serve(self, request: Admission) -> None:
        assert isinstance(await self.teller.admit(request), Admitted)
        request.finished.outcome = UsageRecord.Outcome.COMPLETED
        request.finished.output_tokens = 1
        await self.teller.settle(request.finished)

    async def send(self, *requests: Admission) -> "list[asyncio.Task[Decision]]":
        """Each in a batch of its own, one behind the other, while somebody holds the wallet."""
        tasks = []
        for number, request in enumerate(requests, start=1):
            tasks.append(asyncio.create_task(self.teller.admit(request)))
            await self.on_their_way(number)
        return tasks

    async def on_their_way(self, number: int) -> None:
        async with asyncio.timeout(1):
            while len(self.teller._flights) < number:
                await asyncio.to_thread(time.sleep, 0.001)


def test_two_batches_on_their_way_spend_no_more_than_there_is(tmp_path: Path) -> None:
    desk = Desk(credit="0.001")
    first, second, third, fourth = (desk.request() for _ in range(4))

    async def act(teller: Teller) -> None:
        counter = Counter(teller, desk)
        await counter.serve(first)
        with locked(desk.account):
            tasks = await counter.send(second, third)
        decisions = await asyncio.gather(*tasks, teller.admit(fourth))
        assert [type(decision) for decision in decisions] == [Admitted, Admitted, Admitted]
        assert isinstance(await teller.admit(desk_request), CreditsInsufficient)

    desk_request = desk.request()
    run(act, tmp_path)
    assert desk.wallet.held_nanousd == 3 * HELD
    assert desk.wallet.balance_nanousd == 1_000_000 - 2_000


def test_what_somebody_else_takes_meanwhile_is_not_spent_by_either(tmp_path: Path) -> None:
    desk = Desk(credit="0.001")
    first, second, third = (desk.request() for _ in range(3))

    async def act(teller: Teller) -> None:
        counter = Counter(teller, desk)
        await counter.serve(first)
        with locked(desk.account) as other:
            tasks = await counter.send(second, third)
            # As another process would: what is left is enough for one of the two.
            other.execute("UPDATE billing_wallet SET held_nanousd = %s", [2 * HELD])
            other.execute("COMMIT")
        decisions = await asyncio.gather(*tasks)
        assert [type(decision) for decision in decisions] == [Admitted, CreditsInsufficient]

    run(act, tmp_path)
    assert Hold.objects.count() == 1
    assert desk.wallet.held_nanousd == 3 * HELD


def test_accounts_of_a_batch_behind_one_that_was_not_written_are_served_all_the_same(tmp_path: Path) -> None:
    desk, neighbor = Desk(credit="0.001"), Desk(credit="0.001")
    first, second = desk.request(), desk.request()
    theirs, next_of_theirs = neighbor.request(), neighbor.request()

    async def act(teller: Teller) -> None:
        await Counter(teller, desk).serve(first)
        await Counter(teller, neighbor).serve(theirs)
        with locked(desk.account, neighbor.account) as other:
            tasks = await Counter(teller, desk).send(second, next_of_theirs)
            other.execute(
                "UPDATE billing_wallet SET held_nanousd = 900000 WHERE account_id = %s", [desk.account.pk]
            )
            other.execute("COMMIT")
        decisions = await asyncio.gather(*tasks)
        assert [type(decision) for decision in decisions] == [CreditsInsufficient, Admitted]

    run(act, tmp_path)
    assert neighbor.wallet.held_nanousd == HELD


def test_a_wallet_that_is_held_too_long_refuses_both_and_leaves_no_hold(tmp_path: Path) -> None:
    desk = Desk(credit="0.001")
    first, second, third, last = (desk.request() for _ in range(4))

    async def act(teller: Teller) -> None:
        counter = Counter(teller, desk)
        await counter.serve(first)
        with locked(desk.account):
            tasks = await counter.send(second, third)
            for task in tasks:
                with pytest.raises(Refusal) as refused:
                    await task
                assert refused.value.status == 503
        await until(lambda: not Hold.objects.exists())
        await counter.serve(last)

    run(act, tmp_path)
    check_books(idle=True)
    assert desk.wallet.balance_nanousd == 1_000_000 - 2 * 2_000


def test_a_connection_that_is_cut_with_two_batches_on_their_way_leaves_no_hold(tmp_path: Path) -> None:
    desk = Desk(credit="0.001")
    first, second, third, last = (desk.request() for _ in range(4))

    async def act(teller: Teller) -> None:
        counter = Counter(teller, desk)
        await counter.serve(first)
        with locked(desk.account) as other:
            tasks = await counter.send(second, third)
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                "AND application_name = 'tollgate-teller' AND pid <> pg_backend_pid()"
            )
            for task in tasks:
                with pytest.raises(Refusal):
                    await task
        await until(lambda: UsageRecord.objects.filter(pk=third.finished.id).exists())
        await counter.serve(last)

    run(act, tmp_path)
    assert not Hold.objects.exists()
    check_books(idle=True)


def test_a_batch_that_cannot_be_booked_takes_none_behind_it_down(tmp_path: Path) -> None:
    desk = Desk(credit="0.001")
    first, bad, good = (desk.request() for _ in range(3))

    async def act(teller: Teller) -> None:
        counter = Counter(teller, desk)
        await counter.serve(first)
        assert isinstance(await teller.admit(bad), Admitted)
        bad.finished.outcome = UsageRecord.Outcome.COMPLETED
        bad.finished.latency_ms = 2**40  # more than its column can hold
        with locked(desk.account):
            settling = asyncio.create_task(teller.settle(bad.finished))
            await counter.on_their_way(1)
            admitting = asyncio.create_task(teller.admit(good))
            await counter.on_their_way(2)
        await settling
        assert isinstance(await admitting, Admitted)
        await until(lambda: bool(list(tmp_path.glob("*.refused"))))

    run(act, tmp_path)
    assert desk.wallet.held_nanousd == 2 * HELD


def test_a_lock_on_something_else_than_a_wallet_refuses_those_who_wait_for_it_and_no_later_ones(
    tmp_path: Path,
) -> None:
    desk, neighbor = Desk(credit="0.001"), Desk(credit="0.001")
    requests = [desk.request(), neighbor.request()]
    later = desk.request()

    async def act(teller: Teller) -> None:
        other = await psycopg.AsyncConnection.connect(autocommit=True, **telling.connection_parameters())
        async with other:
            await other.execute("BEGIN")
            await other.execute("LOCK TABLE billing_hold IN SHARE MODE")
            async with asyncio.timeout(5):
                asked = [teller.admit(request) for request in requests]
                refused = await asyncio.gather(*asked, return_exceptions=True)
            assert [getattr(refusal, "status", None) for refusal in refused] == [503, 503]
            await other.execute("ROLLBACK")
        await Counter(teller, desk).serve(later)

    run(act, tmp_path)
    assert not Hold.objects.exists()
    check_books(idle=True)


def test_a_commit_that_fails_is_not_taken_for_the_answer_to_what_was_sent_behind_it() -> None:
    async def act() -> None:
        pipe = await PostgresPipe.connect(**telling.connection_parameters())
        await pipe.commit(
            Call("CREATE TEMPORARY TABLE once (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)", [])
        )
        twice = pipe.send(Call("INSERT INTO once VALUES (1), (1) RETURNING n", []), on_answer=lambda: None)
        behind = [
            pipe.send(Call("SELECT $1::text", [word]), on_answer=lambda: None)
            for word in (b"first", b"second")
        ]
        with pytest.raises(CallRefused, match="duplicate key"):
            judged(await twice)
        assert [judged(await answers) for answers in behind] == [[b"first"], [b"second"]]
        pipe.close()

    asyncio.run(act())

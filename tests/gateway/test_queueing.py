"""When those who wait for the teller go as a batch, and how many they are."""

import asyncio
from pathlib import Path

import pytest

from gateway.errors import Refusal
from gateway.flights import Flights
from gateway.items import Item, Settle, unserved
from gateway.teller import Teller
from tests.gateway.tellers import locked, run, until
from tests.invariants import check_books
from tests.usage.desk import Desk
from usage.admission import Admission, Admitted, CreditsInsufficient
from usage.models import UsageRecord

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many were in each batch that was sent."""
    sizes: list[int] = []
    send = Flights.send

    def noting(flights: Flights, batch: list[Item]) -> None:
        sizes.append(len(batch))
        send(flights, batch)

    monkeypatch.setattr(Flights, "send", noting)
    return sizes


async def settle(teller: Teller, request: Admission) -> None:
    request.finished.outcome = UsageRecord.Outcome.COMPLETED
    request.finished.output_tokens = 1
    await teller.settle(request.finished)


async def a_moment() -> None:
    """Long enough for whatever would be sent to be sent."""
    await asyncio.sleep(0.05)


def test_a_request_alone_is_sent_at_once(tmp_path: Path, sizes: list[int]) -> None:
    desk = Desk(credit="1")
    warm, alone = desk.request(), desk.request()

    async def act(teller: Teller) -> None:
        await teller.admit(warm)
        await settle(teller, warm)
        sizes.clear()
        asking = asyncio.ensure_future(teller.admit(alone))
        await asyncio.sleep(0)  # it begins: and no turn of the event loop more
        assert sizes == [1]
        assert isinstance(await asking, Admitted)

    run(act, tmp_path)


def test_of_many_half_are_sent_together(tmp_path: Path, sizes: list[int]) -> None:
    desk = Desk(credit="1")
    requests = [desk.request() for _ in range(30)]

    async def act(teller: Teller) -> None:
        await asyncio.gather(*[teller.admit(request) for request in requests])
        sizes.clear()
        await asyncio.gather(*[settle(teller, request) for request in requests])
        assert sizes == [15, 15]

    run(act, tmp_path)
    check_books(idle=True)


def test_behind_a_batch_on_its_way_no_smaller_one_is_sent(tmp_path: Path, sizes: list[int]) -> None:
    desk = Desk(credit="1")
    running, ahead, behind = ([desk.request() for _ in range(number)] for number in (20, 12, 12))

    async def act(teller: Teller) -> None:
        await asyncio.gather(*[teller.admit(request) for request in running])
        with locked(desk.account):
            first = asyncio.gather(*[teller.admit(request) for request in ahead])
            await until(lambda: len(teller._flights) == 1)
            sent = sum(sizes)
            await a_moment()
            # What did not go with the first batch waits, for there are fewer than in it.
            second = asyncio.gather(*[teller.admit(request) for request in behind[:1]])
            await a_moment()
            assert sum(sizes) == sent
            third = asyncio.gather(*[teller.admit(request) for request in behind[1:]])
            await until(lambda: len(teller._flights) == 2)
            assert sizes[-1] >= sizes[-2]
        decisions = [*await first, *await second, *await third]
        assert {type(decision) for decision in decisions} == {Admitted}
        await asyncio.gather(*[settle(teller, request) for request in (*running, *ahead, *behind)])

    run(act, tmp_path)
    check_books(idle=True)


def test_however_a_request_ends_it_is_not_waited_for(tmp_path: Path) -> None:
    desk = Desk(credit="1")
    too_much = Desk(credit="0").request()
    served, canceled, replaced, late = (desk.request() for _ in range(4))

    async def act(teller: Teller) -> None:
        assert isinstance(await teller.admit(too_much), CreditsInsufficient)
        assert teller._queue.open == 0
        await teller.admit(served)
        assert teller._queue.open == 1
        await settle(teller, served)
        assert teller._queue.open == 0
        with locked(desk.account):
            asking = asyncio.ensure_future(teller.admit(canceled))
            await until(lambda: len(teller._flights) == 1)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            with pytest.raises(Refusal):
                await teller.admit(late)
        assert teller._queue.open == 0
        await teller.admit(replaced)
        replaced.replaces = True
        assert isinstance(await teller.admit(replaced), Admitted)
        assert teller._queue.open == 1
        await settle(teller, replaced)
        assert teller._queue.open == 0

    run(act, tmp_path)
    check_books(idle=True)


def test_the_end_of_what_nobody_heard_of_leaves_the_record_of_who_asked_alone() -> None:
    request = Desk(credit="1").request()

    ended = unserved(request)

    assert (ended.outcome, ended.status, ended.id) == ("refused", 503, request.finished.id)
    assert (request.finished.outcome, request.finished.status) == ("interrupted", 0)


def test_a_large_batch_is_told_in_parts_so_that_what_the_first_send_is_on_its_way_meanwhile(
    tmp_path: Path,
) -> None:
    finished = Desk().request().finished

    async def act(teller: Teller) -> None:
        loop = asyncio.get_running_loop()
        batch: list[Item] = [Settle(finished, loop.create_future(), 0.0) for _ in range(40)]
        teller._outcomes.deliver_in_parts(batch, [None] * 40)
        told = []
        for _ in range(4):
            told.append(sum(item.future is not None and item.future.done() for item in batch))
            await asyncio.sleep(0)
        assert told == [16, 32, 40, 40]

    run(act, tmp_path)

"""What becomes of a batch that PostgreSQL refuses, or that cannot be decided."""

import asyncio
import uuid
from pathlib import Path

import pytest

from gateway import asking, flights, items
from gateway.errors import Refusal
from gateway.items import Item
from gateway.teller import Teller
from tests.gateway.tellers import console, locked, run, until
from tests.invariants import check_books
from tests.usage.desk import Desk
from usage.admission import Admission, Admitted, Decision
from usage.books import Books
from usage.models import UsageRecord

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("shared_batches")]


async def end(teller: Teller, request: Admission) -> None:
    request.finished.outcome = UsageRecord.Outcome.COMPLETED
    request.finished.output_tokens = 1
    await teller.settle(request.finished)


@pytest.mark.parametrize("is_foreseen", [False, True])
def test_a_request_that_cannot_be_decided_takes_no_other_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_foreseen: bool
) -> None:
    desk = Desk(credit="1")
    warm, good, bad = desk.request(), desk.request(), desk.request()
    doomed: set[uuid.UUID] = {bad.finished.id}

    def decide(opened: Books, batch: list[Item]) -> list[Decision | None]:
        if any(item.finished.id in doomed for item in batch):
            raise ZeroDivisionError
        return items.decide(opened, batch)

    for module in (asking, flights):
        monkeypatch.setattr(module, "decide", decide)

    async def act(teller: Teller) -> None:
        if is_foreseen:
            await teller.admit(warm)
            await end(teller, warm)
        served, refused = await asyncio.gather(teller.admit(good), teller.admit(bad), return_exceptions=True)
        assert isinstance(served, Admitted)
        assert isinstance(refused, Refusal)
        await end(teller, good)

    run(act, tmp_path)
    check_books(idle=True)


@pytest.mark.parametrize("is_foreseen", [False, True])
def test_a_batch_that_is_cancelled_by_hand_is_refused_and_leaves_no_hold(
    tmp_path: Path, is_foreseen: bool
) -> None:
    desk = Desk(credit="1")
    warm, request = desk.request(), desk.request()

    async def act(teller: Teller) -> None:
        await until(lambda: teller._connection.pipe is not None)
        pipe = teller._connection.pipe
        assert pipe is not None
        if is_foreseen:
            await teller.admit(warm)
            await end(teller, warm)
        with locked(desk.account), console() as other:
            asked = asyncio.create_task(teller.admit(request))
            await asyncio.sleep(0.2)
            other.execute("SELECT pg_cancel_backend(%s)", [int(pipe.session.split()[0])])
            with pytest.raises(Refusal):
                await asked

    run(act, tmp_path)
    check_books(idle=True)

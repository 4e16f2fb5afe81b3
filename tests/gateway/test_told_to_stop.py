"""A process that is told to stop while it settles: what its client hears, what is recorded and charged agree."""

import asyncio
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, MagicMock
from urllib.parse import quote

import httpx2 as httpx
import orjson
import psycopg
import pytest

from billing.models import Hold, Wallet
from gateway import teller as telling
from gateway.answers import KeptAnswer
from gateway.dialects.chat import Chat
from gateway.streaming import relay
from gateway.walk import Walk
from tests.factories import make_key
from tests.gateway import raw_upstream, server
from tests.gateway.conftest import Stage, chat, wait_for
from tests.gateway.test_slow_readers import PREMIUM, Customer, event
from usage.models import UsageRecord

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("told to stop")]

CREDIT = 1_000_000_000
DONE = b"data: [DONE]\n\n"
COST = 3 * 5_000 + 7 * 25_000


def patient_database_url() -> str:
    """For a teller that does not give a locked wallet up while the test holds it."""
    url = server.database_url()
    options = quote("-c lock_timeout=5000 -c timezone=UTC")
    return f"{url}{'&' if '?' in url else '?'}options={options}"


@contextmanager
def locked_wallets() -> Iterator[None]:
    """Nothing is settled meanwhile."""
    with psycopg.connect(autocommit=True, **telling.connection_parameters()) as other:
        other.execute("BEGIN")
        other.execute("SELECT 1 FROM billing_wallet FOR UPDATE")
        yield
        other.execute("ROLLBACK")


def test_what_is_being_settled_when_the_time_is_over_is_answered_whole_and_charged(
    stage: Stage, sandbox_url: str, tmp_path: Path
) -> None:
    with (
        server.running(
            sandbox_url=sandbox_url,
            home=tmp_path,
            drain_s=0,
            GATEWAY_CATALOGUE_EVERY_S="0.05",
            DATABASE_URL=patient_database_url(),
        ) as gateway,
        ThreadPoolExecutor(2) as pool,
    ):
        here = replace(stage, gateway=gateway)
        model = here.model(**PREMIUM)
        account = here.account(credit="1")
        secret = make_key(account).secret
        body = chat(model, max_tokens=10, sandbox={"output_tokens": 7, "delay_ms": 300})

        def ask(**fields: Any) -> httpx.Response:
            return httpx.post(
                f"{here.url}/chat/completions",
                json={**body, **fields},
                headers={"authorization": f"Bearer {secret}"},
                timeout=20,
            )

        plain, streamed = pool.submit(ask), pool.submit(ask, stream=True)
        wait_for(lambda: Hold.objects.filter(account=account).count() == 2)
        with locked_wallets():
            time.sleep(0.6)  # both are answered upstream by now
            gateway.terminate()
            time.sleep(0.6)  # and both have been told to stop
        answers = [plain.result(), streamed.result()]
        gateway.end_of()

    assert answers[0].json()["usage"]["completion_tokens"] == 7
    assert answers[0].headers["x-tollgate-cost-usd"] == "0.000190000"
    assert answers[1].text.endswith("data: [DONE]\n\n")
    for record in UsageRecord.objects.filter(account=account):
        assert (record.outcome, record.status, record.error_code, record.error_message) == (
            *("completed", 200),
            *("", ""),
        )
        assert record.charged_nanousd == COST
    assert Wallet.objects.get(account=account).balance_nanousd == CREDIT - 2 * COST


def test_a_stream_that_is_settled_and_waits_for_its_reader_when_the_time_is_over_stays_completed(
    stage: Stage, tmp_path: Path
) -> None:
    with raw_upstream.running() as upstream:
        # More than the kernel takes for who does not read, in one go.
        upstream.streams(
            event({"choices": [{"index": 0, "delta": {"content": "x" * 60_000}, "finish_reason": "stop"}]})
            + event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 7}})
            + b"data: [DONE]\n\n"
        )
        with server.running(
            sandbox_url=upstream.url, home=tmp_path, drain_s=0, GATEWAY_CATALOGUE_EVERY_S="0.05"
        ) as gateway:
            customer = Customer(replace(stage, gateway=gateway))
            reader = customer.asks(stream=True)
            customer.check_charged()
            gateway.terminate()
            gateway.end_of()

            assert "CancelledError" not in gateway.log
    heard = reader.read_all()
    assert b"x" * 20_000 in heard
    assert b'"error"' not in heard
    (record,) = customer.records()
    assert (record.outcome, record.error_code) == ("completed", "")


def test_a_stream_that_has_ended_well_is_not_told_that_it_broke() -> None:
    written: list[bytes] = []
    waiting = asyncio.Event()

    async def write(piece: bytes, *, more: bool = True) -> None:
        written.append(piece)
        if not more:  # the client does not take the end of it
            waiting.set()
            await asyncio.sleep(5)

    async def settle(*_: object, **__: object) -> None:
        walk.is_settled = True

    walk: Any = MagicMock(
        idempotency=None,
        is_settled=False,
        settle=settle,
        charged_nanousd=0,
        exchange=MagicMock(write=write, start=AsyncMock(), wait_for_disconnect=asyncio.Event().wait),
    )
    walk.dialect.meter.return_value = Chat().meter(Chat().parse(orjson.dumps({**chat("m"), "stream": True})))
    answer = MagicMock(read=AsyncMock(return_value=event({"choices": [{"delta": {"content": "x"}}]}) + DONE))

    async def stop_it() -> None:
        task = asyncio.create_task(relay(walk, answer))
        await waiting.wait()
        task.cancel()
        await task

    asyncio.run(stop_it())

    assert written[-2:] == [DONE, b""]
    walk.fail.assert_not_called()


def test_who_is_told_to_stop_while_an_answer_is_being_kept_still_gives_it() -> None:
    kept = []

    async def keep(request_id: uuid.UUID, answer: KeptAnswer) -> None:
        kept.append(answer)
        await asyncio.sleep(5)

    walk = object.__new__(Walk)
    walk.plant = SimpleNamespace(answers=SimpleNamespace(keep=keep))  # type: ignore[assignment]
    walk.exchange = SimpleNamespace(id=uuid.uuid4())  # type: ignore[assignment]

    async def go() -> str:
        await walk.keep(KeptAnswer(200, [], b"{}"))
        return "given"

    async def stop_it() -> str:
        task = asyncio.create_task(go())
        await asyncio.sleep(0)
        task.cancel()
        return await task

    assert asyncio.run(stop_it()) == "given"
    assert kept

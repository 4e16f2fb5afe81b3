"""Gateway processes that are killed, or told to stop, with streams open."""

import datetime as dt
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx2 as httpx
import pytest
from django.db.models import F

from billing.models import GatewayProcess, Hold, Wallet
from catalog.models import Model
from tests.concurrency import in_parallel
from tests.factories import make_key, now
from tests.gateway import open_streams, server
from tests.gateway.conftest import Stage, chat, wait_for
from tests.usage.watching import watch
from usage import sweeping
from usage.models import UsageRecord

pytestmark = pytest.mark.faults

PREMIUM = {"tier": Model.Tier.PREMIUM, "input_price": "5", "output_price": "25"}
CREDIT = 10_000_000_000
DRAIN_S = 3


@pytest.fixture
def pair(stage: Stage, sandbox_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A stage on two processes of its own, to be killed and stopped."""
    home = tmp_path_factory.mktemp("pair")
    with server.running(
        sandbox_url=sandbox_url, home=home, processes=2, drain_s=DRAIN_S, GATEWAY_CATALOGUE_EVERY_S="0.1"
    ) as gateway:
        yield replace(stage, gateway=gateway)


def cost(output_tokens: int) -> int:
    return 3 * 5_000 + output_tokens * 25_000


def test_a_process_killed_with_twenty_open_streams_leaves_twenty_interrupted_requests_and_no_hold(
    pair: Stage,
) -> None:
    model = pair.model(**PREMIUM)
    account = pair.account(credit="10")
    secret = make_key(account).secret
    slow = chat(model, stream=True, max_tokens=2_000, sandbox={"output_tokens": 2_000, "chunk_delay_ms": 50})
    short = chat(model, stream=True, max_tokens=60, sandbox={"output_tokens": 60, "chunk_delay_ms": 50})

    with open_streams.opened(pair.url) as streams:
        with pair.gateway.only(1):
            streams.open(5, secret=secret, body=short)
        with pair.gateway.only(0):
            streams.open(20, secret=secret, body=slow)
        (doomed,) = set(Hold.objects.order_by("-pk").values_list("process_id", flat=True)[:20])
        pair.gateway.kill9(0)
        ended = streams.ended()

    assert all(stream.is_complete for stream in ended[:5])
    assert all(stream.is_cut and not stream.is_complete for stream in ended[5:])
    assert Hold.objects.filter(account=account).count() == 20
    watch()
    assert sweeping.sweep(at=now()) == 0  # it may still be alive, for all that anybody knows

    # What half a minute of silence does; tests/gateway/test_faults.py waits for it.
    GatewayProcess.objects.filter(pk=doomed).update(heartbeat_at=F("heartbeat_at") - sweeping.GRACE)
    resolved = 0
    deadline = time.monotonic() + 60
    while Hold.objects.filter(account=account).exists():
        assert time.monotonic() < deadline
        resolved += sum(in_parallel(lambda _: sweeping.sweep(at=now()), times=4))
        time.sleep(0.2)

    assert resolved == 20
    assert sum(in_parallel(lambda _: sweeping.sweep(at=now()), times=4)) == 0
    outcomes = UsageRecord.objects.filter(account=account).values_list("outcome", "charged_nanousd")
    assert sorted(outcomes) == [("completed", cost(60))] * 5 + [("interrupted", 0)] * 20
    wallet = Wallet.objects.get(account=account)
    assert (wallet.balance_nanousd, wallet.held_nanousd) == (CREDIT - 5 * cost(60), 0)


def test_a_process_that_only_fell_silent_settles_nothing_that_was_swept(pair: Stage) -> None:
    """Half a minute without a heartbeat, and then it goes on: its requests were resolved, and stay resolved."""
    model = pair.model(**PREMIUM)
    account = pair.account(credit="10")
    secret = make_key(account).secret
    body = chat(model, stream=True, max_tokens=40, sandbox={"output_tokens": 40, "chunk_delay_ms": 50})

    with open_streams.opened(pair.url) as streams:
        streams.open(6, secret=secret, body=body)
        GatewayProcess.objects.update(heartbeat_at=now() - dt.timedelta(minutes=1))
        watch()
        assert sweeping.sweep(at=now()) == 6
        ended = streams.ended()

    assert all(stream.is_complete for stream in ended)
    outcomes = UsageRecord.objects.filter(account=account).values_list("outcome", flat=True)
    assert list(outcomes) == ["interrupted"] * 6
    assert Wallet.objects.get(account=account).balance_nanousd == CREDIT


def test_a_process_told_to_stop_with_fifty_open_streams_is_unready_at_once_and_ends_them_in_time(
    pair: Stage,
) -> None:
    model = pair.model(**PREMIUM)
    account = pair.account(credit="10")
    secret = make_key(account).secret
    short = chat(model, stream=True, max_tokens=30, sandbox={"output_tokens": 30, "chunk_delay_ms": 50})
    endless = chat(
        model, stream=True, max_tokens=2_000, sandbox={"output_tokens": 2_000, "chunk_delay_ms": 50}
    )

    with open_streams.opened(pair.url) as streams, pair.gateway.client_of(0) as known:
        with pair.gateway.only(0):
            streams.open(25, secret=secret, body=endless)
            streams.open(25, secret=secret, body=short)
        (leaving,) = set(Hold.objects.values_list("process_id", flat=True))
        known.get("models", headers={"authorization": f"Bearer {secret}"})

        pair.gateway.terminate(0)
        told_at = time.monotonic()
        wait_for(lambda: not _still_serves(known), patience_s=3)
        _others_serve(pair, secret, chat(model, max_tokens=5), not_by=leaving)
        ended = streams.ended()
        took_s = time.monotonic() - told_at

    pair.gateway.end_of(0, patience_s=10)
    assert took_s < DRAIN_S + 3
    assert all(stream.status == 200 for stream in ended)
    assert all(stream.has_error_event and not stream.is_complete for stream in ended[:25])
    assert all(stream.is_complete for stream in ended[25:])
    assert not Hold.objects.filter(account=account).exists()
    streamed = UsageRecord.objects.filter(account=account, is_streamed=True)
    assert streamed.count() == 50
    assert streamed.filter(outcome="completed", charged_nanousd=cost(30)).count() == 25
    for record in streamed.exclude(outcome="completed"):
        # Billed is what was delivered, by the length of its words.
        assert 0 < record.output_tokens < 2_000
        assert record.is_estimated
        assert record.error_code == "temporarily_unavailable"
        assert record.error_message == "This gateway is shutting down. Only what you received is charged."
    assert "CancelledError" not in pair.gateway.log


def _still_serves(client: httpx.Client) -> bool:
    """Whether the process behind this connection takes another request on it."""
    pool = client._transport._pool  # type: ignore[attr-defined]  # a new connection would be taken by another process
    if not pool.connections or pool.connections[0].has_expired():
        return False
    try:
        return client.get("models").status_code != 503
    except httpx.TransportError:
        return False


def _others_serve(pair: Stage, secret: str, body: dict[str, object], *, not_by: object) -> None:
    """Calls on new connections are all taken by the process that stays."""
    with ThreadPoolExecutor(10) as pool:
        calls = [pool.submit(pair.post, secret, {**body, "sandbox": {"delay_ms": 300}}) for _ in range(10)]
        wait_for(lambda: Hold.objects.exclude(process_id=not_by).count() == 10)  # type: ignore[misc]
        assert {call.result().status_code for call in calls} == {200}

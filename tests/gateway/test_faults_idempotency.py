"""`Idempotency-Key` when processes die and Redis goes: never a second charge."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import httpx2 as httpx
import pytest
import redis
from django.db.models import F

from billing.models import GatewayProcess, Hold, Wallet
from tests.concurrency import in_parallel
from tests.factories import make_key, now
from tests.gateway import dialects, server
from tests.gateway.conftest import HTTP, INVALID, Stage, chat, refused, wait_for
from tests.own_services import OwnServices, own_services
from tests.usage.watching import watch
from usage import sweeping
from usage.models import UsageRecord

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("idempotency")]

CREDIT = 10_000_000_000
COST = 3 * 5_000 + 2 * 25_000


@dataclass
class Site:
    services: OwnServices
    gateway: server.GatewayServer


@pytest.fixture(scope="module")
def site(django_db_setup: None, sandbox_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two gateway processes on a Redis of their own."""
    home = tmp_path_factory.mktemp("idempotency")
    with (
        own_services(redis=True) as services,
        server.running(
            sandbox_url=sandbox_url,
            home=home,
            processes=2,
            GATEWAY_CATALOGUE_EVERY_S="0.2",
            REDIS_URL=services.urls["REDIS_URL"],
        ) as gateway,
    ):
        yield Site(services, gateway)


class Shop:
    """An account with $10 and a key, on both processes."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.model = stage.model(**dialects.PREMIUM)
        self.account = stage.account(credit="10")
        self.secret = make_key(self.account).secret

    def post(self, key: str, *, client: httpx.Client = HTTP, **fields: Any) -> httpx.Response:
        body = chat(self.model, max_tokens=2, **{"sandbox": {"output_tokens": 2}, **fields})
        headers = {"authorization": f"Bearer {self.secret}", "idempotency-key": key}
        return client.post(f"{self.stage.url}/chat/completions", json=body, headers=headers, timeout=30)

    def wallet(self) -> tuple[int, int]:
        wallet = Wallet.objects.get(account=self.account)
        return wallet.balance_nanousd, wallet.held_nanousd


@pytest.fixture
def shop(stage: Stage, site: Site) -> Shop:
    return Shop(replace(stage, gateway=site.gateway))


@pytest.mark.parametrize("is_streamed", [False, True], ids=["JSON", "stream"])
def test_of_twenty_parallel_requests_with_one_key_on_two_processes_one_is_charged(
    shop: Shop, is_streamed: bool
) -> None:
    slow = {"output_tokens": 2, "delay_ms": 300}

    answers = in_parallel(lambda _: shop.post("once", stream=is_streamed, sandbox=slow), times=20)
    answers.append(shop.post("once", stream=is_streamed, sandbox=slow))

    served = [answer for answer in answers if answer.status_code == 200]
    assert sum("x-tollgate-idempotent-replay" not in answer.headers for answer in served) == 1
    assert len({answer.content for answer in served}) == 1
    for answer in answers:
        if answer.status_code != 200:
            refused(answer, 409, "idempotency_in_progress", type=INVALID, param="Idempotency-Key")
    assert answers[-1].status_code == 200
    assert shop.wallet() == (CREDIT - COST, 0)
    assert UsageRecord.objects.filter(account=shop.account, outcome="completed").count() == 1


def test_a_process_killed_in_mid_request_frees_the_key_when_its_hold_is_swept(shop: Shop, site: Site) -> None:
    endless = {"output_tokens": 2_000, "chunk_delay_ms": 50}
    with site.gateway.client_of(0) as client, ThreadPoolExecutor(1) as pool:
        first = pool.submit(shop.post, "killed", client=client, stream=True, sandbox=endless)
        wait_for(Hold.objects.filter(account=shop.account).exists)
        (doomed,) = Hold.objects.filter(account=shop.account).values_list("process_id", flat=True)
        running = shop.post("killed", stream=True, sandbox=endless)
        site.gateway.kill9(0)
        assert isinstance(first.exception(), httpx.TransportError)
    orphaned = shop.post("killed", stream=True, sandbox=endless)
    for answer in (running, orphaned):
        refused(answer, 409, "idempotency_in_progress", type=INVALID, param="Idempotency-Key")

    GatewayProcess.objects.filter(pk=doomed).update(heartbeat_at=F("heartbeat_at") - sweeping.GRACE)
    watch()
    wait_for(lambda: sweeping.sweep(at=now()) > 0 or not Hold.objects.exists(), patience_s=60)

    assert shop.wallet() == (CREDIT, 0)
    assert shop.post("killed").status_code == 200
    assert shop.wallet() == (CREDIT - COST, 0)


def test_when_redis_is_flushed_nothing_is_charged_again(shop: Shop, site: Site) -> None:
    request_id = shop.post("flushed").headers["x-request-id"]
    redis.Redis.from_url(site.services.urls["REDIS_URL"]).flushall()

    def is_given_up() -> bool:
        code = shop.post("flushed").json()["error"]["code"]
        assert code in {"idempotency_in_progress", "idempotency_answer_gone"}
        return bool(code == "idempotency_answer_gone")

    wait_for(is_given_up)

    assert f"generation?id={request_id}" in shop.post("flushed").json()["error"]["message"]
    assert shop.wallet() == (CREDIT - COST, 0)


def test_while_redis_is_stopped_the_first_request_is_served_and_a_second_is_not_charged(
    shop: Shop, site: Site
) -> None:
    shop.post("before")
    site.services.stop("redis")
    try:
        for is_streamed in (False, True):
            assert shop.post(f"stopped-{is_streamed}", stream=is_streamed).status_code == 200
        again = shop.post("before")
    finally:
        site.services.start("redis")

    assert again.status_code == 503
    assert again.json()["error"]["code"] == "temporarily_unavailable"
    assert "nothing more was charged" in again.json()["error"]["message"]
    assert again.headers["retry-after"] == "1"
    assert shop.wallet() == (CREDIT - 3 * COST, 0)
    wait_for(lambda: shop.post("stopped-True", stream=True).status_code == 409)
    assert shop.wallet() == (CREDIT - 3 * COST, 0)

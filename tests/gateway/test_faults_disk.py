"""The disk fills up just when the journal is needed: nothing is lost, and the process says what it is in."""

import contextlib
import resource
from collections.abc import Iterator
from dataclasses import replace

import httpx2 as httpx
import pytest

from billing.models import Wallet
from catalog.models import Model
from tests.factories import make_key
from tests.gateway import open_streams, server
from tests.gateway.conftest import HTTP, Stage, chat, wait_for
from tests.gateway.tellers import locked
from usage.models import UsageRecord

pytestmark = pytest.mark.faults

PREMIUM = {"tier": Model.Tier.PREMIUM, "input_price": "5", "output_price": "25"}
CREDIT = 10_000_000_000


@contextlib.contextmanager
def full_disk(pid: int) -> Iterator[None]:
    """In here no file of that process takes more than half a line."""
    limits = resource.prlimit(pid, resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def own(stage: Stage, sandbox_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A stage on a process of its own."""
    home = tmp_path_factory.mktemp("disk")
    with server.running(sandbox_url=sandbox_url, home=home, GATEWAY_CATALOGUE_EVERY_S="0.1") as gateway:
        yield replace(stage, gateway=gateway)


def readiness(stage: Stage) -> httpx.Response:
    return HTTP.get(f"{stage.gateway.origin}/health/ready", timeout=5)


def test_with_a_locked_wallet_and_a_full_disk_streams_end_whole_and_are_charged_as_soon_as_they_can_be(
    own: Stage,
) -> None:
    model = own.model(**PREMIUM)
    account, other = own.account(credit="10"), own.account(credit="10")
    secret, others = make_key(account).secret, make_key(other).secret
    body = chat(model, stream=True, max_tokens=20, sandbox={"output_tokens": 20, "chunk_delay_ms": 50})
    assert readiness(own).status_code == 200

    with open_streams.opened(own.url) as streams:
        streams.open(5, secret=secret, body=body)
        with locked(account), full_disk(own.gateway.pids[0]):
            ended = streams.ended()
            assert readiness(own).status_code == 503
            assert readiness(own).json() == {"postgresql": "ok", "redis": "ok", "journal": "not writable"}
            refused = own.post(secret, chat(model))
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "1"
            assert own.post(others, chat(model, max_tokens=5)).status_code == 200

    assert all(stream.is_complete for stream in ended)
    completed = UsageRecord.objects.filter(account=account, outcome="completed")
    wait_for(lambda: completed.count() == 5)
    wait_for(lambda: readiness(own).status_code == 200)
    wait_for(lambda: own.post(secret, chat(model, max_tokens=5)).status_code == 200)
    assert Wallet.objects.get(account=account).balance_nanousd < CREDIT - 5 * 20 * 25_000

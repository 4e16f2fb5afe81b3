"""Clients that stop reading, or read very slowly, through a real gateway: what they get, pay, and keep waiting."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from billing.models import Wallet
from catalog.models import Model
from tests.factories import make_key
from tests.gateway import raw_upstream, server
from tests.gateway.conftest import Stage, chat, wait_for
from tests.gateway.hasty_http import READER_LIMIT_S
from tests.gateway.raw_upstream import RawUpstream
from tests.gateway.server import GatewayServer
from usage.models import UsageRecord

pytestmark = pytest.mark.xdist_group("slow readers")

PREMIUM = {"tier": Model.Tier.PREMIUM, "input_price": "5", "output_price": "25"}
CREDIT = 1_000_000_000
MIB = 1 << 20
# What a client's own kernel takes for it. It asks for more when all of that has been read, so it must be little.
_RECEIVED_BYTES = 2304


def event(document: object) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


USAGE = {"prompt_tokens": 3, "completion_tokens": 7}
COST = 3 * 5_000 + 7 * 25_000
# A mebibyte of events, and then what they cost.
TEXT = event({"choices": [{"index": 0, "delta": {"content": "x" * 900}}]}) * 1024
END = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
END += event({"choices": [], "usage": USAGE}) + b"data: [DONE]\n\n"
# Four of them in a few events, which are sooner read.
LARGE_TEXT = event({"choices": [{"index": 0, "delta": {"content": "x" * 32_000}}]}) * 128
WHOLE = {
    "choices": [{"message": {"role": "assistant", "content": "x" * MIB}, "finish_reason": "stop"}],
    "usage": USAGE,
}


@pytest.fixture(scope="module")
def upstream() -> Iterator[RawUpstream]:
    with raw_upstream.running() as running:
        yield running


@pytest.fixture(scope="module")
def hasty(
    django_db_setup: None, upstream: RawUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayServer]:
    with gateway(upstream, tmp_path_factory.mktemp("hasty")) as running:
        yield running


def gateway(upstream: RawUpstream, home: Path) -> Any:
    return server.running(
        sandbox_url=upstream.url,
        home=home,
        http="tests.gateway.hasty_http:HastyHttpProtocol",
        GATEWAY_CATALOGUE_EVERY_S="0.05",
    )


@pytest.fixture
def scene(stage: Stage, hasty: GatewayServer, upstream: RawUpstream) -> Stage:
    upstream.streams(TEXT, END)
    return replace(stage, gateway=hasty)


class Reader:
    """A client that reads when it likes."""

    def __init__(self, stage: Stage, secret: str, body: dict[str, Any]) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVED_BYTES)
        self._socket.settimeout(20)
        self._socket.connect(("127.0.0.1", int(stage.gateway.origin.rpartition(":")[2])))
        content = json.dumps(body).encode()
        lines = [
            "POST /v1/chat/completions HTTP/1.1",
            "Host: localhost",
            f"Authorization: Bearer {secret}",
            f"Content-Length: {len(content)}",
        ]
        self._socket.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode() + content)

    def read_slowly(self, seconds: float) -> bytes:
        """Two KiB a second."""
        read, ends_at = b"", time.monotonic() + seconds
        while time.monotonic() < ends_at:
            read += self._socket.recv(512)
            time.sleep(0.25)
        return read

    def read_all(self) -> bytes:
        """All that comes until the other side closes; b"cut" at its end if that is not in good order."""
        read = b""
        try:
            while piece := self._socket.recv(65536):
                read += piece
        except ConnectionResetError:
            read += b"cut"
        return read


class Customer:
    """An account with a dollar, and one model."""

    def __init__(self, stage: Stage) -> None:
        self.model = stage.model(**PREMIUM)
        self.account = stage.account(credit="1")
        self.secret = make_key(self.account).secret
        self._stage = stage

    def asks(self, **fields: Any) -> Reader:
        return Reader(self._stage, self.secret, chat(self.model, max_tokens=10, **fields))

    def records(self, *, count: int = 1) -> list[UsageRecord]:
        found = UsageRecord.objects.filter(account=self.account)
        wait_for(lambda: found.count() >= count, patience_s=20)
        return list(found)

    def check_charged(self, *, times: int = 1) -> None:
        """What the upstream has produced, whoever has read it."""
        for record in self.records(count=times):
            assert (record.outcome, record.status, record.output_tokens) == ("completed", 200, 7)
            assert not record.is_estimated
        wallet = Wallet.objects.get(account=self.account)
        assert (wallet.balance_nanousd, wallet.held_nanousd) == (CREDIT - times * COST, 0)


def test_a_client_that_stops_reading_a_stream_is_cut_and_pays_for_what_the_upstream_produced(
    scene: Stage,
) -> None:
    customer = Customer(scene)

    reader = customer.asks(stream=True)
    began = time.monotonic()
    customer.check_charged()
    took_s = time.monotonic() - began

    assert READER_LIMIT_S < took_s < 2 * READER_LIMIT_S
    heard = reader.read_all()
    assert heard.startswith(b"HTTP/1.1 200")
    assert heard.endswith(b"cut")
    assert len(heard) < MIB // 4
    assert f"taken nothing of its answer for {READER_LIMIT_S:g} s" in scene.gateway.log


@pytest.mark.parametrize("is_streamed", [True, False], ids=["a stream", "an answer"])
def test_a_client_that_reads_two_kib_a_second_for_longer_than_the_limit_gets_everything(
    scene: Stage, upstream: RawUpstream, is_streamed: bool
) -> None:
    if not is_streamed:
        upstream.answers(json.dumps(WHOLE).encode())
    customer = Customer(scene)

    reader = customer.asks(stream=is_streamed)
    heard = reader.read_slowly(2.5 * READER_LIMIT_S)
    heard += reader.read_all()

    assert heard.count(b"x") >= 900 * 1024
    assert heard.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n" if is_streamed else b"}")
    customer.check_charged()


def test_a_client_that_stops_reading_an_answer_is_cut_and_pays_for_it(
    scene: Stage, upstream: RawUpstream
) -> None:
    upstream.answers(json.dumps(WHOLE).encode())
    customer = Customer(scene)

    reader = customer.asks()
    customer.check_charged()
    time.sleep(1.5 * READER_LIMIT_S)

    heard = reader.read_all()
    assert heard.endswith(b"cut")
    assert len(heard) < MIB // 4


def test_fifty_clients_that_do_not_read_cost_little_memory_and_none_for_long(
    scene: Stage, upstream: RawUpstream
) -> None:
    upstream.streams(LARGE_TEXT, END)
    customer = Customer(scene)
    status = Path(f"/proc/{scene.gateway.pids[0]}/status")

    def resident_bytes() -> int:
        return (
            next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmRSS" in line) * 1024
        )

    scene.post(customer.secret, chat(customer.model, max_tokens=10, stream=True))
    before = resident_bytes()
    readers = [customer.asks(stream=True) for _ in range(50)]
    time.sleep(READER_LIMIT_S / 2)
    # An upstream that says all at once is the worst case: what was read of it in one go comes on top of what waits.
    assert resident_bytes() - before < 50 * 1.5 * MIB
    customer.check_charged(times=51)
    assert all(reader.read_all().endswith(b"cut") for reader in readers)


def test_a_gateway_that_is_told_to_stop_does_not_wait_long_for_a_client_that_does_not_read(
    stage: Stage, upstream: RawUpstream, tmp_path: Path
) -> None:
    upstream.streams(TEXT, END)
    with ExitStack() as stack:
        running = stack.enter_context(gateway(upstream, tmp_path))
        customer = Customer(replace(stage, gateway=running))
        readers = [customer.asks(stream=True) for _ in range(3)]
        time.sleep(READER_LIMIT_S / 2)

        running.terminate()
        told_at = time.monotonic()
        running.end_of(patience_s=20)

        assert time.monotonic() - told_at < 2 * READER_LIMIT_S
    customer.check_charged(times=3)
    assert all(reader.read_all().endswith(b"cut") for reader in readers)

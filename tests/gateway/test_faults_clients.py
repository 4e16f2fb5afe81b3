"""Clients that leave, at any moment and in any manner: billed for what the upstream produced, no more and no less."""

import json
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest

from accounts.models import Account
from billing.models import Hold, Wallet
from catalog.models import Model
from tests.factories import make_key
from tests.gateway.conftest import Stage, chat, wait_for
from usage.models import UsageRecord

PREMIUM = {"tier": Model.Tier.PREMIUM, "input_price": "5", "output_price": "25"}
_NO_LINGER = struct.pack("ii", 1, 0)


class Caller:
    """A client that says what it says and leaves when it likes."""

    def __init__(self, stage: Stage, secret: str, body: dict[str, Any]) -> None:
        address = urlsplit(stage.url)
        content = json.dumps(body).encode()
        assert address.hostname
        assert address.port
        self._socket = socket.create_connection((address.hostname, address.port), timeout=30)
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {address.netloc}\r\nauthorization: Bearer {secret}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        )
        self._message = head.encode() + content

    def ask(self, *, share: float = 1.0) -> None:
        """Send the request, or the first part of it."""
        self._socket.sendall(self._message[: int(len(self._message) * share)])

    def read_until(self, words: bytes) -> bytes:
        heard = b""
        while words not in heard:
            piece = self._socket.recv(65536)
            assert piece, heard
            heard += piece
        return heard

    def leave(self, *, manner: str) -> None:
        """Close the connection as a browser does, or reset it as a crash does."""
        if manner == "reset":
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._socket.close()


@pytest.fixture
def account(stage: Stage) -> Account:
    return stage.account(credit="1")


def spent(account: Account) -> int:
    wallet = Wallet.objects.get(account=account)
    assert wallet.held_nanousd == 0
    return 1_000_000_000 - wallet.balance_nanousd


def records(account: Account, *, count: int) -> list[UsageRecord]:
    """The account's records, as soon as there are so many."""
    wait_for(lambda: UsageRecord.objects.filter(account=account).count() >= count)
    found = list(UsageRecord.objects.filter(account=account))
    assert len(found) == count
    return found


@pytest.mark.parametrize("manner", ["closed", "reset"])
def test_clients_that_leave_mid_stream_pay_for_all_that_the_upstream_produces(
    stage: Stage, account: Account, manner: str
) -> None:
    secret = make_key(account).secret
    body = chat(
        stage.model(**PREMIUM),
        stream=True,
        max_tokens=30,
        sandbox={"output_tokens": 20, "chunk_delay_ms": 20},
    )

    def call_and_leave(_: int) -> None:
        caller = Caller(stage, secret, body)
        caller.ask()
        caller.read_until(b'"content"')
        caller.leave(manner=manner)

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(call_and_leave, range(10)))

    for record in records(account, count=10):
        assert (record.input_tokens, record.output_tokens, record.is_estimated) == (3, 20, False)
        assert record.outcome == "completed"
    assert spent(account) == 10 * (3 * 5_000 + 20 * 25_000)


@pytest.mark.parametrize("is_streamed", [False, True], ids=["plain", "streamed"])
def test_a_client_that_leaves_before_the_first_byte_pays_for_what_is_produced(
    stage: Stage, account: Account, is_streamed: bool
) -> None:
    answer = {"output_tokens": 7, "delay_ms": 500}
    body = chat(stage.model(**PREMIUM), stream=is_streamed, max_tokens=10, sandbox=answer)
    caller = Caller(stage, make_key(account).secret, body)

    caller.ask()
    wait_for(lambda: Hold.objects.filter(account=account).exists())
    caller.leave(manner="closed")

    (record,) = records(account, count=1)
    assert (record.output_tokens, record.is_estimated) == (7, False)
    assert spent(account) == 3 * 5_000 + 7 * 25_000


def test_a_client_that_leaves_a_stream_that_then_breaks_pays_for_what_came_until_then(
    stage: Stage, account: Account
) -> None:
    breaking = {"output_tokens": 40, "chunk_delay_ms": 30, "fail": "mid_stream", "after_chunks": 20}
    body = chat(stage.model(**PREMIUM), stream=True, max_tokens=40, sandbox=breaking)
    caller = Caller(stage, make_key(account).secret, body)

    caller.ask()
    caller.read_until(b'"content"')
    caller.leave(manner="closed")

    (record,) = records(account, count=1)
    assert (record.outcome, record.error_code, record.is_estimated) == ("failed", "upstream_error", True)
    assert 0 < record.output_tokens < 40
    assert spent(account) == record.input_tokens * 5_000 + record.output_tokens * 25_000


def test_a_client_that_leaves_before_it_has_asked_is_counted_nowhere(stage: Stage, account: Account) -> None:
    secret = make_key(account).secret
    body = chat(stage.model(**PREMIUM), max_tokens=10)
    for share in (0.1, 0.5, 0.99):
        caller = Caller(stage, secret, body)
        caller.ask(share=share)
        time.sleep(0.05)
        caller.leave(manner="reset")

    assert stage.post(secret, body).status_code == 200

    (record,) = records(account, count=1)
    assert record.outcome == "completed"


def test_a_client_that_pauses_hears_the_whole_stream(stage: Stage, account: Account) -> None:
    body = chat(stage.model(**PREMIUM), stream=True, max_tokens=5_000, sandbox={"output_tokens": 5_000})
    caller = Caller(stage, make_key(account).secret, body)

    caller.ask()
    time.sleep(1)
    heard = caller.read_until(b"data: [DONE]")

    assert heard.count(b'"content":') >= 5_000
    (record,) = records(account, count=1)
    assert record.output_tokens == 5_000

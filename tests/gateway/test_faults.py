"""Faults on a whole instance, with its worker and its supervisor: a killed gateway, a killed PostgreSQL under load."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import environ
import httpx2 as httpx
import psycopg
import pytest

from tests.gateway import open_streams
from tests.gateway.conftest import HTTP, chat, wait_for
from tests.instance import Instance
from tests.own_services import halted

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("instance")]

MODEL = "claude-opus-4.8"  # $25 a million output tokens


class Customer:
    """An account with credit and a key on a running instance."""

    def __init__(self, instance: Instance, name: str, *, credit: str = "10") -> None:
        self.instance = instance
        self.email = f"{name}@example.com"
        instance.manage(
            "create_account", self.email, "--plan", "pay-as-you-go", "--credit", credit, check=True
        )
        self.secret = instance.manage("issue_key", self.email, "a key", check=True).stdout.strip()

    def post(self, **fields: Any) -> httpx.Response:
        return HTTP.post(
            f"{self.instance.url}/v1/chat/completions",
            headers={"authorization": f"Bearer {self.secret}"},
            json=chat(MODEL, **fields),
            timeout=30,
        )

    def row(self, query: str) -> tuple[Any, ...]:
        """One row of the instance's database; `%(account)s` is this customer's account."""
        with connect(self.instance) as connection:
            account = connection.execute(
                "SELECT id FROM accounts_account WHERE name = %s", (self.email,)
            ).fetchone()
            assert account is not None
            found: tuple[Any, ...] | None = connection.execute(query, {"account": account[0]}).fetchone()
            assert found is not None
            return found

    def wallet(self) -> tuple[int, int]:
        """Balance and held, in nano-USD."""
        balance, held = self.row(
            "SELECT balance_nanousd, held_nanousd FROM billing_wallet WHERE account_id = %(account)s"
        )
        return balance, held

    def holds(self) -> int:
        (count,) = self.row("SELECT count(*) FROM billing_hold WHERE account_id = %(account)s")
        return int(count)

    def count(self, outcome: str) -> int:
        (count,) = self.row(
            f"SELECT count(*) FROM usage_usagerecord WHERE account_id = %(account)s AND outcome = '{outcome}'"  # noqa: S608 - the test's own words
        )
        return int(count)


def connect(instance: Instance) -> "psycopg.Connection[Any]":
    address = environ.Env.db_url_config(instance.env()["DATABASE_URL"])
    return psycopg.connect(
        host=address["HOST"],
        port=address["PORT"] or None,
        user=address["USER"],
        password=address["PASSWORD"] or None,
        dbname=address["NAME"],
        autocommit=True,
    )


@pytest.fixture
def running(shared_instance: Instance) -> Iterator[Instance]:
    """The shared instance, whose books must agree afterwards."""
    yield shared_instance
    shared_instance.wait_until_answering()
    audit = shared_instance.manage("audit_ledger")
    assert audit.returncode == 0, audit.stdout


def test_a_gateway_killed_with_twenty_open_streams_leaves_no_hold_behind_and_charges_nothing(
    running: Instance,
) -> None:
    """Redis hangs from then on: nobody's credit waits for it."""
    customer = Customer(running, "killed")
    body = chat(MODEL, stream=True, max_tokens=2_000, sandbox={"output_tokens": 2_000, "chunk_delay_ms": 100})
    with open_streams.opened(f"{running.url}/v1") as streams:
        streams.open(20, secret=customer.secret, body=body)
        assert customer.holds() == 20

        killed = running.kill9("web")
        killed_at = time.monotonic()

        assert all(stream.is_cut for stream in streams.ended())
    with halted(running.pids()["redis"]):
        running.wait_for_restart("web", killed)
        wait_for(lambda: customer.count("interrupted") == 20, patience_s=60)
        assert time.monotonic() - killed_at < 60
    assert customer.wallet() == (10_000_000_000, 0)
    running.wait_until_answering()
    assert customer.post(max_tokens=5, sandbox={"output_tokens": 5}).status_code == 200
    assert customer.count("interrupted") == 20


def test_a_restarted_postgresql_needs_no_restart_of_ours(running: Instance) -> None:
    customer = Customer(running, "restarted")
    is_over = threading.Event()
    statuses: list[int] = []

    def hammer() -> None:
        while not is_over.is_set():
            statuses.append(customer.post(max_tokens=1, sandbox={"output_tokens": 1}).status_code)

    web = running.pids()["web"]
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(hammer) for _ in range(4)]
        try:
            wait_for(lambda: statuses.count(200) > 10)
            killed = running.kill9("postgres")
            running.wait_for_restart("postgres", killed)
            served = len(statuses)
            wait_for(lambda: statuses[served:].count(200) > 20, patience_s=40)
        finally:
            is_over.set()
        for call in calls:
            call.result()

    assert running.pids()["web"] == web
    assert set(statuses) <= {200, 503}
    wait_for(lambda: customer.wallet()[1] == 0, patience_s=60)
    assert customer.wallet()[0] == 10_000_000_000 - customer.count("completed") * (3 * 5_000 + 25_000)

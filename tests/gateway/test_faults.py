"""Faults that are really caused, on a whole instance: killed processes, a flushed Redis, a restarted PostgreSQL."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import environ
import httpx2 as httpx
import psycopg
import pytest
import redis

from tests.gateway.conftest import HTTP, chat, wait_for
from tests.instance import Instance

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


def test_a_gateway_killed_in_mid_request_leaves_no_hold_behind_and_charges_nothing(running: Instance) -> None:
    customer = Customer(running, "killed")
    with ThreadPoolExecutor(5) as pool:
        calls = [pool.submit(customer.post, max_tokens=100, sandbox={"delay_ms": 60_000}) for _ in range(5)]
        wait_for(lambda: customer.holds() == 5)

        killed = running.kill9("web")
        killed_at = time.monotonic()

        for call in calls:
            with pytest.raises(httpx.TransportError):
                call.result()
    running.wait_for_restart("web", killed)
    wait_for(lambda: customer.count("interrupted") == 5, patience_s=60)
    assert time.monotonic() - killed_at < 60
    assert customer.wallet() == (10_000_000_000, 0)
    running.wait_until_answering()
    assert customer.post(max_tokens=5, sandbox={"output_tokens": 5}).status_code == 200
    assert customer.count("interrupted") == 5


def test_a_flushed_redis_changes_no_balance_no_allowance_and_no_key(running: Instance) -> None:
    customer = Customer(running, "flushed")
    assert customer.post(max_tokens=5, sandbox={"output_tokens": 5}).status_code == 200
    before = customer.wallet()

    redis.Redis.from_url(running.env()["REDIS_URL"]).flushall()

    assert customer.wallet() == before
    answer = customer.post(max_tokens=5, sandbox={"output_tokens": 5})
    assert answer.status_code == 200
    cost = 3 * 5_000 + 5 * 25_000
    assert customer.wallet() == (10_000_000_000 - 2 * cost, 0)


def test_without_redis_requests_are_served_within_the_limits_and_with_it_again(running: Instance) -> None:
    customer = Customer(running, "noredis")
    with stopped(running, "redis"):
        answers = [customer.post(max_tokens=5, sandbox={"output_tokens": 5}) for _ in range(5)]
        slowest = max(answer.elapsed.total_seconds() for answer in answers[1:])
    again = customer.post(max_tokens=5, sandbox={"output_tokens": 5})

    assert [answer.status_code for answer in [*answers, again]] == [200] * 6
    assert slowest < 1
    assert customer.wallet()[0] == 10_000_000_000 - 6 * (3 * 5_000 + 5 * 25_000)


def test_without_postgresql_requests_are_refused_in_time_and_a_running_stream_is_still_billed(
    running: Instance,
) -> None:
    customer = Customer(running, "nopostgres")
    pieces: list[bytes] = []

    def stream() -> int:
        with httpx.stream(
            "POST",
            f"{running.url}/v1/chat/completions",
            headers={"authorization": f"Bearer {customer.secret}"},
            json=chat(
                MODEL, stream=True, max_tokens=40, sandbox={"output_tokens": 40, "chunk_delay_ms": 100}
            ),
            timeout=60,
        ) as response:
            pieces.extend(response.iter_bytes())
            return response.status_code

    with ThreadPoolExecutor(1) as pool:
        streaming = pool.submit(stream)
        wait_for(lambda: len(pieces) > 3)
        with stopped(running, "postgres"):
            started = time.monotonic()
            refused = customer.post(max_tokens=5)
            took = time.monotonic() - started
            assert streaming.result() == 200

    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "temporarily_unavailable"
    assert refused.headers["retry-after"]
    assert took < 2.5
    assert b"[DONE]" in b"".join(pieces)
    cost = 3 * 5_000 + 40 * 25_000
    wait_for(lambda: customer.wallet() == (10_000_000_000 - cost, 0), patience_s=30)
    assert customer.count("completed") == 1


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


class stopped:  # noqa: N801 - it reads as a word in `with stopped(instance, "redis")`
    """A service that does not answer: its processes are halted, and go on at the end."""

    def __init__(self, instance: Instance, name: str) -> None:
        self._pids = [pid for root in instance.pids()[name] for pid in family(root)]

    def __enter__(self) -> None:
        for pid in self._pids:
            os.kill(pid, signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        for pid in reversed(self._pids):
            os.kill(pid, signal.SIGCONT)


def family(pid: int) -> list[int]:
    """The process and all of its descendants."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = stat.read_text().rpartition(")")
            parents[int(name.split()[0])] = int(rest.split()[1])
    found = [pid]
    for member in found:
        found += [child for child, parent in parents.items() if parent == member]
    return found

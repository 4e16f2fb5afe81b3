"""No key in any log, traceback, error, database, Redis, journal or mail: planted everywhere, then searched for."""

import os
import time
from collections.abc import Iterator

import psycopg
import pytest
import redis

from tests.gateway.conftest import wait_for
from tests.gateway.leaks import Leak, search
from tests.gateway.planting import (
    ANSWER,
    BASIC,
    Planter,
    plant_in_addresses_and_headers,
    plant_in_bodies,
    plant_in_what_is_no_http,
    plant_in_what_the_upstream_says,
)
from tests.gateway.raw_upstream import RawUpstream
from tests.gateway.test_faults import connect
from tests.instance import installed

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("instance")]

MAILS = (
    "from usage import tasks; tasks.aggregate_allowances(); tasks.mail_allowances(); tasks.mail_anomalies()"
)


@pytest.fixture(scope="module")
def planter() -> Iterator[Planter]:
    upstream = RawUpstream()
    with installed() as instance:
        # The database's own address is not that of the tests: this is an installation of its own.
        instance.start(extra_env={"SANDBOX_UPSTREAM_URL": upstream.url, "LOG_LEVEL": "DEBUG"})
        yield Planter(instance, upstream)
    upstream.close()


def test_a_key_is_found_nowhere_whatever_goes_wrong(planter: Planter) -> None:
    for secret in planter.secrets:
        plant_in_addresses_and_headers(planter, secret)
        plant_in_bodies(planter, secret)
        plant_in_what_is_no_http(planter, secret)
    for secret in (planter.rich, planter.paged):
        plant_in_what_the_upstream_says(planter, secret)
    assert provoke_mails(planter) == 429
    assert planter.chat(key=planter.poor) == 402
    provoke_failures_of_our_own(planter)

    assert len(planter.answers) > 200
    search(planter)


@pytest.mark.parametrize(
    "place", ["answer", "log", "outbox", "journal", "text", "bytea", "jsonb", "redis", "hash"]
)
def test_a_key_that_does_leak_is_found(planter: Planter, place: str) -> None:
    """The search itself can fail."""
    secret = planter.rich
    statements = {
        "text": ("UPDATE accounts_account SET name = name || %s", secret),
        "bytea": ("ALTER TABLE accounts_account ADD leak bytea DEFAULT %s::bytea", secret.encode()),
        "jsonb": ("ALTER TABLE accounts_account ADD leak jsonb DEFAULT %s::jsonb", f'{{"a": ["{secret}"]}}'),
    }
    undo = {"text": ("UPDATE accounts_account SET name = replace(name, %s, '')", secret)}
    store = redis.Redis.from_url(planter.instance.env()["REDIS_URL"])
    folder = {"log": "logs", "outbox": "outbox", "journal": "journal"}.get(place)
    try:
        if place == "answer":
            planter.answers.append(secret.encode())
        elif folder:
            (planter.instance.home / folder / "leak").write_text(f"a line with {secret}")
        elif place == "redis":
            store.set("leak", secret)
        elif place == "hash":
            store.hset("leak", secret, "1")
        else:
            execute(planter, *statements[place])
        with pytest.raises(Leak, match="leak" if folder or place in ("redis", "hash") else "account|tg_"):
            search(planter, only_files=bool(folder))
    finally:
        store.delete("leak")
        if place == "answer":
            planter.answers.pop()
        elif folder:
            (planter.instance.home / folder / "leak").unlink()
        elif place in statements:
            execute(planter, *undo.get(place, ("ALTER TABLE accounts_account DROP leak",)))


# --- Provoking ---------------------------------------------------------------------------------------------


def provoke_mails(planter: Planter) -> int:
    """Use an allowance up, and have the mails about it sent."""
    planter.upstream.answers(ANSWER % 125_000)
    assert [planter.chat(key=planter.free, model=BASIC) for _ in range(2)] == [200, 200]
    planter.instance.manage("shell", "-c", MAILS, check=True)
    wait_for(lambda: any((planter.instance.home / "outbox").glob("*.eml")), patience_s=60)
    return planter.chat(key=planter.free, model=BASIC)


def provoke_failures_of_our_own(planter: Planter) -> None:
    """A table that is missing, Redis killed, PostgreSQL killed before and during a request."""
    instance, secret = planter.instance, planter.rich
    fields = f', "max_tokens": 5, "user": "{secret}"'
    planter.upstream.answers(ANSWER % 1)
    for table in ("keys_keysecret", "billing_hold"):
        execute(planter, f"ALTER TABLE {table} RENAME TO is_away")
        # A key that is remembered needs no table to be let in; what it may still do has to be read.
        assert planter.chat(key=secret, fields=fields) == (503 if table == "billing_hold" else 200)
        assert (
            b" 503 " in planter.send("GET /v1/credits HTTP/1.1", key=secret)[:20] or table == "billing_hold"
        )
        execute(planter, f"ALTER TABLE is_away RENAME TO {table}")
    killed = instance.kill9("redis")
    assert planter.chat(key=secret, fields=fields) == 200
    instance.wait_for_restart("redis", killed)
    pid = instance.pids()["postgres"][0]
    body = ANSWER % 2
    planter.upstream.says(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body),
        lambda: os.kill(pid, 9),
        body,
    )
    planter.chat(f"X-Request-Id: {secret}", key=secret, fields=fields)
    planter.chat(key=secret, fields=fields)
    search(planter, only_files=True)  # while the journal may still hold what was not booked
    instance.wait_for_restart("postgres", pid)
    instance.wait_until_answering()


def execute(planter: Planter, statement: str, *parameters: object) -> None:
    """Change the database; a value stands where no parameter may."""
    deadline = time.monotonic() + 10
    while True:
        try:
            with connect(planter.instance) as connection:
                psycopg.ClientCursor(connection).execute(statement, parameters)
        except psycopg.OperationalError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            return

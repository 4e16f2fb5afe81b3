"""No key in any log, traceback, error, database, Redis, journal or mail: planted everywhere, then searched for.

What is searched for is the middle of each secret: pages and mails show how one begins and ends.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from psycopg import sql

from tests.gateway.conftest import wait_for
from tests.gateway.raw_http import RawConnection
from tests.gateway.raw_upstream import RawUpstream
from tests.gateway.test_faults import connect
from tests.instance import Instance, installed

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("instance")]

PREMIUM, BASIC = "claude-opus-4.8", "gpt-oss-120b"
ENDPOINTS = ("chat/completions", "completions", "embeddings", "responses", "messages")
# Issues a key on its page, as a member of the account does, and prints it.
PAGE = """
from django.test import Client
from django.test.utils import setup_test_environment
from accounts.models import User
setup_test_environment()
client = Client(headers={{"host": "localhost"}})
client.force_login(User.objects.get(email="{email}"))
token = client.get("/keys/create/").context["token"]
page = client.post("/keys/create/", {{"name": "paged", "environment": "production", "token": token}})
print(page.context["secret"])
"""
MAILS = "from usage import tasks; tasks.aggregate_allowances(); tasks.mail_anomalies()"
ANSWER = (
    b'{"id": "x", "object": "chat.completion", "choices": [{"index": 0, "message": {"role": "assistant", "content":'
    b' "ok"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1, "completion_tokens": %d}}'
)


class Leak(AssertionError):
    """A secret was found."""


class Planter:
    """An instance with customers, whose secrets are sent to wherever they do not belong."""

    def __init__(self, instance: Instance, upstream: RawUpstream) -> None:
        self.instance = instance
        self.upstream = upstream
        self.answers: list[bytes] = []
        self.leaks: list[str] = []
        self.rich = self._customer("rich@example.com", "--plan", "pay-as-you-go", "--credit", "5")
        self.poor = self._customer("poor@example.com", "--plan", "pay-as-you-go")
        self.free = self._customer("free@example.com", "--plan", "basic")
        page = instance.manage("shell", "-c", PAGE.format(email="rich@example.com"), check=True)
        self.paged = page.stdout.split()[-1]
        self.secrets = [self.rich, self.poor, self.free, self.paged]

    def _customer(self, email: str, *options: str) -> str:
        self.instance.manage("create_account", email, *options, check=True)
        return self.instance.manage("issue_key", email, "a key", check=True).stdout.strip()

    def send(self, line: str, *headers: str, body: str = "", key: str = "") -> bytes:
        """One request as it is; keeps and returns everything that comes back."""
        own = [f"Authorization: Bearer {key}"] if key else []
        length = [f"Content-Length: {len(body.encode())}"] if body else []
        lines = [line, "Host: localhost", "Connection: close", *own, *headers, *length, "", body]
        with RawConnection(self.instance.state.port) as connection:
            connection.send("\r\n".join(lines).encode())
            answer = connection.everything()
        self.answers.append(answer)
        return answer

    def keep_upstream_healthy(self) -> None:
        """An upstream that mostly fails is not asked any more."""
        self.upstream.answers(ANSWER % 1)
        for _ in range(4):
            assert self.chat(key=self.rich) == 200

    def visit(self, address: str) -> None:
        """A page of the console. It may lead back to the address that was asked for; logs may not say it."""
        self.send(f"GET {address} HTTP/1.1")
        self.answers.pop()

    def post(self, body: str, *headers: str, key: str, path: str = "chat/completions") -> int:
        answer = self.send(f"POST /v1/{path} HTTP/1.1", *headers, body=body, key=key)
        return int(answer.split(b" ")[1])

    def chat(self, *headers: str, key: str, model: str = PREMIUM, fields: str = "") -> int:
        body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "hi"}}]{fields}}}'
        return self.post(body, *headers, key=key)


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


# --- Planting ----------------------------------------------------------------------------------------------


def mistyped(secret: str) -> list[str]:
    """One character off, and other near misses."""
    return [
        secret[:-1] + ("a" if secret[-1] != "a" else "b"),
        secret[:-1],
        secret[1:],
        secret + "x",
        "tg-live-" + secret[8:],
        "tg_livf_" + secret[8:],
        "TG_LIVE_" + secret[8:],
        f"'{secret}'",
    ]


def plant_in_addresses_and_headers(planter: Planter, secret: str) -> None:
    for written in [secret, secret.replace("_", "%5F"), *mistyped(secret)]:
        for path in (
            "/v1/{}",
            "/v1/models/{}",
            "/v1/generation?id={}",
            "/v1/models?api_key={}",
            "/v1/key?x={}",
        ):
            planter.send(f"GET {path.format(written)} HTTP/1.1", key=secret)
        planter.visit(f"/keys/{written}/")
        planter.visit(f"/accounts/login/?next=/{written}")
        planter.send("GET /v1/models HTTP/1.1", f"Authorization: Bearer {written}")
        planter.send("GET /v1/models HTTP/1.1", f"x-api-key: {written}")
    for headers in (
        f"{secret}: a",
        f"X-Anything: {secret}",
        f"User-Agent: {secret}",
        f"User-Agent: curl/{secret} x",
        f"X-Request-Id: {secret}",
        f"X-Request-Id: {secret[1:]}",
        f"Idempotency-Key: {secret}",
        f"Cookie: sessionid={secret}",
        f"X-Forwarded-For: {secret}",
        f"Content-Type: application/json; charset={secret}",
        f"Content-Encoding: {secret}",
        f"Expect: {secret}",
    ):
        planter.upstream.answers(ANSWER % 1)
        planter.chat(headers, key=secret)
    planter.send("GET /v1/models HTTP/1.1", f"Authorization: Basic {secret}")
    planter.send("GET /v1/models HTTP/1.1", f"Authorization: Bearer {secret}", f"X-Api-Key: {secret}")
    planter.send(f"{secret} /v1/models HTTP/1.1")
    planter.send("PUT /v1/models HTTP/1.1", key=secret)


def plant_in_bodies(planter: Planter, secret: str) -> None:
    messages = (
        '"messages": [{"role": "user", "content": "hi"}], "input": "hi", "prompt": "hi", "max_tokens": 5'
    )
    for path in ENDPOINTS:
        for written in (secret, *mistyped(secret)):
            planter.post(f'{{"model": "{written}", {messages}}}', key=secret, path=path)
        for body in (
            secret,
            f'{{"model": "{PREMIUM}", "{secret}": 1, "{secret}": 2}}',
            f'{{"model": "{PREMIUM}", {messages}, "{secret}": NaN}}',
            f'{{"model": ["{secret}"], {messages}}}',
            f'{{"model": "{PREMIUM}", {messages}, "stream": "{secret}"}}',
            f'{{"model": "{PREMIUM}", {messages}, "max_tokens": "{secret}"}}',
            f'{{"model": "{PREMIUM}", "messages": ["{secret}"], "input": {{"{secret}": 1}}, "prompt": 5}}',
            f'{{"models": ["{secret}", "{secret}"], {messages}}}',
        ):
            assert 400 <= planter.post(body, key=secret, path=path) < 500, (path, body[:40])


def plant_in_what_is_no_http(planter: Planter, secret: str) -> None:
    planter.send(secret)
    planter.send(f"GET /v1/models HTTP/1.1 {secret}")
    planter.send("GET /v1/models HTTP/1.1", secret)
    planter.send("GET /v1/models HTTP/1.1", f"X-A: a\n{secret}")
    planter.send("GET /v1/models HTTP/1.1", f"Transfer-Encoding: {secret}")
    planter.send("GET /v1/models HTTP/1.1", f"Content-Length: {secret}")
    planter.send(f"GET http://{secret}/v1/models HTTP/1.1")
    planter.send(f"CONNECT {secret}:443 HTTP/1.1")
    planter.send("POST /v1/chat/completions HTTP/1.1", "Transfer-Encoding: chunked", "", secret, key=secret)


def plant_in_what_the_upstream_says(planter: Planter, secret: str) -> None:
    """An upstream that was sent a key in a body may quote it in whatever it answers."""
    quoted = b'{"error": {"message": "you sent %s", "code": "%s", "param": "%s", "type": "x"}}'
    quoted %= (secret.encode(),) * 3
    fields = f', "max_tokens": 5, "user": "{secret}", "metadata": {{"a": "{secret}"}}'
    garbage = (secret.encode(), b'{"%s": 1}' % secret.encode(), quoted)
    for status in (400, 401, 413, 422, 429, 500, 302):
        head = b"HTTP/1.1 %d No\r\nconnection: close\r\nlocation: /%s\r\nx-a: %s\r\n\r\n"
        planter.upstream.says(head % (status, secret.encode(), secret.encode()), quoted)
        assert planter.chat(key=secret, fields=fields) >= 400
        planter.keep_upstream_healthy()
    for said in garbage:
        planter.upstream.says(said)
        assert planter.chat(key=secret, fields=fields) >= 400
        planter.upstream.answers(said)
        assert planter.chat(key=secret, fields=fields) >= 400
        planter.keep_upstream_healthy()
    # What an upstream streams as its answer is passed on; what it says of a failure is not.
    for said in (garbage[0], quoted):
        for event in (b"data: %s\n\n" % said, said, b"event: error\ndata: %s\n\n" % said):
            planter.upstream.streams(event)
            planter.chat(key=secret, fields=fields + ', "stream": true')
            planter.keep_upstream_healthy()


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


# --- Searching ---------------------------------------------------------------------------------------------


def search(planter: Planter, *, only_files: bool = False) -> None:
    """Everything that is kept or was answered. Raises Leak with all places."""
    planter.leaks = []
    search_files(planter)
    if not only_files:
        for answer in planter.answers:
            check(planter, answer, answer[:80])
        search_database(planter)
        search_redis(planter)
    if planter.leaks:
        raise Leak("\n".join(sorted(set(planter.leaks))))


def check(planter: Planter, data: bytes, place: object) -> None:
    for secret in planter.secrets:
        middle = secret[14:34].encode()
        if middle in data or middle.hex().encode() in data:
            planter.leaks.append(str(place))


def search_database(planter: Planter) -> None:
    """Every row of every table, as text; bytes are in hexadecimal there."""
    with connect(planter.instance) as connection:
        tables = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        assert len(tables) > 30
        for schema, table in tables:
            rows = connection.execute(
                sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(schema, table))
            )
            for (row,) in rows:
                check(planter, row.encode(), table)


def search_redis(planter: Planter) -> None:
    """Every key and value of every database."""
    store = redis.Redis.from_url(planter.instance.env()["REDIS_URL"])
    for number in range(int(store.config_get("databases")["databases"] or 16)):
        store.select(number)
        for key in store.scan_iter():
            check(planter, key, key)
            check(planter, repr(value_of(store, key)).encode(), key)


def value_of(store: "redis.Redis", key: bytes) -> Any:
    match store.type(key):
        case b"hash":
            return store.hgetall(key)
        case b"list":
            return store.lrange(key, 0, -1)
        case b"set":
            return store.smembers(key)
        case b"zset":
            return store.zrange(key, 0, -1)
        case _:
            return store.get(key)


def search_files(planter: Planter) -> None:
    """Everything under the instance's home: logs, outbox, journal, and what PostgreSQL and Redis have on disk."""
    check(planter, planter.instance.output.encode(), "output")
    for path in planter.instance.home.rglob("*"):
        if path.is_file() and not path.is_symlink():
            check(planter, read(path), path)


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # a temporary file of PostgreSQL that has gone
        return b""


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

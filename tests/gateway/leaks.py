"""Everything that an installation keeps or has answered, searched for secrets.

What is searched for is the middle of each secret: pages and mails show how one begins and ends.
"""

from pathlib import Path
from typing import Any

import redis
from psycopg import sql

from tests.gateway.planting import Planter
from tests.gateway.test_faults import connect


class Leak(AssertionError):
    """A secret was found."""


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

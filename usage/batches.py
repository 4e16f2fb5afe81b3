"""The calls of a batch of the teller to PostgreSQL, as text: what they are, and how to send one and wait for it.

The functions are in `usage/migrations/0011_minute_gaps.py`.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson
import psycopg

from billing.wallets import Connection, Cursor

# Accounts, keys to be judged, days, ids of ended requests, idempotency keys, keys whose minute is counted, since which
# id, keys whose budgets count; answers one JSON text.
OPEN = "SELECT usage_open_books($1, $2, $3, $4, $5, $6, $7, $8)"
# Ids of holds that are resolved, wallets, budgets, begun and changed allowances, holds, claims, ids of freed claims,
# usage records, keys of which Redis has missed a request.
WRITE = "SELECT usage_write_books($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
# Both, if the first one's answer is the foreseen one: what OPEN takes, that answer, what WRITE takes. Answers nothing
# if it was written, else what OPEN answers, and then nothing is written.
TRY = "SELECT usage_try_books($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)"


class Call(NamedTuple):
    """One statement with its parameters, in PostgreSQL's text format, UTF-8."""

    statement: str
    parameters: list[bytes | None]


def execute(connection: Connection, call: Call) -> Cursor:
    """Send a call and wait for its answer."""
    texts = [None if value is None else value.decode() for value in call.parameters]
    return psycopg.RawCursor[Any](connection).execute(call.statement, texts)


def array(values: Iterable[object]) -> bytes:
    """An array in PostgreSQL's text format, of values that need no quotes: numbers, dates, UUIDs."""
    return ("{" + ",".join(map(str, values)) + "}").encode()


def as_json(rows: object) -> bytes | None:
    """Rows for `json_to_recordset`; None where there are none."""
    return orjson.dumps(rows) if rows else None

"""The calls of a batch of the teller to PostgreSQL, as text: what they are, and how to send one and wait for it.

The function that opens is in `usage/migrations/0011_minute_gaps.py`, those that write in
`0013_compared_where_written.py`.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

import orjson
import psycopg

from billing.wallets import Connection, Cursor

# Accounts, keys to be judged, days, ids of ended requests, idempotency keys, keys whose minute is counted, since which
# id, keys whose budgets count; answers one JSON text.
OPEN = "SELECT usage_open_books($1, $2, $3, $4, $5, $6, $7, $8)"
# Ids of holds that are resolved, their amounts and tokens, their days; accounts, and what is in their wallets; budgets,
# begun and changed allowances, holds, claims, ids of freed claims, usage records, keys of which Redis has missed a
# request. Refused with `serialization_failure` where the holds are not these.
WRITE = "SELECT usage_write_books($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
# Locks, and writes if everything is as foreseen: see `usage.foreseeing.attempt`; then what WRITE takes. Answers no row
# if something is otherwise, and then nothing is written.
TRY = """SELECT usage_write_books($12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24)
WHERE usage_compare_books($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"""


_BRACES = bytes.maketrans(b"[]", b"{}")


class Call(NamedTuple):
    """One statement with its parameters, in PostgreSQL's text format, UTF-8."""

    statement: str
    parameters: list[bytes | None]


def execute(connection: Connection, call: Call) -> Cursor:
    """Send a call and wait for its answer."""
    texts = [None if value is None else value.decode() for value in call.parameters]
    return psycopg.RawCursor[Any](connection).execute(call.statement, texts)


def array(values: Collection[object]) -> bytes:
    """An array in PostgreSQL's text format, of numbers, dates, UUIDs, digests, or of rows of them."""
    if not values:
        return b"{}"
    # Of these it differs from JSON in its brackets only, and nothing is made as fast as JSON.
    return orjson.dumps(values if isinstance(values, list) else [*values]).translate(_BRACES)


def as_json(rows: object) -> bytes | None:
    """Rows for `json_to_recordset`; None where there are none."""
    return orjson.dumps(rows) if rows else None

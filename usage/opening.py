"""Opening the books of a batch: what is asked of PostgreSQL, and asking it on a connection that may wait."""

import datetime as dt
from collections.abc import Sequence

from billing.wallets import Connection
from usage.admission import Admission
from usage.batches import OPEN, Call, array, as_json, execute
from usage.books import Books
from usage.minutes import WINDOW, first_id_since
from usage.recording import FinishedRequest

_EPOCH = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)


def question(*, admissions: Sequence[Admission], ended: Sequence[FinishedRequest]) -> Call:
    """What opens the books of a batch: its one row and column is for `Books.of`."""
    accounts = sorted({a.finished.account_id for a in admissions} | {e.account_id for e in ended})
    days = {a.at.date() for a in admissions if a.draws_allowance}
    resolved = [str(e.id) for e in ended] + [str(a.finished.id) for a in admissions if a.replaces]
    claimed = [
        {"key_id": a.finished.key_id, "digest": a.idempotency.digest}
        for a in admissions
        if a.idempotency is not None
    ]
    limited = {a.finished.key_id for a in admissions} | {e.key_id for e in ended}
    return Call(
        OPEN,
        [
            array(accounts),
            array({a.finished.key_id for a in admissions}),
            array(days),
            array(resolved),
            as_json(claimed),
            array({a.finished.key_id for a in admissions if a.minute is not None}),
            str(first_id_since(min((a.at for a in admissions), default=_EPOCH) - WINDOW)),
            array(limited),
        ],
    )


def open_books(
    connection: Connection, *, admissions: Sequence[Admission], ended: Sequence[FinishedRequest]
) -> Books:
    """Lock the accounts of a batch and read what its decisions rest on, in the caller's transaction."""
    (row,) = execute(connection, question(admissions=admissions, ended=ended)).fetchall()
    return Books.of(row[0])

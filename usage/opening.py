"""Opening the books of a batch: what is asked of PostgreSQL, and asking it on a connection that may wait."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from billing.wallets import Connection
from usage.admission import Admission
from usage.batches import OPEN, Call, array, as_json, execute
from usage.books import Books
from usage.minutes import WINDOW, first_id_since
from usage.recording import FinishedRequest

_EPOCH = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)


@dataclass(slots=True)
class Question:
    """What the decisions of a batch rest on."""

    accounts: list[int]  # in the order in which they are locked
    # Of the keys that ask: the versions of key and account by which they were judged.
    versions: dict[int, list[int]]
    # Of the keys that ask or have ended: their budgets count.
    keys: set[int]
    days: list[str]
    ended: list[str]
    claimed: list[dict[str, Any]]
    counted: set[int]
    since: str

    @classmethod
    def of(cls, *, admissions: Sequence[Admission], ended: Sequence[FinishedRequest]) -> Self:
        asking = [admission.finished for admission in admissions]
        # Who asks anew, for another model, may have begun minutes ago, and was counted then.
        counting = [a.at for a in admissions if a.minute is not None] or [a.at for a in admissions]
        return cls(
            accounts=sorted({a.account_id for a in asking} | {e.account_id for e in ended}),
            versions={a.finished.key_id: [a.key_version, a.account_version] for a in admissions},
            keys={a.key_id for a in asking} | {e.key_id for e in ended},
            days=sorted({a.at.date().isoformat() for a in admissions if a.draws_allowance}),
            ended=[e.id_text for e in ended] + [a.finished.id_text for a in admissions if a.replaces],
            claimed=[
                {"key_id": a.finished.key_id, "digest": a.idempotency.digest}
                for a in admissions
                if a.idempotency is not None
            ],
            counted={
                a.finished.key_id for a in admissions if a.minute is not None and not a.minute.is_decided
            },
            since=str(first_id_since(min(counting, default=_EPOCH) - WINDOW)),
        )

    def parameters(self) -> list[bytes | None]:
        """As `usage_open_books` takes them."""
        return [
            array(self.accounts),
            array(self.versions),
            array(self.days),
            array(self.ended),
            as_json(self.claimed),
            array(self.counted),
            self.since.encode(),
            array(self.keys),
        ]

    def call(self) -> Call:
        """What opens the books: its one row and column is for `Books.of`."""
        return Call(OPEN, self.parameters())


def open_books(
    connection: Connection, *, admissions: Sequence[Admission], ended: Sequence[FinishedRequest]
) -> Books:
    """Lock the accounts of a batch and read what its decisions rest on, in the caller's transaction."""
    (row,) = execute(connection, Question.of(admissions=admissions, ended=ended).call()).fetchall()
    return Books.of(row[0])

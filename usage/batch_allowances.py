"""The daily allowances of a batch of requests: what is drawn of them, and what is left."""

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

_Row = Sequence[Any]
_AccountDay = tuple[int, dt.date]


@dataclass(slots=True)
class Drawn:
    """What is drawn of an allowance. As a change, each figure may be negative."""

    requests: int = 0
    tokens: int = 0
    held_tokens: int = 0

    def add(self, other: "Drawn") -> None:
        self.requests += other.requests
        self.tokens += other.tokens
        self.held_tokens += other.held_tokens


class AllowancesOfBatch:
    """Allowances of accounts and UTC days, changed in memory; what is written back is the changes."""

    def __init__(self, drawn: dict[_AccountDay, Drawn]) -> None:
        # Of the days on which somebody asks for some. An allowance that is only given back to is not among them.
        self._drawn = drawn
        self._changes: dict[_AccountDay, Drawn] = {}
        self._begun: list[_AccountDay] = []

    @classmethod
    def of(cls, rows: Iterable[_Row]) -> Self:
        """As `usage_open_books` gives them."""
        return cls({(row[0], dt.date.fromisoformat(row[1])): Drawn(*row[2:]) for row in rows})

    def drawn(self, account_id: int, day: dt.date) -> Drawn:
        """What is drawn of an allowance of which somebody asks for some."""
        return self._drawn.get((account_id, day)) or Drawn()

    def draw(self, account_id: int, day: dt.date, *, tokens: int) -> None:
        """Reserve a request of so many tokens."""
        account_day = (account_id, day)
        if account_day not in self._drawn:
            self._drawn[account_day] = Drawn()
            self._begun.append(account_day)
        self.change(account_id, day, Drawn(requests=1, held_tokens=tokens))

    def change(self, account_id: int, day: dt.date, change: Drawn) -> None:
        """Correct what is drawn."""
        account_day = (account_id, day)
        if account_day in self._drawn:
            self._drawn[account_day].add(change)
        self._changes.setdefault(account_day, Drawn()).add(change)

    def begun(self) -> list[dict[str, Any]]:
        """New days, as rows for `usage_write_books`."""
        return [{"account_id": account_id, "day": day} for account_id, day in self._begun]

    def changes(self) -> list[dict[str, Any]]:
        """What to add, as rows for `usage_write_books`."""
        return [
            {
                "account_id": account_id,
                "day": day,
                "requests": change.requests,
                "tokens": change.tokens,
                "held_tokens": change.held_tokens,
            }
            for (account_id, day), change in self._changes.items()
        ]

    def rows(self) -> list[list[Any]]:
        """Those that were read, as `usage_open_books` would give them now."""
        return [_as_row(*account_day, drawn) for account_day, drawn in self._drawn.items()]

    def unread(self) -> list[list[Any]]:
        """What is added to those that were not read."""
        return [_as_row(*at, change) for at, change in self._changes.items() if at not in self._drawn]


def _as_row(account_id: int, day: dt.date, drawn: Drawn) -> list[Any]:
    return [account_id, day.isoformat(), drawn.requests, drawn.tokens, drawn.held_tokens]

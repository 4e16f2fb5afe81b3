"""What the next batch will find: the books as the last batch of the same process has left them.

Nearly always nobody else has written to an account between two batches. So a batch can be decided before anything is
asked, and PostgreSQL, which locks as ever, compares what it locks with what was foreseen: if that is the same, it
writes what was decided; if not, it writes nothing and says so. One round trip instead of two, and never a
decision on anything but the state under the lock.
"""

from collections.abc import Collection, Iterable
from itertools import product
from operator import add
from typing import Any

from usage.batches import TRY, Call, array, as_json
from usage.books import Books, Left
from usage.opening import Question

# After an account was found changed by somebody else, so many of its batches are asked first.
_WARY_FOR = 16
# Accounts that are remembered; beyond that all are forgotten, and asked again.
_MOST = 10_000

Row = list[Any]
# As OPEN would answer, its lists in the order of PostgreSQL's.
Answer = list[list[Row] | None]


class Foresight:
    """The rows that one process has left. Not more than a guess: see the module."""

    def __init__(self) -> None:
        self._wallets: dict[int, Row] = {}
        # By account, then by id; and the keys whose own budgets are known with them.
        self._budgets: dict[int, dict[int, Row]] = {}
        self._known_keys: set[int] = set()
        self._environments: dict[int, str] = {}
        # None: the account has not begun the day.
        self._allowances: dict[tuple[int, str], Row | None] = {}
        self._holds: dict[str, Row] = {}
        self._wary: dict[int, int] = {}
        # Keys whose minute is counted: what is counted there is not foreseen.
        self._missed: set[int] = set()

    def of(self, question: Question) -> Answer | None:
        """The answer to expect; None where there is no telling."""
        accounts, keys = question.accounts, question.keys
        if question.counted or not self._missed.isdisjoint(question.versions):
            return None
        if not self._known_keys.issuperset(keys) or self._is_wary(accounts):
            return None
        try:
            wallets = [self._wallets[account] for account in accounts]
            allowances = [
                row
                for account in accounts
                for day in question.days
                if (row := self._allowances[account, day])
            ]
        except KeyError:
            return None
        budgets = self._budgets_of(accounts, keys)
        environments = None
        if any(row[2] for row in budgets):
            if not self._environments.keys() >= keys:
                return None
            environments = [[key, self._environments[key]] for key in sorted(keys)]
        versions = sorted([key, *versions, False] for key, versions in question.versions.items())
        holds = [row for ended in sorted(question.ended) if (row := self._holds.get(ended))]
        # Nobody sends the same idempotency key twice, mostly: no claims.
        return [
            wallets,
            versions or None,
            budgets or None,
            environments,
            sorted(allowances) or None,
            holds or None,
            None,
            None,
        ]

    def learn(self, question: Question, left: Left) -> None:
        """Remember what a committed batch has left."""
        if len(self._wallets) > _MOST or len(self._known_keys) > _MOST:
            self.__init__()  # type: ignore[misc]  # to begin anew is all there is to it
        self._wallets |= {row[0]: row for row in left.wallets}
        self._learn_budgets(question, left.budgets)
        self._known_keys |= question.keys
        if self._missed or left.missed:
            self._missed = self._missed.difference(question.versions) | left.missed
        self._environments |= left.environments
        if question.days:
            self._allowances |= dict.fromkeys(product(question.accounts, question.days))
            self._allowances |= {(row[0], row[1]): row for row in left.allowances}
        for account, day, *added in left.unread_allowances:
            if remembered := self._allowances.get((account, day)):
                remembered[2:] = map(add, remembered[2:], added)
        for ended in question.ended:
            self._holds.pop(ended, None)
        self._holds |= {row[0]: row for row in left.holds}

    def was_wrong(self, accounts: Collection[int]) -> None:
        """Somebody else has written to one of these accounts: for a while, ask first.

        What was remembered of them since may rest on the batch that was not written.
        """
        self._wary |= dict.fromkeys(accounts, _WARY_FOR)

    def _learn_budgets(self, question: Question, rows: Iterable[Row]) -> None:
        for account in question.accounts:
            if known := self._budgets.get(account):
                # A budget that was taken away leaves no row: forget what this batch has read anew.
                for read in [id_ for id_, row in known.items() if row[3] is None or row[3] in question.keys]:
                    del known[read]
        for row in rows:
            self._budgets.setdefault(row[1], {})[row[0]] = row

    def _budgets_of(self, accounts: Iterable[int], keys: Collection[int]) -> list[Row]:
        rows = [row for account in accounts for row in self._budgets.get(account, {}).values()]
        return sorted(row for row in rows if row[3] is None or row[3] in keys)

    def _is_wary(self, accounts: Iterable[int]) -> bool:
        """Whether one of the accounts is asked first; counts the batch."""
        wary = [account for account in accounts if account in self._wary]
        for account in wary:
            self._wary[account] -= 1
            if not self._wary[account]:
                del self._wary[account]
        return bool(wary)


def attempt(question: Question, foreseen: Answer, decided: Books) -> Call:
    """What has PostgreSQL write what was decided on a foreseen answer, if that is what it would answer."""
    wallets, _, budgets, environments, allowances, found, _, _ = foreseen
    held = {hold[0] for hold in found or ()}
    return Call(
        TRY,
        [
            array(question.accounts),
            array([figures for _, *figures in wallets or ()]),
            array(question.versions),
            array(question.versions.values()),
            array(question.keys),
            as_json(budgets),
            as_json(environments),
            array(question.days),
            as_json(allowances),
            array([claim["digest"] for claim in question.claimed]),
            array([id_ for id_ in question.ended if id_ not in held]),
            *decided.changes(),
        ],
    )

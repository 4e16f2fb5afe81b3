"""Balances under lock. The row lock of an account's wallet guards everything else that is money of the account.

Everyone who changes a wallet, an allowance, a budget or a hold first locks the wallet here, several of them
in order of account id, so that nobody can deadlock. The functions take a raw psycopg connection inside a
transaction: the teller has its own, everyone else borrows Django's with `borrowed_connection`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from django.db import connection as django_connection

Connection = psycopg.Connection[Any]
Cursor = psycopg.Cursor[Any]

# A bigint holds nine times as much: so no sum of a wallet's amounts overflows one, nor does what comes back to it.
MOST_NANOUSD = 10**18

_SELECT = """
    SELECT account_id, balance_nanousd, held_nanousd, to_take_nanousd FROM billing_wallet
    WHERE account_id = ANY(%s) ORDER BY account_id FOR UPDATE
"""
_CREATE = """
    INSERT INTO billing_wallet (account_id, balance_nanousd, held_nanousd)
    SELECT id, 0, 0 FROM accounts_account WHERE id = ANY(%s) ORDER BY id ON CONFLICT DO NOTHING
"""
_WRITE = """
    UPDATE billing_wallet w SET balance_nanousd = n.balance, held_nanousd = n.held, to_take_nanousd = n.to_take
    FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[]) AS n (account_id, balance, held, to_take)
    WHERE w.account_id = n.account_id
"""


@dataclass(slots=True)
class WalletState:
    """A locked wallet, in nano-USD; changed in memory and written back once, before the transaction commits.

    What is held is held by running requests, and `to_take` of it for disputes and refunds that take what these leave:
    see `billing.collecting`. The teller does not read how much that is: for it, a hold is a hold.
    """

    account_id: int
    balance_nanousd: int
    held_nanousd: int
    to_take_nanousd: int = 0
    is_changed: bool = False

    @property
    def available_nanousd(self) -> int:
        return max(0, self.balance_nanousd - self.held_nanousd)

    @property
    def held_by_requests_nanousd(self) -> int:
        return self.held_nanousd - self.to_take_nanousd

    def hold(self, amount_nanousd: int) -> None:
        self.held_nanousd += amount_nanousd
        self.is_changed = True

    def release(self, amount_nanousd: int) -> None:
        self.held_nanousd -= amount_nanousd
        self.is_changed = True

    def settle(self, held_nanousd: int, cost_nanousd: int) -> int:
        """Release what a request holds and charge what it costs. Returns what was taken.

        Its own hold pays for it before anybody else gets it; beyond that, only what is available does.
        """
        self.release(held_nanousd)
        taken = min(cost_nanousd, max(held_nanousd, self.available_nanousd))
        self.balance_nanousd -= taken
        return taken

    def wait_for(self, amount_nanousd: int) -> None:
        """Hold so much more for who takes it when requests leave it; less where it is negative."""
        self.to_take_nanousd += amount_nanousd
        self.hold(amount_nanousd)

    def reach(self, wanted_nanousd: int) -> tuple[int, int]:
        """What of an amount can be taken now, and what only when the requests that hold it are over."""
        now = min(wanted_nanousd, self.available_nanousd)
        left = self.balance_nanousd - now - self.to_take_nanousd
        return now, max(0, min(wanted_nanousd - now, left))

    def credit(self, amount_nanousd: int) -> None:
        self.balance_nanousd += amount_nanousd
        self.is_changed = True

    def charge(self, cost_nanousd: int) -> int:
        """Take the cost from what is available, as far as it goes. Returns what was taken."""
        taken = min(cost_nanousd, self.available_nanousd)
        self.balance_nanousd -= taken
        self.is_changed = True
        return taken


def borrowed_connection() -> Connection:
    """Django's own psycopg connection, inside `transaction.atomic()`."""
    django_connection.ensure_connection()
    raw: Connection = django_connection.connection
    return raw


def query(connection: Connection, account_ids: Sequence[int]) -> Cursor:
    """Ask for the wallets under lock. In a pipeline the answer is read later, with `states`."""
    return connection.execute(_SELECT, (list(account_ids),))


def states(cursor: Cursor) -> dict[int, WalletState]:
    """The wallets that `query` has locked, by account id."""
    return {row[0]: WalletState(*row) for row in cursor.fetchall()}


def create_missing(connection: Connection, account_ids: Sequence[int]) -> None:
    """An account has no wallet until money or a request first concerns it."""
    connection.execute(_CREATE, (list(account_ids),))


def lock(connection: Connection, account_ids: Sequence[int]) -> dict[int, WalletState]:
    """The wallets of the accounts under lock, by account id, made where there was none."""
    locked = states(query(connection, account_ids))
    if len(locked) < len(set(account_ids)):
        create_missing(connection, account_ids)
        locked = states(query(connection, account_ids))
    return locked


def write(connection: Connection, wallets: Iterable[WalletState]) -> None:
    """Write back what has changed."""
    changed = [wallet for wallet in wallets if wallet.is_changed]
    if changed:
        connection.execute(
            _WRITE,
            (
                [wallet.account_id for wallet in changed],
                [wallet.balance_nanousd for wallet in changed],
                [wallet.held_nanousd for wallet in changed],
                [wallet.to_take_nanousd for wallet in changed],
            ),
        )

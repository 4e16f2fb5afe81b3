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

_SELECT = """
    SELECT account_id, balance_nanousd, held_nanousd FROM billing_wallet
    WHERE account_id = ANY(%s) ORDER BY account_id FOR UPDATE
"""
_CREATE = """
    INSERT INTO billing_wallet (account_id, balance_nanousd, held_nanousd)
    SELECT id, 0, 0 FROM accounts_account WHERE id = ANY(%s) ORDER BY id ON CONFLICT DO NOTHING
"""
_WRITE = """
    UPDATE billing_wallet w SET balance_nanousd = n.balance, held_nanousd = n.held
    FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[]) AS n (account_id, balance, held)
    WHERE w.account_id = n.account_id
"""


@dataclass(slots=True)
class WalletState:
    """A locked wallet, in nano-USD; changed in memory and written back once, before the transaction commits."""

    account_id: int
    balance_nanousd: int
    held_nanousd: int
    is_changed: bool = False

    @property
    def available_nanousd(self) -> int:
        return self.balance_nanousd - self.held_nanousd

    def hold(self, amount_nanousd: int) -> None:
        self.held_nanousd += amount_nanousd
        self.is_changed = True

    def release(self, amount_nanousd: int) -> None:
        self.held_nanousd -= amount_nanousd
        self.is_changed = True

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
            ),
        )

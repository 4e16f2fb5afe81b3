"""Batches whose books are asked first: two round trips, and what is done where PostgreSQL refuses one.

One that cannot be booked takes no other of its batch down with it, and a wallet that somebody keeps locked keeps nobody
else waiting.
"""

import asyncio
import logging
from collections.abc import Collection

from gateway.arrears import Arrears
from gateway.items import Item, Settle, decide, question_of
from gateway.locked_wallets import LockedWallets
from gateway.outcomes import Outcomes
from gateway.postgres_pipe import CallRefused, PostgresAway, PostgresPipe
from gateway.standing_connection import StandingConnection
from usage.admission import Decision
from usage.batches import WRITE, Call
from usage.books import Books

logger = logging.getLogger(__name__)

_WALLET = "The account's wallet"
# For the batch that may be the one that waits for a wallet.
_WAIT_BRIEFLY = Call("SELECT set_config('lock_timeout', '150', true)", [])
# Of so many wallets somebody else keeps locked, the rest of those that may be is not waited for at all.
_MOST_WAITS = 3


class Asking:
    """While it asks, nothing else may be on the connection's way."""

    def __init__(self, connection: StandingConnection, arrears: Arrears, outcomes: Outcomes) -> None:
        self.locked = LockedWallets()
        self._connection = connection
        self._arrears = arrears
        self._outcomes = outcomes

    async def process(self, batch: list[Item], *, is_brief: bool = False, is_again: bool = False) -> None:
        if not is_brief:
            batch = await self.refuse_locked(batch)
        if batch:
            await self._book(batch, is_brief=is_brief, is_again=is_again)

    async def _book(self, batch: list[Item], *, is_brief: bool, is_again: bool) -> None:
        pipe = await self._connection.connected()
        if pipe is None:
            await self._outcomes.fail(batch)
            return
        try:
            decisions = await self._transact(pipe, batch, is_brief=is_brief)
        except PostgresAway as error:
            self._connection.lose(error)
            await self._outcomes.fail(batch, is_in_doubt=True)
        except CallRefused as error:
            if error.is_lock and is_brief:
                await self._lock_out(batch)
            elif error.is_lock:
                await self.part(batch, is_again=is_again)
            elif error.is_transient:
                await self.give_up(batch, error)
            else:
                await self._process_each(batch, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the transaction must not be committed
            self._connection.lose(error)
            await self._process_each(batch, error)
        else:
            self._outcomes.deliver(batch, decisions)

    async def give_up(self, batch: list[Item], error: CallRefused) -> None:
        logger.warning("a batch of %d was given up: %s", len(batch), error)
        await self._outcomes.fail(batch)

    async def _process_each(self, batch: list[Item], error: Exception) -> None:
        """One request must not take the others of its batch down with it."""
        if len(batch) > 1:
            for item in batch:
                item.finished.fit()
                await self.process([item])
            return
        (item,) = batch
        logger.error("request %s could not be booked", item.finished.id, exc_info=error)
        if isinstance(item, Settle) and item.is_arrear:
            await self._arrears.set_apart(item.finished)
        else:
            await self._outcomes.fail(batch)

    async def _transact(
        self, pipe: PostgresPipe, batch: list[Item], *, is_brief: bool
    ) -> list[Decision | None]:
        """One batch, one transaction: lock and read, decide, write."""
        question = question_of(batch)
        calls = [_WAIT_BRIEFLY, question.call()] if is_brief else [question.call()]
        try:
            async with asyncio.timeout(self._connection.answer_timeout_s):
                answer = (await pipe.ask(*calls))[-1]
                opened = Books.of(answer)
                decisions = decide(opened, batch)
                await pipe.commit(Call(WRITE, opened.changes()))
        except TimeoutError:
            raise PostgresAway("no answer in time") from None
        self._connection.foresight.learn(question, opened.left())
        return decisions

    # --- Locked wallets --------------------------------------------------------------------------------------

    async def part(self, batch: list[Item], *, is_again: bool = False) -> None:
        """Somebody keeps a wallet of this batch locked: book the others, and refuse those whose it is.

        `is_again`: this batch as it is has been parted before.
        """
        others = await self.refuse_locked(batch)
        if len(others) < len(batch):
            await self.process(others)
            return
        by_account: dict[int, list[Item]] = {}
        for item in batch:
            by_account.setdefault(item.finished.account_id, []).append(item)
        if len(by_account) == 1:
            await self._lock_out(batch)
            return
        suspects = await self._suspects(by_account)
        if suspects is None or (is_again and not suspects):
            # Something else than a wallet is locked. Whose that is cannot be told.
            await self._outcomes.fail(batch)
            return
        others = [item for item in batch if item.finished.account_id not in suspects]
        await self.process(others, is_again=not suspects)
        # Some of them were only in another batch just then.
        known = len(self.locked.accounts)
        for account in suspects:
            if len(self.locked.accounts) - known >= _MOST_WAITS:
                await self._lock_out(by_account[account])
            else:
                await self.process(by_account[account], is_brief=True)

    async def _suspects(self, accounts: Collection[int]) -> list[int] | None:
        """The accounts whose wallet is locked just now; None: there is no telling."""
        pipe = await self._connection.connected()
        if pipe is None:
            return None
        try:
            async with asyncio.timeout(self._connection.answer_timeout_s):
                return await self.locked.among(pipe, accounts)
        except CallRefused as error:
            # Not a wallet, but the whole table.
            logger.warning("locked wallets could not be looked for: %s", error)
        except (PostgresAway, TimeoutError) as error:
            self._connection.lose(error)
        return None

    async def _lock_out(self, batch: list[Item]) -> None:
        """Refuse the requests of one account, these and those to come, until its wallet can be had."""
        self.locked.add(batch[0].finished.account_id)
        await self._outcomes.fail(batch, what=_WALLET)

    async def refuse_locked(self, batch: list[Item]) -> list[Item]:
        """Refuse the requests of those whose wallet still cannot be had; the others."""
        locked, pipe = self.locked.accounts, self._connection.pipe
        if pipe is not None and any(item.finished.account_id in locked for item in batch):
            try:
                async with asyncio.timeout(self._connection.answer_timeout_s):
                    await self.locked.look_again(pipe)
            except (PostgresAway, TimeoutError) as error:
                self._connection.lose(error)
        refused = [item for item in batch if item.finished.account_id in locked]
        if refused:
            await self._outcomes.fail(refused, what=_WALLET)
        return [item for item in batch if item.finished.account_id not in locked]

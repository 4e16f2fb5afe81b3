"""Wallets that somebody else keeps locked: an open console, a script that waits for something.

Whose they are is found without waiting, so that the requests of no other account wait with theirs.
"""

import asyncio
import logging
from collections.abc import Collection

import orjson

from gateway.postgres_pipe import CallRefused, PostgresPipe
from usage.batches import Call, array

logger = logging.getLogger(__name__)

_LOOK_AGAIN_S = 0.25
_LOCKED = """
    WITH free AS MATERIALIZED (
        SELECT account_id FROM billing_wallet WHERE account_id = ANY($1) FOR UPDATE SKIP LOCKED
    )
    SELECT coalesce(json_agg(account_id ORDER BY account_id), '[]')::text FROM billing_wallet
    WHERE account_id = ANY($1) AND account_id NOT IN (SELECT account_id FROM free)
"""


class LockedWallets:
    """The accounts whose requests are refused, because their wallet could not be had. Looked at again until it can."""

    def __init__(self) -> None:
        self.accounts: set[int] = set()
        self._look_again_at = 0.0
        self._loop = asyncio.get_running_loop()

    def add(self, account: int) -> None:
        logger.warning(
            "the wallet of account %d is locked by somebody else; its requests are refused", account
        )
        self.accounts.add(account)
        self._look_again_at = self._loop.time() + _LOOK_AGAIN_S

    async def among(self, pipe: PostgresPipe, accounts: Collection[int]) -> list[int]:
        """Those of the accounts whose wallet is locked at this instant, perhaps for no longer than a batch takes."""
        (answer,) = await pipe.commit(Call(_LOCKED, [array(accounts)]))
        found: list[int] = orjson.loads(answer)
        return found

    @property
    def is_due(self) -> bool:
        """Whether to look again, though nobody asks."""
        return bool(self.accounts) and self._loop.time() >= self._look_again_at

    async def look_again(self, pipe: PostgresPipe) -> None:
        """Let go of those that can be had again. Raises PostgresAway."""
        self._look_again_at = self._loop.time() + _LOOK_AGAIN_S
        try:
            still = await self.among(pipe, self.accounts)
        except CallRefused as error:
            logger.warning("the locked wallets cannot be looked at: %s", error)
            return
        for account in self.accounts.difference(still):
            logger.info("the wallet of account %d can be had again", account)
        self.accounts.intersection_update(still)

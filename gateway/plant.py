"""What a gateway process runs on: its teller, its windows, its upstream connections, and the catalogue in memory."""

import asyncio
import contextlib
import gc
import logging
import time
import uuid

from django.conf import settings
from django.utils import timezone
from uuid_utils.compat import uuid7

from catalog import serving
from catalog.serving import Catalogue
from gateway.answers import Answers
from gateway.credentials import Credentials
from gateway.errors import Refusal
from gateway.forwarding import Upstreams
from gateway.journal import Journal
from gateway.reading import read
from gateway.teller import Teller
from gateway.windows import Windows
from usage import minutes

logger = logging.getLogger(__name__)


class Plant:
    """Made when the process starts, stopped when it drains. Lives on one event loop."""

    def __init__(self) -> None:
        process_id: uuid.UUID = uuid7()
        journal = Journal(directory=settings.TOLLGATE_HOME / "journal", process_id=process_id)
        self.credentials = Credentials()
        self.windows = Windows()
        self.answers = Answers()
        self.teller = Teller(process_id=process_id, journal=journal)
        self.upstreams = Upstreams()
        self.teller.health = self._describe_upstreams
        self.catalogue = Catalogue()
        self._fingerprint = ""
        self._refreshing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start even without a database: requests are refused until it is there, and then served."""
        self.teller.start()
        await self._refresh()
        await self._vouch_for_redis()
        _spare_the_collector()
        self._refreshing = asyncio.create_task(self._keep_fresh())

    async def stop(self) -> None:
        """Settle what is queued and let go of everything. Requests have ended by now."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._refreshing
        await self.teller.stop()
        await self.windows.close()
        await self.answers.close()
        await self.upstreams.close()

    def _describe_upstreams(self) -> object:
        """What the heartbeat says of the upstreams."""
        return self.upstreams.health.described(time.monotonic(), timezone.now())

    async def _vouch_for_redis(self) -> None:
        """A Redis as new as the instance has missed nothing. Else the teller counts the first minute."""
        with contextlib.suppress(Refusal):
            if not await read(minutes.has_begun_since, at=timezone.now() - minutes.WINDOW):
                await self.windows.vouch()

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(settings.GATEWAY_CATALOGUE_EVERY_S)
            await self._refresh()

    async def _refresh(self) -> None:
        try:
            changed = await read(serving.load_if_changed, self._fingerprint)
            if changed is None:
                return
            self._fingerprint, self.catalogue = changed
            self.upstreams.health.keep_only(target.id for model in self.catalogue for target in model.targets)
        except Refusal:
            logger.warning("the catalogue could not be read; the last one stays in force")
        except Exception:
            logger.exception("the catalogue could not be read; the last one stays in force")


def _spare_the_collector() -> None:
    """Have the garbage collector leave alone what lives as long as the process, and come less often for the rest.

    What a request leaves behind goes by reference counting; the collector is for the few circles among it. By default
    it looks for them every few requests, and every now and then through all of Django.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)

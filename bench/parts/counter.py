"""Requests at the teller's counter, made inside an instance: `manage shell -c "from bench.parts import counter; …"`.

There is no HTTP, no Redis and no upstream: each request holds, and as soon as that is answered it settles.
"""

import asyncio
import gc
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import uvloop
from django.conf import settings
from django.utils import timezone
from uuid_utils.compat import uuid7

from bench.parts import processes
from catalog.models import Model
from catalog.pricing import TokenPrice
from gateway.items import Item
from gateway.journal import Journal
from gateway.teller import Teller, connection_parameters
from keys.models import ApiKey
from usage.admission import Admission, Admitted, Decision
from usage.models import UsageRecord
from usage.recording import FinishedRequest

_PRICE = TokenPrice(
    input_micro=1_000_000, output_micro=2_000_000, cached_input_micro=100_000, cache_write_micro=1_000_000
)
_OUTPUT_TOKENS = 50
_WARM_UP_S = 0.5
_SYNCS = 50
_PAGE_BYTES = 8_192
_BACKEND = """
    SELECT pid FROM pg_stat_activity WHERE application_name = 'tollgate-teller' ORDER BY backend_start DESC LIMIT 1
"""


class _Counting(Teller):
    """The teller itself, with a count of its batches and of what was in them."""

    def __init__(self, *, process_id: uuid.UUID, journal: Journal) -> None:
        super().__init__(process_id=process_id, journal=journal)
        self.batches = 0
        self.items = 0
        deliver = self._outcomes.deliver

        def count(batch: list[Item], decisions: list[Decision | None]) -> None:
            self.batches += 1
            self.items += len(batch)
            deliver(batch, decisions)

        self._outcomes.deliver = count  # type: ignore[method-assign]


@dataclass(frozen=True, slots=True)
class _Look:
    """What had been done, and used, at a moment."""

    at_s: float
    pairs: int
    batches: int
    items: int
    own_s: float
    backend_s: float


class _Counter:
    """So many requests at once, which take turns over the keys."""

    def __init__(self, teller: _Counting, keys: list[ApiKey], model_id: int | None) -> None:
        self._teller = teller
        self._keys = itertools.cycle(keys)
        self._model_id = model_id
        self.pairs = 0
        self.is_open = True

    async def serve(self) -> None:
        """Hold and settle, one request after the other, until it closes."""
        while self.is_open:
            request = self._request(next(self._keys))
            decision = await self._teller.admit(request)
            assert isinstance(decision, Admitted), decision
            finished = request.finished
            finished.outcome, finished.status = UsageRecord.Outcome.COMPLETED, 200
            finished.input_tokens, finished.output_tokens = request.input_tokens, _OUTPUT_TOKENS
            finished.ended_at = timezone.now()
            await self._teller.settle(finished)
            self.pairs += 1

    def look(self, backend: int) -> _Look:
        own_s, backend_s = processes.cpu_s(os.getpid()), processes.cpu_s(backend)
        teller = self._teller
        return _Look(time.monotonic(), self.pairs, teller.batches, teller.items, own_s, backend_s)

    def _request(self, key: ApiKey) -> Admission:
        at = timezone.now()
        finished = FinishedRequest(
            id=uuid7(),
            account_id=key.account_id,
            key_id=key.pk,
            model_id=self._model_id,
            endpoint="chat/completions",
            outcome=UsageRecord.Outcome.INTERRUPTED,
            status=0,
            started_at=at,
            ended_at=at,
        )
        finished.set_price(_PRICE)
        return Admission(
            finished=finished,
            key_version=key.policy_version,
            account_version=key.account.policy_version,
            process_id=self._teller.process_id,
            price=_PRICE,
            input_bytes=400,
            input_tokens=100,
            output_limit=100,
            max_output_tokens=1_000,
            choices=1,
            draws_allowance=False,
            spends_credits=True,
            requests_per_day=2_000_000_000,
            tokens_per_day=2_000_000_000,
            at=at,
        )


def serve_for(*, seconds: float, accounts: int, at_once: int) -> None:
    """Print what a teller of this process alone gets done, with the processor time that it and its backend used."""
    keys = list(ApiKey.objects.select_related("account").order_by("pk")[:accounts])
    model_id = Model.objects.values_list("pk", flat=True).first()
    # As a gateway process does before it serves.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    first, last = uvloop.run(_serve(keys, model_id, seconds=seconds, at_once=at_once))
    took_s = last.at_s - first.at_s
    batches = last.batches - first.batches
    json.dump(
        {
            "pairs_per_s": (last.pairs - first.pairs) / took_s,
            "batches_per_s": batches / took_s,
            "in_a_batch": (last.items - first.items) / max(batches, 1),
            "own_busy": (last.own_s - first.own_s) / took_s,
            "backend_busy": (last.backend_s - first.backend_s) / took_s,
            "sync_s": _sync_s(settings.TOLLGATE_HOME),
        },
        sys.stdout,
    )


async def _serve(
    keys: list[ApiKey], model_id: int | None, *, seconds: float, at_once: int
) -> tuple[_Look, _Look]:
    with tempfile.TemporaryDirectory() as folder:
        process_id: uuid.UUID = uuid7()
        teller = _Counting(
            process_id=process_id, journal=Journal(directory=Path(folder), process_id=process_id)
        )
        teller.start()
        counter = _Counter(teller, keys, model_id)
        served = [asyncio.create_task(counter.serve()) for _ in range(at_once)]
        await asyncio.sleep(_WARM_UP_S)
        backend = await asyncio.to_thread(_backend)
        first = counter.look(backend)
        await asyncio.sleep(seconds)
        last = counter.look(backend)
        counter.is_open = False
        await asyncio.gather(*served)
        await teller.stop()
        return first, last


def _backend() -> int:
    """The process of PostgreSQL that serves our teller: of all tellers', it has begun last."""
    with psycopg.connect(autocommit=True, **connection_parameters()) as connection:
        # Named anew, or we would find ourselves.
        connection.execute("SET application_name = 'bench'")
        found = connection.execute(_BACKEND).fetchone()
    assert found is not None
    return int(found[0])


def _sync_s(folder: Path) -> float:
    """Seconds that the disk takes to make one page durable where the instance lives: the least a commit waits for."""
    return statistics.median(itertools.islice(_syncs(folder), _SYNCS))


def _syncs(folder: Path) -> Iterator[float]:
    with tempfile.TemporaryFile(dir=folder) as file:
        while True:
            file.seek(0)
            file.write(b"\0" * _PAGE_BYTES)
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            yield time.perf_counter() - began

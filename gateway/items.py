"""What waits for the teller: admissions and settlements, and how a batch of them is decided."""

import asyncio
from dataclasses import dataclass, replace

from usage.admission import Admission, Admitted, Decision
from usage.books import Books
from usage.models import UsageRecord
from usage.opening import Question
from usage.recording import FinishedRequest


@dataclass(slots=True, eq=False)
class Admit:
    request: Admission
    future: asyncio.Future[Decision]
    asked_at: float

    @property
    def finished(self) -> FinishedRequest:
        return self.request.finished


@dataclass(slots=True, eq=False)
class Settle:
    finished: FinishedRequest
    future: asyncio.Future[None] | None  # None: nobody waits
    asked_at: float
    is_note: bool = False  # of a request that was refused, and holds nothing
    is_arrear: bool = False  # taken from what was owed


Item = Admit | Settle


def question_of(batch: list[Item]) -> Question:
    return Question.of(
        admissions=[item.request for item in batch if isinstance(item, Admit)],
        ended=[item.finished for item in batch if isinstance(item, Settle)],
    )


def decide(opened: Books, batch: list[Item]) -> list[Decision | None]:
    """Settlements first, for what they free; None for each of them."""
    for item in batch:
        if isinstance(item, Settle) and not opened.end(item.finished):
            # Refused before it held anything, or resolved before; then its record exists and stays as it is.
            opened.record(item.finished)
    return [opened.admit(item.request) if isinstance(item, Admit) else None for item in batch]


def is_admitted(future: asyncio.Future[Decision]) -> bool:
    """Whether the decision has been made, and lets the request go ahead."""
    has_decision = future.done() and not future.cancelled() and future.exception() is None
    return has_decision and isinstance(future.result(), Admitted)


def unserved(request: Admission) -> FinishedRequest:
    """Its end, where nobody has heard of the decision. A record of its own: what asked may go on another way."""
    return replace(
        request.finished,
        outcome=UsageRecord.Outcome.REFUSED,
        status=503,
        error_code="temporarily_unavailable",
        error_message="The database did not answer in time. Nothing was charged; try again.",
        ended_at=request.finished.started_at,
    )

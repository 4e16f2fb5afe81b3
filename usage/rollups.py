"""Usage records into hourly sums: each record is added once, whatever is killed and however many workers there are."""

import dataclasses
import logging
import uuid
from dataclasses import dataclass
from datetime import datetime

from django.db import connection, transaction

from billing import ledger
from billing.models import LedgerAccount, LedgerTransaction
from usage.models import LossToTell

logger = logging.getLogger(__name__)

# One statement, so that the marks and the sums are one thing. A worker skips what another has claimed; the sums go in
# in one order everywhere, so that two workers which add to the same hours wait for each other and never in a circle.
_ROLL_UP = """
    WITH claimed AS (
        SELECT id FROM usage_usagerecord WHERE NOT is_rolled_up
        ORDER BY account_id LIMIT %(batch)s FOR UPDATE SKIP LOCKED
    ), marked AS (
        UPDATE usage_usagerecord AS record SET is_rolled_up = true FROM claimed WHERE record.id = claimed.id
        RETURNING record.*
    ), added AS (
        INSERT INTO usage_hourlyusage AS hourly (
            account_id, hour, key_id, model_id, outcome, requests, input_tokens, cached_input_tokens, output_tokens,
            cost_nanousd, charged_nanousd, allowance_tokens, posted_nanousd
        )
        SELECT account_id, date_trunc('hour', started_at, 'UTC'), key_id, model_id, outcome, count(*),
               sum(input_tokens), sum(cached_input_tokens), sum(output_tokens), sum(cost_nanousd),
               sum(charged_nanousd), sum(allowance_tokens), 0
        FROM marked GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
        ON CONFLICT ON CONSTRAINT hourly_usage_once DO UPDATE SET
            requests = hourly.requests + excluded.requests,
            input_tokens = hourly.input_tokens + excluded.input_tokens,
            cached_input_tokens = hourly.cached_input_tokens + excluded.cached_input_tokens,
            output_tokens = hourly.output_tokens + excluded.output_tokens,
            cost_nanousd = hourly.cost_nanousd + excluded.cost_nanousd,
            charged_nanousd = hourly.charged_nanousd + excluded.charged_nanousd,
            allowance_tokens = hourly.allowance_tokens + excluded.allowance_tokens
    )
    SELECT NULL, NULL, count(*) FROM marked
    UNION ALL
    SELECT id, account_id, loss_nanousd FROM marked WHERE loss_nanousd > 0
"""


@dataclass(frozen=True, slots=True)
class Loss:
    """A request that used more than it could be charged: the upstream reported beyond the hold and the credit."""

    record_id: uuid.UUID
    account_id: int
    amount_nanousd: int


def roll_up(*, at: datetime, batch: int = 5000) -> int:
    """Add up to `batch` records to their hours and return how many; 0: there is nothing left that is free to claim.

    What a record lost to the platform is booked in the same transaction, and owed to the operators as an e-mail. It is
    booked as of now, whenever the request was: a month that was handed to an accountant does not change any more.
    """
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(_ROLL_UP, {"batch": batch})
            (_, _, rolled_up), *lost = cursor.fetchall()
        losses = [Loss(*row) for row in lost]
        for loss in losses:
            _book(loss, at=at)
        LossToTell.objects.bulk_create(
            LossToTell(**dataclasses.asdict(loss), operators_mail_due_at=at) for loss in losses
        )
    for loss in losses:
        logger.error(
            "platform loss of %d nano-USD: request %s of account %d used more than its hold and its credit",
            loss.amount_nanousd,
            loss.record_id,
            loss.account_id,
        )
    return int(rolled_up)


def _book(loss: Loss, *, at: datetime) -> None:
    ledger.post(
        reference=f"loss:{loss.record_id}",
        kind=LedgerTransaction.Kind.LOSS,
        account=loss.account_id,
        description=f"Used by request {loss.record_id} beyond its hold and the credit",
        legs=[
            ledger.Leg(LedgerAccount.Kind.PLATFORM_LOSS, -loss.amount_nanousd),
            ledger.Leg(LedgerAccount.Kind.USAGE_REVENUE, loss.amount_nanousd),
        ],
        at=at,
    )

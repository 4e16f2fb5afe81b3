"""The account's request log: a record from a request's start on, and its end where it was refused."""

from django.utils import timezone

from gateway.asgi import Exchange
from gateway.errors import Refusal
from gateway.plant import Plant
from keys.authenticating import Credential
from usage.models import UsageRecord
from usage.recording import FinishedRequest


def start_record(exchange: Exchange, credential: Credential, endpoint: str) -> FinishedRequest:
    """What is known of a request from its start; as it stands, it is the record of an interrupted one."""
    return FinishedRequest(
        id=exchange.id,
        account_id=credential.account_id,
        key_id=credential.key_id,
        endpoint=endpoint,
        outcome=UsageRecord.Outcome.INTERRUPTED,
        status=0,
        started_at=exchange.started_at,
        ended_at=exchange.started_at,
        ip_address=exchange.ip_address,
        user_agent=exchange.user_agent,
        client_request_id=exchange.client_request_id,
        _id_text=exchange.id_text,
    )


async def refuse(plant: Plant, exchange: Exchange, refusal: Refusal, finished: FinishedRequest) -> None:
    """Answer the refusal, and put it in the account's request log."""
    finished.outcome = UsageRecord.Outcome.REFUSED
    finished.status = refusal.status
    finished.error_code = refusal.code
    finished.error_message = refusal.message
    finished.ended_at = timezone.now()
    finished.latency_ms = exchange.elapsed_ms
    plant.teller.note(finished)
    await exchange.refuse(refusal)

"""The GET endpoints: which models there are, what a key is and may still do, and the receipt of a request.

They read the key from the database each time: what they answer is true now, and a revoked key learns nothing.
"""

import asyncio
import datetime as dt
import uuid
from typing import Any
from urllib.parse import parse_qs

from django.db.models import Sum
from django.utils import timezone

from accounts.models import Plan
from billing import budgets
from billing.budgets import BudgetState
from billing.models import Budget, LedgerAccount, LedgerTransaction, Posting, Wallet
from catalog.models import AUTO, Model
from catalog.money import usd_string
from catalog.serving import Servable
from gateway import authorizing
from gateway.asgi import Exchange
from gateway.counted import Counted
from gateway.credentials import RefusedCaller
from gateway.endpoints import ENDPOINTS, served_at
from gateway.errors import (
    INVALID_REQUEST,
    Refusal,
    endpoint_not_allowed,
    invalid_value,
    model_not_allowed,
    plan_upgrade_required,
)
from gateway.failures import no_upstream
from gateway.plant import Plant
from gateway.reading import read
from gateway.remaining import Funds, effective_remaining
from gateway.request_log import refuse, start_record
from gateway.routing import EVERY_CHOICE
from keys.authenticating import Credential
from keys.models import KeySecret
from usage import queries
from usage.models import UsageRecord

# A receipt that is not there is looked for again, after each of these.
_RECEIPT_WITHIN_S = (0.0, 0.02, 0.1)


async def describe(plant: Plant, exchange: Exchange, endpoint: str, argument: str) -> None:
    """Answer one GET. Raises Refusal."""
    # The policy's list of endpoints concerns what costs something; these only describe.
    try:
        credential = await plant.credentials.authenticate(exchange, endpoint="", is_fresh=True)
    except RefusedCaller as refused:
        await refuse(plant, exchange, refused, start_record(exchange, refused.credential, endpoint))
        return
    minute = await plant.windows.look(credential)
    if endpoint == "models":
        document = _models(plant, credential, argument)
    elif endpoint == "key":
        document = {"data": await read(key_facts, credential=credential, minute=minute, at=timezone.now())}
    elif endpoint == "credits":
        document = {"data": await read(credit_facts, account_id=credential.account_id)}
    else:
        query = parse_qs(exchange.scope.get("query_string", b"").decode("latin-1"))
        document = {"data": await _receipt(account_id=credential.account_id, id_=query.get("id", [""])[0])}
    await exchange.answer_json(document, minute.headers() if minute else ())


def _models(plant: Plant, credential: Credential, name: str) -> dict[str, Any]:
    """The models that the key may call, by their slugs; or the one of this name, whichever of its names it is."""
    at = timezone.now()
    if name and name != AUTO:
        model = authorizing.judge_model(credential, name=name, param="model", catalogue=plant.catalogue)
        facts = _model(model, credential, at)
        if facts is None:
            endpoints = served_at(model) if model.price_at(at) is not None else []
            raise endpoint_not_allowed(endpoints[0]) if endpoints else no_upstream(model.slug)
        return facts
    described = [facts for model in plant.catalogue if (facts := _model(model, credential, at))]
    automatic = _automatic([facts for facts in described if facts["kind"] == Model.Kind.CHAT])
    if not name:
        data = [*automatic, *described]
        # The last three are Anthropic's: there is no second page.
        ids = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {}
        return {"object": "list", "data": data, "has_more": False, "first_id": None, "last_id": None, **ids}
    if not automatic:
        raise _no_choice(plant, credential, at)
    return automatic[0]


def _no_choice(plant: Plant, credential: Credential, at: dt.datetime) -> Refusal:
    """Why `auto` stands for nothing, as a POST would say it."""
    served = [
        model
        for model in plant.catalogue
        if model.kind == Model.Kind.CHAT and model.price_at(at) is not None and served_at(model)
    ]
    if not served:
        return no_upstream(AUTO)
    if not any(not credential.allowed_models or model.slug in credential.allowed_models for model in served):
        return model_not_allowed(AUTO)
    callable_ones = [model for model in served if authorizing.may_call(credential, model)]
    if callable_ones:
        return endpoint_not_allowed(served_at(callable_ones[0])[0])
    return plan_upgrade_required(EVERY_CHOICE, credential)


def _automatic(described: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The virtual model, if there is one that it could choose. What it costs is what the chosen one costs."""
    if not described:
        return []
    return [
        {
            "id": AUTO,
            "object": "model",
            "created": max(facts["created"] for facts in described),
            "owned_by": "tollgate",
            "name": "The cheapest model that fits the request",
            "kind": Model.Kind.CHAT.value,
            "tier": None,
            "context_length": max(facts["context_length"] for facts in described),
            "max_output_tokens": max(facts["max_output_tokens"] or 0 for facts in described),
            "supports_tools": any(facts["supports_tools"] for facts in described),
            "supports_images": any(facts["supports_images"] for facts in described),
            "endpoints": [
                path for path in ENDPOINTS if any(path in facts["endpoints"] for facts in described)
            ],
            "pricing": None,
            **_anthropics_words(
                name="The cheapest model that fits the request",
                created_at=max(facts["created_at"] for facts in described),
            ),
        }
    ]


def _model(model: Servable, credential: Credential, at: dt.datetime) -> dict[str, Any] | None:
    """One model; None where this key cannot call it, or nobody serves it."""
    price = model.price_at(at)
    allowed = credential.allowed_endpoints
    endpoints = [path for path in served_at(model) if not allowed or path in allowed]
    if price is None or not endpoints or not authorizing.may_call(credential, model):
        return None
    return {
        "id": model.slug,
        "object": "model",
        "created": int(model.created_at.timestamp()),
        "owned_by": model.provider,
        "name": model.name,
        "kind": model.kind,
        "tier": "premium" if model.is_premium else "basic",
        "context_length": model.context_window,
        "max_output_tokens": model.max_output_tokens or None,
        "supports_tools": model.supports_tools,
        "supports_images": model.supports_images,
        "endpoints": endpoints,
        # USD for one token, as exact strings.
        "pricing": {
            "prompt": _per_token(price.input_micro),
            "completion": _per_token(price.output_micro),
            "input_cache_read": _per_token(price.cached_input_micro),
            "input_cache_write": _per_token(price.cache_write_micro),
        },
        **_anthropics_words(name=model.name, created_at=model.created_at.isoformat(timespec="seconds")),
    }


def _anthropics_words(*, name: str, created_at: str) -> dict[str, Any]:
    """What Anthropic's SDK reads in an entry beside its id. A model that is listed can be called."""
    return {"type": "model", "display_name": name, "created_at": created_at, "lifecycle": "active"}


def _per_token(micro_usd_per_million: int) -> str:
    return f"{micro_usd_per_million / 10**12:.12f}".rstrip("0").rstrip(".") or "0"


def key_facts(*, credential: Credential, minute: Counted | None, at: dt.datetime) -> dict[str, Any]:
    """What `GET /v1/key` says. USD amounts are exact strings; null means no limit."""
    secret = KeySecret.objects.get(pk=credential.secret_id)
    wallet = Wallet.objects.filter(account_id=credential.account_id).first()
    allowance = queries.today_allowance(account=secret.key.account, at=at)
    today = budgets.day_of(at)
    limiting = budgets.of_key(
        account_id=credential.account_id,
        environment=credential.environment,
        key_id=credential.key_id,
        day=today,
    )
    stops = [budget for budget in limiting if budget.is_hard_stop]
    own = next((budget for budget in stops if budget.scope.kind == "key"), None)
    spent = {
        period: queries.totals(
            account=secret.key.account,
            key_id=credential.key_id,
            start=budgets.midnight(budgets.period_start(period=period, day=today)),
            end=at + dt.timedelta(seconds=1),
        ).charged_nanousd
        for period in Budget.Period.values
    }
    available = wallet.available_nanousd if wallet and credential.spends_credits else 0
    funds = Funds(
        spends_credits=credential.spends_credits,
        available=available,
        credited=_credited(credential.account_id),
        stops=stops,
        day=today,
    )
    return {
        "label": f"{secret.start}…{secret.end}",
        "name": credential.key_name,
        "environment": credential.environment,
        "limit": usd_string(own.limit_nanousd) if own else None,
        "limit_remaining": usd_string(own.remaining_nanousd(today)) if own else None,
        "limit_reset": own.period if own and own.period != Budget.Period.TOTAL else None,
        "budgets": [_budget(budget, today) for budget in limiting],
        "usage": usd_string(spent[Budget.Period.TOTAL]),
        "usage_daily": usd_string(spent[Budget.Period.DAY]),
        "usage_weekly": usd_string(spent[Budget.Period.WEEK]),
        "usage_monthly": usd_string(spent[Budget.Period.MONTH]),
        "is_free_tier": credential.plan_slug == Plan.BASIC,
        "plan": credential.plan_slug,
        "expires_at": credential.expires_at.isoformat() if credential.expires_at else None,
        "rate_limit": {
            "interval": "60s",
            "requests": credential.requests_per_minute,
            "tokens": credential.tokens_per_minute,
        },
        "daily_allowance": {
            "requests": allowance.requests,
            "requests_limit": allowance.requests_limit,
            "tokens": allowance.tokens,
            "tokens_held": allowance.held_tokens,
            "tokens_limit": allowance.tokens_limit,
            "resets_at": allowance.resets_at.isoformat(),
        },
        "effective_remaining": effective_remaining(funds=funds, minute=minute, allowance=allowance),
        "allowed_models": sorted(credential.allowed_models),
        "allowed_endpoints": sorted(credential.allowed_endpoints),
    }


def _budget(budget: BudgetState, today: dt.date) -> dict[str, Any]:
    """One of the budgets that limit a key."""
    counted = budget.counted(today)
    resets_at = budgets.period_end(period=budget.period, day=today)
    return {
        "scope": budget.scope.kind,
        "environment": budget.scope.environment or None,
        "period": budget.period,
        "limit": usd_string(budget.limit_nanousd),
        "spent": usd_string(counted.spent_nanousd),
        "held": usd_string(counted.held_nanousd),
        "remaining": usd_string(budget.remaining_nanousd(today)),
        "resets_at": resets_at.isoformat() if resets_at else None,
        "is_hard_stop": budget.is_hard_stop,
    }


def credit_facts(*, account_id: int) -> dict[str, Any]:
    """What `GET /v1/credits` says: everything ever credited and used, and what there is now. Exact USD strings.

    What was given back, taken or has expired is no credit any more, and no usage either.
    """
    wallet = Wallet.objects.filter(account_id=account_id).first() or Wallet(account_id=account_id)
    credited = _credited(account_id)
    return {
        "total_credits": usd_string(credited),
        "total_usage": usd_string(credited - wallet.balance_nanousd),
        "balance": usd_string(wallet.balance_nanousd),
        "held": usd_string(wallet.set_aside_nanousd),
        "available": usd_string(wallet.available_nanousd),
    }


def _credited(account_id: int) -> int:
    """Everything that moved the account's credit other than usage."""
    total: int | None = (
        Posting.objects.filter(
            ledger_account__kind=LedgerAccount.Kind.CUSTOMER_CREDITS,
            ledger_account__account_id=account_id,
        )
        .exclude(transaction__kind=LedgerTransaction.Kind.USAGE)
        .aggregate(total=Sum("amount_nanousd"))["total"]
    )
    return total or 0


async def _receipt(*, account_id: int, id_: str) -> dict[str, Any]:
    """The receipt of one request of the account. Raises Refusal (404) for any other id.

    A refusal is answered a moment before it is on record.
    """
    try:
        request_id = uuid.UUID(id_)
    except ValueError:
        raise invalid_value("id", "it must be the `x-request-id` of a request") from None
    for wait_s in _RECEIPT_WITHIN_S:
        await asyncio.sleep(wait_s)
        if found := await read(receipt, account_id=account_id, request_id=request_id):
            return found
    raise Refusal(
        404, INVALID_REQUEST, "generation_not_found", "This account has no request of that id.", param="id"
    )


def receipt(*, account_id: int, request_id: uuid.UUID) -> dict[str, Any] | None:
    """The receipt of one request of the account; None for any other id."""
    record = (
        UsageRecord.objects.select_related("model", "key")
        .filter(account_id=account_id, pk=request_id)
        .first()
    )
    if record is None:
        return None
    return {
        "id": str(record.pk),
        "created_at": record.started_at.isoformat(),
        "model": record.model.slug if record.model else None,
        "upstream": record.upstream or None,
        "endpoint": record.endpoint,
        "key": record.key.name,
        "outcome": record.outcome,
        "status": record.status,
        "error_code": record.error_code or None,
        "error_message": record.error_message or None,
        "streamed": record.is_streamed,
        "estimated": record.is_estimated,
        "finish_reason": record.finish_reason or None,
        "tokens_prompt": record.input_tokens,
        "tokens_prompt_cached": record.cached_input_tokens,
        "tokens_cache_write": record.cache_write_tokens,
        "tokens_completion": record.output_tokens,
        "price": {
            "input_usd_per_mtok": record.input_usd_per_mtok,
            "output_usd_per_mtok": record.output_usd_per_mtok,
            "cached_input_usd_per_mtok": record.cached_input_usd_per_mtok,
            "cache_write_usd_per_mtok": record.cache_write_usd_per_mtok,
        },
        "list_cost_usd": usd_string(record.cost_nanousd),
        "cost_usd": usd_string(record.charged_nanousd),
        "allowance_tokens": record.allowance_tokens,
        "latency_ms": record.latency_ms,
        "time_to_first_token_ms": record.time_to_first_token_ms,
        "client_request_id": record.client_request_id or None,
    }

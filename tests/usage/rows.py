"""Usage rows as the gateway would write them, made directly: what a request cost is what the test says."""

import datetime as dt
import os
import uuid
from typing import Any

from django.db.models import F, Sum

from accounts.models import Account
from billing.models import LedgerAccount, Posting, Wallet
from catalog.models import Model
from keys.models import ApiKey
from usage.models import HourlyUsage, UsageRecord


def record_id(at: dt.datetime) -> uuid.UUID:
    """A UUIDv7 of the moment."""
    milliseconds = int(at.timestamp() * 1000)
    value = milliseconds << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    return uuid.UUID(int=value & ~(0x3 << 62) | 0x2 << 62)


def make_record(
    *, account: Account, key: ApiKey, model: Model | None, at: dt.datetime, **fields: Any
) -> UsageRecord:
    """A completed request of 100 + 20 tokens that cost and took $0.001 from credits, unless the fields say else.

    A refused one used nothing. The wallet is debited, as a settlement does.
    """
    if fields.get("outcome") == UsageRecord.Outcome.REFUSED:
        fields = {"upstream": "", "input_tokens": 0, "output_tokens": 0, "cost_nanousd": 0, **fields}
    facts: dict[str, Any] = {
        "upstream": "sandbox",
        "endpoint": "chat/completions",
        "outcome": UsageRecord.Outcome.COMPLETED,
        "status": 200,
        "finish_reason": "stop",
        "input_tokens": 100,
        "output_tokens": 20,
        "cost_nanousd": 1_000_000,
        "latency_ms": 120,
        "started_at": at,
        "ended_at": at + dt.timedelta(milliseconds=120),
        **fields,
    }
    facts.setdefault("charged_nanousd", facts["cost_nanousd"])
    record = UsageRecord.objects.create(id=record_id(at), account=account, key=key, model=model, **facts)
    Wallet.objects.filter(account=account).update(
        balance_nanousd=F("balance_nanousd") - record.charged_nanousd
    )
    return record


def make_hour(
    *,
    account: Account,
    key: ApiKey,
    model: Model | None,
    hour: dt.datetime,
    charged_nanousd: int,
    **fields: Any,
) -> HourlyUsage:
    """An hour's sum that was rolled up and posted long ago."""
    facts: dict[str, Any] = {
        "outcome": UsageRecord.Outcome.COMPLETED,
        "requests": 1,
        "input_tokens": 100,
        "output_tokens": 20,
        "cost_nanousd": charged_nanousd,
        "posted_nanousd": charged_nanousd,
        **fields,
    }
    return HourlyUsage.objects.create(
        account=account, key=key, model=model, hour=hour, charged_nanousd=charged_nanousd, **facts
    )


def ledger_balance(account: Account) -> int:
    """The customer's credits by the ledger alone, in nano-USD."""
    postings = Posting.objects.filter(
        ledger_account__kind=LedgerAccount.Kind.CUSTOMER_CREDITS, ledger_account__account=account
    )
    return postings.aggregate(total=Sum("amount_nanousd"))["total"] or 0


def unposted(account: Account) -> int:
    """What was charged and is not in the ledger yet, in nano-USD."""
    records = UsageRecord.objects.filter(account=account, is_rolled_up=False)
    hours = HourlyUsage.objects.filter(account=account)
    waiting = records.aggregate(total=Sum("charged_nanousd"))["total"] or 0
    return waiting + (hours.aggregate(total=Sum(F("charged_nanousd") - F("posted_nanousd")))["total"] or 0)


def assert_wallet_is_ledger_less_unposted(account: Account) -> None:
    wallet = Wallet.objects.get(account=account)
    assert wallet.balance_nanousd == ledger_balance(account) - unposted(account)

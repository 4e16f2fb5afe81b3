"""Usage rows as the gateway would write them, made directly: what a request cost is what the test says."""

import datetime as dt
import os
import uuid
from decimal import Decimal
from typing import Any

from django.db.models import F, Sum

from accounts.models import Account
from billing.models import LedgerAccount, Posting, Wallet
from catalog.models import Model
from keys.models import ApiKey
from usage.models import DailyAllowance, HourlyUsage, UsageRecord


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

    A refused one used nothing. The wallet is debited, or the day's allowance drawn on, as a settlement does. Without a
    price it has the one of which its tokens cost that.
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
    if "output_usd_per_mtok" not in facts and facts["cost_nanousd"]:
        facts |= _prices(facts["cost_nanousd"], facts["input_tokens"], facts["output_tokens"])
    record = UsageRecord.objects.create(id=record_id(at), account=account, key=key, model=model, **facts)
    Wallet.objects.filter(account=account).update(
        balance_nanousd=F("balance_nanousd") - record.charged_nanousd
    )
    if record.allowance_tokens:
        day, _is_new = DailyAllowance.objects.get_or_create(account=account, day=at.astimezone(dt.UTC).date())
        day.requests += 1
        day.tokens += record.allowance_tokens
        day.save(update_fields=["requests", "tokens"])
    return record


def _prices(cost_nanousd: int, input_tokens: int, output_tokens: int) -> dict[str, Decimal]:
    """Rounded up once, so many tokens at such a price make just the cost, as long as they are no more than 1,000."""
    usd_per_mtok = Decimal(cost_nanousd * 1000 // output_tokens).scaleb(-6)
    if usd_per_mtok < 10**6:
        return {"output_usd_per_mtok": usd_per_mtok}
    # More than the column holds: the input has to bear its part. Where that is too much as well, no audit is right.
    usd_per_mtok = Decimal(cost_nanousd * 1000 // (input_tokens + output_tokens)).scaleb(-6)
    prices = {"input_usd_per_mtok": usd_per_mtok, "output_usd_per_mtok": usd_per_mtok}
    return prices if usd_per_mtok < 10**6 else {}


def use_allowance(key: ApiKey, *, at: dt.datetime, requests: int = 1, tokens: int = 0) -> None:
    """Bring what the key's account has drawn on that day to at least so much, by requests that began at midnight.

    Each of them used a token or more, or the allowance would not have counted it.
    """
    midnight = at.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    drawn, _is_new = DailyAllowance.objects.get_or_create(account=key.account, day=midnight.date())
    more = max(1, requests - drawn.requests)
    used = [1] * (more - 1) + [max(1, tokens - drawn.tokens - (more - 1))]
    UsageRecord.objects.bulk_create(
        UsageRecord(
            id=record_id(midnight),
            account=key.account,
            key=key,
            endpoint="chat/completions",
            outcome=UsageRecord.Outcome.COMPLETED,
            status=200,
            input_tokens=each,
            allowance_tokens=each,
            started_at=midnight,
            ended_at=midnight,
        )
        for each in used
    )
    drawn.requests += more
    drawn.tokens += sum(used)
    drawn.save(update_fields=["requests", "tokens"])


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

"""An account at the teller's desk: short ways to admit and end its requests, each in a transaction of its own."""

import uuid
from typing import Any

from django.db import transaction
from uuid_utils.compat import uuid7

from accounts.models import Account, Plan
from billing import wallets
from billing.models import Wallet
from catalog.models import Model
from catalog.pricing import TokenPrice
from keys.models import ApiKey
from tests.factories import make_account, make_key, make_model, now
from usage import opening
from usage.admission import Admission, Decision
from usage.models import DailyAllowance, UsageRecord
from usage.recording import FinishedRequest

PRICE = TokenPrice(
    input_micro=1_000_000, output_micro=2_000_000, cached_input_micro=100_000, cache_write_micro=1_000_000
)
PROCESS = uuid.uuid4()


class Desk:
    """One account with a key, and short ways to admit and end its requests, each in a transaction of its own."""

    def __init__(self, *, credit: str = "0", plan: str = Plan.PAY_AS_YOU_GO) -> None:
        self.account: Account = make_account(plan=plan, credit=credit)
        self.key = make_key(self.account).key
        self.model: Model = make_model()

    @classmethod
    def of(cls, key: ApiKey) -> "Desk":
        """A desk for another key of an account."""
        desk = cls.__new__(cls)
        desk.account, desk.key, desk.model = key.account, key, make_model()
        return desk

    def request(self, **changes: Any) -> Admission:
        self.key.refresh_from_db()
        self.account.refresh_from_db()
        at = changes.get("at", now())
        finished = FinishedRequest(
            id=uuid7(),
            account_id=self.account.pk,
            key_id=self.key.pk,
            model_id=self.model.pk,
            endpoint=changes.pop("endpoint", "chat/completions"),
            outcome=UsageRecord.Outcome.INTERRUPTED,
            status=0,
            started_at=at,
            ended_at=at,
        )
        finished.set_price(changes.get("price", PRICE))
        facts: dict[str, Any] = {
            "key_version": self.key.policy_version,
            "account_version": self.account.policy_version,
            "process_id": PROCESS,
            "price": PRICE,
            "input_bytes": 100,
            "input_tokens": 25,
            "output_limit": 100,
            "max_output_tokens": 1_000,
            "choices": 1,
            "draws_allowance": False,
            "spends_credits": True,
            "requests_per_day": 7_200,
            "tokens_per_day": 200_000,
            "at": at,
        }
        return Admission(finished=finished, **{**facts, **changes})

    def admit(self, *requests: Admission) -> list[Decision]:
        with transaction.atomic():
            opened = opening.open_books(wallets.borrowed_connection(), admissions=requests, ended=())
            decisions = [opened.admit(request) for request in requests]
            opened.write(wallets.borrowed_connection())
        return decisions

    def end(self, request: Admission, *, outcome: str = UsageRecord.Outcome.COMPLETED, **tokens: int) -> bool:
        finished = request.finished
        finished.outcome = outcome
        for name, count in tokens.items():
            setattr(finished, name, count)
        with transaction.atomic():
            opened = opening.open_books(wallets.borrowed_connection(), admissions=(), ended=[finished])
            was_open = opened.end(finished)
            opened.write(wallets.borrowed_connection())
        return was_open

    @property
    def wallet(self) -> Wallet:
        return Wallet.objects.get(account=self.account)

    @property
    def allowance(self) -> DailyAllowance:
        return DailyAllowance.objects.get(account=self.account)

"""Proof that bad input left no trace: what was there before it is there after it, and the gateway serves on."""

import contextlib
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx

from accounts.models import Account
from billing.models import Hold, Wallet
from catalog.models import Model
from gateway.endpoints import ENDPOINTS
from tests.factories import make_key
from tests.gateway.conftest import Stage, chat
from tests.invariants import check_books
from usage.models import DailyAllowance, UsageRecord

ENDPOINT_PATHS = tuple(ENDPOINTS)
_ERROR_KEYS = {"message", "type", "param", "code"}


class Victim:
    """An account with credit and a key, and a model that the gateway knows."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.model: Model = stage.model()
        self.account: Account = stage.account(credit="1")
        self.secret: str = make_key(self.account).secret

    @contextlib.contextmanager
    def unharmed(self) -> Iterator[None]:
        """Whatever is sent meanwhile: nothing is held, charged, counted in the minute or sent upstream."""
        before = self._serve_one()
        yield
        after = self._serve_one()
        # One request upstream, and one in the minute: the one that asks.
        assert after == (before[0] + 1, before[1] - 1)
        assert not Hold.objects.exists()
        assert Wallet.objects.get(account=self.account).held_nanousd == 0
        assert not DailyAllowance.objects.filter(account=self.account, held_tokens__gt=0).exists()
        served = UsageRecord.objects.filter(account=self.account).exclude(outcome=UsageRecord.Outcome.REFUSED)
        assert not served.exclude(status=200).exists()
        check_books(idle=True)

    def _serve_one(self) -> tuple[int, int]:
        """How many requests the sandbox has answered, and how many the key may still make in this minute."""
        answer = self.stage.post(self.secret, chat(self.model, max_tokens=1))
        assert answer.status_code == 200, answer.text
        return int(answer.json()["id"].rpartition("-")[2]), int(
            answer.headers["x-ratelimit-remaining-requests"]
        )


def check_refusal(response: httpx.Response, path: str) -> dict[str, Any]:
    """A refusal in the shape of the endpoint's dialect; returns its error."""
    assert 400 <= response.status_code < 500, (response.status_code, response.text)
    assert len(response.headers["x-request-id"]) == 36
    document = response.json()
    error: dict[str, Any] = document["error"]
    assert set(error) == _ERROR_KEYS
    if path.startswith("messages"):
        assert set(document) == {"type", "error", "request_id"}
        assert document["type"] == "error"
    else:
        assert set(document) == {"error"}
    return error

"""Usage records in bulk: what a request was, as it ended, and how many of them are handed to PostgreSQL."""

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Self

import orjson

from catalog.money import NanoUSD
from catalog.pricing import TokenPrice
from usage.models import UsageRecord


@dataclass(slots=True)
class FinishedRequest:
    """One request as it ended. Costs are filled in by `usage.books` when it settles. Times are aware UTC.

    Every field is one that orjson writes by itself: a batch of hundreds goes into one parameter without a line of
    Python for each.
    """

    id: uuid.UUID
    account_id: int
    key_id: int
    endpoint: str
    outcome: str
    status: int
    started_at: dt.datetime
    ended_at: dt.datetime
    model_id: int | None = None
    upstream: str = ""
    error_code: str = ""
    error_message: str = ""
    is_streamed: bool = False
    is_estimated: bool = False
    finish_reason: str = ""
    input_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    # Exact decimals, as the record keeps them.
    input_usd_per_mtok: str | None = None
    output_usd_per_mtok: str | None = None
    cached_input_usd_per_mtok: str | None = None
    cache_write_usd_per_mtok: str | None = None
    cost_nanousd: int = 0
    charged_nanousd: int = 0
    loss_nanousd: int = 0
    allowance_tokens: int = 0
    latency_ms: int = 0
    time_to_first_token_ms: int | None = None
    ip_address: str | None = None
    user_agent: str = ""
    client_request_id: str = ""
    # Not written, for their names begin with an underscore: the same price in integers, `is_missed` and `id_text`.
    _price: TokenPrice | None = field(default=None, repr=False, compare=False)
    _is_missed: bool = field(default=False, repr=False, compare=False)
    _id_text: str = field(default="", repr=False, compare=False)

    def set_price(self, price: TokenPrice) -> None:
        """Keep the price that held when the request was admitted."""
        self._price = price
        (
            self.input_usd_per_mtok,
            self.output_usd_per_mtok,
            self.cached_input_usd_per_mtok,
            self.cache_write_usd_per_mtok,
        ) = _decimals(price)

    def price(self) -> TokenPrice:
        """The price that `set_price` has kept; free where none was."""
        return self._price or TokenPrice(
            input_micro=_micro(self.input_usd_per_mtok),
            output_micro=_micro(self.output_usd_per_mtok),
            cached_input_micro=_micro(self.cached_input_usd_per_mtok),
            # A hold or a journal from before there was such a price knows the input's.
            cache_write_micro=_micro(self.cache_write_usd_per_mtok or self.input_usd_per_mtok),
        )

    @property
    def id_text(self) -> str:
        """The id as PostgreSQL writes it: made once, for it is asked for many times."""
        if not self._id_text:
            self._id_text = str(self.id)
        return self._id_text

    @property
    def is_missed(self) -> bool:
        """Whether Redis, which counts its minute, cannot be told that it has used more than it was counted as."""
        return self._is_missed

    def miss(self) -> None:
        """Redis cannot be told."""
        self._is_missed = True

    @property
    def has_produced(self) -> bool:
        """Whether there is anything to pay for: output tokens, or an embedding, which has none."""
        return self.output_tokens > 0 or (
            self.endpoint == "embeddings" and self.outcome == UsageRecord.Outcome.COMPLETED
        )

    def expected_cost_nanousd(self) -> NanoUSD:
        """What it costs at the price that was admitted; nothing where nothing was produced."""
        if not self.has_produced:
            return NanoUSD(0)
        return self.price().cost_nanousd(
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            cached_input_tokens=self.cached_input_tokens,
            cache_write_tokens=self.cache_write_tokens,
        )

    def fit(self) -> None:
        """Make every text one that PostgreSQL can keep: what an upstream says must not keep a request from its end."""
        for name, length in _TEXT_LENGTHS.items():
            text: str = getattr(self, name)
            if text:
                setattr(self, name, text.replace("\0", "").encode(errors="replace").decode()[:length])

    def as_json(self) -> bytes:
        """Itself as JSON, for the journal."""
        self.fit()
        return orjson.dumps(self)

    def as_admitted(self) -> dict[str, object]:
        """What is known of it when it is admitted: enough to record that it was interrupted. A hold keeps this."""
        return {
            "id": self.id,
            "account_id": self.account_id,
            "key_id": self.key_id,
            "endpoint": self.endpoint,
            "started_at": self.started_at,
            "model_id": self.model_id,
            "is_streamed": self.is_streamed,
            "input_usd_per_mtok": self.input_usd_per_mtok,
            "output_usd_per_mtok": self.output_usd_per_mtok,
            "cached_input_usd_per_mtok": self.cached_input_usd_per_mtok,
            "cache_write_usd_per_mtok": self.cache_write_usd_per_mtok,
            "ip_address": self.ip_address,
            "user_agent": self.user_agent,
            "client_request_id": self.client_request_id,
        }

    @classmethod
    def from_json(cls, document: str | bytes) -> Self:
        """What `as_json` wrote, or `as_admitted` as JSON."""
        values = orjson.loads(document)
        values = {"outcome": "", "status": 0, "ended_at": values["started_at"], **values}
        values["id"] = uuid.UUID(values["id"])
        for name in ("started_at", "ended_at"):
            values[name] = dt.datetime.fromisoformat(values[name])
        return cls(**values)

    @classmethod
    def readable(cls, line: bytes) -> Self | None:
        """What a line of a journal says; None: nothing that this version can read."""
        try:
            return cls.from_json(line)
        except (ValueError, TypeError, LookupError, AttributeError):
            return None


_TEXT_LENGTHS = {
    "endpoint": 60,
    "upstream": 60,
    "error_code": 40,
    "error_message": 500,
    "finish_reason": 30,
    "user_agent": 40,
    "client_request_id": 64,
}


def rows(finished: Sequence[FinishedRequest]) -> bytes:
    """The records of ended requests as `usage_write_books` takes them: one JSON, which costs least to put together."""
    return orjson.dumps(finished)


@lru_cache(maxsize=1024)
def _decimals(price: TokenPrice) -> tuple[str, str, str, str]:
    micro = (price.input_micro, price.output_micro, price.cached_input_micro, price.cache_write_micro)
    first, second, third, fourth = (f"{Decimal(figure).scaleb(-6):f}" for figure in micro)
    return first, second, third, fourth


def _micro(usd_per_mtok: str | None) -> int:
    return int(Decimal(usd_per_mtok or 0).scaleb(6))

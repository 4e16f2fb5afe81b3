"""Usage records in bulk: what a request was, as it ended, and the one statement that inserts many of them."""

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from operator import attrgetter
from typing import Self

import orjson

from billing.wallets import Connection
from catalog.money import NanoUSD
from catalog.pricing import TokenPrice
from usage.models import UsageRecord


@dataclass(slots=True)
class FinishedRequest:
    """One request as it ended. Costs are filled in by `usage.books` when it settles. Times are aware UTC."""

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
    output_tokens: int = 0
    input_usd_per_mtok: Decimal | None = None
    output_usd_per_mtok: Decimal | None = None
    cached_input_usd_per_mtok: Decimal | None = None
    cost_nanousd: int = 0
    charged_nanousd: int = 0
    loss_nanousd: int = 0
    allowance_tokens: int = 0
    latency_ms: int = 0
    time_to_first_token_ms: int | None = None
    ip_address: str | None = None
    user_agent: str = ""
    client_request_id: str = ""

    def set_price(self, price: TokenPrice) -> None:
        """Keep the price that held when the request was admitted."""
        self.input_usd_per_mtok = Decimal(price.input_micro).scaleb(-6)
        self.output_usd_per_mtok = Decimal(price.output_micro).scaleb(-6)
        self.cached_input_usd_per_mtok = Decimal(price.cached_input_micro).scaleb(-6)

    def price(self) -> TokenPrice:
        """The price that `set_price` has kept; free where none was."""
        return TokenPrice(
            input_micro=int((self.input_usd_per_mtok or 0) * 1_000_000),
            output_micro=int((self.output_usd_per_mtok or 0) * 1_000_000),
            cached_input_micro=int((self.cached_input_usd_per_mtok or 0) * 1_000_000),
        )

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
        )

    def fit(self) -> None:
        """Make every text one that PostgreSQL can keep: what an upstream says must not keep a request from its end."""
        for name, length in _TEXT_LENGTHS.items():
            text: str = getattr(self, name)
            if text:
                setattr(self, name, text.replace("\0", "").encode(errors="replace").decode()[:length])

    def as_json(self) -> str:
        """Itself as JSON, without what has its default: for the journal, and for the hold of a running request."""
        self.fit()
        document = {
            name: value
            for name, value in zip(_COLUMNS, _row(self), strict=True)
            if value != _DEFAULTS.get(name, _NONE)
        }
        return orjson.dumps(document, default=str).decode()

    @classmethod
    def from_json(cls, document: str | bytes) -> Self:
        """What `as_json` wrote."""
        values = orjson.loads(document)
        values["id"] = uuid.UUID(values["id"])
        for name in ("started_at", "ended_at"):
            values[name] = dt.datetime.fromisoformat(values[name])
        for name in ("input_usd_per_mtok", "output_usd_per_mtok", "cached_input_usd_per_mtok"):
            if name in values:
                values[name] = Decimal(values[name])
        return cls(**values)


_TEXT_LENGTHS = {
    "endpoint": 60,
    "upstream": 60,
    "error_code": 40,
    "error_message": 500,
    "finish_reason": 30,
    "user_agent": 40,
    "client_request_id": 64,
}
_NONE = object()
_DEFAULTS = {field.name: field.default for field in fields(FinishedRequest)}
_COLUMNS = tuple(field.name for field in fields(FinishedRequest))
_row = attrgetter(*_COLUMNS)
# Rows as one JSON parameter: one statement for any number of them, and what costs least to put together. A request
# that was recorded before (its settlement came back from the journal) is left as it is.
_INSERT = f"""
    INSERT INTO usage_usagerecord ({", ".join(_COLUMNS)}, is_rolled_up)
    SELECT {", ".join(_COLUMNS)}, false FROM json_populate_recordset(NULL::usage_usagerecord, %s::json)
    ON CONFLICT (id) DO NOTHING
"""  # noqa: S608 - made of the names of our own columns


def insert(connection: Connection, finished: Sequence[FinishedRequest]) -> None:
    """Insert the records of ended requests, in the caller's transaction."""
    if finished:
        for request in finished:
            request.fit()
        rows = [dict(zip(_COLUMNS, _row(request), strict=True)) for request in finished]
        connection.execute(_INSERT, (orjson.dumps(rows, default=str).decode(),))

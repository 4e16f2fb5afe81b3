"""One request on its way through the stages, and its end."""

import asyncio
import contextlib
import datetime as dt
from dataclasses import dataclass, replace

from catalog.pricing import TokenPrice
from catalog.serving import Servable
from gateway.answers import KeptAnswer
from gateway.asgi import Exchange, Headers
from gateway.counted import Counted, refusal_by_teller
from gateway.dialects.dialect import Dialect, Meter
from gateway.errors import Refusal
from gateway.forwarding import Answer
from gateway.metering import Usage, estimated, is_possible
from gateway.parsing import Asked
from gateway.plant import Plant
from gateway.routing import Candidate
from keys.authenticating import Credential
from usage.admission import Admitted, Idempotency
from usage.minutes import MinuteExhausted
from usage.models import UsageRecord
from usage.recording import FinishedRequest


@dataclass(slots=True)
class Walk:
    """A request as far as it has come. What is admitted is ended exactly once, by `settle`."""

    plant: Plant
    exchange: Exchange
    dialect: Dialect
    credential: Credential
    finished: FinishedRequest
    asked: Asked
    candidate: Candidate
    # The models to turn to if no upstream of this one begins an answer.
    others: list[Candidate]
    # What its `Idempotency-Key` claims. Then its answer is kept.
    idempotency: Idempotency | None = None
    answer: Answer | None = None
    counted: Counted | None = None
    counted_tokens: int = 0
    admitted: Admitted | None = None
    is_settled: bool = False

    @property
    def model(self) -> Servable:
        return self.candidate.model

    @property
    def price(self) -> TokenPrice:
        return self.candidate.price

    def turn_to(self, candidate: Candidate) -> None:
        """Let this model serve the request: the receipt has its name and its price."""
        self.candidate = candidate
        self.finished.model_id = candidate.model.id
        self.finished.set_price(candidate.price)

    def believed(self, usage: Usage | None) -> Usage | None:
        """What the upstream reports, unless the model cannot have used that much: then it has reported nothing."""
        model, asked = self.model, self.asked
        if usage is not None and is_possible(
            usage,
            window=model.context_window,
            inputs=asked.inputs,
            most_output=model.max_output_tokens,
            choices=asked.choices,
        ):
            return usage
        return None

    def measured(self, meter: Meter) -> Usage:
        """What a stream has used; a report that cannot be true is forgotten, and with it what it said of the input."""
        meter.usage = self.believed(meter.usage)
        usage = self._within_limit(meter.measured())
        return self.believed(usage) or self.estimate(meter.characters)

    def estimate(self, produced_characters: int) -> Usage:
        """What the request must have used, where nothing that makes sense is reported."""
        return self._within_limit(
            estimated(input_tokens=self.asked.input_tokens, produced_characters=produced_characters)
        )

    def _within_limit(self, usage: Usage) -> Usage:
        """An estimate of no more output than was admitted, and asked of the upstream; a report as it is."""
        most = self.admitted.output_limit * self.asked.choices if self.admitted else 0
        if not usage.is_estimated or not most:
            return usage
        return replace(usage, output_tokens=min(usage.output_tokens, most))

    async def settle(self, usage: Usage | None, *, outcome: str = UsageRecord.Outcome.COMPLETED) -> None:
        """End the request at what it used; None: it produced nothing. Then it is committed, or in the journal."""
        if self.is_settled or self.admitted is None:
            return
        self.is_settled = True
        finished = self.finished
        finished.outcome = outcome
        finished.ended_at = dt.datetime.now(dt.UTC)
        finished.latency_ms = self.exchange.elapsed_ms
        if usage is not None:
            finished.input_tokens = usage.input_tokens
            finished.output_tokens = usage.output_tokens
            finished.cached_input_tokens = usage.cached_input_tokens
            finished.cache_write_tokens = usage.cache_write_tokens
            finished.is_estimated = usage.is_estimated
        beyond = (usage.input_tokens + usage.output_tokens if usage else 0) - self.counted_tokens
        if self.counted is not None and self.plant.windows.will_miss(self.counted, tokens=beyond):
            finished.miss()
        await self.plant.teller.settle(finished)
        if self.counted is not None:
            # The minute counts what the request used, instead of what it was estimated at.
            self.plant.windows.correct(self.credential, self.counted, tokens=beyond)

    async def keep(self, answer: KeptAnswer) -> None:
        """Keep the answer for whoever sends the request again. It is paid for: who is told to stop still gives it."""
        with contextlib.suppress(asyncio.CancelledError):
            await self.plant.answers.keep(self.exchange.id, answer)

    async def count(self) -> None:
        """Count the request in its key's minute, by the limits that the key has now. Raises Refusal (429)."""
        self.counted = await self.plant.windows.count(
            self.credential, tokens=self.counted_tokens, fitting=self.fitting_limit
        )

    def uncount(self) -> None:
        """Take the request, which is not admitted, out of its key's minute."""
        counted, self.counted = self.counted, None
        if counted is not None:
            self.plant.windows.correct(self.credential, counted, requests=-1, tokens=-self.counted_tokens)

    def minute_refusal(self, decision: MinuteExhausted) -> Refusal:
        """The refusal of the teller, who knows more of the minute than Redis; which is told not to count it."""
        counted = self.counted
        if counted is None:
            raise TypeError("only a request that was counted can exceed its minute")
        self.uncount()
        return refusal_by_teller(
            self.credential, counted, decision, tokens=self.counted_tokens, fitting=self.fitting_limit
        )

    def fitting_limit(self, room: int) -> str:
        """The output limit with which the request counts no more tokens than this; empty where none is that low."""
        if not self.model.max_output_tokens:
            return ""
        most = (room - self.asked.input_tokens) // self.asked.choices
        return f"{self.dialect.limit_field(self.asked)}={most}" if most > 0 else ""

    @property
    def charged_nanousd(self) -> int:
        """What the request takes from credits. Where its settlement is still in the journal: what it will take."""
        if self.finished.charged_nanousd or self.admitted is None or not self.admitted.held_nanousd:
            return self.finished.charged_nanousd
        return self.finished.expected_cost_nanousd()

    def blame_upstream(self, refusal: Refusal) -> None:
        """Count against the upstream that its answer failed half-way."""
        if self.answer is not None:
            self.answer.broke(refusal.reason)

    def fail(self, refusal: Refusal) -> None:
        """Note on the record how the request failed."""
        self.finished.status = refusal.status
        self.finished.error_code = refusal.code
        self.finished.error_message = refusal.message

    def headers(self) -> Headers:
        """What limits the key, and, once there is an answer, who gave it."""
        return [*self.limits(), *self.served_by()]

    def limits(self) -> Headers:
        """What limits the key. The minute is shown without a request that was not admitted."""
        if self.counted is None:
            return []
        counted = self.counted if self.admitted else self.counted.without(self.counted_tokens)
        return counted.headers()

    def served_by(self) -> Headers:
        """Who gave the answer, once there is one."""
        if self.answer is None:
            return []
        return [
            (b"x-tollgate-model", self.model.slug.encode()),
            (b"x-tollgate-upstream", self.answer.target.name.encode()),
        ]

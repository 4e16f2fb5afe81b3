"""What a model costs at a moment, and what a request costs at a price."""

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal

from catalog.models import Model, Price
from catalog.money import NanoUSD

_MICRO = 1_000_000


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """A price in integers: micro-USD per million tokens, which is what a Price can express exactly.

    A token costs price ÷ 1000 nano-USD, so a request's cost is a sum of integers, divided and rounded up
    once.
    """

    input_micro: int
    output_micro: int
    cached_input_micro: int
    cache_write_micro: int

    @classmethod
    def of(cls, price: Price) -> "TokenPrice":
        cached, written = price.cached_input_usd_per_mtok, price.cache_write_usd_per_mtok
        return cls(
            input_micro=_micro(price.input_usd_per_mtok),
            output_micro=_micro(price.output_usd_per_mtok),
            cached_input_micro=_micro(price.input_usd_per_mtok if cached is None else cached),
            cache_write_micro=_micro(price.input_usd_per_mtok if written is None else written),
        )

    @property
    def dearest_input_micro(self) -> int:
        """What a token of input costs at most, whether it is read from a cache, written to one, or neither."""
        return max(self.input_micro, self.cached_input_micro, self.cache_write_micro)

    def cost_nanousd(
        self,
        *,
        input_tokens: int,
        output_tokens: int,
        cached_input_tokens: int = 0,
        cache_write_tokens: int = 0,
    ) -> NanoUSD:
        """The cost of a request. `input_tokens` includes those of the cache, which are never counted twice."""
        thousandths = (
            (input_tokens - cached_input_tokens - cache_write_tokens) * self.input_micro
            + cached_input_tokens * self.cached_input_micro
            + cache_write_tokens * self.cache_write_micro
            + output_tokens * self.output_micro
        )
        return NanoUSD(-(-thousandths // 1000))

    def worst_cost_nanousd(self, *, input_tokens: int, output_tokens: int) -> NanoUSD:
        """The most that a request of this size can cost, whatever a cache has or takes of its input."""
        thousandths = input_tokens * self.dearest_input_micro + output_tokens * self.output_micro
        return NanoUSD(-(-thousandths // 1000))

    def affordable_output_tokens(self, *, available_nanousd: int, input_tokens: int) -> int | None:
        """How many output tokens the amount pays for beside the input. None: any number. Negative: not the input."""
        left = available_nanousd * 1000 - input_tokens * self.dearest_input_micro
        if left < 0:
            return -1
        return None if self.output_micro == 0 else left // self.output_micro


# What is offered for nothing.
FREE = TokenPrice(input_micro=0, output_micro=0, cached_input_micro=0, cache_write_micro=0)


def price_at(*, model: Model, at: dt.datetime) -> Price | None:
    """The price of the model that holds at the moment; None before its first."""
    return model.prices.filter(starts_at__lte=at).order_by("-starts_at").first()


def _micro(usd_per_mtok: Decimal) -> int:
    return int(usd_per_mtok * _MICRO)

"""From sampled stacks to the stages of a request, and to whose code it was."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.parts.page import table

LOOP = "event loop"
READERS = "readers' threads"
# A stage by the modules in it; a module that is not here is a stage of its own.
_STAGES = {
    "edge": ("uvicorn", "config.http_protocol", "config.gathering", "gateway.asgi"),
    "walk": ("gateway.app", "gateway.completing", "gateway.walk", "gateway.request_log", "config.asgi"),
    "credentials": ("gateway.credentials", "keys"),
    "parsing": (
        "gateway.parsing",
        "gateway.strict_json",
        "gateway.fields",
        "gateway.weighing",
        "gateway.media",
    ),
    "authorizing": ("gateway.authorizing", "gateway.routing", "gateway.breaker", "catalog"),
    "windows": ("gateway.windows", "gateway.shares", "gateway.counted", "gateway.redis_pipe"),
    "teller": (
        "gateway.teller",
        "gateway.queueing",
        "gateway.flights",
        "gateway.items",
        "gateway.asking",
        "gateway.outcomes",
        "gateway.standing_connection",
        "gateway.postgres_pipe",
        "usage",
        "billing",
        "psycopg",
    ),
    "forwarding": ("gateway.forwarding", "gateway.patience", "aiohttp"),
    "streaming": ("gateway.streaming", "gateway.sse"),
    "metering": ("gateway.metering", "gateway.dialects"),
}
_MEANINGS = {
    LOOP: "uvloop itself: sockets, timers, waking what waits",
    READERS: "what is read for a cache: credentials, the catalogue",
    "edge": "HTTP with the client: requests as they come in, answers as they go out",
    "walk": "from stage to stage, and the record of it",
    "credentials": "the key: form, digest, cache",
    "parsing": "the body: strictly, and how much input it is",
    "authorizing": "caller, model and size against the policy; which upstreams, in which order",
    "windows": "the minute in Redis, and the connection to it",
    "teller": "batches: deciding, writing, the connection to PostgreSQL",
    "forwarding": "the call of the upstream, with aiohttp",
    "streaming": "events from the upstream to the client",
    "metering": "the dialects: bodies for the upstream; usage and output, read from answers",
}
_OURS = ("accounts", "billing", "catalog", "config", "gateway", "keys", "usage")
_LIBRARIES = ("aiohttp", "asyncio", "django", "psycopg", "redis", "uvicorn")
_MAIN = "MainThread"
_RUNNER = "asyncio.runners"
_LEAST_SHARE = 0.005
_REST = "less than 0.5% each"
_HEADS = ("Plain", "µs a request", "Streamed", "µs a stream")


@dataclass(frozen=True, slots=True)
class Sampled:
    """What a process used while it served so many requests: by thread and stack, in processor seconds."""

    stacks: list[tuple[str, list[str], float]]
    requests: int
    busy: float

    @property
    def total_s(self) -> float:
        """All that was charged."""
        return sum(seconds for _thread, _stack, seconds in self.stacks)


def stage_of(thread: str, stack: Sequence[str]) -> str:
    """The stage of a sample: that of the innermost module which belongs to one."""
    if thread != _MAIN:
        return READERS
    if stack[0] == _RUNNER:
        return LOOP
    for module in stack:
        for stage, parts in _STAGES.items():
            if any(module == part or module.startswith(f"{part}.") for part in parts):
                return stage
        if module.partition(".")[0] in _OURS:
            return f"`{module}`"
    return LOOP


def whose(_thread: str, stack: Sequence[str]) -> str:
    """Whose code a sample was in. What is written in C counts for whoever calls it."""
    if stack[0] == _RUNNER:
        return "uvloop"
    package = stack[0].partition(".")[0]
    if package in _OURS:
        return f"`{package}`"
    return package if package in _LIBRARIES else "Python's own and other libraries"


def by_stage(plain: Sampled, streamed: Sampled) -> str:
    """The table of stages, the largest first."""
    rows = _rows(stage_of, plain, streamed)
    heads = ("Stage", "What is in it", *_HEADS)
    return table(heads, [[name, _MEANINGS.get(name, ""), *figures] for name, *figures in rows], left=2)


def by_owner(plain: Sampled, streamed: Sampled) -> str:
    """The table of packages, the largest first."""
    return table(("Code of", *_HEADS), _rows(whose, plain, streamed))


def _rows(name_of: Callable[[str, Sequence[str]], str], plain: Sampled, streamed: Sampled) -> list[list[str]]:
    """Name, then share and microseconds a request for plain requests, and for streams. Small ones are summed up."""
    sums = [_sums(name_of, sampled) for sampled in (plain, streamed)]
    large = [name for name in sums[0] | sums[1] if any(_is_large(each, name) for each in sums)]
    small = [Counter({_REST: sum(each[name] for name in each if name not in large)}) for each in sums]
    rows = [
        [
            name,
            *(
                text
                for each, sampled in zip(where, (plain, streamed), strict=True)
                for text in _figures(each[name], sampled)
            ),
        ]
        for where, names in ((sums, sorted(large, key=lambda name: -sums[0][name])), (small, [_REST]))
        for name in names
    ]
    total = [text for sampled in (plain, streamed) for text in _figures(sampled.total_s * 1e6, sampled)]
    return [*rows, ["**All**", *total]]


def _sums(name_of: Callable[[str, Sequence[str]], str], sampled: Sampled) -> "Counter[str]":
    """Microseconds by name: a Counter counts in whole numbers."""
    sums: Counter[str] = Counter()
    for thread, stack, seconds in sampled.stacks:
        sums[name_of(thread, stack)] += round(seconds * 1e6)
    return sums


def _is_large(sums: "Counter[str]", name: str) -> bool:
    return sums[name] >= _LEAST_SHARE * sums.total()


def _figures(used_us: float, sampled: Sampled) -> tuple[str, str]:
    return f"{used_us / 1e6 / sampled.total_s:.1%}", f"{used_us / sampled.requests:,.0f}"

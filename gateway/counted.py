"""What a request is told of its key's minute: how much of it is counted, what is left, and when it frees."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from gateway.asgi import Headers
from gateway.errors import Refusal, rate_limit_exceeded
from keys.authenticating import Credential
from usage.minutes import Minute, MinuteExhausted, MinuteState

_MINUTE_S = 60
_SECOND_MS = 1000
MINUTE_MS = _MINUTE_S * _SECOND_MS

# The output limit, `max_tokens=40`, with which a request would count no more than so many tokens; empty: none would.
Fitting = Callable[[int], str]


@dataclass(slots=True)
class Counted:
    """What the minute of a key looks like with this request in it, or without it if it was refused."""

    limit_requests: int | None
    limit_tokens: int | None
    requests: int
    tokens: int
    reset_ms: int
    retry_ms: int
    second: int  # of the clock that counted; a correction goes to the same one. 0: Redis has not counted it
    refused: str  # `requests`, `tokens` or empty
    is_known: bool  # Redis knows the whole minute, as far as it can tell; else the teller has to count it

    def learn(self, state: MinuteState) -> None:
        """Take over what the teller has counted."""
        self.requests, self.tokens, self.reset_ms = state.requests, state.tokens, MINUTE_MS

    def without(self, tokens: int) -> "Counted":
        """The same minute without this request of so many tokens."""
        return replace(self, requests=self.requests - 1, tokens=self.tokens - tokens)

    def headers(self) -> Headers:
        """OpenAI's `x-ratelimit-*` headers; what has no limit has no headers."""
        headers: Headers = []
        reset = duration(self.reset_ms).encode()
        if self.limit_requests is not None:
            remaining = max(self.limit_requests - self.requests, 0)
            headers += [
                (b"x-ratelimit-limit-requests", b"%d" % self.limit_requests),
                (b"x-ratelimit-remaining-requests", b"%d" % remaining),
                (b"x-ratelimit-reset-requests", reset),
            ]
        if self.limit_tokens is not None:
            headers += [
                (b"x-ratelimit-limit-tokens", b"%d" % self.limit_tokens),
                (b"x-ratelimit-remaining-tokens", b"%d" % max(self.limit_tokens - self.tokens, 0)),
                (b"x-ratelimit-reset-tokens", reset),
            ]
        return headers


def minute_of(counted: Counted | None, *, tokens: int) -> Minute | None:
    """What the teller is told of the minute, to count it where Redis cannot know it; None where nothing limits it."""
    if counted is None:
        return None
    return Minute(counted.limit_requests, counted.limit_tokens, tokens, is_decided=counted.is_known)


def refusal_by_teller(
    credential: Credential, counted: Counted, decision: MinuteExhausted, *, tokens: int, fitting: Fitting
) -> Refusal:
    """The refusal of a request whose minute the teller has counted."""
    counted.learn(decision.state)
    counted.refused, counted.retry_ms = decision.what, decision.state.oldest_leaves_ms
    return refusal_of(credential, counted, tokens=tokens, fitting=fitting)


def duration(milliseconds: int) -> str:
    """A duration as OpenAI writes it: `12ms`, `1.5s`, `6m0s`."""
    if milliseconds < _SECOND_MS:
        return f"{max(milliseconds, 0)}ms"
    seconds = milliseconds / 1000
    if seconds < _MINUTE_S:
        return f"{seconds:g}s"
    minutes, rest = divmod(seconds, _MINUTE_S)
    return f"{int(minutes)}m{int(rest)}s"


def refusal_of(credential: Credential, counted: Counted, *, tokens: int, fitting: Fitting) -> Refusal:
    """The 429 that says which limit it is, whose, and when it frees."""
    by_requests = counted.refused == "requests"
    room = max((counted.limit_tokens or 0) - counted.tokens, 0)
    return rate_limit_exceeded(
        what=counted.refused,
        limit=(counted.limit_requests if by_requests else counted.limit_tokens) or 0,
        used=counted.requests if by_requests else counted.tokens,
        asked=1 if by_requests else tokens,
        retry_ms=counted.retry_ms,
        headers=counted.headers(),
        plan=credential.plan_name if counted.refused in credential.limited_by_plan else "",
        fitting="" if by_requests else fitting(room),
    )

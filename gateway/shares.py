"""What one process may count of a key's minute by itself, until the second ends.

A key that is used often would ask Redis for every request. Instead, whoever asks for it takes along room for as many
requests as this process has counted in the last second, and those that come in the same second are counted here. Redis
has counted all of that already, so no process lets through what another could; what is left goes back when the second
is over. Redis gives such a share only while less than half of the minute is used, and little of what is left of that
half at a time: `window.lua`. Close to its limit, a key is counted request by request.
"""

from dataclasses import dataclass, field

from gateway.counted import MINUTE_MS, Counted

# A key that has had fewer requests in a second asks for each. That keeps most keys out of all this.
_OFTEN = 4
_SECOND_S = 1.0

Limits = tuple[int | None, int | None]


@dataclass(slots=True)
class Share:
    """What this process counts of one key's minute. Times are of the monotonic clock, in seconds."""

    # What is left of it.
    requests: int = 0
    tokens: int = 0
    # A question that asks for a share is on its way. Two at a time would take too much.
    is_asked_for: bool = False
    # The last answer of Redis: the second it was given in, when that ends, and the limits it was asked with.
    _second: int = field(default=0, init=False)
    _ends_at: float = field(default=0.0, init=False)
    _limits: Limits = field(default=(None, None), init=False)
    # What Redis counts in the minute, as far as this process knows. What is left of the share is in it.
    _counted_requests: int = field(default=0, init=False)
    _counted_tokens: int = field(default=0, init=False)
    # The tokens of the room that was given with it.
    _given_tokens: int = field(default=0, init=False)
    # Requests that this process has counted in that second.
    _taken: int = field(default=0, init=False)

    @property
    def second(self) -> int:
        """The second of Redis's clock in which it counts. 0: Redis was never asked."""
        return self._second

    def left_s(self, now: float) -> float:
        """How long the second lasts at least."""
        return self._ends_at - now

    def wanted(self, now: float) -> int:
        """For how many more requests room is asked for with the next one."""
        is_recent = now < self._ends_at + _SECOND_S
        return self._taken if is_recent and self._taken >= _OFTEN and not self.is_asked_for else 0

    def take(self, limits: Limits, *, tokens: int, now: float) -> Counted | None:
        """Count one request of so many tokens; None: Redis has to be asked."""
        if now >= self._ends_at or limits != self._limits or not self._has_room(requests=1, tokens=tokens):
            return None
        self.requests -= 1
        self.tokens -= tokens
        self._taken += 1
        return self._as_counted(now)

    def learn(self, counted: Counted, *, given: int, tokens: int, ends_at: float) -> None:
        """Take over what Redis has answered: a request of so many tokens, and room for that many more of its kind.

        What was left of an earlier second has been given back. Each answer says when the second ends at the earliest.
        """
        if counted.second != self._second:
            self._second, self._taken, self._ends_at = counted.second, 0, ends_at
        self._ends_at = max(self._ends_at, ends_at)
        self._limits = counted.limit_requests, counted.limit_tokens
        self._counted_requests, self._counted_tokens = counted.requests, counted.tokens
        self._taken += 1
        self.requests += given
        self.tokens += given * tokens
        self._given_tokens = self.tokens

    def correct(self, *, requests: int, tokens: int) -> None:
        """What Redis counts is corrected by so much."""
        self._counted_requests += requests
        self._counted_tokens += tokens

    def absorb(self, *, requests: int, tokens: int, now: float) -> bool:
        """Let what is left change by what a request of this second used beyond its estimate, or did not use.

        False: Redis has to be told. For there is too little left, or it would be more than was given, or it would
        serve nobody: who holds back what others could use must use it himself.
        """
        is_given = self.requests > 0 and self.tokens - tokens <= self._given_tokens
        if now >= self._ends_at or not is_given or not self._has_room(requests=requests, tokens=tokens):
            return False
        self.requests -= requests
        self.tokens -= tokens
        return True

    def give_back(self) -> tuple[int, int]:
        """The requests and tokens that are left of it, which it has no more."""
        left = self.requests, self.tokens
        self.requests = self.tokens = 0
        self.correct(requests=-left[0], tokens=-left[1])
        return left

    def without(self, counted: Counted) -> Counted:
        """What Redis has counted, less what is left of this share."""
        counted.requests -= self.requests
        counted.tokens -= self.tokens
        return counted

    def _has_room(self, *, requests: int, tokens: int) -> bool:
        """Whether so much is left. Tokens without a limit are counted all the same, and may be less than none."""
        return self.requests >= requests and (self._limits[1] is None or self.tokens >= tokens)

    def _as_counted(self, now: float) -> Counted:
        return Counted(
            *self._limits,
            self._counted_requests - self.requests,
            self._counted_tokens - self.tokens,
            MINUTE_MS + int((self._ends_at - now) * 1000),
            0,
            self._second,
            "",
            is_known=True,
        )

"""Who waits for the teller, and when it is time to send them as a batch.

A batch costs about as much as ten of the requests in it: many small ones keep PostgreSQL busy with little. But with one
of everybody there is nothing to do here until it is answered. Best is that half of all are with PostgreSQL while the
others are served here. So who waits goes at once when they are half of all; when they are fewer, what else comes in
this turn of the event loop goes with them; and behind a batch that is on its way no smaller one is sent.
"""

from collections import deque

from gateway.items import Item

_MOST = 256


class Queue:
    """The items that wait. It is told of requests that ask for the first time, and of those that ask no more."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        # Requests that have asked, and have neither been refused nor settled.
        self.open = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def is_half(self) -> bool:
        """Whether so many wait that it is better to send them than to wait for more."""
        return len(self._items) * 2 >= self.open

    def append(self, item: Item) -> None:
        self._items.append(item)

    def take(self) -> list[Item]:
        """The next batch."""
        return [self._items.popleft() for _ in range(min(len(self._items), _MOST))]

    def opened(self) -> None:
        """A request has asked, and will settle if it is admitted."""
        self.open += 1

    def closed(self) -> None:
        """It has been refused, or has settled: perhaps one that had asked a process that is no more."""
        self.open = max(self.open - 1, 0)

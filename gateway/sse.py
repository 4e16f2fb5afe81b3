"""Server-sent events out of a byte stream, however it is cut into pieces."""

import re

_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LINE = re.compile(rb"\r\n|\n|\r")
_LINE_AND_BLANK = 2
MAX_EVENT_BYTES = 8 * 1024 * 1024


class EventTooLargeError(ValueError):
    """An event does not end within 8 MiB."""


class EventSplitter:
    """Collects bytes and gives back whole events, each with the blank line that ends it."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, piece: bytes) -> list[bytes]:
        """The events that this piece completes. Raises EventTooLargeError."""
        # An end may straddle two pieces, so the search begins three bytes before the new one.
        start = max(len(self._rest) - 3, 0)
        self._rest += piece
        events: list[bytes] = []
        taken = 0
        while match := _END.search(self._rest, max(start, taken)):
            events.append(bytes(self._rest[taken : match.end()]))
            taken = match.end()
        if taken:
            del self._rest[:taken]
        if len(self._rest) > MAX_EVENT_BYTES:
            raise EventTooLargeError
        return events

    def rest(self) -> bytes:
        """What came after the last whole event."""
        return bytes(self._rest)


def data_of(event: bytes) -> bytes:
    """The data of an event, its lines joined; empty for a comment."""
    # Nearly all events are one line of data, alone or after the line with their name.
    if event.startswith(b"data: ") and event.count(b"\n") == _LINE_AND_BLANK and b"\r" not in event:
        return event[6:-2]
    lines = [line[5:].removeprefix(b" ") for line in _LINE.split(event) if line.startswith(b"data:")]
    return b"\n".join(lines)


def event_of(data: bytes) -> bytes:
    """An event that carries this data, which has no line breaks."""
    return b"data: " + data + b"\n\n"


def named_event_of(name: str, data: bytes) -> bytes:
    """The same with a name, as typed events have one."""
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"

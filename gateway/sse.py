"""Server-sent events out of a byte stream, however it is cut into pieces."""

import re

_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
_LINE = re.compile(rb"\r\n|\n|\r")
_LINE_AND_BLANK = 2
MAX_EVENT_BYTES = 8 * 1024 * 1024


class EventTooLargeError(ValueError):
    """An event does not end within 8 MiB."""


class EventSplitter:
    """Collects bytes and gives back whole events, each with the blank line that ends it."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def whole(self, piece: bytes) -> bytes:
        """The events that this piece completes, one after the other. Raises EventTooLargeError."""
        if not self._rest and piece.endswith(b"\n\n"):
            return piece
        # An end may straddle two pieces, so the search begins three bytes before the new one.
        start = max(len(self._rest) - 3, 0)
        self._rest += piece
        last = max(
            (place + len(end) for end in _ENDS if (place := self._rest.rfind(end, start)) >= 0), default=0
        )
        whole = bytes(self._rest[:last])
        del self._rest[:last]
        if len(self._rest) > MAX_EVENT_BYTES:
            raise EventTooLargeError
        return whole

    def rest(self) -> bytes:
        """What came after the last whole event."""
        return bytes(self._rest)


def split(events: bytes) -> list[bytes]:
    """Whole events, one by one."""
    if b"\r" not in events:
        return [event + b"\n\n" for event in events.split(b"\n\n")[:-1]]
    ends = [match.end() for match in _END.finditer(events)]
    return [events[start:end] for start, end in zip([0, *ends], ends, strict=False)]


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

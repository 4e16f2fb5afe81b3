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
        rest = self._rest
        if rest:
            # An end may straddle two pieces, so the search begins three bytes before the new one.
            start = max(len(rest) - 3, 0)
            rest += piece
            if _END.search(rest, start) is None:
                self._judge_size()
                return []
            piece = bytes(rest)
            rest.clear()
        if b"\r" in piece:
            events, tail = _split(piece)
        else:
            *whole, tail = piece.split(b"\n\n")
            events = [event + b"\n\n" for event in whole]
        rest += tail
        self._judge_size()
        return events

    def _judge_size(self) -> None:
        if len(self._rest) > MAX_EVENT_BYTES:
            raise EventTooLargeError

    def rest(self) -> bytes:
        """What came after the last whole event."""
        return bytes(self._rest)


def _split(piece: bytes) -> tuple[list[bytes], bytes]:
    """Whole events, whichever line breaks they have, and what comes after them."""
    events: list[bytes] = []
    taken = 0
    for match in _END.finditer(piece):
        events.append(piece[taken : match.end()])
        taken = match.end()
    return events, piece[taken:]


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

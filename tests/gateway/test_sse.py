"""Events out of bytes, however these are cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import sse
from gateway.sse import EventSplitter, EventTooLargeError, data_of, split

EVENTS = [
    b'data: {"a":1}\n\n',
    "data: Zoë 👩‍👩‍👧\r\n\r\n".encode(),
    b": comment\n\n",
    b"data: one\ndata: two\n\n",
    b"data:x\r\r",
]


@given(cuts=st.lists(st.integers(0, 90), max_size=30))
def test_events_are_the_same_however_the_stream_is_cut(cuts: list[int]) -> None:
    stream = b"".join(EVENTS)
    splitter = EventSplitter()
    places = sorted({0, *cuts, len(stream)})

    events = [
        event
        for start, end in itertools.pairwise(places)
        for event in split(splitter.whole(stream[start:end]))
    ]

    assert events == EVENTS
    assert splitter.rest() == b""


def test_data_is_joined_and_comments_have_none() -> None:
    assert [data_of(event) for event in EVENTS] == [b'{"a":1}', "Zoë 👩‍👩‍👧".encode(), b"", b"one\ntwo", b"x"]


def test_an_event_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 10)

    with pytest.raises(EventTooLargeError):
        EventSplitter().whole(b"data: that never ends")


def test_a_long_line_is_one_event() -> None:
    line = b"data: " + b"x" * (1024 * 1024) + b"\n\n"
    splitter = EventSplitter()

    pieces = [
        event
        for start in range(0, len(line), 65_536)
        for event in split(splitter.whole(line[start : start + 65_536]))
    ]

    assert pieces == [line]

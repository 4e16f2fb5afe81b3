"""Chunks of text taken all at once come out as they do one by one."""

import itertools
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.chat import Chat, ChunkMeter
from gateway.dialects.dialect import BrokenAnswerError
from gateway.sse import EventSplitter, split


def asked(*, wants_usage: bool) -> Any:
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    if wants_usage:
        body["stream_options"] = {"include_usage": True}
    return Chat().parse(orjson.dumps(body))


def one_by_one(meter: ChunkMeter, stream: bytes) -> tuple[bytes, str]:
    passed: list[bytes] = []
    try:
        for event in split(stream):
            passed.append(meter.take(event))
            if meter.is_done:
                break
    except BrokenAnswerError as error:
        return b"".join(passed), str(error)
    return b"".join(passed), ""


def in_pieces(meter: ChunkMeter, stream: bytes, cuts: list[int]) -> tuple[bytes, str]:
    splitter, passed = EventSplitter(), [b""]
    places = sorted({0, *(cut % (len(stream) + 1) for cut in cuts), len(stream)})
    try:
        for start, end in itertools.pairwise(places):
            plain, left = meter.take_plain(splitter.whole(stream[start:end]))
            passed.append(plain)
            for event in split(left):
                passed.append(meter.take(event))
                if meter.is_done:
                    return b"".join(passed), ""
    except BrokenAnswerError as error:
        return b"".join(passed), str(error)
    return b"".join(passed), ""


TEXT = st.sampled_from(
    ["hi", "Zoë 👩‍👩‍👧", 'say "usage":null}', 'data: [DONE]\n\ndata: {"usage":{', "", "\\", "a" * 40]
)
DELTA = st.fixed_dictionaries({}, optional={"role": st.just("assistant"), "content": TEXT | st.none()})
CHOICE = st.fixed_dictionaries(
    {"index": st.integers(0, 1), "delta": DELTA}, optional={"finish_reason": st.sampled_from([None, "stop"])}
)
CHUNK = st.fixed_dictionaries(
    {"id": st.just("c"), "choices": st.lists(CHOICE, max_size=2)},
    optional={
        "usage": st.sampled_from([None, None, None, {"prompt_tokens": 3, "completion_tokens": 4}, {}]),
        "error": st.sampled_from([None, None, {"message": "no"}]),
        "last": st.sampled_from([None, {"usage": None}]),
    },
).map(lambda chunk: b"data: " + orjson.dumps(chunk) + b"\n\n")
ODD = st.sampled_from(
    [
        b"data: [DONE]\n\n",
        b": comment\n\n",
        b"data: {\n\n",
        b"data: 7\n\n",
        b"data: {},{}\n\n",
        b"event: x\ndata: {}\n\n",
        b'data: {"choices":[]}\r\n\r\n',
        b'data:{"choices":[]}\n\n',
        b'data: {"usage":null,"choices":[]}\n\n',
    ]
)


@given(
    events=st.lists(CHUNK | CHUNK | CHUNK | ODD, min_size=1, max_size=12),
    cuts=st.lists(st.integers(0, 5_000), max_size=6),
    wants_usage=st.booleans(),
)
def test_however_a_stream_is_cut_it_is_passed_on_and_measured_the_same(
    events: list[bytes],
    cuts: list[int],
    wants_usage: bool,
) -> None:
    stream = b"".join(events)
    slow, fast = ChunkMeter(asked(wants_usage=wants_usage)), ChunkMeter(asked(wants_usage=wants_usage))

    assert in_pieces(fast, stream, cuts) == one_by_one(slow, stream)

    facts = [(m.characters, m.finish_reason, m.usage, m.is_done) for m in (fast, slow)]
    assert facts[0] == facts[1]


@pytest.mark.parametrize("wants_usage", [True, False])
def test_text_is_taken_at_once_up_to_the_figures(wants_usage: bool) -> None:
    meter = ChunkMeter(asked(wants_usage=wants_usage))
    text = b'data: {"choices":[{"delta":{"content":"four"}}],"usage":null}\n\n'
    figures = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\ndata: [DONE]\n\n'

    plain, left = meter.take_plain(text * 3 + figures)

    assert plain == (text if wants_usage else text.replace(b',"usage":null', b"")) * 3
    assert left == figures
    assert meter.characters == 12

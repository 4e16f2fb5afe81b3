"""What a report of usage comes to, and what a stream comes to however it is cut."""

import itertools
import json
import uuid
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway import metering
from gateway.dialects import chat, messages, responses
from gateway.dialects.chat import Chat
from gateway.dialects.completions import Completions
from gateway.dialects.dialect import BrokenAnswerError, Dialect, Meter
from gateway.dialects.embeddings import Embeddings
from gateway.dialects.messages import Messages
from gateway.dialects.responses import Responses
from gateway.failures import upstream_error
from gateway.metering import Usage
from gateway.sandbox import openai_chat, openai_responses
from gateway.sandbox.answers import compose
from gateway.sandbox.anthropic_messages import Messages as SandboxMessages
from gateway.sandbox.controls import read_controls
from gateway.sandbox.protocol import Protocol
from gateway.sse import EventSplitter, split
from tests.gateway import dialects

SPEAKERS: list[tuple[Dialect, Protocol]] = [
    (Chat(), openai_chat.Chat()),
    (Completions(), openai_chat.Completions()),
    (Responses(), openai_responses.Responses()),
    (Messages(), SandboxMessages()),
]
EMOJI = "Zoë 👩‍👩‍👧 日本 \u2028 ok"
ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers()), st.just({})
)


def _stream(dialect: Dialect, protocol: Protocol, **sandbox: Any) -> tuple[Meter, bytes]:
    """A meter for the request, and the whole stream that the sandbox answers with."""
    body = dialects.body(
        dialect.endpoint, "m", sandbox={"text": EMOJI, **sandbox}, **dialects.streamed(dialect.endpoint)
    )
    asked = dialect.parse(orjson.dumps(body))
    prompt = protocol.read(body)
    whole = b"".join(protocol.events(prompt, compose(prompt, read_controls(body)))) + protocol.done
    return dialect.meter(asked), whole


def _feed(meter: Meter, stream: bytes, cuts: list[int]) -> bytes:
    splitter = EventSplitter()
    places = sorted({0, *(cut % len(stream) for cut in cuts), len(stream)})
    return b"".join(
        meter.take(event)
        for start, end in itertools.pairwise(places)
        for event in split(splitter.whole(stream[start:end]))
        if not meter.is_done
    )


@pytest.mark.parametrize(("dialect", "protocol"), SPEAKERS, ids=lambda one: type(one).__name__)
@given(cuts=st.lists(st.integers(0, 10_000), max_size=40))
@example(cuts=list(range(10_000)))  # a byte at a time
def test_a_stream_comes_to_the_same_however_it_is_cut(
    dialect: Dialect, protocol: Protocol, cuts: list[int]
) -> None:
    meter, stream = _stream(dialect, protocol, cached_tokens=1)

    passed = _feed(meter, stream, cuts)

    assert meter.is_done
    assert meter.measured() == Usage(3, 4, 1)
    assert meter.characters == len(EMOJI)
    text = passed + meter.ending(meter.measured(), cost_usd="0.5")
    assert all(word in text.decode() for word in EMOJI.split(" "))
    assert dialects.shown_usage(dialect.endpoint, text.decode())["cost_usd"] == "0.5"
    assert text.count(b"cost_usd") == 1


@pytest.mark.parametrize(("dialect", "protocol"), SPEAKERS, ids=lambda one: type(one).__name__)
def test_nothing_of_the_end_is_passed_on_before_it_is_paid_for(dialect: Dialect, protocol: Protocol) -> None:
    meter, stream = _stream(dialect, protocol)

    passed = _feed(meter, stream, [])

    for last in (b"[DONE]", b"response.completed", b"message_delta", b"message_stop", b'"prompt_tokens"'):
        assert last not in passed


@pytest.mark.parametrize(("dialect", "protocol"), SPEAKERS, ids=lambda one: type(one).__name__)
def test_a_stream_that_breaks_is_measured_by_what_came(dialect: Dialect, protocol: Protocol) -> None:
    meter, stream = _stream(dialect, protocol, output_tokens=5)
    whole = stream.split(b"\n\n")
    words = [event + b"\n\n" for event in whole if b"delta" in event or b'"text"' in event]

    _feed(meter, b"".join(event + b"\n\n" for event in whole[: whole.index(words[1][:-2]) + 1]), [])

    measured = meter.measured()
    assert measured.is_estimated
    assert not meter.is_complete
    assert measured.output_tokens == -(-meter.characters // 4)
    with pytest.raises(BrokenAnswerError, match="reported an error"):
        meter.take(protocol.error_event())
    error = meter.error(upstream_error("m", "it broke"), uuid.uuid4())
    assert b'"upstream_error"' in error


REPORTS = [
    pytest.param((chat.usage_of, "prompt_tokens", "completion_tokens"), id="chat"),
    pytest.param((responses.usage_of, "input_tokens", "output_tokens"), id="responses"),
    pytest.param((messages.usage_of, "input_tokens", "output_tokens"), id="messages"),
]


@pytest.mark.parametrize("report", REPORTS)
@given(told=ANYTHING, written=ANYTHING, details=ANYTHING, cached=ANYTHING)
def test_a_report_is_figures_that_make_sense_or_none(
    report: Any, *, told: Any, written: Any, details: Any, cached: Any
) -> None:
    read, given_name, written_name = report
    usage = read(
        {
            given_name: told,
            written_name: written,
            "prompt_tokens_details": {"cached_tokens": cached} if details else details,
            "input_tokens_details": {"cached_tokens": cached} if details else details,
            "cache_read_input_tokens": cached,
        }
    )

    if usage is not None:
        assert type(told) is int
        assert type(written) is int
        assert 0 <= usage.cached_input_tokens <= usage.input_tokens
        assert usage.output_tokens == written
        assert not usage.is_estimated


def test_what_a_cache_had_is_within_the_input_and_counted_once() -> None:
    openais = {"prompt_tokens": 10, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 4}}
    anthropics = {
        "input_tokens": 6,
        "cache_read_input_tokens": 4,
        "cache_creation_input_tokens": 5,
        "output_tokens": 1,
    }

    assert chat.usage_of(openais) == Usage(10, 1, 4)
    assert messages.usage_of(anthropics) == Usage(15, 1, 4, 5)
    assert chat.usage_of({**openais, "prompt_tokens_details": {"cached_tokens": 11}}) is None
    assert messages.usage_of({**anthropics, "cache_creation_input_tokens": -1}) is None
    assert chat.usage_of({**openais, "prompt_tokens_details": None}) == Usage(10, 1)


def test_the_last_report_of_a_stream_counts_even_where_it_makes_no_sense() -> None:
    meter, _ = _stream(Chat(), openai_chat.Chat())

    meter.take(b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n')
    assert meter.usage == Usage(1, 1)
    meter.take(b'data: {"choices":[{"delta":{"content":"four"}}],"usage":null}\n\n')
    assert meter.usage == Usage(1, 1)
    meter.take(b'data: {"choices":[],"usage":{"prompt_tokens":-1,"completion_tokens":1}}\n\n')

    assert meter.measured() == Usage(meter.asked.input_tokens, 1, is_estimated=True)


def test_usage_that_a_client_did_not_ask_for_is_taken_out_of_every_chunk() -> None:
    asked = Chat().parse(orjson.dumps({**dialects.body("chat/completions", "m"), "stream": True}))
    meter = Chat().meter(asked)
    choices = b'"choices":[{"index":0,"delta":{"content":"\\",\\"usage\\":null}"},"finish_reason":null}]'

    last = meter.take(b'data: {"id":"1",' + choices + b',"usage":null}\n\n')
    first = meter.take(b'data: {"usage":{"prompt_tokens":3,"completion_tokens":1},' + choices + b"}\n\n")

    assert last == b'data: {"id":"1",' + choices + b"}\n\n"
    assert first == b"data: {" + choices + b"}\n\n"
    assert meter.usage == Usage(3, 1)


def test_the_output_that_a_messages_start_guesses_is_not_added() -> None:
    meter, _ = _stream(Messages(), SandboxMessages())

    def event(data: str) -> bytes:
        return meter.take(f"event: x\ndata: {data}\n\n".encode())

    event('{"type":"message_start","message":{"usage":{"input_tokens":9,"output_tokens":4}}}')
    assert meter.measured() == Usage(9, 0, 0, is_estimated=True)
    assert event('{"type":"message_delta","delta":{},"usage":{"input_tokens":9}}') == b""
    assert meter.measured() == Usage(9, 0, 0, is_estimated=True)
    assert event('{"type":"message_delta","delta":{},"usage":{"output_tokens":2,"input_tokens":null}}') != b""
    assert meter.measured() == Usage(9, 2)
    earlier = event('{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":7}}')
    assert b'"output_tokens":2' in earlier
    assert meter.measured() == Usage(9, 7)
    assert meter.is_complete


def test_a_message_without_a_delta_still_ends_as_a_message_does() -> None:
    meter, _ = _stream(Messages(), SandboxMessages())
    meter.take(b'data: {"type":"message_stop"}\n\n')

    ending = meter.ending(Usage(3, 1, 1, is_estimated=True), cost_usd="0.1")

    shown = dialects.shown_usage("messages", ending.decode())
    assert shown == {
        "input_tokens": 2,
        "cache_read_input_tokens": 1,
        "cache_creation_input_tokens": 0,
        "output_tokens": 1,
        "cost_usd": "0.1",
    }


@pytest.mark.parametrize(("dialect", "protocol"), SPEAKERS, ids=lambda one: type(one).__name__)
def test_comments_pass_and_what_is_no_event_of_the_protocol_breaks(
    dialect: Dialect, protocol: Protocol
) -> None:
    meter, _ = _stream(dialect, protocol)

    assert meter.take(b": still there\n\n") == b": still there\n\n"
    for broken in (b"data: {\n\n", b"data: [1]\n\n", b"data: 5\n\n"):
        with pytest.raises(BrokenAnswerError):
            meter.take(broken)


@pytest.mark.parametrize("dialect", [Responses(), Messages()], ids=["responses", "messages"])
def test_a_typed_event_needs_its_type(dialect: Dialect) -> None:
    protocol = {type(one): other for one, other in SPEAKERS}[type(dialect)]
    meter, _ = _stream(dialect, protocol)

    assert meter.take(b'data: {"type":"of.the.future"}\n\n') == b'data: {"type":"of.the.future"}\n\n'
    with pytest.raises(BrokenAnswerError, match="without a type"):
        meter.take(b'data: {"x":1}\n\n')


def test_a_response_that_failed_is_billed_for_what_it_reports() -> None:
    meter, _ = _stream(Responses(), openai_responses.Responses())
    usage = b'{"input_tokens":7,"output_tokens":2}'

    assert meter.take(b"data: [DONE]\n\n") == b""
    with pytest.raises(BrokenAnswerError, match="reported an error"):
        meter.take(b'data: {"type":"response.failed","response":{"usage":%b}}\n\n' % usage)

    assert meter.measured() == Usage(7, 2)


@pytest.mark.parametrize(
    ("dialect", "document"),
    [
        (Chat(), {}),
        (Chat(), {"choices": None}),
        (Embeddings(), {"data": {}}),
        (Responses(), {"output": None}),
        (Responses(), {"output": [], "status": "failed"}),
        (Messages(), {"type": "error"}),
    ],
)
def test_a_document_of_another_shape_is_no_answer(dialect: Dialect, document: dict[str, Any]) -> None:
    with pytest.raises(BrokenAnswerError):
        dialect.read(document)


def test_characters_are_those_that_a_model_wrote() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    answered = Chat().read({"choices": [{"message": {"role": "assistant", "tool_calls": [call]}}, 5]})
    item = {"type": "function_call", "id": "x", "call_id": "y", "name": "f", "arguments": "{}"}
    block = {"type": "tool_use", "id": "x", "name": "f", "input": {"a": "bc"}}

    assert answered.produced_characters == 3
    assert Responses().read({"output": [item, 5]}).produced_characters == 3
    assert Messages().read({"content": [block, 5]}).produced_characters == 3
    assert metering.characters(5) == 0


def _deep(word: Any, *, levels: int = 900) -> Any:
    """The word within so many lists, which is more than the interpreter follows."""
    for _ in range(levels):
        word = [word]
    return word


def test_characters_are_counted_however_deep_they_are() -> None:
    deep = _deep("four")

    assert metering.characters(deep) == 4
    assert Chat().read({"choices": [{"message": {"x": deep}}]}).produced_characters == 4
    assert Responses().read({"output": [{"arguments": deep}]}).produced_characters == 4
    assert Messages().read({"content": [{"input": deep}]}).produced_characters == 4


@pytest.mark.parametrize(
    ("dialect", "protocol", "chunk"),
    [
        (Chat(), openai_chat.Chat(), {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}),
        (Chat(), openai_chat.Chat(), {"usage": None, "choices": [{"delta": {"content": "x"}}]}),
        (Responses(), openai_responses.Responses(), {"type": "response.completed", "response": {}}),
        (Messages(), SandboxMessages(), {"type": "message_delta", "delta": {}}),
    ],
    ids=["a chat's usage", "a chat's chunk", "the end of a response", "the end of a message"],
)
def test_a_chunk_that_is_too_deep_to_be_written_again_breaks_the_stream_at_once(
    dialect: Dialect, protocol: Protocol, chunk: dict[str, Any]
) -> None:
    asked = dialect.parse(orjson.dumps({**dialects.body(dialect.endpoint, "m"), "stream": True}))
    meter = dialect.meter(asked)
    data = json.dumps({**chunk, "odd": _deep("x", levels=300)}).encode()

    with pytest.raises(BrokenAnswerError, match="too deeply"):
        meter.take(b"data: " + data + b"\n\n")

    assert meter.error(upstream_error("m", "it broke"), uuid.uuid4())


def test_the_last_chunk_of_a_stream_repeats_only_what_is_a_word_or_a_number() -> None:
    meter, _ = _stream(Chat(), openai_chat.Chat())
    event = json.dumps({"id": _deep("x"), "model": "m", "choices": [{"delta": {"content": "x"}}]}).encode()

    assert meter.take_plain(b"data: " + event + b"\n\n")[1] == b""

    assert b'"model":"m"' in meter.ending(Usage(1, 1), cost_usd="0")
    assert b'"id"' not in meter.ending(Usage(1, 1), cost_usd="0")


def test_a_reason_that_is_none_is_not_repeated() -> None:
    answered = Responses().read({"output": [], "incomplete_details": {"reason": _deep("x")}})

    assert answered.finish_reason == "completed"


def test_embeddings_have_no_streams() -> None:
    asked = Embeddings().parse(b'{"model":"m","input":"x"}')

    with pytest.raises(TypeError, match="no streams"):
        Embeddings().meter(asked)

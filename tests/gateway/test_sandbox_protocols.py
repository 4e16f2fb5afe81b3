"""The sandbox as OpenAI's responses and as Anthropic's messages, called by the official clients."""

from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from tests.gateway import sandbox_server

EMOJI = "Zoë 👩‍👩‍👧 naïve 日本語 ok"


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    with sandbox_server.running() as url:
        yield url


@pytest.fixture
def client(base_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="none", base_url=base_url, max_retries=0, timeout=5) as client:
        yield client


@pytest.fixture
def claude(base_url: str) -> Iterator[anthropic.Anthropic]:
    origin = base_url.removesuffix("/v1")
    with anthropic.Anthropic(api_key="none", base_url=origin, max_retries=0, timeout=5) as client:
        yield client


def message(client: anthropic.Anthropic, **options: Any) -> Any:
    sandbox = options.pop("sandbox", None)
    return client.messages.create(
        **{
            "model": "m",
            "max_tokens": 100,
            "messages": [{"role": "user", "content": "three short words"}],
            "extra_body": {"sandbox": sandbox} if sandbox else None,
            **options,
        }
    )


def test_a_response_says_the_same_at_once_and_word_by_word(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": "m",
        "input": "three short words",
        "extra_body": {"sandbox": {"text": EMOJI}},
    }

    plain = client.responses.create(**asked)
    with client.responses.stream(**asked) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        whole = stream.get_final_response()

    assert plain.output_text == "".join(deltas) == whole.output_text == EMOJI
    assert len(deltas) == 5
    assert plain.usage is not None
    assert (plain.usage.input_tokens, plain.usage.output_tokens) == (3, 5)
    assert whole.usage == plain.usage


def test_the_events_of_a_response_are_numbered(client: openai.OpenAI) -> None:
    events = list(client.responses.create(model="m", input="hi", max_output_tokens=2, stream=True))

    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert (events[0].type, events[-1].type) == ("response.created", "response.incomplete")


def test_a_message_says_the_same_at_once_and_word_by_word(claude: anthropic.Anthropic) -> None:
    plain = message(claude, sandbox={"text": EMOJI})
    with claude.messages.stream(
        model="m",
        max_tokens=100,
        messages=[{"role": "user", "content": "three short words"}],
        extra_body={"sandbox": {"text": EMOJI, "split_bytes": 5}},
    ) as stream:
        deltas = list(stream.text_stream)
        whole = stream.get_final_message()

    assert plain.content[0].text == "".join(deltas) == whole.content[0].text == EMOJI  # type: ignore[union-attr]
    assert len(deltas) == 5
    assert (plain.usage.input_tokens, plain.usage.output_tokens) == (3, 5)
    assert (whole.usage.input_tokens, whole.usage.output_tokens) == (3, 5)
    assert (plain.stop_reason, message(claude, max_tokens=2).stop_reason) == ("end_turn", "max_tokens")


def test_cached_input_of_a_message_counts_apart(claude: anthropic.Anthropic) -> None:
    usage = message(claude, sandbox={"cached_tokens": 2}).usage

    assert (usage.input_tokens, usage.cache_read_input_tokens) == (1, 2)


def test_both_report_no_usage_if_they_are_told_to(client: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    silent = {"report_usage": False}

    assert client.responses.create(model="m", input="hi", extra_body={"sandbox": silent}).usage is None
    assert message(claude, sandbox=silent).usage is None
    events = list(message(claude, stream=True, sandbox=silent))
    assert events[0].message.usage is None


def test_both_fail_in_their_own_shape(client: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    failing = {"fail": {"status": 529, "code": "overloaded"}}

    with pytest.raises(anthropic.APIStatusError) as theirs:
        message(claude, sandbox=failing)
    with pytest.raises(openai.APIStatusError) as ours:
        client.responses.create(model="m", input="hi", extra_body={"sandbox": failing})

    assert (theirs.value.status_code, theirs.value.type) == (529, "api_error")
    assert (ours.value.status_code, ours.value.code) == (529, "overloaded")


def test_a_stream_breaks_in_its_own_shape_too(client: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    breaking = {"fail": "sse_error"}

    *_, last = client.responses.create(model="m", input="hi", stream=True, extra_body={"sandbox": breaking})
    with pytest.raises(anthropic.APIStatusError, match="mid-stream"):
        list(message(claude, stream=True, sandbox=breaking))

    assert (last.type, last.code) == ("error", "sandbox_failure")  # type: ignore[union-attr]


def test_what_is_missing_is_named(client: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="max_tokens is required"):
        claude.post(
            "/v1/messages",
            cast_to=object,
            body={"model": "m", "messages": [{"role": "user", "content": "x"}]},
        )
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="m", input=[])
    assert caught.value.param == "input"

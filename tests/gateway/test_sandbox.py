"""The sandbox, called by the official client over a real socket."""

import json
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
from openai.types.chat import ChatCompletionChunk

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


def chat(client: openai.OpenAI, **options: Any) -> Any:
    sandbox = options.pop("sandbox", None)
    return client.chat.completions.create(
        model="glm-5",
        messages=[{"role": "user", "content": "three short words"}],
        extra_body={"sandbox": sandbox} if sandbox else None,
        **options,
    )


def stream(client: openai.OpenAI, *, usage: bool = True, **options: Any) -> Iterator[ChatCompletionChunk]:
    options["stream_options"] = {"include_usage": True} if usage else openai.omit
    yield from chat(client, stream=True, **options)


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_an_answer_says_that_it_comes_from_the_sandbox_and_is_always_the_same(client: openai.OpenAI) -> None:
    one, other = chat(client), chat(client)

    content = one.choices[0].message.content or ""
    assert "sandbox" in content
    assert "glm-5" in content
    assert content == other.choices[0].message.content
    assert one.id != other.id
    assert one.choices[0].finish_reason == "stop"


def test_input_tokens_are_the_words_of_every_text_sent(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="m",
        messages=[
            {"role": "system", "content": "two words"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": " and\nthree  more "},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                ],
            },
        ],
    )

    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 5


def test_output_tokens_are_the_words_written(client: openai.OpenAI) -> None:
    answer = chat(client)

    assert answer.usage is not None
    assert answer.usage.completion_tokens == len((answer.choices[0].message.content or "").split())
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_limit_cuts_the_answer_and_says_so(client: openai.OpenAI, name: str) -> None:
    answer = chat(client, **{name: 4})

    assert answer.choices[0].message.content == "This answer was written"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4


@pytest.mark.parametrize("tokens", [0, 1, 43, 1899])
def test_output_tokens_are_honoured_beyond_any_limit(client: openai.OpenAI, tokens: int) -> None:
    answer = chat(client, max_tokens=10, sandbox={"output_tokens": tokens})

    assert answer.usage is not None
    assert answer.usage.completion_tokens == tokens
    assert len((answer.choices[0].message.content or "").split()) == tokens


def test_a_stream_says_what_the_plain_answer_says_a_word_at_a_time(client: openai.OpenAI) -> None:
    plain = chat(client, sandbox={"output_tokens": 60})
    chunks = list(stream(client, sandbox={"output_tokens": 60}))

    assert text_of(chunks) == plain.choices[0].message.content
    assert sum(bool(text_of([chunk])) for chunk in chunks) == 60
    assert chunks[-1].choices == []
    assert chunks[-1].usage == plain.usage
    assert chunks[-2].choices[0].finish_reason == "stop"


def test_a_stream_reports_usage_only_when_asked(client: openai.OpenAI) -> None:
    assert all(chunk.usage is None for chunk in stream(client, usage=False))
    assert [chunk.usage for chunk in stream(client, sandbox={"report_usage": False})][-1] is None


def test_several_choices_are_each_written_and_counted(client: openai.OpenAI) -> None:
    plain = chat(client, n=3, max_tokens=5)
    chunks = list(stream(client, n=3, max_tokens=5))

    assert len(plain.choices) == 3
    assert plain.usage is not None
    assert plain.usage.completion_tokens == 15
    assert {chunk.choices[0].index for chunk in chunks if chunk.choices} == {0, 1, 2}
    assert chunks[-1].usage == plain.usage


def test_cached_and_reasoning_tokens_are_reported_within_input_and_output(client: openai.OpenAI) -> None:
    usage = chat(client, sandbox={"output_tokens": 10, "reasoning_tokens": 7, "cached_tokens": 2}).usage

    assert usage is not None
    assert usage.completion_tokens == 10
    assert usage.completion_tokens_details is not None
    assert usage.completion_tokens_details.reasoning_tokens == 7
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 2


def test_absurd_usage_is_reported_as_it_was_asked_for(client: openai.OpenAI) -> None:
    usage = chat(
        client, sandbox={"usage": {"prompt_tokens": -5, "completion_tokens": 10**12, "total_tokens": 0}}
    ).usage

    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (-5, 10**12)
    assert chat(client, sandbox={"report_usage": False}).usage is None


@pytest.mark.parametrize("size", [1, 3, 7])
def test_a_stream_split_inside_characters_arrives_whole(client: openai.OpenAI, size: int) -> None:
    chunks = list(stream(client, sandbox={"text": EMOJI, "split_bytes": size}))

    assert text_of(chunks) == EMOJI
    assert chat(client, sandbox={"text": EMOJI}).choices[0].message.content == EMOJI


def test_a_split_stream_goes_out_in_pieces_of_that_size(base_url: str) -> None:
    body = json.dumps(
        {
            "model": "m",
            "messages": [{"role": "user", "content": "x"}],
            "stream": True,
            "sandbox": {"split_bytes": 7},
        }
    )
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    address = urlsplit(base_url)
    with socket.create_connection((address.hostname or "", address.port or 0)) as connection:
        connection.sendall((head + body).encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))

    sizes, rest = [], answer.partition(b"\r\n\r\n")[2]
    while rest:
        line, _, rest = rest.partition(b"\r\n")
        sizes.append(int(line, 16))
        rest = rest[sizes[-1] + 2 :]
    # The last two are [DONE] and the end.
    assert sizes.count(7) > 100
    assert set(sizes[:-2]) <= set(range(1, 8))


def test_delays_come_before_the_first_byte_and_after_each_event(client: openai.OpenAI) -> None:
    began = time.monotonic()
    chat(client, sandbox={"delay_ms": 200})
    assert time.monotonic() - began >= 0.2

    began = time.monotonic()
    list(stream(client, sandbox={"output_tokens": 10, "chunk_delay_ms": 20}))
    assert time.monotonic() - began >= 0.2


def test_an_answer_does_not_wait_for_the_acknowledgment_of_its_headers(client: openai.OpenAI) -> None:
    chat(client)
    began = time.monotonic()
    for _ in range(20):
        chat(client)

    # 40 ms each, where the socket waits.
    assert time.monotonic() - began < 20 * 0.03


def test_a_failure_carries_the_status_and_code_asked_for(client: openai.OpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as caught:
        chat(client, sandbox={"fail": {"status": 429, "code": "overloaded", "retry_after": 3}})

    assert caught.value.code == "overloaded"
    assert caught.value.response.headers["retry-after"] == "3"


def test_a_connection_is_closed_without_an_answer(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIConnectionError):
        chat(client, sandbox={"fail": "connection"})


@pytest.mark.parametrize(("fault", "error"), [("mid_stream", Exception), ("sse_error", openai.APIError)])
def test_a_stream_breaks_after_the_chunks_asked_for(
    client: openai.OpenAI, fault: str, error: type[Exception]
) -> None:
    received: list[ChatCompletionChunk] = []
    with pytest.raises(error):
        received.extend(stream(client, sandbox={"fail": fault, "after_chunks": 5}))

    assert text_of(received) == "This answer was written"
    assert len(received) == 5


def test_a_plain_answer_breaks_in_its_middle(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIConnectionError):
        chat(client, sandbox={"fail": "mid_stream"})
    with pytest.raises(json.JSONDecodeError):
        chat(client, sandbox={"fail": "garbage"})
    with pytest.raises(ValueError, match=r"utf-8|JSON|Expecting"):
        list(stream(client, sandbox={"fail": "garbage"}))


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("after", [{}, {"after_chunks": 2}])
def test_a_hanging_upstream_answers_nothing_more(
    client: openai.OpenAI, *, is_streamed: bool, after: dict[str, int]
) -> None:
    received: list[ChatCompletionChunk] = []
    with pytest.raises(openai.APITimeoutError):
        received.extend(chat(client, stream=is_streamed, timeout=0.3, sandbox={"fail": "hang", **after}))

    assert len(received) == (after.get("after_chunks", 0) if is_streamed else 0)
    assert chat(client).choices


def test_the_older_completions_are_served_too(client: openai.OpenAI) -> None:
    plain = client.completions.create(model="m", prompt=["one two", "three"], max_tokens=3)
    chunks = list(client.completions.create(model="m", prompt="one", max_tokens=3, stream=True))

    assert plain.usage is not None
    assert (plain.usage.prompt_tokens, plain.usage.completion_tokens) == (3, 6)
    assert "".join(chunk.choices[0].text for chunk in chunks) == plain.choices[0].text == "This answer was"
    assert chunks[-1].choices[0].finish_reason == "length"


def test_embeddings_are_the_same_for_the_same_text(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="m", input=["one two", "one two", "other"], dimensions=16)
    plain = client.embeddings.create(model="m", input="one two", dimensions=16, encoding_format="float")

    one, same, other = (row.embedding for row in answer.data)
    assert one == same != other
    assert plain.data[0].embedding == pytest.approx(one)
    assert answer.usage.prompt_tokens == 5
    assert client.embeddings.create(model="m", input=[[1, 2, 3]]).usage.prompt_tokens == 3


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": 3}, "model"),
        ({"messages": []}, "messages"),
        ({"n": 0}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"sandbox": []}, "sandbox"),
        ({"sandbox": {"nonsense": 1}}, "sandbox.nonsense"),
        ({"sandbox": {"output_tokens": -1}}, "sandbox.output_tokens"),
        ({"sandbox": {"text": 1}}, "sandbox.text"),
        ({"sandbox": {"report_usage": 1}}, "sandbox.report_usage"),
        ({"sandbox": {"usage": 1}}, "sandbox.usage"),
        ({"sandbox": {"split_bytes": 0}}, "sandbox.split_bytes"),
        ({"sandbox": {"fail": "sometimes"}}, "sandbox.fail"),
        ({"sandbox": {"fail": {"status": 200}}}, "sandbox.fail"),
    ],
)
def test_a_bad_field_is_named(client: openai.OpenAI, body: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "x"}], extra_body=body
        )

    assert caught.value.param == param


def test_odd_messages_are_counted_as_far_as_they_have_text(client: openai.OpenAI) -> None:
    messages: Any = [
        "one",
        {"role": "assistant", "content": None},
        {"content": [{"text": "two words"}, {"text": 3}]},
    ]

    answer = client.chat.completions.create(
        model="m", messages=messages, extra_body={"sandbox": {"text": " "}}
    )

    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 0)
    lengthened = chat(client, sandbox={"text": "", "output_tokens": 2})
    assert lengthened.choices[0].message.content == "word word"


def test_a_large_body_in_many_pieces_is_read_whole(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "word " * 200_000}]
    )

    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 200_000


def test_embeddings_take_the_same_controls(client: openai.OpenAI) -> None:
    def embed(**sandbox: Any) -> Any:
        return client.embeddings.create(model="m", input="x", extra_body={"sandbox": sandbox})

    assert embed(delay_ms=1, usage={"prompt_tokens": -1, "total_tokens": 0}).usage.prompt_tokens == -1
    assert embed(report_usage=False).usage is None
    with pytest.raises(openai.InternalServerError):
        embed(fail={"status": 500})
    with pytest.raises(openai.BadRequestError, match="string or a list"):
        client.post("/embeddings", cast_to=object, body={"model": "m", "input": 3})
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        client.embeddings.create(model="m", input="x", dimensions=0)


def test_an_error_in_a_plain_answer_comes_with_status_200(client: openai.OpenAI) -> None:
    answer = chat(client, sandbox={"fail": "sse_error"})

    assert answer.error["code"] == "sandbox_failure"


def test_a_stream_may_break_before_its_first_event(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIError, match="as it was asked to"):
        list(stream(client, sandbox={"fail": "sse_error", "after_chunks": 0}))


@pytest.mark.parametrize("part", ["all", "half"])
def test_a_client_that_leaves_is_not_written_to(client: openai.OpenAI, base_url: str, part: str) -> None:
    sandbox = {"output_tokens": 1000, "chunk_delay_ms": 50}
    message = {"role": "user", "content": "x"}
    body = json.dumps({"model": "m", "messages": [message], "stream": True, "sandbox": sandbox})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    address = urlsplit(base_url)
    with socket.create_connection((address.hostname or "", address.port or 0)) as connection:
        connection.sendall((head + body).encode()[: None if part == "all" else -5])
        if part == "all":
            assert connection.recv(100)

    assert chat(client).choices


def test_what_is_no_request_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="no JSON"):
        client.post("/chat/completions", cast_to=object, content=b"{")
    with pytest.raises(openai.BadRequestError, match="object"):
        client.post("/chat/completions", cast_to=object, content=b"[]")
    with pytest.raises(openai.NotFoundError):
        client.post("/nothing", cast_to=object, body={})
    assert [model.id for model in client.models.list()] == ["sandbox"]

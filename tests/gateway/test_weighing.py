"""How much input a request is taken to be: what its images add, and what tells routing apart."""

from decimal import Decimal
from typing import Any

import orjson
import pytest

from accounts.models import Plan
from gateway.dialects.chat import Chat
from gateway.dialects.completions import Completions
from gateway.dialects.dialect import Dialect
from gateway.dialects.embeddings import Embeddings
from gateway.dialects.messages import Messages
from gateway.dialects.responses import Responses
from gateway.parsing import Asked
from tests.factories import make_key
from tests.gateway import dialects
from tests.gateway.conftest import Stage

ADDRESS = "https://example.com/cat.png"
SMALL = "data:image/png;base64," + "A" * 78
LARGE = "data:image/png;base64," + "A" * 99_978
IMAGE_TOKENS = 5_000


def _asked(dialect: Dialect, **fields: Any) -> tuple[Asked, int]:
    """What the dialect makes of it, and how many bytes it had."""
    body = orjson.dumps(dialects.body(dialect.endpoint, "m", **fields))
    return dialect.parse(body), len(body)


def _with_image(dialect: Dialect, source: str) -> dict[str, Any]:
    part: dict[str, Any]
    if isinstance(dialect, Responses):
        return {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": source}]}]}
    if isinstance(dialect, Messages):
        is_address = source == ADDRESS
        part = {
            "type": "image",
            "source": {"type": "url", "url": source}
            if is_address
            else {"type": "base64", "media_type": "image/png", "data": source},
        }
    else:
        part = {"type": "image_url", "image_url": {"url": source}}
    return {"messages": [{"role": "user", "content": [part]}]}


@pytest.mark.parametrize("dialect", [Chat(), Responses(), Messages()], ids=lambda one: type(one).__name__)
def test_the_hold_covers_an_image_however_few_bytes_it_has(dialect: Dialect) -> None:
    by_address, size = _asked(dialect, **_with_image(dialect, ADDRESS))
    small, small_size = _asked(dialect, **_with_image(dialect, SMALL))
    large, large_size = _asked(dialect, **_with_image(dialect, LARGE))

    assert by_address.most_input_tokens == size + IMAGE_TOKENS
    assert small.most_input_tokens == small_size + IMAGE_TOKENS - 100
    assert large.most_input_tokens == large_size
    assert all(asked.has_images for asked in (by_address, small, large))


@pytest.mark.parametrize("dialect", [Chat(), Responses(), Messages()], ids=lambda one: type(one).__name__)
def test_an_image_is_likely_to_be_the_same_tokens_whatever_its_bytes(dialect: Dialect) -> None:
    by_address, _ = _asked(dialect, **_with_image(dialect, ADDRESS))
    small, _ = _asked(dialect, **_with_image(dialect, SMALL))
    large, _ = _asked(dialect, **_with_image(dialect, LARGE))

    assert small.input_tokens == large.input_tokens
    assert 1_500 <= large.input_tokens < 1_530
    assert 1_500 <= by_address.input_tokens < 1_530


def test_a_file_counts_its_bytes_and_no_less_than_an_image() -> None:
    file = {"type": "file", "file": {"filename": "a.pdf", "file_data": SMALL}}
    block = {"type": "document", "source": {"type": "base64", "data": SMALL}}
    item = {"type": "input_file", "file_data": LARGE}

    chat, chat_size = _asked(Chat(), messages=[{"role": "user", "content": [file]}])
    message, size = _asked(Messages(), messages=[{"role": "user", "content": [block]}])
    response, _ = _asked(Responses(), input=[{"role": "user", "content": [item]}])

    assert chat.most_input_tokens == chat_size + IMAGE_TOKENS - 100
    assert message.most_input_tokens == size + IMAGE_TOKENS - 100
    assert response.input_characters >= 100_000


def test_text_that_looks_like_an_image_is_still_text() -> None:
    chat, _ = _asked(Chat(), messages=[{"role": "user", "content": LARGE}])
    tool, _ = _asked(
        Chat(), tools=[{"type": "function", "function": {"name": "f", "image_url": {"url": LARGE}}}]
    )
    call = {"type": "tool_use", "input": {"type": "image", "source": {"type": "base64", "data": LARGE}}}
    message, _ = _asked(Messages(), messages=[{"role": "assistant", "content": [call]}])

    assert min(asked.input_characters for asked in (chat, tool, message)) >= 100_000
    assert not message.has_images


def test_each_dialect_tells_routing_what_it_needs_to_know() -> None:
    tools = [{"type": "function", "name": "f", "function": {"name": "f"}}]  # as either of the two writes it
    for dialect in (Chat(), Responses()):
        asked, _ = _asked(dialect, tools=tools, models=["m", "b"])
        assert (asked.uses_tools, asked.has_images, asked.models) == (True, False, ("m", "b"))
        assert asked.model == "m"
    assert _asked(Messages(), tools=[{"name": "f", "input_schema": {}}])[0].uses_tools
    assert _asked(Chat(), functions=[{"name": "f"}])[0].uses_tools
    assert not _asked(Messages(), tools=[])[0].uses_tools
    assert _asked(Messages())[0].output_limit == 100
    assert _asked(Responses())[0].output_limit is None
    assert _asked(Completions(), prompt=["a", "b"], n=2, best_of=3)[0].choices == 6
    assert _asked(Completions(), prompt=[1, 2], max_tokens=None)[0].output_limit == 16


def test_tokens_by_their_numbers_are_four_characters_each() -> None:
    numbers, _ = _asked(Embeddings(), input=[[1, 2, 3], [4]])
    text, _ = _asked(Embeddings(), input="abcd")

    assert (numbers.input_tokens, numbers.context_tokens) == (4, 3)
    assert (text.input_tokens, text.context_tokens) == (1, 1)


def test_an_image_by_address_is_held_for_and_paid_at_what_it_was(stage: Stage) -> None:
    model = stage.model(supports_images=True, **dialects.PREMIUM)
    issued = make_key(stage.account(credit="1"))
    body = dialects.body("chat/completions", model.slug, max_tokens=10, **_with_image(Chat(), ADDRESS))

    response = stage.post(issued.secret, body)

    held = Decimal(response.headers["x-tollgate-held-usd"])
    assert held > Decimal(5_000 * 5_000 + 10 * 25_000).scaleb(-9)
    assert stage.record(response).charged_nanousd == 10 * 25_000


def test_a_large_image_is_no_long_input_on_the_free_plan(stage: Stage) -> None:
    model = stage.model(supports_images=True)
    issued = make_key(stage.account(plan=Plan.BASIC))
    picture = "data:image/png;base64," + "A" * 300_000

    response = stage.post(
        issued.secret, dialects.body("chat/completions", model.slug, **_with_image(Chat(), picture))
    )

    assert response.status_code == 200, response.text

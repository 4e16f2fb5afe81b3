"""Every endpoint, called by the official clients: what they get, what it costs, and what the receipt and books say."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import anthropic
import openai
import pytest

from accounts.models import Account
from billing.models import Wallet
from catalog.models import Model
from tests.factories import make_key
from tests.gateway.conftest import Stage

PREMIUM = {"tier": Model.Tier.PREMIUM, "input_price": "5", "output_price": "25", "cached_price": "0.5"}
EMBEDDING = {**PREMIUM, "kind": Model.Kind.EMBEDDING, "max_output_tokens": None, "output_price": "0"}
CREDIT_NANOUSD = 1_000_000_000
# Three words in, one of them cached, and seven out.
SANDBOX = {"sandbox": {"output_tokens": 7, "cached_tokens": 1, "reasoning_tokens": 2}}
COST_NANOUSD = 2 * 5_000 + 1 * 500 + 7 * 25_000
WORDS = "This answer was written by"


class Caller:
    """An account with a dollar, its key, and the two clients."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.account: Account = stage.account(credit="1")
        self.secret = make_key(self.account).secret
        self.openai = stage.client(self.secret)
        self.anthropic = anthropic.Anthropic(
            api_key=self.secret, base_url=stage.gateway.origin, max_retries=0, timeout=30
        )

    def receipt(self, request_id: str) -> dict[str, Any]:
        data: dict[str, Any] = self.stage.get(f"generation?id={request_id}", self.secret).json()["data"]
        return data

    def has_paid(self, response: Any, *, endpoint: str, cost_nanousd: int = COST_NANOUSD) -> dict[str, Any]:
        """Check the receipt and the wallet; returns the receipt."""
        receipt = self.receipt(response.headers["x-request-id"])
        assert receipt["endpoint"] == endpoint
        assert (receipt["outcome"], receipt["status"], receipt["estimated"]) == ("completed", 200, False)
        assert Decimal(receipt["cost_usd"]) == Decimal(cost_nanousd).scaleb(-9)
        wallet = Wallet.objects.get(account=self.account)
        assert (wallet.balance_nanousd, wallet.held_nanousd) == (CREDIT_NANOUSD - cost_nanousd, 0)
        return receipt


@pytest.fixture
def caller(stage: Stage) -> Iterator[Caller]:
    caller = Caller(stage)
    yield caller
    caller.anthropic.close()


def _costs(shown: object) -> bool:
    return Decimal(str(shown)) == Decimal(COST_NANOUSD).scaleb(-9)


def test_a_chat_is_paid_for_plain_and_streamed_alike(caller: Caller) -> None:
    model = caller.stage.model(**PREMIUM)
    asked: dict[str, Any] = {
        "model": model.slug,
        "messages": [{"role": "user", "content": "three short words"}],
        "extra_body": SANDBOX,
    }

    plain = caller.openai.chat.completions.with_raw_response.create(**asked, max_tokens=50)

    said = plain.parse()
    assert said.choices[0].message.content == WORDS
    receipt = caller.has_paid(plain, endpoint="chat/completions")
    assert (receipt["tokens_prompt"], receipt["tokens_prompt_cached"], receipt["tokens_completion"]) == (
        3,
        1,
        7,
    )
    assert _costs(plain.headers["x-tollgate-cost-usd"])

    stream = caller.openai.chat.completions.with_raw_response.create(
        **asked, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream.parse())

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == WORDS
    assert _costs(chunks[-1].usage.cost_usd)
    assert _costs(caller.receipt(stream.headers["x-request-id"])["cost_usd"])


def test_a_completion_is_paid_for_plain_and_streamed_alike(caller: Caller) -> None:
    model = caller.stage.model(**PREMIUM)
    asked: dict[str, Any] = {"model": model.slug, "prompt": "three short words", "extra_body": SANDBOX}

    plain = caller.openai.completions.with_raw_response.create(**asked)

    assert plain.parse().choices[0].text == WORDS
    assert caller.has_paid(plain, endpoint="completions")["finish_reason"] == "stop"
    assert _costs(plain.headers["x-tollgate-cost-usd"])

    stream = caller.openai.completions.with_raw_response.create(
        **asked, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream.parse())

    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == WORDS
    assert _costs(chunks[-1].usage.cost_usd)
    assert _costs(caller.receipt(stream.headers["x-request-id"])["cost_usd"])


def test_a_completion_without_a_limit_has_the_sixteen_tokens_of_its_protocol(caller: Caller) -> None:
    model = caller.stage.model(**PREMIUM)

    answer = caller.openai.completions.create(model=model.slug, prompt=["one two", "three"])

    assert [choice.finish_reason for choice in answer.choices] == ["length", "length"]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 32


def test_an_embedding_costs_its_input_and_nothing_else(caller: Caller) -> None:
    model = caller.stage.model(**EMBEDDING)

    raw = caller.openai.embeddings.with_raw_response.create(
        model=model.slug, input=["three short words", "and two"], dimensions=8
    )

    answer = raw.parse()
    assert [len(row.embedding) for row in answer.data] == [8, 8]
    receipt = caller.has_paid(raw, endpoint="embeddings", cost_nanousd=5 * 5_000)
    assert (receipt["tokens_prompt"], receipt["tokens_completion"]) == (5, 0)
    assert Decimal(raw.headers["x-tollgate-cost-usd"]) == Decimal("0.000025")


def test_an_embedding_of_token_numbers_counts_them(caller: Caller) -> None:
    model = caller.stage.model(**EMBEDDING)

    one = caller.openai.embeddings.create(model=model.slug, input=[1, 2, 3])
    several = caller.openai.embeddings.create(model=model.slug, input=[[1, 2], [3]])

    assert (one.usage.prompt_tokens, len(one.data)) == (3, 1)
    assert (several.usage.prompt_tokens, len(several.data)) == (3, 2)


def test_each_text_of_a_batch_has_the_models_context_to_itself(caller: Caller) -> None:
    model = caller.stage.model(**EMBEDDING, context_window=100)

    answer = caller.openai.embeddings.create(model=model.slug, input=["a " * 150] * 20)

    assert answer.usage.prompt_tokens == 20 * 150
    with pytest.raises(openai.BadRequestError, match="context of 100"):
        caller.openai.embeddings.create(model=model.slug, input="a" * 500)


def test_a_response_is_paid_for_plain_and_streamed_alike(caller: Caller) -> None:
    model = caller.stage.model(**PREMIUM)
    asked: dict[str, Any] = {"model": model.slug, "input": "short words", "instructions": "three"}

    plain = caller.openai.responses.with_raw_response.create(
        **asked, max_output_tokens=50, extra_body=SANDBOX
    )

    said = plain.parse()
    assert (said.output_text, said.store) == (WORDS, False)
    assert caller.has_paid(plain, endpoint="responses")["finish_reason"] == "completed"
    assert _costs(plain.headers["x-tollgate-cost-usd"])

    with caller.openai.responses.stream(**asked, extra_body=SANDBOX) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        whole = stream.get_final_response()

    assert "".join(deltas) == whole.output_text == WORDS
    assert whole.usage is not None
    assert (whole.usage.input_tokens, whole.usage.output_tokens) == (3, 7)
    assert _costs(whole.usage.cost_usd)  # type: ignore[attr-defined]


def test_a_response_that_the_limit_cuts_is_incomplete_and_paid_for(caller: Caller) -> None:
    model = caller.stage.model(**PREMIUM)

    stream = caller.openai.responses.create(model=model.slug, input="one", max_output_tokens=4, stream=True)
    last = list(stream)[-1]

    assert last.type == "response.incomplete"
    assert last.response.usage is not None
    assert Decimal(last.response.usage.cost_usd) == Decimal(5_000 + 4 * 25_000).scaleb(-9)  # type: ignore[attr-defined]
    assert last.response.incomplete_details is not None
    assert last.response.incomplete_details.reason == "max_output_tokens"


def test_a_message_is_paid_for_plain_and_streamed_alike(caller: Caller) -> None:
    model = caller.stage.model(**PREMIUM)
    asked: dict[str, Any] = {
        "model": model.slug,
        "max_tokens": 50,
        "system": "three",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "short words"}]}],
        "extra_body": SANDBOX,
    }

    plain = caller.anthropic.messages.with_raw_response.create(**asked)

    said = plain.parse()
    assert said.content[0].text == WORDS
    assert (said.usage.input_tokens, said.usage.cache_read_input_tokens) == (2, 1)
    receipt = caller.has_paid(plain, endpoint="messages")
    assert (receipt["tokens_prompt"], receipt["tokens_prompt_cached"], receipt["tokens_completion"]) == (
        3,
        1,
        7,
    )
    assert receipt["finish_reason"] == "end_turn"
    assert _costs(plain.headers["x-tollgate-cost-usd"])

    with caller.anthropic.messages.stream(**asked) as stream:
        text = "".join(stream.text_stream)
        request_id = stream.response.headers["x-request-id"]
        whole = stream.get_final_message()

    assert text == WORDS
    assert (whole.usage.output_tokens, whole.stop_reason) == (7, "end_turn")
    assert _costs(caller.receipt(request_id)["cost_usd"])


def test_the_delta_of_a_message_carries_what_it_cost(caller: Caller) -> None:
    model = caller.stage.model(**PREMIUM)

    stream = caller.anthropic.messages.create(
        model=model.slug,
        max_tokens=50,
        messages=[{"role": "user", "content": "three short words"}],
        extra_body=SANDBOX,
        stream=True,
    )
    *_, delta, stop = list(stream)

    assert (delta.type, stop.type) == ("message_delta", "message_stop")
    assert _costs(delta.usage.cost_usd)  # type: ignore[union-attr]


def test_a_key_works_as_a_bearer_with_anthropics_client_too(caller: Caller) -> None:
    model = caller.stage.model(**PREMIUM)

    with anthropic.Anthropic(
        auth_token=caller.secret, api_key=None, base_url=caller.stage.gateway.origin, max_retries=0
    ) as client:
        answer = client.messages.create(
            model=model.slug, max_tokens=3, messages=[{"role": "user", "content": "one"}]
        )

    assert answer.stop_reason == "max_tokens"


def test_the_first_of_several_models_answers_and_the_list_goes_no_further(caller: Caller) -> None:
    first, second = caller.stage.model(**PREMIUM), caller.stage.model(**PREMIUM)
    message = {"role": "user", "content": "one"}

    listed = caller.stage.post(
        caller.secret, {"models": [first.slug, second.slug], "messages": [message]}
    ).json()
    named = caller.stage.post(
        caller.secret, {"model": second.slug, "models": [first.slug], "messages": [message]}
    ).json()

    assert (listed["model"], named["model"]) == (first.slug, second.slug)

"""Input that an upstream writes to a cache: its price, on holds, records, receipts and in the books."""

import math
from decimal import Decimal
from typing import Any

import orjson
import pytest

from billing.models import Wallet
from gateway.dialects.messages import Messages
from tests.factories import make_key
from tests.gateway import dialects
from tests.gateway.conftest import Stage

WRITES = {**dialects.PREMIUM, "cache_write_price": "6.25"}
# Three words in: one read from a cache, one written to one, one neither.
CACHED = {"output_tokens": 7, "cached_tokens": 1, "cache_write_tokens": 1}
COST_NANOUSD = 5_000 + 500 + 6_250 + 7 * 25_000


@pytest.mark.parametrize("endpoint", dialects.STREAMED)
@pytest.mark.parametrize("is_streamed", [False, True])
def test_what_is_written_to_a_cache_is_paid_for_once_at_its_own_price(
    stage: Stage, endpoint: str, is_streamed: bool
) -> None:
    model = dialects.model_for(stage, endpoint, **WRITES)
    account = stage.account(credit="1")
    secret = make_key(account).secret
    wishes = dialects.streamed(endpoint) if is_streamed else {}

    answer = stage.post(secret, dialects.body(endpoint, model.slug, sandbox=CACHED, **wishes), path=endpoint)

    assert answer.status_code == 200, answer.text
    record = stage.record(answer)
    assert (record.input_tokens, record.cached_input_tokens, record.cache_write_tokens) == (3, 1, 1)
    assert record.cache_write_usd_per_mtok == Decimal("6.25")
    assert record.charged_nanousd == record.cost_nanousd == COST_NANOUSD
    assert Wallet.objects.get(account=account).balance_nanousd == 1_000_000_000 - COST_NANOUSD
    receipt = stage.get(f"generation?id={record.pk}", secret).json()["data"]
    assert (receipt["tokens_cache_write"], receipt["price"]["cache_write_usd_per_mtok"]) == (1, "6.250000")


def test_without_a_price_of_its_own_it_costs_what_input_costs(stage: Stage) -> None:
    model = dialects.model_for(stage, "messages")
    secret = make_key(stage.account(credit="1")).secret

    answer = stage.post(secret, dialects.body("messages", model.slug, sandbox=CACHED), path="messages")

    record = stage.record(answer)
    assert (record.cache_write_tokens, record.cache_write_usd_per_mtok) == (1, Decimal(5))
    assert record.charged_nanousd == 2 * 5_000 + 500 + 7 * 25_000


def test_the_hold_covers_an_input_that_is_written_to_a_cache_as_a_whole(stage: Stage) -> None:
    model = dialects.model_for(stage, "messages", **WRITES)
    secret = make_key(stage.account(credit="1")).secret
    body = orjson.dumps(dialects.body("messages", model.slug, max_tokens=10, sandbox={"output_tokens": 10}))

    answer = stage.post(secret, body, path="messages")

    worst = math.ceil(len(body) * Decimal(6250)) + 10 * 25_000
    assert Decimal(answer.headers["x-tollgate-held-usd"]) == Decimal(worst).scaleb(-9)


def test_nobody_is_let_in_who_could_not_pay_for_the_writing(stage: Stage) -> None:
    """The credit covers the input at its own price, and not at that of a cache."""
    model = dialects.model_for(stage, "messages", **WRITES)
    body = orjson.dumps(dialects.body("messages", model.slug, max_tokens=1))
    credit = Decimal(len(body) * 5_100 + 25_000).scaleb(-9)
    secret = make_key(stage.account(credit=str(credit))).secret

    answer = stage.post(secret, body, path="messages")

    assert (answer.status_code, answer.json()["error"]["code"]) == (402, "insufficient_credits")


def test_more_written_than_there_is_input_is_no_usage(stage: Stage) -> None:
    model = dialects.model_for(stage, "chat/completions", **WRITES)
    secret = make_key(stage.account(credit="1")).secret
    usage = dialects.usage("chat/completions", given=5, written=7, cached=3)
    usage["prompt_tokens_details"]["cache_write_tokens"] = 3

    record = stage.record(
        stage.post(secret, dialects.body("chat/completions", model.slug, sandbox={"usage": usage}))
    )

    assert (record.is_estimated, record.cache_write_tokens) == (True, 0)


HOUR: dict[str, Any] = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
TEXT = {"type": "text", "text": "hi"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        (HOUR, "cache_control.ttl"),
        ({"system": [{**TEXT, **HOUR}]}, "system[0].cache_control.ttl"),
        (
            {"messages": [{"role": "user", "content": [{**TEXT, **HOUR}]}]},
            "messages[0].content[0].cache_control.ttl",
        ),
        ({"tools": [{"name": "f", "input_schema": {}, **HOUR}]}, "tools[0].cache_control.ttl"),
    ],
)
def test_a_cache_for_an_hour_is_refused_for_it_has_another_price(
    stage: Stage, fields: dict[str, Any], param: str
) -> None:
    model = dialects.model_for(stage, "messages", **WRITES)
    secret = make_key(stage.account(credit="1")).secret

    answer = stage.post(secret, dialects.body("messages", model.slug, **fields), path="messages")

    assert dialects.refusal(answer, "messages") == (400, "invalid_request_error", "invalid_value", param)
    assert "'5m'" in answer.json()["error"]["message"]


def test_five_minutes_and_a_tools_own_words_pass() -> None:
    five = {"cache_control": {"type": "ephemeral", "ttl": "5m"}}
    schema = {"properties": {"cache_control": {"ttl": "1h"}}, **HOUR}
    body = dialects.body(
        "messages", "m", system=[{**TEXT, **five}], tools=[{"name": "f", "input_schema": schema}]
    )

    assert Messages().parse(orjson.dumps(body)).document == body


def test_the_catalogue_tells_the_price_of_writing(stage: Stage) -> None:
    model = dialects.model_for(stage, "messages", **WRITES)
    secret = make_key(stage.account()).secret

    pricing = stage.get(f"models/{model.slug}", secret).json()["pricing"]

    assert (pricing["input_cache_read"], pricing["input_cache_write"]) == ("0.0000005", "0.00000625")

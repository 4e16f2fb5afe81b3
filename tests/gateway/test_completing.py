"""A completion through the gateway: what the client gets, what it costs, and what is recorded."""

import json
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import httpx2 as httpx
import psycopg
import pytest

from accounts.models import Plan
from billing.models import Wallet
from catalog.models import Model
from gateway import teller as telling
from tests.factories import make_key, now
from tests.gateway.conftest import Stage, chat, wait_for
from tests.usage import rows
from usage.models import DailyAllowance, UsageRecord

PREMIUM = {"tier": Model.Tier.PREMIUM, "input_price": "5", "output_price": "25", "cached_price": "0.5"}


def test_a_premium_answer_costs_exactly_its_tokens(stage: Stage) -> None:
    model = stage.model(**PREMIUM)
    account = stage.account(credit="20")
    issued = make_key(account)

    answer = stage.client(issued.secret).chat.completions.with_raw_response.create(
        **chat(model, max_tokens=100), extra_body={"sandbox": {"output_tokens": 7, "cached_tokens": 1}}
    )

    usage = answer.parse().usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (3, 7)
    cost = 2 * 5_000 + 1 * 500 + 7 * 25_000
    wallet = Wallet.objects.get(account=account)
    assert wallet.balance_nanousd == 20_000_000_000 - cost
    assert wallet.held_nanousd == 0
    assert Decimal(answer.headers["x-tollgate-cost-usd"]) == Decimal(cost).scaleb(-9)
    record = UsageRecord.objects.get(pk=answer.headers["x-request-id"])
    assert record.charged_nanousd == record.cost_nanousd == cost
    assert (record.input_tokens, record.cached_input_tokens, record.output_tokens) == (3, 1, 7)
    assert (record.outcome, record.status, record.upstream) == ("completed", 200, "sandbox")
    assert record.user_agent == "OpenAI/Python"
    assert record.output_usd_per_mtok == Decimal(25)
    assert not record.is_estimated


def test_a_stream_is_passed_on_and_ends_when_its_usage_is_committed(stage: Stage) -> None:
    model = stage.model(**PREMIUM)
    account = stage.account(credit="1")
    issued = make_key(account)

    stream = stage.client(issued.secret).chat.completions.create(
        **chat(model, max_tokens=50), stream=True, extra_body={"sandbox": {"output_tokens": 5}}
    )
    chunks = list(stream)

    assert len("".join(chunk.choices[0].delta.content or "" for chunk in chunks).split()) == 5
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)
    assert Wallet.objects.get(account=account).balance_nanousd == 1_000_000_000 - (3 * 5_000 + 5 * 25_000)
    record = UsageRecord.objects.get(account=account)
    assert (record.is_streamed, record.outcome, record.output_tokens) == (True, "completed", 5)
    assert record.time_to_first_token_ms is not None


def test_a_stream_with_usage_ends_with_one_chunk_that_carries_the_cost(stage: Stage) -> None:
    model = stage.model(**PREMIUM)
    issued = make_key(stage.account(credit="1"))

    chunks = list(
        stage.client(issued.secret).chat.completions.create(
            **chat(model),
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"sandbox": {"output_tokens": 4, "split_bytes": 3, "text": "Zoë 👩‍👩‍👧 日本 ok"}},
        )
    )

    *rest, last = chunks
    assert all(chunk.choices for chunk in rest)
    assert last.choices == []
    assert last.usage is not None
    usage = last.usage.model_dump()
    assert usage["completion_tokens"] == 4
    assert Decimal(usage["cost_usd"]) == Decimal(3 * 5_000 + 4 * 25_000).scaleb(-9)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in rest) == "Zoë 👩‍👩‍👧 日本 ok"


def test_a_basic_model_draws_on_the_daily_allowance_before_credits(stage: Stage) -> None:
    model = stage.model()
    account = stage.account(credit="1")
    issued = make_key(account)

    response = stage.post(issued.secret, chat(model, max_tokens=100, sandbox={"output_tokens": 20}))

    assert response.status_code == 200
    assert Decimal(response.headers["x-tollgate-cost-usd"]) == 0
    assert Wallet.objects.get(account=account).balance_nanousd == 1_000_000_000
    allowance = DailyAllowance.objects.get(account=account)
    assert (allowance.requests, allowance.tokens, allowance.held_tokens) == (1, 23, 0)
    record = stage.record(response)
    assert (record.allowance_tokens, record.charged_nanousd) == (23, 0)
    assert record.cost_nanousd == 3 * 1_000 + 20 * 2_000


def test_an_allowance_that_is_used_up_goes_on_from_credits_where_there_are_some(stage: Stage) -> None:
    model = stage.model()
    account = stage.account(credit="1")
    issued = make_key(account)
    rows.use_allowance(issued.key, at=now(), tokens=200_000)

    response = stage.post(issued.secret, chat(model, sandbox={"output_tokens": 20}))

    assert response.status_code == 200
    assert Wallet.objects.get(account=account).balance_nanousd == 1_000_000_000 - (3 * 1_000 + 20 * 2_000)


def test_an_allowance_that_is_used_up_refuses_a_free_account_until_midnight(stage: Stage) -> None:
    model = stage.model()
    account = stage.account(plan=Plan.BASIC)
    issued = make_key(account)
    rows.use_allowance(issued.key, at=now(), tokens=200_000)

    response = stage.post(issued.secret, chat(model))

    assert response.status_code == 429
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("insufficient_quota", "daily_allowance_exhausted")
    assert "200,000 of 200,000 tokens" in error["message"]
    assert response.headers["x-should-retry"] == "false"
    assert 0 < int(response.headers["retry-after"]) <= 86_400
    assert stage.record(response).outcome == "refused"


def test_what_remains_of_an_allowance_limits_the_output(stage: Stage) -> None:
    model = stage.model()
    account = stage.account(plan=Plan.BASIC)
    issued = make_key(account)
    rows.use_allowance(issued.key, at=now(), tokens=199_980)

    response = stage.post(issued.secret, chat(model))

    assert response.status_code == 200
    choice = response.json()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert len(choice["message"]["content"].split()) == 20 - 5  # 17 characters of input are about 5 tokens


def test_fields_that_the_gateway_does_not_know_reach_the_upstream(stage: Stage) -> None:
    model = stage.model()
    issued = make_key(stage.account(plan=Plan.BASIC))

    response = stage.post(issued.secret, chat(model, sandbox={"text": "passed on"}, some_future_field=[1]))

    assert response.json()["choices"][0]["message"]["content"] == "passed on"


def test_without_reported_usage_an_estimate_is_billed_and_marked(stage: Stage) -> None:
    model = stage.model(**PREMIUM)
    account = stage.account(credit="1")
    issued = make_key(account)

    for extra in ({"report_usage": False}, {"usage": {"prompt_tokens": -5, "completion_tokens": 1}}):
        response = stage.post(issued.secret, chat(model, sandbox={"text": "x" * 40, **extra}))
        record = stage.record(response)
        assert record.is_estimated
        assert (record.input_tokens, record.output_tokens) == (5, 10)


def test_more_tokens_than_were_held_are_taken_from_what_is_available_and_then_are_our_loss(
    stage: Stage,
) -> None:
    model = stage.model(**PREMIUM)
    account = stage.account(credit="0.01")
    issued = make_key(account)

    response = stage.post(
        issued.secret,
        chat(model, max_tokens=10, sandbox={"usage": {"prompt_tokens": 3, "completion_tokens": 1_000}}),
    )

    record = stage.record(response)
    cost = 3 * 5_000 + 1_000 * 25_000
    assert record.cost_nanousd == cost
    assert record.charged_nanousd == 10_000_000
    assert record.loss_nanousd == cost - 10_000_000
    assert Wallet.objects.get(account=account).balance_nanousd == 0


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ({"fail": {"status": 500, "code": "boom"}}, 502, "upstream_error"),
        ({"fail": {"status": 429, "code": "slow_down"}}, 502, "upstream_error"),
        ({"fail": "connection"}, 502, "upstream_error"),
        ({"fail": "garbage"}, 502, "upstream_error"),
    ],
)
def test_a_failed_upstream_costs_nothing(
    stage: Stage, fault: dict[str, object], status: int, code: str
) -> None:
    model = stage.model(**PREMIUM)
    account = stage.account(credit="1")
    issued = make_key(account)

    response = stage.post(issued.secret, chat(model, sandbox=fault))

    assert response.status_code == status
    assert response.json()["error"]["code"] == code
    record = stage.record(response)
    assert (record.outcome, record.charged_nanousd, record.status) == ("failed", 0, status)
    assert Wallet.objects.get(account=account).available_nanousd == 1_000_000_000


def test_a_mistake_that_only_the_upstream_sees_is_told_in_its_words(stage: Stage) -> None:
    model = stage.model(**PREMIUM)
    issued = make_key(stage.account(credit="1"))

    response = stage.post(issued.secret, chat(model, sandbox={"fail": {"status": 400, "code": "bad_tool"}}))

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "bad_tool"


@pytest.mark.parametrize("fault", ["mid_stream", "sse_error", "garbage"])
def test_a_stream_that_breaks_ends_in_an_error_event_and_bills_what_was_produced(
    stage: Stage, fault: str
) -> None:
    model = stage.model(**PREMIUM)
    account = stage.account(credit="1")
    issued = make_key(account)

    response = stage.post(
        issued.secret,
        chat(model, stream=True, sandbox={"output_tokens": 30, "fail": fault, "chunk_delay_ms": 2}),
    )

    record = stage.record(response)
    assert record.outcome == "failed"
    if response.status_code == 200:
        assert '"upstream_error"' in response.text.rsplit("data: ", 1)[-1]
        assert "[DONE]" not in response.text
        assert record.is_estimated
        assert 0 < record.charged_nanousd < 5 * 5_000 + 60 * 25_000
    else:
        assert record.charged_nanousd == 0


def test_what_came_before_a_stream_broke_is_delivered_and_no_more_is_billed(stage: Stage) -> None:
    model = stage.model(**PREMIUM)
    account = stage.account(credit="10")
    issued = make_key(account)

    response = stage.post(
        issued.secret,
        chat(
            model, stream=True, sandbox={"output_tokens": 3_000, "fail": "sse_error", "after_chunks": 1_000}
        ),
    )

    record = stage.record(response)
    events = [line for line in response.text.split("\n\n") if '"content":' in line]
    assert len(events) >= 990
    delivered = sum(len(json.loads(event[6:])["choices"][0]["delta"].get("content", "")) for event in events)
    assert record.output_tokens == -(-delivered // 4)


def test_whatever_an_upstream_writes_into_its_texts_a_request_comes_to_its_end(stage: Stage) -> None:
    model = stage.model(**PREMIUM)
    account = stage.account(credit="1")
    issued = make_key(account)

    response = stage.post(
        issued.secret, chat(model, sandbox={"fail": {"status": 400, "code": "a\0b" + "c" * 100}})
    )

    assert response.status_code == 400
    record = stage.record(response)
    assert record.error_code.startswith("abc")
    assert Wallet.objects.get(account=account).held_nanousd == 0


def test_an_answer_whose_settlement_waits_in_the_journal_says_what_it_will_cost(stage: Stage) -> None:
    model = stage.model(**PREMIUM)
    account = stage.account(credit="1")
    issued = make_key(account)

    with (
        ThreadPoolExecutor(1) as pool,
        psycopg.connect(autocommit=True, **telling.connection_parameters()) as other,
    ):
        calling = pool.submit(
            stage.post, issued.secret, chat(model, sandbox={"output_tokens": 10, "delay_ms": 1_000})
        )
        wait_for(lambda: Wallet.objects.get(account=account).held_nanousd > 0)
        other.execute("BEGIN")
        other.execute("SELECT 1 FROM billing_wallet FOR UPDATE")
        response = calling.result()
        other.execute("ROLLBACK")

    cost = 3 * 5_000 + 10 * 25_000
    assert response.status_code == 200
    assert Decimal(response.headers["x-tollgate-cost-usd"]) == Decimal(cost).scaleb(-9)
    assert stage.record(response).charged_nanousd == cost


def test_a_client_that_leaves_is_billed_for_what_the_upstream_produced(stage: Stage) -> None:
    model = stage.model(**PREMIUM)
    account = stage.account(credit="1")
    issued = make_key(account)

    with httpx.stream(
        "POST",
        f"{stage.url}/chat/completions",
        headers={"authorization": f"Bearer {issued.secret}"},
        json=chat(model, stream=True, sandbox={"output_tokens": 20, "chunk_delay_ms": 10}),
    ) as response:
        next(response.iter_bytes())

    wait_for(lambda: UsageRecord.objects.filter(account=account).exists())
    record = UsageRecord.objects.get(account=account)
    assert (record.output_tokens, record.is_estimated) == (20, False)
    assert record.charged_nanousd == 3 * 5_000 + 20 * 25_000


def test_a_request_without_a_limit_gets_what_the_wallet_affords(stage: Stage) -> None:
    model = stage.model(**PREMIUM)
    account = stage.account(credit="0.002")
    issued = make_key(account)

    response = stage.post(issued.secret, chat(model))

    assert response.status_code == 200
    held = Decimal(response.headers["x-tollgate-held-usd"])
    assert Decimal("0.0018") < held <= Decimal("0.002")
    assert Wallet.objects.get(account=account).held_nanousd == 0

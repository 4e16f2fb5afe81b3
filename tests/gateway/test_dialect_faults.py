"""What goes wrong upstream, in each dialect: what the client hears, and what it pays."""

from decimal import Decimal
from typing import Any

import anthropic
import httpx2 as httpx
import openai
import pytest

from billing.models import Wallet
from tests.factories import make_key
from tests.gateway import dialects
from tests.gateway.conftest import Stage, wait_for
from usage.models import UsageRecord

CREDIT_NANOUSD = 1_000_000_000
EMOJI = "Zoë 👩‍👩‍👧 naïve 日本語 ok"


def _post(stage: Stage, secret: str, endpoint: str, model: str, **fields: Any) -> httpx.Response:
    return stage.post(secret, dialects.body(endpoint, model, **fields), path=endpoint)


def _is_error(endpoint: str, event: tuple[str, Any]) -> bool:
    """Whether the event is an error in the dialect's own shape, and ours."""
    name, data = event
    if endpoint == "responses":
        is_its_own = (name, data["type"]) == ("error", "error") and data["sequence_number"] > 0
        return is_its_own and data["code"] in ("upstream_error", "upstream_timeout")
    if endpoint == "messages":
        is_its_own = (name, data["type"]) == ("error", "error") and bool(data["request_id"])
        return is_its_own and data["error"]["type"] == "api_error"
    return name == "" and data["error"]["code"] == "upstream_error"


@pytest.mark.parametrize("fault", ["mid_stream", "sse_error", "garbage"])
@pytest.mark.parametrize("endpoint", dialects.STREAMED)
def test_a_stream_that_breaks_ends_in_the_dialects_own_error_and_bills_what_came(
    stage: Stage, endpoint: str, fault: str
) -> None:
    model = dialects.model_for(stage, endpoint)
    account = stage.account(credit="1")
    secret = make_key(account).secret

    response = _post(
        stage,
        secret,
        endpoint,
        model.slug,
        **dialects.streamed(endpoint),
        sandbox={"output_tokens": 30, "fail": fault, "after_chunks": 12, "chunk_delay_ms": 2},
    )

    told = dialects.events(response.text)
    assert _is_error(endpoint, told[-1])
    assert "cost_usd" not in response.text
    assert "[DONE]" not in response.text
    record = stage.record(response)
    assert (record.outcome, record.status, record.error_code) == ("failed", 200, "upstream_error")
    assert record.is_estimated
    # Words of about five letters, of which at most a dozen came.
    assert 5 <= record.output_tokens <= 20
    # Anthropic has told its input by then; the others tell it at the end.
    assert record.input_tokens == (3 if endpoint == "messages" else 5)
    assert Wallet.objects.get(account=account).balance_nanousd == CREDIT_NANOUSD - record.charged_nanousd


@pytest.mark.parametrize("fault", ["connection", "garbage", "sse_error", "mid_stream", {"status": 503}])
@pytest.mark.parametrize("endpoint", dialects.ENDPOINTS)
def test_an_answer_that_is_none_costs_nothing(stage: Stage, endpoint: str, fault: Any) -> None:
    model = dialects.model_for(stage, endpoint)
    account = stage.account(credit="1")

    response = _post(stage, make_key(account).secret, endpoint, model.slug, sandbox={"fail": fault})

    assert dialects.refusal(response, endpoint)[:3] == (502, "api_error", "upstream_error")
    assert stage.record(response).charged_nanousd == 0
    wallet = Wallet.objects.get(account=account)
    assert (wallet.balance_nanousd, wallet.held_nanousd) == (CREDIT_NANOUSD, 0)


@pytest.mark.parametrize("endpoint", dialects.STREAMED)
def test_a_stream_that_never_began_is_refused_as_one_answer(stage: Stage, endpoint: str) -> None:
    model = dialects.model_for(stage, endpoint)
    secret = make_key(stage.account(credit="1")).secret

    response = _post(
        stage,
        secret,
        endpoint,
        model.slug,
        stream=True,
        sandbox={"fail": "sse_error", "after_chunks": 0},
    )

    assert dialects.refusal(response, endpoint)[:3] == (502, "api_error", "upstream_error")
    assert stage.record(response).charged_nanousd == 0


@pytest.mark.parametrize("endpoint", dialects.STREAMED)
def test_a_stream_split_at_any_byte_arrives_whole_and_costs_the_same(stage: Stage, endpoint: str) -> None:
    model = dialects.model_for(stage, endpoint)
    secret = make_key(stage.account(credit="1")).secret
    sandbox = {"text": EMOJI, "cached_tokens": 1}

    whole = _post(stage, secret, endpoint, model.slug, **dialects.streamed(endpoint), sandbox=sandbox)
    split = _post(
        stage,
        secret,
        endpoint,
        model.slug,
        **dialects.streamed(endpoint),
        sandbox={**sandbox, "split_bytes": 7},
    )

    for response in (whole, split):
        shown = dialects.shown_usage(endpoint, response.text)
        cost = Decimal(2 * 5_000 + 500 + 5 * 25_000).scaleb(-9)
        assert Decimal(shown["cost_usd"]) == cost
        record = stage.record(response)
        assert (record.input_tokens, record.cached_input_tokens, record.output_tokens) == (3, 1, 5)
        assert Decimal(record.charged_nanousd).scaleb(-9) == cost
    assert all(word in split.text for word in EMOJI.split())


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("endpoint", dialects.STREAMED)
def test_missing_and_absurd_usage_is_estimated_marked_and_shown(
    stage: Stage, endpoint: str, is_streamed: bool
) -> None:
    model = dialects.model_for(stage, endpoint)
    secret = make_key(stage.account(credit="1")).secret
    asked = dialects.streamed(endpoint) if is_streamed else {}
    absurd: list[dict[str, Any]] = [
        {"report_usage": False},
        *[
            {"usage": dialects.usage(endpoint, **figures)}
            for figures in (
                {"given": -5, "written": 1},
                {"given": 10**12, "written": 1},
                {"given": True, "written": 1},
                {"given": 3.5, "written": 1},
                {"given": "3", "written": 1},
                {"given": 3, "written": 1, "cached": -1},
                # What the model cannot have used, with a window of 100,000 tokens and at most 10,000 written.
                {"given": 200_001, "written": 1},
                {"given": 5, "written": 10_001},
            )
        ],
    ]

    for sandbox in absurd:
        response = _post(stage, secret, endpoint, model.slug, **asked, sandbox={"text": "x" * 40, **sandbox})
        record = stage.record(response)
        assert record.is_estimated, sandbox
        assert (record.input_tokens, record.output_tokens, record.cached_input_tokens) == (5, 10, 0), sandbox
        if is_streamed:
            shown = dialects.shown_usage(endpoint, response.text)
            assert Decimal(shown["cost_usd"]) == Decimal(5 * 5_000 + 10 * 25_000).scaleb(-9)
            assert 10 in shown.values()


@pytest.mark.parametrize("endpoint", dialects.STREAMED)
def test_as_much_as_the_model_can_use_is_believed(stage: Stage, endpoint: str) -> None:
    model = dialects.model_for(stage, endpoint)
    secret = make_key(stage.account(credit="5")).secret
    most = dialects.usage(endpoint, given=200_000, written=10_000)

    for asked in ({}, dialects.streamed(endpoint)):
        record = stage.record(_post(stage, secret, endpoint, model.slug, **asked, sandbox={"usage": most}))
        assert (record.input_tokens, record.output_tokens, record.is_estimated) == (200_000, 10_000, False)


@pytest.mark.parametrize("endpoint", dialects.STREAMED)
def test_a_zero_that_is_reported_is_zero(stage: Stage, endpoint: str) -> None:
    model = dialects.model_for(stage, endpoint)
    account = stage.account(credit="1")
    secret = make_key(account).secret
    zero = dialects.usage(endpoint, given=3, written=0)

    for asked in ({}, dialects.streamed(endpoint)):
        response = _post(stage, secret, endpoint, model.slug, **asked, sandbox={"usage": zero})
        record = stage.record(response)
        assert (record.output_tokens, record.charged_nanousd, record.is_estimated) == (0, 0, False)
    assert Wallet.objects.get(account=account).balance_nanousd == CREDIT_NANOUSD


def test_embeddings_without_usage_are_estimated_and_paid_for(stage: Stage) -> None:
    model = dialects.model_for(stage, "embeddings")
    secret = make_key(stage.account(credit="1")).secret

    for sandbox in ({"report_usage": False}, {"usage": {"prompt_tokens": -1}}):
        response = _post(stage, secret, "embeddings", model.slug, sandbox=sandbox)
        record = stage.record(response)
        assert (record.is_estimated, record.input_tokens, record.charged_nanousd) == (True, 5, 5 * 5_000)


@pytest.mark.parametrize("endpoint", dialects.STREAMED)
def test_a_client_that_leaves_pays_for_what_the_upstream_wrote(stage: Stage, endpoint: str) -> None:
    model = dialects.model_for(stage, endpoint)
    account = stage.account(credit="1")
    secret = make_key(account).secret
    asked = dialects.body(
        endpoint, model.slug, stream=True, sandbox={"output_tokens": 20, "chunk_delay_ms": 5}
    )

    with httpx.stream(
        "POST", f"{stage.url}/{endpoint}", headers={"authorization": f"Bearer {secret}"}, json=asked
    ) as response:
        next(response.iter_bytes())

    wait_for(lambda: UsageRecord.objects.filter(account=account).exists())
    record = UsageRecord.objects.get(account=account)
    assert (record.output_tokens, record.is_estimated) == (20, False)
    assert record.charged_nanousd == 3 * 5_000 + 20 * 25_000


def test_the_official_clients_raise_on_a_stream_that_breaks(stage: Stage) -> None:
    model = stage.model(**dialects.PREMIUM)
    secret = make_key(stage.account(credit="1")).secret
    breaking = {"sandbox": {"output_tokens": 30, "fail": "sse_error", "after_chunks": 12}}

    with pytest.raises(openai.APIError, match="reported an error"):
        list(
            stage.client(secret).chat.completions.create(
                model=model.slug,
                messages=[{"role": "user", "content": "hi"}],
                stream=True,
                extra_body=breaking,
            )
        )
    *_, last = stage.client(secret).responses.create(
        model=model.slug, input="hi", stream=True, extra_body=breaking
    )
    assert last.type == "error"
    assert last.code == "upstream_error"
    with (
        anthropic.Anthropic(api_key=secret, base_url=stage.gateway.origin, max_retries=0) as client,
        pytest.raises(anthropic.APIStatusError, match="upstream_error"),
        client.messages.stream(
            model=model.slug,
            max_tokens=50,
            messages=[{"role": "user", "content": "hi"}],
            extra_body=breaking,
        ) as stream,
    ):
        stream.until_done()

"""`Idempotency-Key`: one answer, one upstream call and one charge, however often the request comes."""

import datetime as dt
import uuid
from collections import Counter
from typing import Any

import httpx2 as httpx
import pytest
import redis
from django.conf import settings

from billing.models import Wallet
from catalog.models import Model
from tests.concurrency import in_parallel
from tests.factories import make_key, now
from tests.gateway import dialects
from tests.gateway.conftest import INVALID, QUOTA, Stage, chat, refused, wait_for
from usage.models import IdempotencyClaim, UsageRecord

PREMIUM = {"tier": Model.Tier.PREMIUM, "input_price": "5", "output_price": "25"}
CREDIT = 10_000_000_000
COST = 3 * 5_000 + 2 * 25_000


class Shop:
    """An account with a key and $10, and a premium model."""

    def __init__(self, stage: Stage, *, credit: str = "10", **limits: Any) -> None:
        self.stage = stage
        self.model = stage.model(**PREMIUM)
        self.account = stage.account(credit=credit)
        self.secret = make_key(self.account, **limits).secret

    def body(self, content: str = "three short words", **fields: Any) -> dict[str, Any]:
        return chat(self.model, content, **{"max_tokens": 2, "sandbox": {"output_tokens": 2}, **fields})

    def post(self, key: str, body: Any = None, **options: Any) -> httpx.Response:
        return self.stage.post(
            self.secret, body or self.body(), headers={"idempotency-key": key.encode("latin-1")}, **options
        )

    def spent(self) -> int:
        wallet = Wallet.objects.get(account=self.account)
        assert wallet.held_nanousd == 0
        return CREDIT - wallet.balance_nanousd

    def outcomes(self) -> Counter[str]:
        return Counter(UsageRecord.objects.filter(account=self.account).values_list("outcome", flat=True))


@pytest.fixture
def shop(stage: Stage) -> Shop:
    return Shop(stage)


def same(first: httpx.Response, again: httpx.Response) -> bool:
    """Whether the second answer is the first one, and says so. The sandbox never gives the same id twice."""
    names = ("content-type", "x-request-id", "x-tollgate-model", "x-tollgate-upstream", "x-tollgate-cost-usd")
    assert "x-tollgate-idempotent-replay" not in first.headers
    assert again.headers["x-tollgate-idempotent-replay"] == "true"
    assert [first.headers.get(name) for name in names] == [again.headers.get(name) for name in names]
    return (first.status_code, first.content) == (again.status_code, again.content)


@pytest.mark.parametrize("path", ["chat/completions", "completions", "messages", "responses"])
@pytest.mark.parametrize("is_streamed", [False, True], ids=["JSON", "stream"])
def test_a_request_that_comes_again_gets_the_same_answer_and_is_charged_once(
    shop: Shop, path: str, is_streamed: bool
) -> None:
    limit = "max_output_tokens" if path == "responses" else "max_tokens"
    body = dialects.body(path, shop.model.slug, sandbox={"output_tokens": 2}, **{limit: 2})
    body["stream"] = is_streamed

    first, *others = [shop.post("once", body, path=path) for _ in range(3)]

    assert first.status_code == 200
    assert all(same(first, again) for again in others)
    assert shop.spent() == COST
    assert shop.outcomes() == {"completed": 1}
    receipt = shop.stage.get(f"generation?id={others[0].headers['x-request-id']}", shop.secret)
    assert receipt.json()["data"]["cost_usd"] == f"{COST / 1e9:.9f}"


def test_another_key_is_another_request(shop: Shop) -> None:
    first, second = shop.post("one"), shop.post("two")

    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert "x-tollgate-idempotent-replay" not in second.headers
    assert shop.spent() == 2 * COST


def test_a_key_belongs_to_the_api_key_that_sent_it(shop: Shop) -> None:
    first = shop.post("mine")
    shop.secret = make_key(shop.account).secret
    other = shop.post("mine")

    assert first.headers["x-request-id"] != other.headers["x-request-id"]
    assert shop.spent() == 2 * COST


def test_the_same_key_with_another_body_or_endpoint_is_refused(shop: Shop) -> None:
    shop.post("taken")

    other_body = shop.post("taken", shop.body("other words are here"))
    other_endpoint = shop.post("taken", path="messages")

    refused(other_body, 422, "idempotency_mismatch", type=INVALID, param="Idempotency-Key")
    assert other_endpoint.status_code == 422
    assert other_endpoint.json()["error"]["code"] == "idempotency_mismatch"
    assert shop.spent() == COST


@pytest.mark.parametrize("key", ["", "two words", "x" * 256, "gr\xfcn"])
def test_a_key_that_is_none_is_refused(shop: Shop, key: str) -> None:
    message = refused(shop.post(key), 400, "invalid_value", type=INVALID, param="Idempotency-Key")

    assert "1 to 255 visible ASCII characters" in message
    assert shop.post("x" * 255).status_code == 200


def test_while_the_first_one_runs_the_second_is_told_to_wait(shop: Shop) -> None:
    slow = shop.body(stream=True, sandbox={"output_tokens": 2, "chunk_delay_ms": 300})
    answers = in_parallel(lambda _: shop.post("busy", slow), times=3)

    assert sorted(answer.status_code for answer in answers) == [200, 409, 409]
    for answer in answers:
        if answer.status_code == 409:
            refused(answer, 409, "idempotency_in_progress", type=INVALID, param="Idempotency-Key")
            assert answer.headers["retry-after"] == "1"
    assert shop.spent() == COST


def test_the_official_client_waits_and_gets_the_answer(shop: Shop) -> None:
    client = shop.stage.client(shop.secret, max_retries=5)

    def ask(_: int) -> str:
        answer = client.chat.completions.create(
            model=shop.model.slug,
            messages=[{"role": "user", "content": "three short words"}],
            max_tokens=2,
            extra_body={"sandbox": {"output_tokens": 2, "delay_ms": 400}},
            extra_headers={"Idempotency-Key": "sdk"},
        )
        return answer.id

    assert len(set(in_parallel(ask, times=4))) == 1
    assert shop.spent() == COST


def test_a_request_that_failed_may_be_sent_again(shop: Shop) -> None:
    failing = shop.body(sandbox={"fail": {"status": 503}})

    first, second = shop.post("failing", failing), shop.post("failing", failing)

    assert (first.status_code, second.status_code) == (502, 502)
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert shop.post("failing").status_code == 200
    assert shop.spent() == COST


def test_a_request_that_was_refused_leaves_its_key_free(stage: Stage) -> None:
    poor = Shop(stage, credit="0")

    refused(poor.post("poor"), 402, "insufficient_credits", type=QUOTA)

    assert not IdempotencyClaim.objects.filter(key__account=poor.account).exists()


def test_an_account_without_credit_still_gets_the_answer_that_it_paid_for(stage: Stage) -> None:
    shop = Shop(stage, credit="0.01")
    first = shop.post("last-cent")
    assert shop.post("all", shop.body(sandbox={"output_tokens": 1_000})).status_code == 200
    refused(shop.post("too-late"), 402, "insufficient_credits", type=QUOTA)

    assert same(first, shop.post("last-cent"))


def test_the_minute_does_not_count_a_repetition_nor_one_that_is_refused(stage: Stage) -> None:
    shop = Shop(stage, tokens_per_minute=1_000, requests_per_minute=3)
    shop.post("counted")
    again = shop.post("counted")
    refused = [shop.post("counted", shop.body("other words are here")) for _ in range(3)]

    after = shop.post("next")

    assert again.headers["x-ratelimit-remaining-requests"] == "2"
    assert again.headers["x-ratelimit-remaining-tokens"] == str(1_000 - 5)
    assert [answer.status_code for answer in refused] == [422, 422, 422]
    # One ended with 3 + 2 tokens; the other counts its estimate: 5 of input and 2 of output.
    assert after.headers["x-ratelimit-remaining-requests"] == "1"
    assert after.headers["x-ratelimit-remaining-tokens"] == str(1_000 - 5 - 7)


def test_a_repetition_needs_room_in_the_minute(stage: Stage) -> None:
    shop = Shop(stage, requests_per_minute=1)
    shop.post("counted")

    assert shop.post("counted").json()["error"]["code"] == "rate_limit_exceeded"


def test_a_repetition_needs_its_model_no_more(shop: Shop) -> None:
    first = shop.post("kept")
    shop.model.is_enabled = False
    shop.model.save()
    wait_for(lambda: shop.post(str(uuid.uuid4())).status_code == 404)
    spent = shop.spent()

    assert same(first, shop.post("kept"))
    refused(
        shop.post("kept", shop.body("other words")),
        422,
        "idempotency_mismatch",
        type=INVALID,
        param="Idempotency-Key",
    )
    assert shop.spent() == spent


def test_a_repetition_needs_no_upstream_that_is_well(shop: Shop) -> None:
    first = shop.post("kept")
    failing = shop.body(sandbox={"fail": {"status": 503}})
    wait_for(lambda: shop.post(str(uuid.uuid4()), failing).status_code == 503)

    assert same(first, shop.post("kept"))
    refused(shop.post("another"), 503, "temporarily_unavailable", type="api_error")
    assert shop.spent() == COST


def test_a_client_that_left_comes_back_for_the_whole_stream(shop: Shop) -> None:
    body = shop.body(stream=True, max_tokens=20, sandbox={"output_tokens": 20, "chunk_delay_ms": 20})
    url, headers = f"{shop.stage.url}/chat/completions", {"idempotency-key": "left"}
    headers["authorization"] = f"Bearer {shop.secret}"
    with httpx.Client() as client, client.stream("POST", url, json=body, headers=headers) as answer:
        next(answer.iter_bytes())
    wait_for(lambda: shop.outcomes() == {"completed": 1})

    again = shop.post("left", body)

    assert again.headers["x-tollgate-idempotent-replay"] == "true"
    assert again.headers["x-request-id"] == answer.headers["x-request-id"]
    assert again.text.endswith("data: [DONE]\n\n")
    assert again.text.count('"content"') >= 20
    assert shop.spent() == 3 * 5_000 + 20 * 25_000


def test_an_answer_that_is_gone_is_not_made_again(shop: Shop) -> None:
    first = shop.post("forgotten")
    request_id = first.headers["x-request-id"]
    redis.Redis.from_url(settings.REDIS_URL).delete(f"answer:{request_id}")

    assert shop.post("forgotten").json()["error"]["code"] == "idempotency_in_progress"
    UsageRecord.objects.filter(pk=request_id).update(ended_at=now() - dt.timedelta(seconds=10))
    gone = shop.post("forgotten")

    message = refused(gone, 409, "idempotency_answer_gone", type=INVALID, param="Idempotency-Key")
    assert f"/v1/generation?id={request_id}" in message
    assert gone.headers["x-should-retry"] == "false"
    assert shop.spent() == COST


@pytest.mark.parametrize(
    ("is_streamed", "words"), [(False, 1_000_000), (True, 30_000)], ids=["JSON", "stream"]
)
def test_an_answer_of_more_than_four_mebibytes_is_not_kept(
    stage: Stage, is_streamed: bool, words: int
) -> None:
    shop = Shop(stage, credit="100")

    answer = shop.post("long", shop.body(stream=is_streamed, sandbox={"output_tokens": words}))

    assert answer.status_code == 200
    assert len(answer.content) > 4 * 1024 * 1024
    assert not redis.Redis.from_url(settings.REDIS_URL).exists(f"answer:{answer.headers['x-request-id']}")


def test_what_is_kept_expires_after_a_day(shop: Shop) -> None:
    request_id = shop.post("a-day").headers["x-request-id"]

    left_s = redis.Redis.from_url(settings.REDIS_URL).ttl(f"answer:{request_id}")

    assert 24 * 3600 - 60 < left_s <= 24 * 3600


def test_without_the_header_nothing_is_kept(shop: Shop) -> None:
    request_id = shop.stage.post(shop.secret, shop.body()).headers["x-request-id"]

    assert not redis.Redis.from_url(settings.REDIS_URL).exists(f"answer:{request_id}")
    assert not IdempotencyClaim.objects.filter(key__account=shop.account).exists()

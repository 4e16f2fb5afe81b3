"""The sliding minute of a key: exact over processes, in Redis and without it."""

import datetime as dt
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from django.conf import settings

from accounts.models import Plan
from gateway.counted import duration
from tests.factories import make_key, now
from tests.gateway.conftest import Stage, chat, refused
from tests.usage import rows
from usage.models import MinuteGap


def test_of_twenty_parallel_requests_ten_a_minute_are_served(stage: Stage) -> None:
    model = stage.model()
    issued = make_key(stage.account(plan=Plan.BASIC))

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: stage.post(issued.secret, chat(model, max_tokens=5)), range(20)))

    assert sorted(answer.status_code for answer in answers) == [200] * 10 + [429] * 10
    refusal = next(answer for answer in answers if answer.status_code == 429)
    assert refusal.json()["error"]["type"] == "requests"
    assert refusal.json()["error"]["code"] == "rate_limit_exceeded"
    assert refusal.headers["x-ratelimit-limit-requests"] == "10"
    assert refusal.headers["x-ratelimit-remaining-requests"] == "0"
    assert 50 <= int(refusal.headers["retry-after"]) <= 61
    assert int(refusal.headers["retry-after-ms"]) <= 61_000


def test_success_counts_down_what_remains(stage: Stage) -> None:
    model = stage.model()
    issued = make_key(stage.account(), requests_per_minute=5, tokens_per_minute=10_000)

    first, second = (stage.post(issued.secret, chat(model, max_tokens=100)) for _ in range(2))

    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in (first, second)] == ["4", "3"]
    assert first.headers["x-ratelimit-remaining-tokens"] == str(10_000 - 105)


def test_separate_keys_are_separate_buckets(stage: Stage) -> None:
    model = stage.model()
    account = stage.account()
    one, other = (make_key(account, requests_per_minute=1) for _ in range(2))

    assert stage.post(one.secret, chat(model)).status_code == 200
    assert stage.post(one.secret, chat(model)).status_code == 429
    assert stage.post(other.secret, chat(model)).status_code == 200


def test_tokens_are_counted_by_estimate_and_corrected_by_what_was_used(stage: Stage) -> None:
    model = stage.model()
    issued = make_key(stage.account(), tokens_per_minute=500)
    body = chat(model, max_tokens=300, sandbox={"output_tokens": 10})

    first = stage.post(issued.secret, body)
    second = stage.post(issued.secret, body)

    assert (first.status_code, second.status_code) == (200, 200)
    assert int(first.headers["x-ratelimit-remaining-tokens"]) == 500 - 305
    assert int(second.headers["x-ratelimit-remaining-tokens"]) == 500 - 13 - 305


def test_a_request_that_can_never_fit_is_not_told_to_wait(stage: Stage) -> None:
    model = stage.model()
    issued = make_key(stage.account(), tokens_per_minute=500)

    response = stage.post(issued.secret, chat(model, max_tokens=600))

    assert response.json()["error"]["type"] == "tokens"
    message = response.json()["error"]["message"]
    assert "has used 0 and this request counts 605" in message
    assert "make it smaller, ask for at most max_tokens=495, which would fit now" in message
    assert "Wait" not in message
    assert response.headers["x-should-retry"] == "false"
    assert response.headers["retry-after"]


def test_a_request_that_does_not_fit_now_is_told_what_it_counts_and_what_would_fit(stage: Stage) -> None:
    model = stage.model()
    issued = make_key(stage.account(), tokens_per_minute=500)
    assert stage.post(issued.secret, chat(model, max_tokens=300, n=1)).status_code == 200
    used = 500 - int(stage.get("key", issued.secret).headers["x-ratelimit-remaining-tokens"])

    message = stage.post(issued.secret, chat(model, max_tokens=490)).json()["error"]["message"]

    assert f"has used {used} and this request counts 495. Wait" in message
    fits = 500 - used - 5
    assert f"ask for at most max_tokens={fits}, which would fit now" in message
    assert stage.post(issued.secret, chat(model, max_tokens=fits)).status_code == 200


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (None, ("The Basic plan gives each key 10 requests a minute", "move the account to a larger plan")),
        (10, ("The Basic plan gives each key 10 requests a minute", "move the account to a larger plan")),
        (9, ("This key's own limit is 9 requests a minute", "raise the key's limit")),
    ],
)
def test_a_refusal_says_whose_limit_it_is(stage: Stage, own: int | None, said: tuple[str, str]) -> None:
    model = stage.model()
    issued = make_key(stage.account(plan=Plan.BASIC), requests_per_minute=own)

    answers = [stage.post(issued.secret, chat(model, max_tokens=2)) for _ in range(11)]

    assert answers[8].status_code == 200
    message = refused(answers[10], 429, "rate_limit_exceeded", type="requests")
    assert all(words in message for words in said), message


def test_a_refused_request_is_not_counted(stage: Stage) -> None:
    model = stage.model(tier="premium")
    issued = make_key(stage.account(), requests_per_minute=1, tokens_per_minute=500)

    refused = [stage.post(issued.secret, chat(model, max_tokens=400)) for _ in range(3)]

    assert [answer.status_code for answer in refused] == [402, 402, 402]
    minute = stage.get("key", issued.secret).headers
    assert minute["x-ratelimit-remaining-requests"] == "1"
    assert minute["x-ratelimit-remaining-tokens"] == "500"


def test_the_refusal_of_an_exhausted_day_shows_the_minute_without_the_request(stage: Stage) -> None:
    model = stage.model()
    account = stage.account(plan=Plan.BASIC)
    issued = make_key(account)
    rows.use_allowance(issued.key, at=now(), requests=7_200)

    refused = [stage.post(issued.secret, chat(model, max_tokens=5)) for _ in range(2)]

    assert [answer.json()["error"]["code"] for answer in refused] == ["daily_allowance_exhausted"] * 2
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in refused] == ["10", "10"]


def test_what_redis_has_missed_is_counted_and_shown(stage: Stage) -> None:
    model = stage.model()
    issued = make_key(stage.account(), requests_per_minute=5)
    stage.post(issued.secret, chat(model))
    redis.Redis.from_url(settings.REDIS_URL).delete(f"minute:{{{issued.key.pk}}}")
    MinuteGap.objects.create(key_id=issued.key.pk, ends_at=now() + dt.timedelta(minutes=1))

    shown = stage.get("key", issued.secret)
    served = stage.post(issued.secret, chat(model))

    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in (shown, served)] == ["4", "3"]


def test_a_key_that_nothing_limits_is_told_of_no_limit(stage: Stage) -> None:
    model = stage.model()
    issued = make_key(stage.account())
    Plan.objects.filter(slug=Plan.PAY_AS_YOU_GO).update(requests_per_minute=None, tokens_per_minute=None)

    answers = [stage.post(issued.secret, chat(model)), stage.get("key", issued.secret)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert not [name for answer in answers for name in answer.headers if name.startswith("x-ratelimit")]


def test_durations_read_as_openai_writes_them() -> None:
    assert [duration(ms) for ms in (0, 12, 1_500, 60_000, 359_999)] == [
        "0ms",
        "12ms",
        "1.5s",
        "1m0s",
        "5m59s",
    ]

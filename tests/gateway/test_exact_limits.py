"""Requests and tokens a minute are counted exactly, over all processes."""

import datetime as dt
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from accounts.models import Plan
from catalog.models import Model
from keys import policies
from tests.factories import make_key
from tests.gateway.conftest import Stage, chat, wait_for
from usage.models import MinuteGap, UsageRecord

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("four processes")]

# "three short words" has 17 characters: five tokens by the estimate, three by the sandbox.
ESTIMATED_INPUT, USED_INPUT = 5, 3
LIMIT = 1_000


def test_of_twenty_parallel_requests_at_ten_a_minute_exactly_ten_are_served(crowd: Stage) -> None:
    model = crowd.model()
    account = crowd.account(credit="1")
    issued = make_key(account, requests_per_minute=10)
    body = chat(model, max_tokens=5)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: crowd.post(issued.secret, body), range(20)))

    assert Counter(answer.status_code for answer in answers) == {200: 10, 429: 10}
    remaining = sorted(
        int(answer.headers["x-ratelimit-remaining-requests"])
        for answer in answers
        if answer.status_code == 200
    )
    # Where Redis was late for one of the processes, PostgreSQL has counted some: each counts down by itself.
    assert remaining == list(range(10)) or MinuteGap.objects.exists()
    for answer in answers:
        if answer.status_code == 429:
            assert answer.json()["error"]["code"] == "rate_limit_exceeded"
            assert 0 < int(answer.headers["retry-after"]) <= 61
    wait_for(lambda: UsageRecord.objects.filter(account=account).count() == 20)


def test_a_busy_key_is_served_as_often_as_its_minute_says_by_all_processes_together(crowd: Stage) -> None:
    model = crowd.model()
    account = crowd.account(credit="10")
    issued = make_key(account, requests_per_minute=400)
    body = chat(model, max_tokens=5)

    def served_of(times: int) -> int:
        with ThreadPoolExecutor(24) as pool:
            statuses = Counter(pool.map(lambda _: crowd.post(issued.secret, body).status_code, range(times)))
        assert set(statuses) <= {200, 429}
        return statuses[200]

    at_once = served_of(600)
    assert at_once <= 400
    # What lay unused with a process is back after a second.
    time.sleep(1.2)
    assert at_once + served_of(100) == 400


def test_two_keys_of_one_account_have_a_minute_each(crowd: Stage) -> None:
    model = crowd.model()
    account = crowd.account(credit="1")
    keys = [make_key(account, requests_per_minute=5) for _ in range(2)]
    body = chat(model, max_tokens=5)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda n: (n % 2, crowd.post(keys[n % 2].secret, body)), range(20)))

    assert Counter((key, answer.status_code) for key, answer in answers) == {
        (key, status): 5 for key in (0, 1) for status in (200, 429)
    }


def test_parallel_requests_that_keep_to_their_estimate_never_use_more_tokens_than_the_minute_has(
    crowd: Stage,
) -> None:
    model = crowd.model()
    account = crowd.account(credit="10")
    issued = make_key(account, tokens_per_minute=LIMIT)
    # What a request counts for first is five times what it uses: what it gives back serves others.
    body = chat(model, max_tokens=95, sandbox={"output_tokens": 17, "delay_ms": 20})

    with ThreadPoolExecutor(12) as pool:
        statuses = list(pool.map(lambda _: crowd.post(issued.secret, body).status_code, range(120)))

    assert set(statuses) == {200, 429}
    assert _most_in_a_minute(account.pk) <= LIMIT
    # To refuse everything would keep the limit too: without what is given back, only ten would fit.
    assert statuses.count(200) > LIMIT // (ESTIMATED_INPUT + 95)


def test_what_requests_produce_beyond_their_estimate_is_all_that_a_minute_is_exceeded_by(
    crowd: Stage,
) -> None:
    model = crowd.model()
    account = crowd.account(credit="10")
    issued = make_key(account, tokens_per_minute=LIMIT)
    estimated, used = ESTIMATED_INPUT + 45, USED_INPUT + 77
    body = chat(model, max_tokens=45, sandbox={"output_tokens": 77})

    served = 0
    while crowd.post(issued.secret, body).status_code == 200:
        served += 1
        assert served < LIMIT

    # One after the other: the last one was admitted while its estimate still fitted.
    assert served == (LIMIT - estimated) // used + 1
    assert _most_in_a_minute(account.pk) <= LIMIT + used - estimated

    other = make_key(account, tokens_per_minute=LIMIT)
    slow = chat(model, max_tokens=45, sandbox={"output_tokens": 77, "delay_ms": 1_500})
    with ThreadPoolExecutor(40) as pool:
        statuses = Counter(pool.map(lambda _: crowd.post(other.secret, slow).status_code, range(40)))
    # All at once: none knows yet what the others will use, and together their estimates fill the minute.
    assert statuses == {200: LIMIT // estimated, 429: 40 - LIMIT // estimated}
    assert crowd.post(other.secret, body).status_code == 429


def test_streams_in_parallel_exceed_the_minute_by_no_more_than_what_each_produces_beyond_its_estimate(
    crowd: Stage,
) -> None:
    model = crowd.model()
    account = crowd.account(credit="10")
    # They name no output limit, so each counts as 1,024 tokens of output until it has ended.
    estimated, used, fit = ESTIMATED_INPUT + 1_024, USED_INPUT + 1_500, 5
    issued = make_key(account, tokens_per_minute=fit * estimated)
    body = chat(model, stream=True, sandbox={"output_tokens": 1_500, "delay_ms": 1_500})

    with ThreadPoolExecutor(20) as pool:
        statuses = Counter(pool.map(lambda _: crowd.post(issued.secret, body).status_code, range(20)))

    assert statuses == {200: fit, 429: 20 - fit}
    assert _most_in_a_minute(account.pk) == fit * estimated + fit * (used - estimated)
    # Now it counts what they have used, and that is too much already.
    assert crowd.post(issued.secret, chat(model, max_tokens=1)).status_code == 429


def test_a_lowered_limit_holds_for_every_request_that_starts_after_it(crowd: Stage) -> None:
    model = crowd.model()
    issued = make_key(crowd.account(credit="1"), requests_per_minute=3_000)
    _have_it_kept(crowd, issued.secret)

    policies.change_policy(key=issued.key, actor=None, requests_per_minute=1)

    assert _of_fifty_at_once(crowd, issued.secret, model) == {200: 1, 429: 49}


def test_a_first_limit_holds_for_every_request_that_starts_after_it(crowd: Stage) -> None:
    model = crowd.model()
    Plan.objects.filter(slug=Plan.PAY_AS_YOU_GO).update(requests_per_minute=None, tokens_per_minute=None)
    issued = make_key(crowd.account(credit="1"))
    _have_it_kept(crowd, issued.secret)

    policies.change_policy(key=issued.key, actor=None, requests_per_minute=1)

    assert _of_fifty_at_once(crowd, issued.secret, model) == {200: 1, 429: 49}


def _have_it_kept(crowd: Stage, secret: str) -> None:
    """Every process knows what the key may do, and will not ask before a minute has passed."""
    for index in range(len(crowd.gateway.pids)):
        with crowd.gateway.client_of(index) as client:
            assert client.get("key", headers={"authorization": f"Bearer {secret}"}).status_code == 200


def _of_fifty_at_once(crowd: Stage, secret: str, model: Model) -> Counter[int]:
    body = chat(model, max_tokens=5)
    with ThreadPoolExecutor(50) as pool:
        return Counter(pool.map(lambda _: crowd.post(secret, body).status_code, range(50)))


def _most_in_a_minute(account_id: int) -> int:
    """The most tokens that requests which began within any 60 s have used."""
    used = [
        (started_at, input_tokens + output_tokens)
        for started_at, input_tokens, output_tokens in UsageRecord.objects.filter(
            account_id=account_id, outcome="completed"
        ).values_list("started_at", "input_tokens", "output_tokens")
    ]
    minute = dt.timedelta(seconds=60)
    return max(
        sum(tokens for started_at, tokens in used if begin <= started_at < begin + minute)
        for begin, _ in used
    )

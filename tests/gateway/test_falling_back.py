"""Upstreams that fail before the first byte, and who is asked instead: another upstream, then another model."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from billing.models import Wallet
from catalog.models import Provider
from keys import revoking
from tests.factories import make_budget, make_key, now
from tests.gateway import routes
from tests.gateway.conftest import Stage, chat, refused
from tests.gateway.raw_upstream import RawUpstream
from tests.gateway.routes import Routes, completion, served_by, status
from tests.gateway.server import GatewayServer
from usage.models import UsageRecord

pytestmark = pytest.mark.xdist_group("routes")

Ground = tuple[dict[str, RawUpstream], GatewayServer]
API = "api_error"
COST = 50_000  # 10 tokens of input at $1 and 20 of output at $2 a million, in nano-USD


@pytest.fixture(scope="module")
def ground(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with routes.running(tmp_path_factory.mktemp("routes")) as running:
        yield running


@pytest.fixture
def there(stage: Stage, ground: Ground) -> Routes:
    upstreams, gateway = ground
    return Routes(replace(stage, gateway=gateway), upstreams)


# --- Over the upstreams of one model ---------------------------------------------------------------------------


@pytest.mark.parametrize("code", [500, 502, 503, 529, 429, 408, 401, 402, 403, 302])
def test_the_next_upstream_is_asked_where_one_fails(there: Routes, code: int) -> None:
    there.upstreams["one"].says(status(code, headers=b"location: http://127.0.0.1:1/elsewhere\r\n"))
    model = there.model("one", "two")

    response = there.post(model)

    assert served_by(response) == (200, model.slug, "two")
    assert there.asked() == (1, 1)
    assert there.charged() == COST
    assert there.stage.record(response).upstream == "two"


@pytest.mark.parametrize("code", [400, 413, 422, 404, 405, 409])
def test_no_other_upstream_is_asked_where_the_request_is_at_fault(there: Routes, code: int) -> None:
    there.upstreams["one"].says(status(code, b'{"error": {"message": "too odd", "code": "odd"}}'))

    response = there.post(there.model("one", "two"))

    assert response.status_code == (code if code in (400, 413, 422) else 502)
    assert there.asked() == (1, 0)
    assert there.charged() == 0
    assert there.stage.record(response).upstream == "one"


def test_what_an_upstream_says_of_a_mistake_is_repeated_only_where_it_is_a_word(there: Routes) -> None:
    deep = b"[" * 900 + b"1" + b"]" * 900
    body = b'{"error": {"message": %b, "code": 17, "param": %b}}' % (deep, deep)
    there.upstreams["one"].says(status(400, body))

    response = there.post(there.model("one"))

    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "17", None)
    assert error["message"] == "The upstream refused the request."
    assert there.charged() == 0


def test_what_an_upstream_says_of_a_mistake_is_read_to_its_end(there: Routes) -> None:
    body = b'{"error": {"message": "too odd", "code": "odd", "param": "max_tokens"}}'
    whole = status(400, body)
    there.upstreams["one"].says(*(whole[at : at + 30] for at in range(0, len(whole), 30)))

    response = there.post(there.model("one"))

    message = refused(response, 400, "odd", type="invalid_request_error", param="max_tokens")
    assert message == "too odd"


def test_what_an_upstream_says_of_a_mistake_does_not_repeat_our_key_for_it(
    there: Routes, ground: Ground
) -> None:
    secret = "key-of-one"
    body = json.dumps({"error": dict.fromkeys(("message", "code", "param"), f"no {secret}\0")}).encode()
    there.upstreams["one"].says(status(400, body))
    mistaken = there.post(there.model("one"))
    there.upstreams["one"].says(b"HTTP/1.1 %b no status\r\n\r\n" % secret.encode())
    broken = there.post(there.model("one"))

    assert mistaken.json()["error"]["message"] == "no …"
    assert (mistaken.json()["error"]["code"], mistaken.json()["error"]["param"]) == ("no …", "no …")
    assert broken.status_code == 502
    assert secret not in mistaken.text + broken.text + ground[1].log
    assert there.stage.record(mistaken).error_code == "no …"


def test_what_one_customer_brings_about_closes_an_upstream_to_nobody(there: Routes) -> None:
    model = there.model("one")
    for code in (403, 404, 409, 415, 451):
        there.upstreams["one"].says(status(code))
        assert {there.post(model).status_code for _ in range(25)} == {502}
    there.upstreams["one"].answers(completion())

    assert there.post(model).status_code == 200


def test_an_answer_that_breaks_off_in_its_headers_is_asked_for_nowhere_else(there: Routes) -> None:
    there.upstreams["one"].says(b"HTTP/1.1 200 OK\r\nx-a: b")

    response = there.post(there.model("one", "two"))

    refused(response, 502, "upstream_error", type=API)
    assert there.asked() == (1, 0)
    assert there.charged() == 0


def test_a_connection_that_is_reset_is_tried_once_more_and_then_the_next_upstream(there: Routes) -> None:
    there.upstreams["one"].says(end="reset")
    model = there.model("one", "two")

    assert served_by(there.post(model)) == (200, model.slug, "two")
    assert there.asked() == (2, 1)


def test_an_upstream_that_cannot_be_reached_is_passed_over(there: Routes) -> None:
    Provider.objects.filter(slug="one").update(base_url="http://127.0.0.1:9/v1")
    model = there.model("one", "two")

    assert served_by(there.post(model)) == (200, model.slug, "two")


def test_an_upstream_that_does_not_begin_in_time_is_asked_once_and_then_the_next(there: Routes) -> None:
    there.upstreams["one"].says(end="silence")
    model = there.model("one", "two")

    response = there.post(model)

    assert served_by(response) == (200, model.slug, "two")
    assert there.asked() == (1, 1)
    assert there.charged() == COST


def test_a_stream_says_who_served_it(there: Routes) -> None:
    there.upstreams["one"].says(status(503))
    end = {
        "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}],
        "usage": routes.USAGE,
    }
    there.upstreams["two"].streams(b"data: " + json.dumps(end).encode() + b"\n\ndata: [DONE]\n\n")
    model = there.model("one", "two")

    response = there.post(model, stream=True)

    assert served_by(response) == (200, model.slug, "two")
    assert response.text.endswith("data: [DONE]\n\n")


def test_nobody_else_is_asked_once_an_answer_has_begun(there: Routes) -> None:
    there.upstreams["one"].answers(b'{"choices": [', length=1000)

    response = there.post(there.model("one", "two"))

    refused(response, 502, "upstream_error", type=API)
    assert there.asked() == (1, 0)


def test_when_all_upstreams_fail_the_last_failure_is_spoken(there: Routes) -> None:
    there.upstreams["one"].says(status(500))
    there.upstreams["two"].says(end="silence")

    response = there.post(there.model("one", "two"))

    refused(response, 504, "upstream_timeout", type=API)
    assert there.charged() == 0
    record = there.stage.record(response)
    assert (record.outcome, record.upstream) == (UsageRecord.Outcome.FAILED, "two")


def test_a_body_of_half_a_megabyte_goes_upstream_whole(there: Routes) -> None:
    content = "".join(map(str, range(100_000)))

    response = there.post(there.model("one", context_window=2_000_000), content=content)

    assert response.status_code == 200
    assert json.loads(there.upstreams["one"].body)["messages"][0]["content"] == content


def test_upstreams_of_one_position_share_the_requests_by_weight(there: Routes) -> None:
    model = there.model("one", "two", weights={"one": 1, "two": 1000})

    for _ in range(20):
        there.post(model)

    one, two = there.asked()
    assert one + two == 20
    # Twenty draws at 1 in 1001: more than two is a matter of a millionth.
    assert one <= 2


# --- To another model ------------------------------------------------------------------------------------------


def test_a_model_that_fails_is_followed_by_the_next_that_the_client_names(there: Routes) -> None:
    there.upstreams["one"].says(status(500))
    dear = there.model("one", input_price="100", output_price="200")
    other = there.model("two")

    response = there.post(dear, models=[dear.slug, f"acme/{other.slug}"])

    assert served_by(response) == (200, other.slug, "two")
    assert response.headers["x-tollgate-cost-usd"] == "0.000050000"
    assert there.charged() == COST
    record = there.stage.record(response)
    assert (record.model, record.upstream, record.charged_nanousd) == (other, "two", COST)
    assert record.output_usd_per_mtok == 2
    receipt = there.stage.get(f"generation?id={record.pk}", there.secret).json()["data"]
    assert (receipt["model"], receipt["upstream"]) == (other.slug, "two")


def test_no_other_model_serves_a_request_that_names_one(there: Routes) -> None:
    there.upstreams["one"].says(status(500))
    there.model("two")

    refused(there.post(there.model("one")), 502, "upstream_error", type=API)

    assert there.asked() == (1, 0)


def test_the_hold_of_the_next_model_replaces_the_first_one(there: Routes) -> None:
    there.upstreams["one"].says(status(500))
    held: list[int] = []
    body = completion()
    there.upstreams["two"].says(
        lambda: held.append(Wallet.objects.get(account=there.account).held_nanousd), status(200, body)
    )
    # Each of the two takes more than half of the dollar, so both at once could not be held.
    first = there.model("one", output_price="60")
    second = there.model("two", output_price="70")

    response = there.post(first, models=[second.slug], max_tokens=10_000)

    assert served_by(response) == (200, second.slug, "two")
    assert 700_000_000 <= held[0] < 701_000_000
    assert there.charged() == 10 * 1_000 + 20 * 70_000


def test_a_next_model_that_cannot_be_paid_for_is_passed_over(there: Routes) -> None:
    there.upstreams["one"].says(status(500))
    first = there.model("one")
    too_dear = there.model("two", output_price="1000")
    affordable = there.model("two", output_price="3")

    response = there.post(first, models=[too_dear.slug, affordable.slug], max_tokens=10_000)

    assert served_by(response) == (200, affordable.slug, "two")
    assert there.asked() == (1, 1)
    assert there.charged() == 10 * 1_000 + 20 * 3_000


def test_when_no_next_model_can_be_paid_for_the_upstreams_failure_is_spoken(there: Routes) -> None:
    there.upstreams["one"].says(status(500))
    first = there.model("one")
    too_dear = there.model("two", output_price="1000")

    response = there.post(first, models=[too_dear.slug], max_tokens=10_000)

    refused(response, 502, "upstream_error", type=API)
    assert there.charged() == 0
    record = there.stage.record(response)
    assert (record.model, record.outcome, record.error_code) == (first, "failed", "upstream_error")


def test_a_first_model_that_cannot_be_paid_for_refuses_the_request(there: Routes) -> None:
    cheap = there.model("two")

    response = there.post(there.model("one", output_price="1000"), models=[cheap.slug], max_tokens=10_000)

    assert (response.status_code, response.json()["error"]["code"]) == (402, "insufficient_credits")
    assert there.asked() == (0, 0)


def test_a_budget_holds_one_model_at_a_time(there: Routes) -> None:
    there.upstreams["one"].says(status(500))
    issued = make_key(there.account)
    budget = make_budget(issued.key, limit_nanousd=30_000_000, period="day")
    first, second = there.model("one"), there.model("two")

    body = chat(first, models=[second.slug], max_tokens=10_000)
    response = there.stage.post(issued.secret, body)

    assert served_by(response) == (200, second.slug, "two")
    budget.refresh_from_db()
    assert (budget.held_nanousd, budget.spent_nanousd) == (0, COST)


def test_an_allowance_holds_one_model_at_a_time(there: Routes) -> None:
    there.upstreams["one"].says(status(500))
    account = there.stage.account(plan="basic")
    secret = make_key(account).secret
    first, second = (there.model(name, tier="basic") for name in ("one", "two"))

    response = there.stage.post(secret, chat(first, models=[second.slug]))

    assert served_by(response) == (200, second.slug, "two")
    used = there.stage.get("key", secret).json()["data"]["daily_allowance"]
    assert (used["requests"], used["tokens"], used["tokens_held"]) == (1, 30, 0)


def test_auto_turns_to_the_next_cheapest(there: Routes) -> None:
    there.upstreams["one"].says(status(500))
    there.model("one", output_price="1")
    dearest = there.model("two", output_price="3")
    next_cheapest = there.model("two", output_price="2")

    response = there.post("auto")

    assert served_by(response) == (200, next_cheapest.slug, "two")
    assert there.charged() == COST
    assert next_cheapest != dearest


def test_a_key_that_is_revoked_meanwhile_is_served_by_nobody_else(there: Routes) -> None:
    issued = make_key(there.account)
    there.upstreams["one"].says(lambda: revoking.revoke(key=issued.key, actor=None, at=now()), status(500))
    first, second = there.model("one"), there.model("two")

    response = there.stage.post(issued.secret, chat(first, models=[second.slug]))

    refused(response, 502, "upstream_error", type=API)
    assert there.asked() == (1, 0)
    assert there.charged() == 0


# --- What is no answer -----------------------------------------------------------------------------------------


def peak_memory_kib(gateway: GatewayServer) -> int:
    """The most that the gateway's process has had in memory at once."""
    status_of = Path(f"/proc/{gateway.pids[0]}/status").read_text()
    return int(status_of.partition("VmHWM:")[2].split()[0])


def test_a_compressed_answer_is_refused_and_never_inflated(there: Routes, ground: Ground) -> None:
    bomb = gzip.compress(b"\0" * 200_000_000)
    there.upstreams["one"].says(status(200, bomb, headers=b"content-encoding: gzip\r\n"))

    before = peak_memory_kib(ground[1])

    response = there.post(there.model("one"))

    assert "compressed" in refused(response, 502, "upstream_error", type=API)
    assert there.charged() == 0
    assert peak_memory_kib(ground[1]) - before < 50_000


def test_a_redirect_is_not_followed(there: Routes) -> None:
    location = b"location: " + there.upstreams["two"].url.encode() + b"/chat/completions\r\n"
    for code in (301, 302, 307, 308):
        there.upstreams["one"].says(status(code, headers=location))
        refused(there.post(there.model("one")), 502, "upstream_error", type=API)

    assert there.asked() == (4, 0)

"""Refusals lead out: to the right address, to a limit that holds, to whoever owns a key that has leaked."""

import httpx2 as httpx
import pytest

from keys.secrets import generate
from tests.factories import make_key
from tests.gateway import dialects
from tests.gateway.conftest import HTTP, INVALID, Stage, chat, refused
from usage.models import UsageRecord


def test_the_owner_of_a_key_learns_that_it_was_in_an_address(stage: Stage) -> None:
    model = stage.model()
    leaked, other = make_key(stage.account()), make_key(stage.account())

    answers = {
        stage.post(other.secret, chat(model), path=f"chat/completions?q={leaked.secret}"): leaked,
        HTTP.post(f"{stage.url}/chat/completions?key={leaked.secret}", json=chat(model)): leaked,
        stage.get(f"models?api_key={leaked.secret}", other.secret): leaked,
        stage.post(other.secret, chat(model), path=f"messages?key={generate(live=True)}"): other,
        stage.post(other.secret, chat(model), path="chat/completions?key=abc"): other,
    }

    for answer, issued in answers.items():
        assert answer.status_code == 400
        record = stage.record(answer)
        assert (record.key, record.account) == (issued.key, issued.key.account)
        assert (record.outcome, record.error_code) == ("refused", "api_key_in_query")
        assert "Rotate it" in record.error_message


def test_an_unknown_key_in_an_address_is_in_nobodys_log(stage: Stage) -> None:
    response = HTTP.get(f"{stage.url}/models?key={generate(live=True)}")

    refused(response, 400, "api_key_in_query", type=INVALID)
    assert not UsageRecord.objects.exists()


@pytest.mark.parametrize("limit", [0, -1, 1.5, 99_999_999])
def test_an_output_limit_out_of_range_is_told_the_models_own(stage: Stage, limit: float) -> None:
    model = stage.model(max_output_tokens=2_000)
    secret = make_key(stage.account()).secret

    message = refused(
        stage.post(secret, chat(model, max_tokens=limit)),
        400,
        "invalid_value",
        type=INVALID,
        param="max_tokens",
    )

    assert f"from 1 to 2,000, the most that {model.slug} writes" in message
    unknown = stage.post(secret, chat("none", max_tokens=limit))
    assert "writes" not in refused(unknown, 400, "invalid_value", type=INVALID, param="max_tokens")


def test_a_base_url_with_v1_twice_is_said_in_the_clients_own_shape(stage: Stage) -> None:
    secret = make_key(stage.account()).secret

    openais = stage.post(secret, {}, path="v1/chat/completions")
    anthropics = stage.post(secret, {}, path="v1/messages")

    assert "/v1 twice" in refused(openais, 404, "unknown_url", type=INVALID)
    assert dialects.refusal(anthropics, "messages") == (404, "not_found_error", "unknown_url", None)
    assert "/v1 twice" in anthropics.json()["error"]["message"]


def test_an_endpoint_without_v1_is_answered_in_the_shape_of_the_api(stage: Stage) -> None:
    root = stage.url.removesuffix("/v1")

    for path in ("chat/completions", "completions", "embeddings", "responses", "messages", "messages/"):
        response: httpx.Response = HTTP.post(f"{root}/{path}", json={})
        if path.startswith("messages"):
            assert response.json()["error"]["type"] == "not_found_error"
            message = response.json()["error"]["message"]
        else:
            message = refused(response, 404, "unknown_url", type=INVALID)
        assert f"It is at /v1/{path}: the base URL ends in /v1." in message
    assert "json" not in HTTP.get(f"{root}/chat/completions").headers["content-type"]
    assert "json" not in HTTP.post(f"{root}/chat", json={}).headers["content-type"]


def test_a_body_that_is_too_large_is_told_who_can_allow_it(stage: Stage) -> None:
    response = stage.post(make_key().secret, b" " * (4 * 1024 * 1024 + 1))

    message = refused(response, 413, "request_too_large", type=INVALID)

    assert "Make it smaller" in message
    assert "GATEWAY_MAX_BODY_BYTES" in message

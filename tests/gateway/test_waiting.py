"""Upstreams that hang or cannot be reached, and a gateway that is told to stop."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from billing.models import Hold, Wallet
from catalog.models import Model
from tests.factories import make_key
from tests.gateway import server
from tests.gateway.conftest import HTTP, Stage, chat

PREMIUM = {"tier": Model.Tier.PREMIUM, "input_price": "5", "output_price": "25"}


@pytest.fixture
def impatient(stage: Stage, sandbox_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    home = tmp_path_factory.mktemp("impatient")
    with server.running(
        sandbox_url=sandbox_url,
        home=home,
        GATEWAY_CATALOGUE_EVERY_S="0.05",
        GATEWAY_FIRST_BYTE_TIMEOUT_S="0.5",
        GATEWAY_IDLE_TIMEOUT_S="0.5",
    ) as gateway:
        yield replace(stage, gateway=gateway)


def test_an_upstream_that_never_answers_is_a_timeout_and_costs_nothing(impatient: Stage) -> None:
    model = impatient.model(**PREMIUM)
    account = impatient.account(credit="1")
    issued = make_key(account)

    for is_streamed in (False, True):
        response = impatient.post(
            issued.secret, chat(model, stream=is_streamed, sandbox={"delay_ms": 30_000})
        )
        assert response.status_code == 504
        assert response.json()["error"]["code"] == "upstream_timeout"
        assert impatient.record(response).outcome == "failed"
    assert Wallet.objects.get(account=account).available_nanousd == 1_000_000_000


def test_a_stream_that_hangs_half_way_ends_in_an_error_event_and_bills_what_came(impatient: Stage) -> None:
    model = impatient.model(**PREMIUM)
    account = impatient.account(credit="1")
    issued = make_key(account)

    response = impatient.post(
        issued.secret,
        chat(model, stream=True, sandbox={"output_tokens": 30, "fail": "hang", "after_chunks": 5}),
    )

    assert response.status_code == 200
    assert '"upstream_timeout"' in response.text.rsplit("data: ", 1)[-1]
    record = impatient.record(response)
    assert (record.outcome, record.error_code, record.is_estimated) == ("failed", "upstream_timeout", True)
    assert 0 < record.charged_nanousd < 5 * 5_000 + 30 * 25_000


def test_an_upstream_that_cannot_be_reached_is_an_upstream_error(
    stage: Stage, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = stage.model(**PREMIUM)
    issued = make_key(stage.account(credit="1"))
    home = tmp_path_factory.mktemp("unreachable")

    with server.running(sandbox_url="http://127.0.0.1:1/v1", home=home) as gateway:
        response = replace(stage, gateway=gateway).post(issued.secret, chat(model))

    assert response.status_code == 502
    assert response.json()["error"]["code"] == "upstream_error"
    assert stage.record(response).charged_nanousd == 0


def test_without_sandbox_and_without_a_providers_key_a_model_is_not_served_and_not_listed(
    stage: Stage, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = stage.model(**PREMIUM)
    issued = make_key(stage.account(credit="1"))
    home = tmp_path_factory.mktemp("unconfigured")

    with server.running(sandbox_url="", home=home) as gateway:
        unconfigured = replace(stage, gateway=gateway)
        response = unconfigured.post(issued.secret, chat(model))
        listed = unconfigured.get("models", issued.secret).json()["data"]

    assert response.status_code == 503
    assert "no upstream for it is configured" in response.json()["error"]["message"]
    assert response.headers["retry-after"] == "60"
    assert listed == []
    assert not Hold.objects.exists()


def test_a_gateway_that_is_told_to_stop_finishes_its_streams_first(
    stage: Stage, sandbox_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = stage.model(**PREMIUM)
    account = stage.account(credit="10")
    issued = make_key(account)
    home = tmp_path_factory.mktemp("stopping")
    begun = threading.Barrier(9)

    with server.running(sandbox_url=sandbox_url, home=home) as gateway:

        def stream(_: int) -> str:
            body = chat(model, stream=True, sandbox={"output_tokens": 20, "chunk_delay_ms": 100})
            headers = {"authorization": f"Bearer {issued.secret}"}
            with HTTP.stream(
                "POST", f"{gateway.url}/chat/completions", json=body, headers=headers
            ) as response:
                pieces = response.iter_text()
                first = next(pieces)
                begun.wait(timeout=20)
                return first + "".join(pieces)

        with ThreadPoolExecutor(8) as pool:
            streams = pool.map(stream, range(8))
            begun.wait(timeout=20)
            gateway.terminate()
            texts = list(streams)

    assert all("[DONE]" in text for text in texts)
    assert Wallet.objects.get(account=account).balance_nanousd == 10_000_000_000 - 8 * (
        3 * 5_000 + 20 * 25_000
    )

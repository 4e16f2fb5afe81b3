"""Upstreams that break off, hang, or send what is no completion: who pays for what, and what the client hears."""

import datetime as dt
import itertools
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from accounts.models import Account
from billing.models import GatewayProcess, Wallet
from catalog.models import Model, Price
from tests.factories import make_key, now
from tests.gateway import dialects, raw_upstream, server
from tests.gateway.conftest import Stage, chat, wait_for
from tests.gateway.raw_upstream import RawUpstream
from tests.gateway.server import GatewayServer

pytestmark = pytest.mark.xdist_group("raw upstream")

PREMIUM = {"tier": Model.Tier.PREMIUM, "input_price": "5", "output_price": "25"}
CREDIT = 1_000_000_000
DONE = b"data: [DONE]\n\n"


def impatient(url: str, home: Path, *, first_byte_s: float = 0.5) -> AbstractContextManager[GatewayServer]:
    """A gateway that waits half a second where another waits a minute."""
    return server.running(
        sandbox_url=url,
        home=home,
        GATEWAY_CATALOGUE_EVERY_S="0.05",
        GATEWAY_CONNECT_TIMEOUT_S="0.3",
        GATEWAY_FIRST_BYTE_TIMEOUT_S=str(first_byte_s),
        GATEWAY_IDLE_TIMEOUT_S="0.5",
    )


class Scene:
    """A gateway in front of the raw upstream, and a customer with a dollar."""

    def __init__(self, stage: Stage, upstream: RawUpstream) -> None:
        self.stage = stage
        self.upstream = upstream
        self.model = stage.model(**PREMIUM)
        self.account: Account = stage.account(credit="1")
        self.secret = make_key(self.account).secret
        upstream.asked = 0

    def stream(self, **fields: Any) -> httpx.Response:
        return self.stage.post(self.secret, chat(self.model, stream=True, **fields))

    def plain(self, **fields: Any) -> httpx.Response:
        return self.stage.post(self.secret, chat(self.model, **fields))

    def charged(self) -> int:
        """What has left the wallet, in nano-USD; nothing may be held any more."""
        wallet = Wallet.objects.get(account=self.account)
        assert wallet.held_nanousd == 0
        return CREDIT - wallet.balance_nanousd


@pytest.fixture(scope="module")
def raw(
    django_db_setup: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RawUpstream, GatewayServer]]:
    home = tmp_path_factory.mktemp("raw")
    with (
        raw_upstream.running() as upstream,
        impatient(upstream.url, home) as gateway,
    ):
        yield upstream, gateway


@pytest.fixture
def scene(stage: Stage, raw: tuple[RawUpstream, GatewayServer]) -> Scene:
    upstream, gateway = raw
    return Scene(replace(stage, gateway=gateway), upstream)


def word(text: str, **fields: Any) -> bytes:
    """An event with a piece of the answer."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return event({"object": "chat.completion.chunk", "choices": [choice], **fields})


def usage(prompt: object, completion: object, **fields: Any) -> bytes:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion}
    return event({"object": "chat.completion.chunk", "choices": [], "usage": counts, **fields})


def event(document: object) -> bytes:
    return b"data: " + json.dumps(document, ensure_ascii=False).encode() + b"\n\n"


END = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
DEEP_USAGE = b'data: {"choices": [], "usage": null, "x": %b1%b}\n\n' % (b"[" * 900, b"]" * 900)
HALF = b'data: {"choices": [{"index": 0, "delta": {"content": "ha'


def last_error(response: httpx.Response) -> str:
    """The code of the error event that a broken stream ends with, instead of [DONE]."""
    assert response.status_code == 200
    assert "[DONE]" not in response.text
    return str(json.loads(response.text.rsplit("data: ", 1)[-1])["error"]["code"])


# --- Odd, but good ---------------------------------------------------------------------------------------------


def test_a_chunk_that_is_nested_deeply_is_passed_on_and_counted(scene: Scene) -> None:
    deep = b'data: {"choices": [{"delta": {"odd": %b"four"%b}}]}\n\n' % (b"[" * 900, b"]" * 900)
    scene.upstream.streams(word("x" * 36), deep, END)

    response = scene.stream()

    assert response.text.endswith("data: [DONE]\n\n")
    assert "[[[" in response.text
    assert scene.stage.record(response).output_tokens == 10


def test_a_usage_chunk_that_is_split_inside_an_emoji_is_billed_exactly(scene: Scene) -> None:
    chunk = usage(7, 11, system_fingerprint="👩‍👩‍👧")
    emoji = chunk.index("👩".encode())
    cuts = [0, emoji + 1, emoji + 2, emoji + 3, emoji + 9, len(chunk) - 1, len(chunk)]
    segments = [chunk[start:end] for start, end in itertools.pairwise(cuts)]
    scene.upstream.streams(word("family: 👩‍👩‍👧"), END, *segments, DONE)

    response = scene.stream(stream_options={"include_usage": True})

    assert "family: 👩‍👩‍👧" in response.text
    assert response.text.endswith("data: [DONE]\n\n")
    record = scene.stage.record(response)
    assert (record.input_tokens, record.output_tokens, record.is_estimated) == (7, 11, False)
    assert scene.charged() == 7 * 5_000 + 11 * 25_000


@pytest.mark.parametrize("size", [1 << 20, 4 << 20], ids=["1 MiB", "4 MiB"])
def test_a_line_of_a_mebibyte_is_passed_on_whole(scene: Scene, size: int) -> None:
    text = "x" * size
    scene.upstream.streams(word(text), END, usage(3, 9), DONE)

    response = scene.stream()

    assert text in response.text
    assert response.text.endswith("data: [DONE]\n\n")
    assert scene.charged() == 3 * 5_000 + 9 * 25_000


@pytest.mark.parametrize(
    "reported", [(-1, 5), (3, -1), (3, 10**12), ("3", 5), (None, None), (3, 2.5)], ids=str
)
def test_usage_that_cannot_be_true_is_estimated(scene: Scene, reported: tuple[object, object]) -> None:
    scene.upstream.streams(word("x" * 40), END, usage(*reported), DONE)

    record = scene.stage.record(scene.stream())

    assert (record.outcome, record.is_estimated) == ("completed", True)
    assert (record.input_tokens, record.output_tokens) == (5, 10)
    assert scene.charged() == 5 * 5_000 + 10 * 25_000


def test_a_stream_without_usage_is_estimated_and_marked(scene: Scene) -> None:
    scene.upstream.streams(word("x" * 40), END, DONE)

    record = scene.stage.record(scene.stream())

    assert (record.outcome, record.is_estimated, record.output_tokens) == ("completed", True, 10)


def test_the_price_that_held_when_a_stream_was_admitted_is_its_price(scene: Scene) -> None:
    def raise_price() -> None:
        Price.objects.create(
            model=scene.model,
            starts_at=now() - dt.timedelta(seconds=1),
            input_usd_per_mtok=Decimal(500),
            output_usd_per_mtok=Decimal(2_500),
        )

    scene.upstream.streams(word("before"), raise_price, word("after"), END, usage(3, 2), DONE)

    response = scene.stream()

    record = scene.stage.record(response)
    assert record.outcome == "completed"
    assert (record.input_usd_per_mtok, record.output_usd_per_mtok) == (Decimal(5), Decimal(25))
    assert scene.charged() == 3 * 5_000 + 2 * 25_000


# --- Broken before anything was said ---------------------------------------------------------------------------


NO_COMPLETION = {
    "half a document": b'{"choices": [{"mess',
    "a list": b"[1, 2, 3]",
    "a number": b"42",
    "no choices": b'{"object": "chat.completion"}',
    "an error with status 200": b'{"error": {"message": "overloaded"}}',
    "no UTF-8": b'{"choices": "\xff\xfe"}',
    "nothing": b"",
    "a page": b"<html>502 Bad Gateway</html>",
}


@pytest.mark.parametrize("body", NO_COMPLETION.values(), ids=NO_COMPLETION)
def test_an_answer_that_is_no_completion_is_an_upstream_error_and_free(scene: Scene, body: bytes) -> None:
    scene.upstream.answers(body, length=len(body))

    response = scene.plain()

    assert response.status_code == 502
    assert response.json()["error"]["code"] == "upstream_error"
    assert scene.stage.record(response).outcome == "failed"
    assert scene.charged() == 0


NO_STREAM = {
    "an error event": event({"error": {"message": "overloaded", "code": 529}}),
    "no JSON": b"data: {not json}\n\n",
    "a list": b"data: [1]\n\n",
    "no UTF-8": b'data: {"choices": "\xff"}\n\n',
    "half an event": HALF,
    "nothing": b"",
}


@pytest.mark.parametrize("body", NO_STREAM.values(), ids=NO_STREAM)
def test_a_stream_that_is_none_from_its_first_event_is_an_upstream_error_and_free(
    scene: Scene, body: bytes
) -> None:
    scene.upstream.streams(body)

    response = scene.stream()

    assert response.status_code == 502
    assert response.json()["error"]["code"] == "upstream_error"
    assert scene.charged() == 0


@pytest.mark.parametrize("endpoint", dialects.ENDPOINTS)
def test_an_upstream_that_hangs_before_its_first_byte_is_a_timeout_and_free_and_asked_once(
    scene: Scene, endpoint: str
) -> None:
    scene.upstream.says(end="silence")
    model = dialects.model_for(scene.stage, endpoint)
    ways = (False, True) if endpoint in dialects.STREAMED else (False,)

    for is_streamed in ways:
        fields = {"stream": True} if is_streamed else {}
        body = dialects.body(endpoint, model.slug, **fields)
        response = scene.stage.post(scene.secret, body, path=endpoint)
        assert response.status_code == 504
        dialects.refusal(response, endpoint)
        assert scene.stage.record(response).outcome == "failed"

    assert scene.charged() == 0
    assert scene.upstream.asked == len(ways)


def test_a_stream_that_hangs_after_its_headers_is_a_timeout_and_free(scene: Scene) -> None:
    scene.upstream.streams(end="silence")

    response = scene.stream()

    assert response.status_code == 504
    assert scene.charged() == 0


def test_an_upstream_that_takes_no_connection_is_a_timeout_and_free(
    stage: Stage, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("deaf")
    with (
        raw_upstream.deaf() as url,
        impatient(url, home, first_byte_s=5) as gateway,
        raw_upstream.running() as unused,
    ):
        scene = Scene(replace(stage, gateway=gateway), unused)
        response = scene.plain()

    assert response.status_code == 504
    assert response.json()["error"]["code"] == "upstream_timeout"
    assert "could not be reached" in response.json()["error"]["message"]
    assert scene.charged() == 0


NOTHING_PRODUCED = {
    "a page": b"<html>502 Bad Gateway</html>\n\n",
    "a comment": b": processing\n\n",
    "a role": event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}),
}


@pytest.mark.parametrize("body", NOTHING_PRODUCED.values(), ids=NOTHING_PRODUCED)
def test_a_stream_that_breaks_before_it_has_produced_anything_is_free(scene: Scene, body: bytes) -> None:
    scene.upstream.streams(body)

    response = scene.stream()

    assert '"upstream_error"' in response.text
    assert scene.stage.record(response).outcome == "failed"
    assert scene.charged() == 0


# --- Broken half-way -------------------------------------------------------------------------------------------


BREAKS = {
    "closed": (b"", "close", "upstream_error"),
    "closed inside an event": (HALF, "close", "upstream_error"),
    "reset": (b"", "reset", "upstream_error"),
    "silent": (HALF, "silence", "upstream_timeout"),
    "an error event": (event({"error": {"message": "boom"}}), "close", "upstream_error"),
    "no JSON": (b"data: {not json}\n\n", "close", "upstream_error"),
    "no UTF-8": (b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n\n', "close", "upstream_error"),
    "an endless event": (b"data: " + b"x" * (9 << 20), "close", "upstream_error"),
    "too deep to repeat": (DEEP_USAGE, "close", "upstream_error"),
}


@pytest.mark.parametrize(("rest", "end", "code"), BREAKS.values(), ids=BREAKS)
def test_a_stream_that_breaks_half_way_ends_in_an_error_event_and_costs_what_was_delivered(
    scene: Scene, rest: bytes, end: str, code: str
) -> None:
    scene.upstream.streams(word("x" * 40), word("y" * 40), rest, end=end)

    response = scene.stream()

    assert last_error(response) == code
    assert "x" * 40 in response.text
    assert "y" * 40 in response.text
    record = scene.stage.record(response)
    assert (record.outcome, record.error_code, record.is_estimated) == ("failed", code, True)
    assert (record.input_tokens, record.output_tokens) == (5, 20)
    assert scene.charged() == 5 * 5_000 + 20 * 25_000
    assert scene.upstream.asked == 1  # a stream that has begun is never tried again


@pytest.mark.parametrize(("end", "status"), [("close", 502), ("reset", 502), ("silence", 504)])
def test_an_answer_that_stops_half_way_is_an_error_and_free(scene: Scene, end: str, status: int) -> None:
    scene.upstream.answers(b'{"choices": [{"message": {"content": "ha', length=5_000, end=end)

    response = scene.plain()

    assert response.status_code == status
    assert scene.charged() == 0


def test_usage_that_was_reported_before_a_stream_broke_is_what_is_billed(scene: Scene) -> None:
    scene.upstream.streams(word("x" * 400), usage(3, 6), end="reset")

    response = scene.stream()

    assert last_error(response) == "upstream_error"
    record = scene.stage.record(response)
    assert (record.outcome, record.output_tokens, record.is_estimated) == ("failed", 6, False)
    assert scene.charged() == 3 * 5_000 + 6 * 25_000


def test_an_operator_is_told_only_what_went_wrong(scene: Scene) -> None:
    scene.upstream.streams(word("x" * 40), end="close")

    message = json.loads(scene.stream().text.rsplit("data: ", 1)[-1])["error"]["message"]

    assert message.endswith(
        "failed: its stream ended before it was complete. Only what you received is charged."
    )

    def said() -> str:
        seen = [process.upstreams for process in GatewayProcess.objects.all()]
        return str([facts["last_error"] for by_id in seen for id_, facts in by_id.items() if slug in id_])

    slug = scene.model.slug
    wait_for(lambda: "stream" in said())
    assert said() == "['its stream ended before it was complete']"

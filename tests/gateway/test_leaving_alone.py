"""An upstream that keeps failing, real traffic, and what the operator sees of it."""

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from django.test import Client

from billing.models import GatewayProcess
from tests.factories import make_key, make_user
from tests.gateway import routes
from tests.gateway.conftest import Stage, refused, wait_for
from tests.gateway.raw_upstream import RawUpstream
from tests.gateway.routes import Routes, completion, served_by, status
from tests.gateway.server import GatewayServer

pytestmark = pytest.mark.xdist_group("routes that fail")

API = "api_error"
HALF = b'data: {"choices": [{"index": 0, "delta": {"content": "half a sen"}}]}\n\n'


@pytest.fixture(scope="module")
def ground(
    django_db_setup: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[dict[str, RawUpstream], GatewayServer]]:
    with routes.running(tmp_path_factory.mktemp("routes")) as running:
        yield running


@pytest.fixture
def there(stage: Stage, ground: tuple[dict[str, RawUpstream], GatewayServer]) -> Routes:
    upstreams, gateway = ground
    return Routes(replace(stage, gateway=gateway), upstreams)


def test_an_upstream_that_keeps_failing_is_left_alone_and_then_tried_again(
    there: Routes, client: Client
) -> None:
    model = there.model("one")
    there.upstreams["one"].says(status(500))
    for _ in range(20):
        assert there.post(model).status_code == 502
    opened_at = time.monotonic()

    # Nothing is sent, held or counted.
    there.secret = make_key(there.account, requests_per_minute=2).secret
    for _ in range(3):
        response = there.post(model)
        refused(response, 503, "temporarily_unavailable", type=API)
        assert 1 <= int(response.headers["retry-after"]) <= 10
    assert there.asked() == (20, 0)
    assert there.charged() == 0

    # The operator sees it within a heartbeat.
    def said() -> dict[str, object]:
        process = GatewayProcess.objects.filter(upstreams__has_key=f"one/{model.slug}").first()
        found: dict[str, object] = process.upstreams[f"one/{model.slug}"] if process else {}
        return found

    wait_for(lambda: said().get("state") == "open")
    assert (said()["requests"], said()["failures"], said()["last_error"]) == (20, 20, "it answered 500")
    client.force_login(make_user(is_staff=True, is_superuser=True))
    page = client.get("/admin/billing/gatewayprocess/").content.decode()
    assert f"one/{model.slug}" in page
    assert "Open: no requests are sent" in page

    # One probe that fails keeps it closed to everybody else; one that succeeds opens the way.
    there.upstreams["one"].answers(completion())
    wait_for(lambda: there.post(model).status_code == 200, patience_s=15)
    assert time.monotonic() - opened_at > 9
    assert there.asked() == (21, 0)
    assert there.post(model).status_code == 200


def test_streams_that_break_half_way_count_too_and_the_next_upstream_takes_over(there: Routes) -> None:
    model = there.model("one", "two")
    there.upstreams["one"].streams(HALF, end="reset")
    for _ in range(20):
        assert served_by(there.post(model, stream=True))[2] == "one"
    there.upstreams["two"].streams(HALF, end="reset")

    assert served_by(there.post(model, stream=True))[2] == "two"
    assert there.asked() == (20, 1)


def test_what_a_client_does_wrong_is_no_failure(there: Routes) -> None:
    model = there.model("one")
    for code in (400, 413, 422):
        there.upstreams["one"].says(status(code))
        for _ in range(10):
            assert there.post(model).status_code == code

    assert there.asked() == (30, 0)

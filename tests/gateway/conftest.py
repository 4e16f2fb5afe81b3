"""A gateway with its upstream for the tests of this worker, and one database for both sides."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2 as httpx
import openai
import pytest

from accounts.models import Account, Plan
from catalog.models import Model
from gateway.queueing import Queue
from tests import factories
from tests.gateway import sandbox_server, server
from tests.invariants import check_books
from usage.models import UsageRecord

_PATIENCE_S = 10.0
# One client for all: to make one costs more than many requests.
HTTP = httpx.Client(limits=httpx.Limits(max_connections=None, max_keepalive_connections=100))


@dataclass
class Stage:
    """What a test of the gateway stands on: the servers, and short ways to make what it needs."""

    gateway: server.GatewayServer
    sandbox_url: str
    _clients: list[openai.OpenAI] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.gateway.url

    def model(self, **facts: Any) -> Model:
        """A model that the running gateway already knows."""
        model = factories.make_model(**facts)
        secret = factories.make_key(factories.make_account(plan=Plan.PAY_AS_YOU_GO)).secret
        if len(self.gateway.pids) == 1:
            wait_for(lambda: self.get(f"models/{model.slug}", secret).status_code == 200)
        else:
            for index in range(len(self.gateway.pids)):
                self._wait_until_known(model, secret, index)
        return model

    def _wait_until_known(self, model: Model, secret: str, index: int) -> None:
        headers = {"authorization": f"Bearer {secret}"}
        with self.gateway.client_of(index) as client:
            wait_for(lambda: client.get(f"models/{model.slug}", headers=headers).status_code == 200)

    def account(self, *, plan: str = Plan.PAY_AS_YOU_GO, credit: str = "0") -> Account:
        return factories.make_account(plan=plan, credit=credit)

    def get(self, path: str, secret: str) -> httpx.Response:
        return HTTP.get(f"{self.url}/{path}", headers={"authorization": f"Bearer {secret}"}, timeout=10)

    def post(
        self, secret: str, body: Any = None, *, path: str = "chat/completions", **options: Any
    ) -> httpx.Response:
        """One raw POST; `body` is JSON, or bytes as they are."""
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        headers = {"authorization": f"Bearer {secret}".encode("latin-1"), **options.pop("headers", {})}
        return HTTP.post(f"{self.url}/{path}", headers=headers, timeout=30, **content, **options)

    def client(self, secret: str, **options: Any) -> openai.OpenAI:
        """The official client, which does not retry by itself here."""
        client = openai.OpenAI(api_key=secret, base_url=self.url, timeout=30, **{"max_retries": 0, **options})
        self._clients.append(client)
        return client

    def record(self, response: httpx.Response) -> UsageRecord:
        """The usage record of an answer; that of a refusal comes a moment after it."""
        request_id = response.headers["x-request-id"]
        wait_for(lambda: UsageRecord.objects.filter(pk=request_id).exists())
        return UsageRecord.objects.get(pk=request_id)


def wait_for(condition: Callable[[], bool], *, patience_s: float = _PATIENCE_S) -> None:
    """Return when the condition holds."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def chat(model: Model | str, content: str = "three short words", **fields: Any) -> dict[str, Any]:
    """A chat request's body."""
    slug = model if isinstance(model, str) else model.slug
    return {"model": slug, "messages": [{"role": "user", "content": content}], **fields}


INVALID = "invalid_request_error"
PERMISSION = "permission_error"
QUOTA = "insufficient_quota"


def refused(response: httpx.Response, status: int, code: str, *, type: str, param: str | None = None) -> str:  # noqa: A002
    """Check the whole shape of a refusal; returns its message."""
    assert response.status_code == status, response.text
    assert response.headers["x-request-id"]
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["type"], error["param"]) == (code, type, param)
    assert "tg_" not in response.text
    return str(error["message"])


@pytest.fixture(scope="session")
def sandbox_url() -> Iterator[str]:
    with sandbox_server.running() as url:
        yield url


@pytest.fixture(scope="session")
def gateway_server(
    django_db_setup: None, sandbox_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[server.GatewayServer]:
    """One gateway process for all tests of this worker. The catalogue is read often, for tests change it often."""
    home = tmp_path_factory.mktemp("gateway")
    with server.running(sandbox_url=sandbox_url, home=home, GATEWAY_CATALOGUE_EVERY_S="0.05") as running:
        yield running


@pytest.fixture(scope="session")
def four_processes(
    django_db_setup: None, sandbox_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[server.GatewayServer]:
    """Four gateway processes on one socket, for tests that are marked with the group "four processes"."""
    home = tmp_path_factory.mktemp("four")
    with server.running(
        sandbox_url=sandbox_url, home=home, processes=4, GATEWAY_CATALOGUE_EVERY_S="0.2"
    ) as running:
        yield running


@pytest.fixture
def shared_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks in the same turn of the event loop shares a batch, however few they are."""
    monkeypatch.setattr(Queue, "is_half", False)


@pytest.fixture
def crowd(transactional_db: None, four_processes: server.GatewayServer, sandbox_url: str) -> Iterator[Stage]:
    """A stage on four processes: each request is served by whichever takes it first."""
    stage = Stage(four_processes, sandbox_url)
    yield stage
    check_books(idle=True)


@pytest.fixture
def stage(transactional_db: None, gateway_server: server.GatewayServer, sandbox_url: str) -> Iterator[Stage]:
    """A stage whose books are checked when the test is over, and whose requests have all ended."""
    stage = Stage(gateway_server, sandbox_url)
    yield stage
    for client in stage._clients:
        client.close()
    check_books(idle=True)

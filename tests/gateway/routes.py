"""A gateway without a sandbox, in front of several upstreams that each say what a test wants them to say."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx

from billing.models import Hold, Wallet
from catalog.models import Model, Protocol, Provider, Upstream
from catalog.pricing import TokenPrice
from catalog.serving import Servable, Target
from gateway.dialects.chat import Chat
from gateway.forwarding import Call
from gateway.routing import Candidate
from tests import factories
from tests.gateway import raw_upstream, server
from tests.gateway.conftest import Stage, chat, wait_for
from tests.gateway.raw_upstream import RawUpstream
from tests.gateway.server import GatewayServer

NAMES = ("one", "two")
CREDIT = 1_000_000_000
USAGE = {"prompt_tokens": 10, "completion_tokens": 20}


def completion(text: str = "Hello.", usage: dict[str, int] | None = None) -> bytes:
    """A completion as an upstream says it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return json.dumps({"choices": [choice], "usage": usage or USAGE}).encode()


def status(code: int, body: bytes = b"{}", headers: bytes = b"") -> bytes:
    """A whole answer with this status."""
    head = b"HTTP/1.1 %d Said So\r\ncontent-type: application/json\r\nconnection: close\r\n" % code
    return head + headers + b"content-length: %d\r\n\r\n" % len(body) + body


def candidate_at(base_url: str) -> Candidate:
    """A model with one upstream, acme/m, at this address."""
    price = TokenPrice(input_micro=1, output_micro=1, cached_input_micro=1, cache_write_micro=1)
    target = Target("acme/m", "acme", base_url, "key", "m", "max_tokens", frozenset(Protocol.values))
    model = Servable(
        id=1,
        slug="m",
        name="m",
        provider="acme",
        is_premium=False,
        kind=Model.Kind.CHAT.value,
        context_window=100,
        max_output_tokens=10,
        supports_tools=True,
        supports_images=True,
        created_at=factories.now(),
        price_starts=(factories.now(),),
        prices=(price,),
        targets=(target,),
    )
    return Candidate(model, price, model.targets)


def a_call() -> Call:
    """What is sent to an upstream, for a short question."""
    body = json.dumps(chat("m")).encode()
    return Call(Chat(), Chat().parse(body), output_limit=5, client_headers={})


class Routes:
    """The upstreams by name, and a customer with a dollar on a gateway that knows them."""

    def __init__(self, stage: Stage, upstreams: dict[str, RawUpstream]) -> None:
        self.stage = stage
        self.upstreams = upstreams
        self.account = stage.account(credit="1")
        self.secret = factories.make_key(self.account).secret
        self.providers = {
            name: Provider.objects.create(
                slug=name, name=name, base_url=upstream.url, key_env=f"{name.upper()}_API_KEY"
            )
            for name, upstream in upstreams.items()
        }
        for upstream in upstreams.values():
            upstream.answers(completion())
            upstream.asked = 0

    def model(self, *at: str, weights: dict[str, int] | None = None, **facts: Any) -> Model:
        """A premium model at these providers, that the gateway serves already: in this order, or by these weights."""
        # Enabled only when it is whole: the gateway must not see a part of it.
        model = factories.make_model(**{"tier": Model.Tier.PREMIUM, "is_enabled": False, **facts})
        model.upstreams.all().delete()
        for position, name in enumerate(at, 1):
            Upstream.objects.create(
                model=model,
                provider=self.providers[name],
                upstream_model=f"{name}s-{model.slug}",
                position=1 if weights else position,
                weight=(weights or {}).get(name, 1),
            )
        Model.objects.filter(pk=model.pk).update(is_enabled=True)
        wait_for(lambda: self.stage.get(f"models/{model.slug}", self.secret).status_code == 200)
        return model

    def post(self, model: Model | str, **fields: Any) -> httpx.Response:
        return self.stage.post(self.secret, chat(model, **fields))

    def asked(self) -> tuple[int, ...]:
        """How many requests each upstream has seen."""
        return tuple(upstream.asked for upstream in self.upstreams.values())

    def charged(self) -> int:
        """What has left the wallet, in nano-USD; nothing may be held any more."""
        wallet = Wallet.objects.get(account=self.account)
        assert wallet.held_nanousd == 0
        assert not Hold.objects.exists()
        return CREDIT - wallet.balance_nanousd


def served_by(response: httpx.Response) -> tuple[int, str | None, str | None]:
    """Status, model and upstream of an answer."""
    headers = response.headers
    return response.status_code, headers.get("x-tollgate-model"), headers.get("x-tollgate-upstream")


@contextlib.contextmanager
def running(home: Path) -> Iterator[tuple[dict[str, RawUpstream], GatewayServer]]:
    """The upstreams, and a gateway that waits a second where another waits a minute."""
    with contextlib.ExitStack() as stack:
        upstreams = {name: stack.enter_context(raw_upstream.running()) for name in NAMES}
        keys: Any = {f"{name.upper()}_API_KEY": f"key-of-{name}" for name in NAMES}
        gateway = server.running(
            sandbox_url="",
            home=home,
            UPSTREAM_PRIVATE_NETWORKS="127.0.0.0/8",
            GATEWAY_CATALOGUE_EVERY_S="0.05",
            GATEWAY_CONNECT_TIMEOUT_S="0.5",
            GATEWAY_FIRST_BYTE_TIMEOUT_S="1",
            GATEWAY_IDLE_TIMEOUT_S="1",
            **keys,
        )
        yield upstreams, stack.enter_context(gateway)

"""The operator's page on upstreams, as gateway processes have described them."""

import datetime as dt
import uuid

import pytest
from django.test import Client

from billing.models import GatewayProcess
from tests.factories import make_model, make_user, now

pytestmark = pytest.mark.django_db

PAGE = "/admin/billing/gatewayprocess/"


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(make_user(is_staff=True, is_superuser=True))
    return client


def describe(*, heard: dt.timedelta = dt.timedelta(), **states: str) -> GatewayProcess:
    """A process that has described upstreams of the provider acme, by model."""
    return GatewayProcess.objects.create(
        id=uuid.uuid4(),
        heartbeat_at=now() - heard,
        upstreams={
            f"acme/{slug}": {
                "state": state.replace("_", "-"),
                "requests": 40,
                "failures": 0 if state == "closed" else 31,
                "since": "2026-06-01T12:00:00+00:00",
                "last_error": "" if state == "closed" else "it answered 502",
            }
            for slug, state in states.items()
        },
    )


def test_the_page_names_each_upstream_and_process_the_open_ones_first(operator: Client) -> None:
    model = make_model("flash")
    first = describe(alpha="closed", flash="half_open")
    second = describe(flash="open")

    page = operator.get(PAGE)

    seen = [(each.upstream, each.state, each.process) for each in page.context["observations"]]
    assert seen == [
        ("acme/flash", "open", str(second.pk)[-6:]),
        ("acme/flash", "half-open", str(first.pk)[-6:]),
        ("acme/alpha", "closed", str(first.pk)[-6:]),
    ]
    html = page.content.decode()
    for shown in ("Open: no requests are sent", "it answered 502", ">31<", "2026"):
        assert shown in html
    assert f'href="/admin/catalog/model/{model.pk}/change/#upstreams-group"' in html


def test_a_process_that_has_fallen_silent_is_not_shown(operator: Client) -> None:
    describe(heard=dt.timedelta(minutes=1), flash="open")

    assert "No upstream has been called yet" in operator.get(PAGE).content.decode()


def test_the_page_is_found_from_the_admin_and_changes_nothing(operator: Client) -> None:
    process = describe(flash="open")

    assert "Upstream health" in operator.get("/admin/billing/").content.decode()
    assert operator.post(f"{PAGE}{process.pk}/delete/", {"post": "yes"}).status_code == 403
    assert operator.get(f"{PAGE}add/").status_code == 403


def test_the_page_is_for_operators_who_may_see_it(client: Client) -> None:
    assert client.get(PAGE).status_code == 302
    client.force_login(make_user())
    assert client.get(PAGE).status_code == 302
    client.force_login(make_user(is_staff=True))
    assert client.get(PAGE).status_code == 403

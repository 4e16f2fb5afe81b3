import datetime as dt
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client

from catalog.models import Model, ModelAlias, Price, Provider
from tests.factories import make_model, make_user, now

pytestmark = pytest.mark.django_db


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(make_user(is_staff=True, is_superuser=True))
    return client


def form(model: Model, **prices: str) -> dict[str, str]:
    """What the browser sends for the model's page with one coming price."""
    fields = {
        "slug": model.slug,
        "name": model.name,
        "provider": str(model.provider_id),
        "tier": model.tier,
        "kind": model.kind,
        "context_window": str(model.context_window),
        "max_output_tokens": str(model.max_output_tokens or ""),
        "is_enabled": "on",
    }
    for prefix in ("prices", "prices-2", "upstreams", "aliases"):
        fields |= {f"{prefix}-TOTAL_FORMS": "0", f"{prefix}-INITIAL_FORMS": "0"}
    if prices:
        fields["prices-TOTAL_FORMS"] = "1"
        fields |= {f"prices-0-{name}": value for name, value in prices.items()}
    return fields


def price_fields(starts_at: dt.datetime, figure: str) -> dict[str, str]:
    return {
        "starts_at_0": f"{starts_at:%Y-%m-%d}",
        "starts_at_1": f"{starts_at:%H:%M:%S}",
        "input_usd_per_mtok": figure,
        "output_usd_per_mtok": figure,
    }


def test_an_operator_sets_a_price_from_a_date(operator: Client) -> None:
    model = make_model()
    next_month = (now() + dt.timedelta(days=30)).replace(microsecond=0)

    answer = operator.post(
        f"/admin/catalog/model/{model.pk}/change/", form(model, **price_fields(next_month, "3.5"))
    )

    assert answer.status_code == 302
    new = model.prices.get(starts_at=next_month)
    assert (new.input_usd_per_mtok, new.source) == (Decimal("3.5"), Price.Source.OPERATOR)
    assert model.prices.count() == 2


def test_a_price_set_for_the_past_holds_from_now(operator: Client) -> None:
    model = make_model()
    before = now()

    operator.post(
        f"/admin/catalog/model/{model.pk}/change/",
        form(model, **price_fields(before - dt.timedelta(days=9), "3")),
    )

    assert model.prices.get(input_usd_per_mtok=3).starts_at >= before


def test_past_prices_are_shown_and_cannot_be_changed(operator: Client) -> None:
    model = make_model(input_price="1.25")
    past = model.prices.get()
    page = operator.get(f"/admin/catalog/model/{model.pk}/change/").content.decode()
    assert "Prices until now" in page
    assert "1.25" in page
    assert f'value="{past.pk}" id="id_prices-0-id"' not in page

    sent = form(model) | {"prices-TOTAL_FORMS": "1", "prices-INITIAL_FORMS": "1", "prices-0-id": str(past.pk)}
    sent |= {"prices-0-model": str(model.pk), "prices-0-DELETE": "on"}
    sent |= {f"prices-0-{name}": value for name, value in price_fields(now(), "99").items()}
    operator.post(f"/admin/catalog/model/{model.pk}/change/", sent)

    past.refresh_from_db()
    assert past.input_usd_per_mtok == Decimal("1.25")


def test_models_are_disabled_and_never_deleted(operator: Client) -> None:
    model = make_model()

    chosen = {"action": "disable", "_selected_action": [str(model.pk)]}
    operator.post("/admin/catalog/model/", chosen)
    assert not Model.objects.get(pk=model.pk).is_enabled
    operator.post("/admin/catalog/model/", chosen | {"action": "enable"})
    assert Model.objects.get(pk=model.pk).is_enabled

    assert operator.post(f"/admin/catalog/model/{model.pk}/delete/", {"post": "yes"}).status_code == 403
    assert (
        operator.post(f"/admin/catalog/provider/{model.provider_id}/delete/", {"post": "yes"}).status_code
        == 403
    )
    assert operator.get("/admin/catalog/provider/").status_code == 200


def provider_form(provider: Provider, **changed: Any) -> dict[str, Any]:
    fields = {"slug": provider.slug, "name": provider.name, "base_url": provider.base_url}
    limit = {"key_env": provider.key_env, "output_limit_parameter": provider.output_limit_parameter}
    return fields | limit | {"protocols": provider.protocols, **changed}


def test_an_operator_says_which_protocols_a_provider_speaks(operator: Client) -> None:
    provider = make_model().provider
    address = f"/admin/catalog/provider/{provider.pk}/change/"

    spoken = ["openai-chat", "anthropic-messages"]
    assert operator.post(address, provider_form(provider, protocols=spoken)).status_code == 302
    provider.refresh_from_db()
    assert provider.protocols == spoken

    assert "checked" in operator.get(address).content.decode()
    assert operator.post(address, provider_form(provider, protocols=["telnet"])).status_code == 200


@pytest.mark.parametrize("url", ["http://api.example.com/v1", "https://10.0.0.1/v1", "https://localhost/v1"])
def test_a_provider_at_an_unsafe_address_is_refused_with_the_way_out(operator: Client, url: str) -> None:
    provider = make_model().provider

    page = operator.post(
        f"/admin/catalog/provider/{provider.pk}/change/", provider_form(provider, base_url=url)
    )

    assert "The gateway would not connect there" in page.content.decode()
    assert "UPSTREAM_PRIVATE_NETWORKS" in page.content.decode()
    provider.refresh_from_db()
    assert provider.base_url != url


def test_an_operator_gives_a_model_another_name(operator: Client) -> None:
    model = make_model("flash-2")
    sent = form(model) | {"aliases-TOTAL_FORMS": "1", "aliases-0-name": "vendor/fast", "aliases-0-model": ""}

    operator.post(f"/admin/catalog/model/{model.pk}/change/", sent)

    assert ModelAlias.objects.get().model == model
    assert "vendor/fast" in operator.get("/admin/catalog/modelalias/").content.decode()


@pytest.mark.parametrize("name", ["auto", "flash-2", "acme/flash-2", "two words", "-x", ""])
def test_an_alias_hides_no_other_name(operator: Client, name: str) -> None:
    model = make_model("flash-2")

    page = operator.post("/admin/catalog/modelalias/add/", {"name": name, "model": str(model.pk)})

    assert page.status_code == 200
    assert not ModelAlias.objects.exists()


@pytest.mark.parametrize("slug", ["auto", "fast"])
def test_a_model_takes_no_name_that_is_taken(operator: Client, slug: str) -> None:
    model = make_model("flash-2")
    ModelAlias.objects.create(name="fast", model=make_model("other"))

    page = operator.post(f"/admin/catalog/model/{model.pk}/change/", form(model) | {"slug": slug})

    assert page.status_code == 200
    model.refresh_from_db()
    assert model.slug == "flash-2"


def test_a_weight_of_nothing_is_refused(operator: Client) -> None:
    model = make_model("flash-2")
    upstream = model.upstreams.get()
    sent = form(model) | {"upstreams-TOTAL_FORMS": "1", "upstreams-INITIAL_FORMS": "1"}
    facts: dict[str, Any] = {
        "id": upstream.pk,
        "model": model.pk,
        "provider": upstream.provider_id,
        "position": 1,
    }
    facts |= {"upstream_model": "flash-2", "is_enabled": "on", "weight": 0}

    page = operator.post(
        f"/admin/catalog/model/{model.pk}/change/",
        sent | {f"upstreams-0-{name}": str(value) for name, value in facts.items()},
    )

    assert "greater than or equal to 1" in page.content.decode()


def test_the_admin_is_for_operators(client: Client) -> None:
    client.force_login(make_user())

    assert client.get("/admin/catalog/model/").status_code == 302

import datetime as dt
from decimal import Decimal

import pytest
from django.test import Client

from catalog.models import Model, Price
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
    for prefix in ("prices", "prices-2", "upstreams"):
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


def test_the_admin_is_for_operators(client: Client) -> None:
    client.force_login(make_user())

    assert client.get("/admin/catalog/model/").status_code == 302

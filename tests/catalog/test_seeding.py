import datetime as dt
import io
from decimal import Decimal

import pytest
from django.core.management import call_command

from catalog.models import Model, Price, Provider, Upstream
from catalog.pricing import price_at
from catalog.seeding import seed

pytestmark = pytest.mark.django_db

AT = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
LATER = AT + dt.timedelta(days=30)


def test_a_seeded_catalogue_holds_models_with_prices_and_upstreams() -> None:
    seed(at=AT)

    model = Model.objects.get(slug="claude-opus-4.8")
    assert (model.tier, model.kind, model.context_window, model.max_output_tokens) == (
        "premium",
        "chat",
        1_000_000,
        128_000,
    )
    assert model.upstreams.get().upstream_model == "claude-opus-4-8"
    price = price_at(model=model, at=AT)
    assert price is not None
    assert price.figures == (Decimal(5), Decimal(25), Decimal("0.5"), Decimal("6.25"))
    assert Model.objects.get(slug="text-embedding-3-small").kind == Model.Kind.EMBEDDING
    assert Model.objects.filter(prices=None).count() == Model.objects.filter(upstreams=None).count() == 0


def test_openai_is_told_its_own_name_for_the_output_limit() -> None:
    seed(at=AT)

    limits = dict(Provider.objects.values_list("slug", "output_limit_parameter"))
    assert limits.pop("openai") == "max_completion_tokens"
    assert set(limits.values()) == {"max_tokens"}


def test_providers_are_seeded_with_their_protocols_and_models_with_what_they_take() -> None:
    seed(at=AT)

    protocols = dict(Provider.objects.values_list("slug", "protocols"))
    assert protocols["anthropic"] == ["openai-chat", "anthropic-messages"]
    assert protocols["openai"] == ["openai-chat", "openai-responses"]
    assert protocols["zai"] == ["openai-chat"]
    facts = {
        slug: (tools, images)
        for slug, tools, images in Model.objects.values_list("slug", "supports_tools", "supports_images")
    }
    assert facts["claude-opus-4.8"] == (True, True)
    assert facts["glm-5"] == (True, False)
    assert facts["text-embedding-3-small"] == (False, False)


def test_seeding_twice_changes_nothing() -> None:
    seed(at=AT)
    before = [list(table.objects.order_by("pk").values()) for table in (Provider, Model, Price, Upstream)]

    seed(at=LATER)

    assert [
        list(table.objects.order_by("pk").values()) for table in (Provider, Model, Price, Upstream)
    ] == before


def test_a_shipped_price_that_changed_holds_from_now_and_the_old_one_stays() -> None:
    seed(at=AT)
    Price.objects.filter(model__slug="glm-5").update(output_usd_per_mtok=Decimal(9))

    seed(at=LATER)

    model = Model.objects.get(slug="glm-5")
    assert [(price.starts_at, price.output_usd_per_mtok) for price in model.prices.all()] == [
        (LATER, Decimal("3.2")),
        (AT, Decimal(9)),
    ]


def test_what_an_operator_changed_is_not_overwritten() -> None:
    seed(at=AT)
    model = Model.objects.get(slug="glm-5")
    Model.objects.filter(pk=model.pk).update(is_enabled=False, tier="basic")
    Provider.objects.filter(slug="zai").update(base_url="https://proxy.example/v1")
    Price.objects.create(
        model=model, starts_at=LATER, input_usd_per_mtok=Decimal(2), output_usd_per_mtok=Decimal(4)
    )
    model.upstreams.all().delete()

    seed(at=LATER + dt.timedelta(days=1))

    model.refresh_from_db()
    assert (model.is_enabled, model.tier) == (False, "basic")
    assert model.prices.count() == 2
    assert not model.upstreams.exists()
    assert Provider.objects.get(slug="zai").base_url == "https://proxy.example/v1"


def test_the_command_seeds_and_says_how_much_there_is() -> None:
    out = io.StringIO()
    call_command("seed_catalogue", stdout=out)
    call_command("seed_catalogue", stdout=out, verbosity=0)

    assert out.getvalue() == "catalogue: 16 models\n"

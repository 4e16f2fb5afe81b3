import logging
from collections.abc import Callable

import pytest
from pytest_django import DjangoAssertNumQueries
from pytest_django.fixtures import Settings

from catalog import serving
from catalog.models import Model, ModelAlias, Price, Provider, Upstream
from tests.factories import make_model

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def with_a_key(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.SANDBOX_UPSTREAM_URL = ""
    monkeypatch.setenv("ACME_API_KEY", "acme-secret")


def test_a_model_is_found_by_slug_by_provider_and_slug_and_by_alias() -> None:
    ModelAlias.objects.create(name="fast", model=make_model("flash-2"))

    catalogue = serving.load()

    found = {name: catalogue.get(name) for name in ("flash-2", "acme/flash-2", "fast")}
    assert {model.slug for model in found.values() if model} == {"flash-2"}
    assert len(set(map(id, found.values()))) == 1
    assert [model.slug for model in catalogue] == ["flash-2"]
    assert catalogue.get("other/flash-2") is None


def test_a_model_of_its_own_wins_over_an_alias_of_the_same_name() -> None:
    ModelAlias.objects.create(name="flash-2", model=make_model("other"))
    make_model("flash-2")

    model = serving.load().get("flash-2")

    assert model is not None
    assert model.slug == "flash-2"


def test_an_alias_of_a_disabled_model_means_nothing() -> None:
    ModelAlias.objects.create(name="fast", model=make_model("gone", is_enabled=False))

    assert serving.load().get("fast") is None


def test_targets_come_by_position_with_their_weights_and_protocols() -> None:
    model = make_model("flash-2")
    other = Provider.objects.create(
        slug="other",
        name="Other",
        base_url="https://other.example/v1/",
        key_env="ACME_API_KEY",
        protocols=["openai-chat", "anthropic-messages"],
    )
    model.upstreams.update(position=2)
    Upstream.objects.create(model=model, provider=other, upstream_model="flash", position=1, weight=3)

    served = serving.load().get("flash-2")

    assert served is not None
    first, second = served.targets
    assert (first.id, first.base_url, first.weight) == ("other/flash-2", "https://other.example/v1", 3)
    assert first.protocols == {"openai-chat", "anthropic-messages"}
    assert (second.id, second.protocols) == ("acme/flash-2", frozenset({"openai-chat"}))
    assert "acme-secret" not in repr(served)


def test_whatever_changes_is_read_anew_and_nothing_else_is(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    model = make_model("flash-2")
    alias = ModelAlias.objects.create(name="fast", model=model)
    changes: list[Callable[[], object]] = [
        lambda: Model.objects.filter(pk=model.pk).update(max_output_tokens=77),
        lambda: Model.objects.filter(pk=model.pk).update(is_enabled=False),
        lambda: Provider.objects.update(base_url="https://elsewhere.example/v1"),
        lambda: Upstream.objects.update(weight=7),
        lambda: Price.objects.update(input_usd_per_mtok=9),
        lambda: ModelAlias.objects.update(name="faster"),
        alias.delete,
        lambda: Upstream.objects.all().delete(),
    ]
    known = ""
    for change in [lambda: None, *changes]:
        change()
        read = serving.load_if_changed(known)
        assert read is not None
        known, _catalogue = read
        with django_assert_num_queries(1):
            assert serving.load_if_changed(known) is None


def test_an_upstream_at_a_private_address_is_not_served_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_model("flash-2")
    Provider.objects.update(base_url="https://169.254.169.254/v1")

    with caplog.at_level(logging.WARNING):
        loaded = [serving.load().get("flash-2") for _ in range(3)]

    assert all(model is not None and not model.targets for model in loaded)
    [record] = caplog.records
    assert "provider acme is not used: 169.254.169.254 is not a public address" in record.message


def test_the_sandbox_is_exempt_and_speaks_every_protocol(settings: Settings) -> None:
    settings.SANDBOX_UPSTREAM_URL = "http://127.0.0.1:9/v1"
    make_model("flash-2")

    model = serving.load().get("flash-2")

    assert model is not None
    assert [(target.id, len(target.protocols)) for target in model.targets] == [("sandbox/flash-2", 3)]

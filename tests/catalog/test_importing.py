import datetime as dt
import json
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from hypothesis import given
from hypothesis import strategies as st

from catalog.importing import BadPriceMap, ImportReport, import_price_map, read_price_map
from catalog.models import Model, Price
from catalog.pricing import price_at
from catalog.seeding import seed

SEEDED_AT = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
AT = dt.datetime(2026, 7, 1, tzinfo=dt.UTC)


@pytest.fixture(autouse=True)
def _catalogue(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("django_db"):
        seed(at=SEEDED_AT)


def entry(provider: str = "anthropic", cost: Any = 4e-06, **fields: Any) -> dict[str, Any]:
    return {
        "litellm_provider": provider,
        "mode": "chat",
        "input_cost_per_token": cost,
        "output_cost_per_token": 2e-05,
        "max_input_tokens": 100_000,
        "max_output_tokens": 8_000.0,
        **fields,
    }


def imported(**options: Any) -> ImportReport:
    """Import what the keyword `entries` holds, through the JSON text of a file."""
    document = read_price_map(json.dumps(options.pop("entries")))
    return import_price_map(document=document, at=AT, **options)


@pytest.mark.django_db
def test_a_price_that_differs_holds_from_the_import_on_and_history_stays() -> None:
    caches: dict[str, Any] = {"cache_read_input_token_cost": 4e-07, "cache_creation_input_token_cost": 5e-06}
    report = imported(entries={"claude-opus-4-8": entry(**caches)})

    model = Model.objects.get(slug="claude-opus-4.8")
    new, old = model.prices.all()
    assert new.figures == (Decimal(4), Decimal(20), Decimal("0.4"), Decimal(5))
    assert (new.starts_at, new.source) == (AT, Price.Source.IMPORT)
    assert old.figures == (Decimal(5), Decimal(25), Decimal("0.5"), Decimal("6.25"))
    assert price_at(model=model, at=AT - dt.timedelta(seconds=1)) == old
    (line,) = report.of("changed")
    assert line.words == (
        "claude-opus-4.8: input $5, output $25, cached input $0.5, cache write $6.25 per million tokens → "
        "input $4, output $20, cached input $0.4, cache write $5 per million tokens"
    )


@pytest.mark.django_db
def test_a_zero_for_writing_to_a_cache_means_that_it_costs_what_input_costs() -> None:
    imported(entries={"claude-opus-4-8": entry(cache_creation_input_token_cost=0)})

    price = price_at(model=Model.objects.get(slug="claude-opus-4.8"), at=AT)
    assert price is not None
    assert price.cache_write_usd_per_mtok is None


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("key", "provider", "slug"),
    [
        ("claude-opus-4-8", "anthropic", "claude-opus-4.8"),
        ("anthropic/claude-opus-4-8", "anthropic", "claude-opus-4.8"),
        ("claude-opus-4.8", "anthropic", "claude-opus-4.8"),
        ("gemini/gemini-3.1-pro-preview", "gemini", "gemini-3.1-pro"),
        ("dashscope/qwen3.6-plus", "dashscope", "qwen3.6-plus"),
    ],
)
def test_a_model_is_known_by_slug_or_upstream_name_with_its_provider(
    key: str, provider: str, slug: str
) -> None:
    imported(entries={key: entry(provider)})

    price = price_at(model=Model.objects.get(slug=slug), at=AT)
    assert price is not None
    assert price.input_usd_per_mtok == 4


@pytest.mark.django_db
def test_the_same_model_at_another_provider_keeps_its_price() -> None:
    report = imported(entries={"vertex_ai/claude-opus-4-8": entry("vertex_ai-anthropic_models")})

    assert Model.objects.get(slug="claude-opus-4.8").prices.count() == 1
    assert len(report.of("elsewhere")) == 1


@pytest.mark.django_db
def test_an_entry_without_a_provider_is_skipped() -> None:
    assert [line.name for line in imported(entries={"gpt-oss-120b": {"mode": "chat"}}).of("skipped")] == [
        "gpt-oss-120b"
    ]


@pytest.mark.django_db
def test_a_long_list_is_cut_unless_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "prices.json"
    file.write_text(json.dumps({f"model-{number}": {"mode": "chat"} for number in range(12)}))
    short, long = StringIO(), StringIO()

    call_command("import_prices", str(file), stdout=short)
    call_command("import_prices", str(file), stdout=long, verbosity=2)

    assert "... and 2 more" in short.getvalue()
    assert "model-11: names no litellm_provider" in long.getvalue()


@pytest.mark.django_db
def test_an_equal_price_adds_no_row() -> None:
    entries = {"gpt-oss-120b": entry("openai", 1.5e-07, output_cost_per_token=6e-07)}

    assert len(imported(entries=entries).of("unchanged")) == 1
    assert Model.objects.get(slug="gpt-oss-120b").prices.count() == 1


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"output_cost_per_token": None}, "no price per token"),
        ({"input_cost_per_token": 0, "output_cost_per_token": 0.0}, "costs nothing"),
        ({"input_cost_per_token": 1.23456e-11}, "finer than"),
    ],
)
def test_an_entry_without_a_usable_price_is_skipped_with_its_reason(
    fields: dict[str, Any], reason: str
) -> None:
    report = imported(entries={"glm-5": entry("zai", **fields)})

    assert reason in report.of("skipped")[0].words
    assert Model.objects.get(slug="glm-5").prices.count() == 1


@pytest.mark.django_db
@pytest.mark.parametrize("cost", [-1e-06, "0.1", True, 1, [1]])
def test_one_price_that_makes_no_sense_undoes_the_whole_import(cost: Any) -> None:
    entries = {"claude-opus-4-8": entry(), "zai/glm-5": entry("zai", cost)}

    with pytest.raises(BadPriceMap, match="glm-5"):
        imported(entries=entries)

    assert not Price.objects.filter(source=Price.Source.IMPORT).exists()


@pytest.mark.django_db
def test_two_prices_for_one_model_are_refused() -> None:
    with pytest.raises(BadPriceMap, match="different prices"):
        imported(entries={"claude-opus-4-8": entry(), "anthropic/claude-opus-4-8": entry(cost=7e-06)})

    report = imported(entries={"claude-opus-4-8": entry(), "anthropic/claude-opus-4-8": entry()})
    assert (len(report.of("changed")), len(report.of("unchanged"))) == (1, 1)


@pytest.mark.django_db
def test_unknown_models_are_only_created_on_request_and_disabled() -> None:
    entries = {
        "anthropic/claude-next": entry(),
        "openai/dall-e-9": entry("openai", mode="image_generation"),
        "eu/gpt-9": entry("openai"),
        "deepseek/vague": entry("deepseek", max_input_tokens=None),
        "openai/odd": entry("openai", max_output_tokens="many"),
        "openai/glm-5": entry("openai"),
    }

    assert len(imported(entries=entries).of("unknown")) == 6
    report = imported(entries=entries, create_missing=True)

    model = Model.objects.get(slug="claude-next")
    assert (model.is_enabled, model.tier, model.context_window) == (False, "premium", 100_000)
    assert model.upstreams.get().upstream_model == "claude-next"
    assert model.prices.get().figures == (Decimal(4), Decimal(20), None, None)
    assert [line.name for line in report.of("created")] == ["anthropic/claude-next"]
    assert len(report.of("skipped")) == 5


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "nothing",
        '{"a": 1}',
        '{"a": {"b": NaN}}',
        '{"a": {}, "a": {}}',
        "[" * 100_000,
        b"\xff\xfe\x00",
    ],
)
def test_a_file_that_is_no_price_map_is_refused(text: str | bytes) -> None:
    with pytest.raises(BadPriceMap):
        read_price_map(text)


@given(st.binary() | st.text())
def test_any_file_is_read_or_refused_in_words(text: str | bytes) -> None:
    try:
        read_price_map(text)
    except BadPriceMap as refusal:
        assert str(refusal)  # noqa: PT017 - the other outcome, a document, is as good


@pytest.mark.django_db
def test_the_command_says_what_changed_and_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "prices.json"
    entries = {
        "sample_spec": {"input_cost_per_token": "a number"},
        "claude-opus-4-8": entry(),
        "x": entry("elsewhere"),
    }
    file.write_text(json.dumps(entries))

    out = StringIO()
    call_command("import_prices", str(file), "--dry-run", stdout=out)
    assert "1 prices would change" in out.getvalue()
    assert not Price.objects.filter(source=Price.Source.IMPORT).exists()

    out = StringIO()
    call_command("import_prices", str(file), stdout=out)
    assert "claude-opus-4.8: input $5" in out.getvalue()
    assert "1 prices changed, 0 models added" in out.getvalue()
    assert "1 of other providers" in out.getvalue()
    assert Price.objects.filter(source=Price.Source.IMPORT).count() == 1


@pytest.mark.django_db
def test_the_command_refuses_a_bad_file_and_says_so(tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text("{")

    with pytest.raises(CommandError, match=r"no JSON.*Nothing was changed"):
        call_command("import_prices", str(bad))
    with pytest.raises(CommandError, match="No such file"):
        call_command("import_prices", str(tmp_path / "absent.json"))

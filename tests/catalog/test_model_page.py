import datetime as dt
from typing import Any

import pytest
from django.test import Client
from pytest_django.fixtures import DjangoAssertNumQueries

from catalog.models import Model
from catalog.seeding import seed
from tests.factories import make_account, make_model, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def member(client: Client) -> Client:
    user = make_user()
    make_account(user=user)
    client.force_login(user)
    return client


def slugs(page: Any) -> list[str]:
    return [row.model.slug for row in page.context["models"]]


def test_the_page_shows_every_model_that_can_be_called_with_its_price(member: Client) -> None:
    make_model("cheap", input_price="0.15", output_price="0.6", cached_price="0.0285", context_window=131_072)
    make_model("gone", is_enabled=False)
    make_model("unpriced").prices.all().delete()

    page = member.get("/models/")

    assert slugs(page) == ["cheap"]
    html = page.content.decode()
    for shown in ("cheap", "131,072", "$0.15", "$0.60", "$0.0285", 'data-copy="#model-'):
        assert shown in html


def test_the_page_says_what_a_model_takes(member: Client) -> None:
    make_model("plain", supports_tools=False)
    assert ">Tools<" not in member.get("/models/").content.decode()

    make_model("able", supports_images=True)

    html = member.get("/models/").content.decode()
    assert html.count(">Tools<") == html.count(">Images<") == 1


def test_a_price_of_tomorrow_is_not_shown_today(member: Client) -> None:
    model = make_model(input_price="1")
    tomorrow = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    model.prices.create(starts_at=tomorrow, input_usd_per_mtok=7, output_usd_per_mtok=7)

    assert member.get("/models/").context["models"][0].input_nanousd == 1_000_000_000


def test_the_filter_finds_by_name_tier_and_kind(member: Client) -> None:
    make_model("alpha-small")
    make_model("alpha-large", tier=Model.Tier.PREMIUM)
    make_model("beta-embed", kind=Model.Kind.EMBEDDING, max_output_tokens=None)

    assert slugs(member.get("/models/?q=ALPHA")) == ["alpha-small", "alpha-large"]
    assert slugs(member.get("/models/?q=acme&tier=premium")) == ["alpha-large"]
    assert slugs(member.get("/models/?kind=embedding")) == ["beta-embed"]
    assert len(slugs(member.get("/models/?tier=nonsense&kind=%00"))) == 3
    assert "Show every model" in member.get("/models/?q=zzz").content.decode()


def test_htmx_gets_the_table_alone_and_a_step_back_the_whole_page(member: Client) -> None:
    make_model()

    fragment = member.get("/models/", headers={"hx-request": "true"})
    assert b"<html" not in fragment.content
    assert "HX-Request" in fragment["Vary"]
    restored = member.get("/models/", headers={"hx-request": "true", "hx-history-restore-request": "true"})
    assert b"<html" in restored.content


def test_the_number_of_queries_does_not_grow_with_the_catalogue(
    member: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    seed(at=dt.datetime.now(dt.UTC) - dt.timedelta(days=1))

    with django_assert_max_num_queries(6):
        page = member.get("/models/")
    assert len(slugs(page)) == 16


def test_an_operator_without_an_account_may_read_it(client: Client) -> None:
    client.force_login(make_user(is_staff=True, is_superuser=True))

    assert client.get("/models/").status_code == 200


def test_a_stranger_is_sent_to_the_login_page(client: Client) -> None:
    answer = client.get("/models/")

    assert answer.status_code == 302
    assert answer["Location"].startswith("/accounts/login/")

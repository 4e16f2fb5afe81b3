"""The way in."""

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from catalog.models import Model
from tests import factories

pytestmark = pytest.mark.django_db


def test_a_stranger_reads_what_it_is_and_what_models_cost(client: Client) -> None:
    factories.make_model("free-one", input_price="0.15", output_price="0.6")
    factories.make_model("dear-one", tier=Model.Tier.PREMIUM, input_price="3", output_price="15")
    factories.make_model("hidden-one", is_enabled=False)

    page = client.get("/").content.decode()

    assert "$0.15" in page
    assert "$15.00" in page
    assert "hidden-one" not in page
    assert 'href="/accounts/signup/"' in page
    assert "200,000 tokens a day are free" in page


def test_without_models_the_page_says_so(client: Client) -> None:
    assert b"No models yet" in client.get("/").content


def test_whoever_is_signed_in_goes_to_the_overview(client: Client) -> None:
    client.force_login(factories.make_user())

    assert client.get("/")["Location"] == "/overview/"


def test_the_page_costs_the_same_queries_however_many_models_there_are(
    client: Client,
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    for _ in range(12):
        factories.make_model()

    with django_assert_num_queries(3):  # the models with their prices, and the two plans
        client.get("/")


@pytest.mark.parametrize("address", ["/", "/docs/", "/accounts/login/", "/accounts/signup/", "/nowhere/"])
def test_no_page_needs_more_than_our_own_scripts_and_styles(client: Client, address: str) -> None:
    answer = client.get(address)

    policy = answer["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    page = answer.content.decode()
    assert " style=" not in page
    assert " onclick=" not in page
    assert "<style" not in page
    assert "<script>" not in page

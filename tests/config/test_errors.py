"""Pages for what went wrong."""

import pytest
from django.template.loader import get_template
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from tests import factories

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("name", ["400", "403", "403_csrf", "404", "429", "500"])
def test_an_error_page_needs_neither_request_nor_database(
    name: str,
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    with django_assert_num_queries(0):
        page = get_template(f"{name}.html").render()

    assert "Tollgate" in page
    assert 'href="/"' in page


def test_an_address_that_is_none_answers_404_with_our_page(client: Client) -> None:
    page = client.get("/nowhere/")

    assert page.status_code == 404
    assert b"There is nothing here" in page.content


def test_a_form_without_its_token_is_refused_with_our_page() -> None:
    client = Client(enforce_csrf_checks=True)

    page = client.post("/accounts/login/", {"login": "a@example.com", "password": "x"})

    assert page.status_code == 403
    assert b"This form is too old" in page.content


def test_a_forged_host_is_refused_with_our_page(client: Client) -> None:
    page = client.get("/", HTTP_HOST="evil.example")

    assert page.status_code == 400
    assert b"Something in the address" in page.content


def test_a_failure_of_ours_says_so_and_nothing_of_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    from config import overview

    def fail(**_: object) -> None:
        raise RuntimeError("the cause of it")

    monkeypatch.setattr(overview.Overview, "load", fail)
    client = Client(raise_request_exception=False)
    client.force_login(factories.make_account().members.get())

    page = client.get("/overview/")

    assert page.status_code == 500
    assert b"Something went wrong on our side" in page.content
    assert b"the cause of it" not in page.content

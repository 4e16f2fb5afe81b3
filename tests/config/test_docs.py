"""The docs, and that they are true."""

import inspect
import re

import pytest
from django.test import Client
from pytest_django.fixtures import Settings

from config.error_guide import EXPLAINED
from gateway import errors, failures
from tests import factories

pytestmark = pytest.mark.django_db


def test_the_quickstart_has_the_readers_own_base_url_and_a_model_to_call(client: Client) -> None:
    factories.make_model("embedder", kind="embedding")
    factories.make_model("free-one")

    page = client.get("/docs/", HTTP_HOST="localhost:8000").content.decode()

    assert "http://localhost:8000/v1/chat/completions" in page
    assert "free-one" in page
    assert "embedder" not in page


def test_the_public_address_goes_before_the_host_of_the_request(client: Client, settings: Settings) -> None:
    settings.PUBLIC_URL = "https://ai.example.com"

    assert b"https://ai.example.com/v1" in client.get("/docs/").content


def test_a_stranger_may_read_them_and_sees_no_menu_of_the_console(client: Client) -> None:
    page = client.get("/docs/")

    assert page.status_code == 200
    assert b'href="/billing/">' not in page.content


def test_every_code_that_the_gateway_refuses_with_is_explained() -> None:
    source = inspect.getsource(errors) + inspect.getsource(failures)
    refused = {
        (int(status), code)
        for status, code in re.findall(r'Refusal\(\s*(\d{3}),\s*\w+,\s*"([a-z_]+)"', source)
        if code != "invalid_value"
    }

    assert refused
    assert refused <= {(error.status, error.code) for error in EXPLAINED}


def test_nothing_is_explained_twice() -> None:
    codes = [error.code for error in EXPLAINED]

    assert len(codes) == len(set(codes))


def test_limits_are_those_of_the_plans(client: Client) -> None:
    from accounts.models import Plan

    Plan.objects.filter(slug=Plan.BASIC).update(tokens_per_day=123_456)

    assert b"123,456" in client.get("/docs/").content

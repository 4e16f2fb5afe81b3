"""What is refused at the start: Stripe that is offered and not set up, or whose key would travel in the open."""

import pytest
from pytest_django import Settings

from config.checks import stripe_is_set_up


def problems(settings: Settings, **given: object) -> list[str]:
    settings.TOPUP_PROVIDERS = ["stripe"]
    settings.STRIPE_SECRET_KEY = "sk_live_1"
    settings.STRIPE_WEBHOOK_SECRETS = ["whsec_1"]
    settings.STRIPE_API_URL = ""
    for name, value in given.items():
        setattr(settings, name, value)
    return [f"{problem.id} {problem.msg}" for problem in stripe_is_set_up(None)]


@pytest.mark.parametrize("key", ["sk_live_1", "sk_test_1", "rk_live_1"])
def test_what_is_set_up_is_fine(settings: Settings, key: str) -> None:
    assert problems(settings, STRIPE_SECRET_KEY=key) == []
    assert problems(settings, STRIPE_WEBHOOK_SECRETS=["whsec_1", "whsec_2"]) == []


def test_where_stripe_is_not_offered_nothing_is_missing(settings: Settings) -> None:
    assert problems(settings, TOPUP_PROVIDERS=[], STRIPE_SECRET_KEY="", STRIPE_WEBHOOK_SECRETS=[]) == []


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"STRIPE_SECRET_KEY": ""}, "STRIPE_SECRET_KEY is empty"),
        ({"STRIPE_SECRET_KEY": "pk_live_1"}, "STRIPE_SECRET_KEY is no such key"),
        ({"STRIPE_WEBHOOK_SECRETS": []}, "STRIPE_WEBHOOK_SECRETS is empty"),
        ({"STRIPE_WEBHOOK_SECRETS": ["whsec_1", ""]}, "STRIPE_WEBHOOK_SECRETS is malformed"),
    ],
)
def test_what_is_missing_is_named(settings: Settings, given: dict[str, object], problem: str) -> None:
    (found,) = problems(settings, **given)
    assert found.startswith("tollgate.E005 TOPUP_PROVIDERS offers stripe")
    assert problem in found


def test_a_key_does_not_travel_in_the_open(settings: Settings) -> None:
    assert problems(settings, STRIPE_API_URL="http://127.0.0.1:1") == []
    settings.EMBEDDED = False
    assert problems(settings, STRIPE_API_URL="https://proxy.example") == []
    (found,) = problems(settings, STRIPE_API_URL="http://proxy.example")
    assert found.startswith("tollgate.E006")

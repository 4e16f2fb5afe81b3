"""Fixtures of the tests of money."""

import pytest
from pytest_django import Settings


@pytest.fixture(autouse=True)
def _sandbox_payments(settings: Settings) -> None:
    settings.TOPUP_PROVIDERS = ["sandbox"]

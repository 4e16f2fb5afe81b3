"""What supervisors ask."""

import pytest
from django.db import OperationalError
from django.test import Client
from pytest_django.fixtures import Settings

from config import health
from gateway import condition

pytestmark = pytest.mark.django_db


def test_a_process_that_answers_is_alive(client: Client) -> None:
    assert client.get("/health/live").json() == {"status": "ok"}


def test_a_process_with_both_stores_is_ready(client: Client) -> None:
    answer = client.get("/health/ready")

    assert answer.status_code == 200
    assert answer.json() == {"postgresql": "ok", "redis": "ok", "journal": "ok"}
    assert "no-store" in answer["Cache-Control"]


def test_without_redis_a_process_is_still_ready_and_says_so(client: Client, settings: Settings) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"

    answer = client.get("/health/ready")

    assert answer.status_code == 200
    assert answer.json()["redis"] == "unreachable"


def test_a_process_that_owes_what_no_disk_takes_is_not_ready(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(condition, "journal", condition.NOT_WRITABLE)

    answer = client.get("/health/ready")

    assert answer.status_code == 503
    assert answer.json()["journal"] == "not writable"


def test_without_postgresql_a_process_is_not_ready(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OperationalError("connection refused")

    monkeypatch.setattr(health, "_ask_postgresql", refuse)

    answer = client.get("/health/ready")

    assert answer.status_code == 503
    assert answer.json()["postgresql"] == "unreachable"

"""One name for a request: in its answer, in every line of the log that it caused, and on its receipt."""

import contextlib
import logging
import uuid
from collections.abc import Iterator
from contextvars import copy_context

import pytest
from django.db import connection

from gateway.naming import MaskedFormatter, NamesRequest, served_now
from keys import secrets
from tests.factories import make_key
from tests.gateway.conftest import Stage, chat


def formatted(message: str) -> str:
    record = logging.makeLogRecord({"msg": message})
    assert NamesRequest().filter(record)
    return MaskedFormatter("{message}{request}", style="{").format(record)


def test_a_line_of_a_request_names_it_once() -> None:
    request_id = uuid.uuid4()

    def serve() -> list[str]:
        served_now.set(request_id)
        return [formatted("the connection failed"), formatted(f"request {request_id} failed")]

    assert copy_context().run(serve) == [
        f"the connection failed (request {request_id})",
        f"request {request_id} failed",
    ]
    assert formatted("the process started") == "the process started"


def test_no_line_repeats_a_key() -> None:
    secret = secrets.generate(live=True)

    assert formatted(f"Not Found: /keys/{secret}/") == "Not Found: /keys/tg_…/"


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 401}, "connection"])
def test_the_log_names_the_request_whose_upstream_failed(stage: Stage, fault: object) -> None:
    model = stage.model()
    secret = make_key(stage.account(credit="1")).secret
    before = len(stage.gateway.log)

    response = stage.post(secret, chat(model, sandbox={"fail": fault}))

    assert response.status_code == 502
    request_id = response.headers["x-request-id"]
    lines = stage.gateway.log[before:].splitlines()
    assert lines
    assert all(request_id in line for line in lines), lines


def test_the_log_names_the_request_whose_answer_broke(stage: Stage) -> None:
    model = stage.model()
    secret = make_key(stage.account(credit="1")).secret
    before = len(stage.gateway.log)

    response = stage.post(secret, chat(model, sandbox={"fail": "garbage"}))

    assert response.status_code == 502
    lines = stage.gateway.log[before:].splitlines()
    assert any(response.headers["x-request-id"] in line and "broke" in line for line in lines), lines


def test_the_receipt_has_the_name_of_the_answer(stage: Stage) -> None:
    model = stage.model()
    secret = make_key(stage.account(credit="1")).secret

    request_id = stage.post(secret, chat(model), headers={"x-request-id": "mine"}).headers["x-request-id"]

    receipt = stage.get(f"generation?id={request_id}", secret).json()["data"]
    assert (receipt["id"], receipt["client_request_id"]) == (request_id, "mine")


def test_a_failure_of_our_own_is_logged_under_its_name(stage: Stage) -> None:
    model = stage.model()
    secret = make_key(stage.account(credit="1")).secret
    for table in ("keys_keysecret", "billing_hold"):
        before = len(stage.gateway.log)
        with missing(table):
            response = stage.get("models", secret) if "key" in table else stage.post(secret, chat(model))
        assert response.status_code == 503
        assert response.headers["retry-after"]
        assert response.headers["x-request-id"] in stage.gateway.log[before:]
    assert secret[8:] not in stage.gateway.log


@contextlib.contextmanager
def missing(table: str) -> Iterator[None]:
    """A database that is not what the gateway expects: as good as a bug."""
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO is_away")
        try:
            yield
        finally:
            cursor.execute(f"ALTER TABLE is_away RENAME TO {table}")

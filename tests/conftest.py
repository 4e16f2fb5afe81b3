"""Fixtures that every test may use. PostgreSQL and Redis are started by the plugin `tests.services`."""

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest
from django.core.management.base import CommandError
from django.db import connection
from django.test import TransactionTestCase

_ATTEMPTS = 5


@pytest.fixture(autouse=True)
def _plans(request: pytest.FixtureRequest) -> None:
    """The two plans exist in every test that may touch the database (a transactional one empties the tables)."""
    marker = request.node.get_closest_marker("django_db")
    is_transactional = (
        bool(marker and marker.kwargs.get("transaction")) or "transactional_db" in request.fixturenames
    )
    if marker or is_transactional or "db" in request.fixturenames:
        request.getfixturevalue("transactional_db" if is_transactional else "db")
        from accounts.plans import seed_plans

        seed_plans()


def _patiently(empty: Callable[[TransactionTestCase], None]) -> Callable[[TransactionTestCase], None]:
    """Emptying the tables locks them all; a gateway that still reads or writes some may stand across. Then again."""

    def empty_again(case: TransactionTestCase) -> None:
        for attempt in range(_ATTEMPTS):
            try:
                with _may_truncate():
                    empty(case)
            except CommandError:
                if attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(0.1)
            else:
                return

    return empty_again


@contextlib.contextmanager
def _may_truncate() -> Iterator[None]:
    """The database refuses to empty the tables of the ledger, unless its session says that it may."""
    with connection.cursor() as cursor:
        cursor.execute("SET tollgate.may_truncate = 'yes'")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("RESET tollgate.may_truncate")


# Django offers no other place for it.
TransactionTestCase._fixture_teardown = _patiently(TransactionTestCase._fixture_teardown)  # type: ignore[attr-defined]

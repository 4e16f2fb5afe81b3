"""Fixtures that every test may use. PostgreSQL and Redis are started by the plugin `tests.services`."""

import time
from functools import cache

import pytest
from django.db import OperationalError, connection
from django.test import TransactionTestCase
from psycopg import sql

_ATTEMPTS = 5
_FILLED_BY_MIGRATIONS = {"django_migrations", "django_content_type", "auth_permission", "django_site"}


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


@cache
def _deletion() -> str:
    tables = sorted(set(connection.introspection.table_names()) - _FILLED_BY_MIGRATIONS)
    deletions = sql.SQL("; ").join(
        sql.SQL("DELETE FROM {}").format(sql.Identifier(table)) for table in tables
    )
    whole = sql.SQL("BEGIN; SET LOCAL session_replication_role = replica; {}; COMMIT").format(deletions)
    return whole.as_string()


def _empty(_case: TransactionTestCase) -> None:
    """Empty the tables, but for those that migrations fill.

    Django would truncate them all and then look after its permissions, which takes longer than most tests. Rows are
    deleted with all triggers off, those that guard the ledger too: that is for a superuser only, as tests have.
    """
    statement = _deletion()
    for attempt in range(_ATTEMPTS):
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
        except OperationalError:
            # A gateway that still writes may stand across.
            connection.rollback()
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(0.1)
        else:
            return


# Django offers no other place for it.
TransactionTestCase._fixture_teardown = _empty  # type: ignore[attr-defined]

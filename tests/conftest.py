"""Fixtures that every test may use. PostgreSQL and Redis are started by the plugin `tests.services`."""

import pytest


@pytest.fixture(autouse=True)
def _plans(request: pytest.FixtureRequest) -> None:
    """The two plans exist in every test that may touch the database (a transactional one empties the tables)."""
    if request.node.get_closest_marker("django_db") or {"db", "transactional_db"} & set(request.fixturenames):
        if request.node.get_closest_marker("django_db") and request.node.get_closest_marker(
            "django_db"
        ).kwargs.get("transaction"):
            request.getfixturevalue("transactional_db")
        else:
            request.getfixturevalue(
                "transactional_db" if "transactional_db" in request.fixturenames else "db"
            )
        from accounts.plans import seed_plans

        seed_plans()

"""The sweep of holds has looked for an hour without a gap: tests are about who is silent, not about its own start."""

from django.db import connection


def watch() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO usage_holdwatch (id, began_at, looked_at)"
            " VALUES (1, clock_timestamp() - interval '1 hour', clock_timestamp())"
            " ON CONFLICT (id) DO UPDATE SET began_at = excluded.began_at, looked_at = excluded.looked_at"
        )

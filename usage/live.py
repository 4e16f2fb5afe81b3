"""Usage as it is now: the hourly sums, and the records that the roll-up has not added to them yet, as one relation.

The roll-up adds a record to its hour and marks it in one transaction, so one statement over both counts each once.
"""

import datetime as dt
from typing import Any, TypedDict

from django.db import connection

from accounts.models import Account


class Filters(TypedDict, total=False):
    """Narrows a query; None narrows nothing."""

    key_id: int | None
    model_id: int | None
    environment: str | None
    outcome: str | None


# An account's usage of a range of hours, narrowed by the filters.
USED = """
    WITH used AS (
        SELECT key_id, model_id, outcome, hour, requests, input_tokens, cached_input_tokens, output_tokens,
               cost_nanousd, charged_nanousd, allowance_tokens
        FROM usage_hourlyusage
        WHERE account_id = %(account)s AND hour >= %(start)s AND hour < %(end)s
        UNION ALL
        SELECT key_id, model_id, outcome, date_trunc('hour', started_at, 'UTC'), 1, input_tokens,
               cached_input_tokens, output_tokens, cost_nanousd, charged_nanousd, allowance_tokens
        FROM usage_usagerecord
        WHERE account_id = %(account)s AND NOT is_rolled_up
          AND started_at >= %(start)s AND date_trunc('hour', started_at, 'UTC') < %(end)s
    ), narrowed AS (
        SELECT used.*, keys_apikey.name AS key_name, keys_apikey.environment, catalog_model.slug AS model_slug
        FROM used
        JOIN keys_apikey ON keys_apikey.id = used.key_id
        LEFT JOIN catalog_model ON catalog_model.id = used.model_id
        WHERE (%(key_id)s::bigint IS NULL OR used.key_id = %(key_id)s)
          AND (%(model_id)s::bigint IS NULL OR used.model_id = %(model_id)s)
          AND (%(environment)s::text IS NULL OR keys_apikey.environment = %(environment)s)
          AND (%(outcome)s::text IS NULL OR used.outcome = %(outcome)s)
    )
"""


def select(statement: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The rows of one statement."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return list(cursor.fetchall())


def parameters(
    account: Account | int, start: dt.datetime, end: dt.datetime, filters: Filters
) -> dict[str, Any]:
    """What USED needs. Raises TypeError for a filter that does not exist."""
    unknown = filters.keys() - Filters.__annotations__.keys()
    if unknown:
        msg = f"unknown filters: {', '.join(sorted(unknown))}"
        raise TypeError(msg)
    start = start.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)
    account_id = account.pk if isinstance(account, Account) else account
    everything = dict.fromkeys(Filters.__annotations__)
    return {**everything, **filters, "account": account_id, "start": start, "end": end}

"""Usage as CSV: a line per period, key, environment, model and outcome, exact to the nano-dollar."""

import csv
import datetime as dt
import io
from typing import Unpack

from accounts.models import Account
from billing.spreadsheets import harmless
from catalog.money import usd_string
from usage import live
from usage.queries import Step

COLUMNS = (
    "period_start_utc",
    "key_id",
    "key_name",
    "environment",
    "model",
    "outcome",
    "requests",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "allowance_tokens",
    "list_price_usd",
    "charged_usd",
)
_STATEMENT = f"""
    {live.USED}
    SELECT date_trunc(%(step)s, hour, 'UTC'), key_id, key_name, environment, COALESCE(model_slug, ''), outcome,
           sum(requests)::bigint, sum(input_tokens)::bigint, sum(cached_input_tokens)::bigint,
           sum(output_tokens)::bigint, sum(allowance_tokens)::bigint, sum(cost_nanousd)::bigint,
           sum(charged_nanousd)::bigint
    FROM narrowed GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 3, 2, 5, 6
"""  # noqa: S608 - constants


def usage_csv(
    *, account: Account, start: dt.datetime, end: dt.datetime, step: Step, **filters: Unpack[live.Filters]
) -> str:
    """The file, with a header line; amounts are USD with nine decimals, times ISO 8601 in UTC."""
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(COLUMNS)
    for period, key_id, key_name, environment, model, outcome, *counts, cost, charged in live.select(
        _STATEMENT, {**live.parameters(account, start, end, filters), "step": step}
    ):
        names = (harmless(key_name), environment, model, outcome)
        when = period.strftime("%Y-%m-%dT%H:%M:%SZ")
        writer.writerow([when, key_id, *names, *counts, usd_string(cost), usd_string(charged)])
    return written.getvalue()

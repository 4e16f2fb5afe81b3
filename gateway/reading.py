"""Reading the database without stopping the event loop: ORM queries in a few threads of their own."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from django.db import Error, connection

from gateway.failures import temporarily_unavailable

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

# Of one request, for all it reads. A connection attempt gives up after 2 s; the client hears of it before that, even
# if PostgreSQL goes away only when it is asked to admit.
PATIENCE_S = 1.7

_threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="gateway-reader")


async def read(query: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run the query in a reader thread. Raises Refusal (503) when PostgreSQL does not answer in time."""
    return await read_within(PATIENCE_S, query, *args, **kwargs)


async def read_within(timeout_s: float, query: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The same with another limit."""

    def run() -> T:
        try:
            return query(*args, **kwargs)
        finally:
            connection.close()  # back to the pool

    try:
        async with asyncio.timeout(timeout_s):
            return await asyncio.get_running_loop().run_in_executor(_threads, run)
    except (TimeoutError, Error) as error:
        logger.warning("the database could not be read: %s", type(error).__name__)
        raise temporarily_unavailable("The database") from None

"""The health of the process, for supervisors and load balancers."""

from concurrent.futures import ThreadPoolExecutor

import redis
from django.conf import settings
from django.db import Error, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache

from gateway import condition

# A server that hangs takes a question and never answers: so others wait for it, and the page does not.
_askers = ThreadPoolExecutor(2, thread_name_prefix="readiness")
_PATIENCE_S = 1.5


@never_cache
def live(request: HttpRequest) -> HttpResponse:
    """The process answers."""
    return JsonResponse({"status": "ok"})


@never_cache
def ready(request: HttpRequest) -> HttpResponse:
    """The process can serve: PostgreSQL is reachable, and nothing is owed to it that no disk takes.

    Redis is reported, but requests are served without it.
    """
    database, counters, journal = _postgresql(), _redis(), condition.journal
    status = 200 if database == "ok" and journal == condition.OK else 503
    return JsonResponse({"postgresql": database, "redis": counters, "journal": journal}, status=status)


def _postgresql() -> str:
    try:
        _askers.submit(_ask_postgresql).result(_PATIENCE_S)
    except (Error, TimeoutError):
        return "unreachable"
    return "ok"


def _ask_postgresql() -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    finally:
        connection.close()  # back to the pool


def _redis() -> str:
    try:
        with redis.Redis.from_url(
            settings.REDIS_URL, socket_timeout=0.5, socket_connect_timeout=0.5
        ) as client:
            client.ping()
    except redis.RedisError:
        return "unreachable"
    return "ok"

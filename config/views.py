"""Pages that join several apps, and the health of the process."""

import redis
from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.db import Error, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render


def home(request: HttpRequest) -> HttpResponse:
    """What Tollgate is, for strangers; those who are signed in go to their overview."""
    if request.user.is_authenticated:
        return redirect("overview")
    return render(request, "config/home.html")


@login_required
def overview(request: HttpRequest) -> HttpResponse:
    """Where a person lands: credit, today's allowance, spend, and the first steps until they are done."""
    return render(request, "config/overview.html")


def live(request: HttpRequest) -> HttpResponse:
    """The process answers."""
    return JsonResponse({"status": "ok"})


def ready(request: HttpRequest) -> HttpResponse:
    """The process can serve: PostgreSQL is reachable. Redis is reported, but requests are served without it."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        database = "ok"
    except Error:
        database = "unreachable"
    try:
        redis.Redis.from_url(settings.REDIS_URL, socket_timeout=0.5, socket_connect_timeout=0.5).ping()
        counters = "ok"
    except redis.RedisError:
        counters = "unreachable"
    status = 200 if database == "ok" else 503
    return JsonResponse({"postgresql": database, "redis": counters}, status=status)

"""Attempts are counted while Redis is away, too."""

import redis
from pytest_django import Settings

from config.cache import SteadyCache


def test_with_redis_it_is_redis(settings: object) -> None:
    from django.core.cache import cache

    assert isinstance(cache._connections[cache._alias], SteadyCache)  # type: ignore[attr-defined]
    cache.set("a", 1)
    assert cache.get("a") == 1
    assert cache.delete("a")
    assert cache.get("a") is None


def test_to_clear_it_leaves_the_rest_of_redis_alone(settings: Settings) -> None:
    cache = SteadyCache(settings.REDIS_URL, {"KEY_PREFIX": "cache"})
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.set("minute:since", 1, ex=60)
        for number in range(30):
            cache.set(f"attempts-{number}", number, version=number % 2 + 1)

        cache.clear()

        assert list(client.scan_iter("cache:*")) == []
        assert client.exists("minute:since")


def test_without_redis_counts_go_on_in_the_process() -> None:
    cache = SteadyCache("redis://127.0.0.1:1/0", {"OPTIONS": {"socket_connect_timeout": 0.1}})

    assert cache.get("attempts", []) == []
    cache.set("attempts", [1])
    assert cache.get("attempts") == [1]
    assert not cache.add("attempts", [2])
    assert cache.delete("attempts")
    assert cache.get("attempts") is None
    cache.set("attempts", [1])
    cache.clear()
    assert cache.get("attempts") is None

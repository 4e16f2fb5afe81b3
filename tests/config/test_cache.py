"""Attempts are counted while Redis is away, too."""

from config.cache import SteadyCache


def test_with_redis_it_is_redis(settings: object) -> None:
    from django.core.cache import cache

    assert isinstance(cache._connections[cache._alias], SteadyCache)  # type: ignore[attr-defined]
    cache.set("a", 1)
    assert cache.get("a") == 1
    assert cache.delete("a")
    assert cache.get("a") is None


def test_without_redis_counts_go_on_in_the_process() -> None:
    cache = SteadyCache("redis://127.0.0.1:1/0", {"OPTIONS": {"socket_connect_timeout": 0.1}})

    assert cache.get("attempts", []) == []
    cache.set("attempts", [1])
    assert cache.get("attempts") == [1]
    assert not cache.add("attempts", [2])
    assert cache.delete("attempts")
    assert cache.get("attempts") is None

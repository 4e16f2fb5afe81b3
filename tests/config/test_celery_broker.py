"""The queue is in the Redis database that is named, also behind a socket."""

import redis
from pytest_django import Settings

from config import celery


def test_what_is_queued_is_in_the_database_that_redis_url_names(settings: Settings) -> None:
    with celery.app.connection_for_write() as connection:
        queue = connection.SimpleQueue("a queue of the test's own")
        queue.put({})
        with redis.Redis.from_url(settings.REDIS_URL) as client:
            assert client.llen("a queue of the test's own") == 1
        queue.clear()
        queue.close()

"""What Redis is asked, as Redis says."""

import threading
from typing import Self

import redis
from django.conf import settings

from keys.authenticating import Credential


def stored() -> "redis.Redis":
    return redis.Redis.from_url(settings.REDIS_URL, decode_responses=True)


class Listener:
    """Counts what is asked for one key."""

    def __init__(self, credential: Credential) -> None:
        self._name = f"minute:{{{credential.key_id}}}"
        self._end = f"end:{credential.key_id}"
        self.heard = 0

    def __enter__(self) -> Self:
        listening = threading.Event()
        self._thread = threading.Thread(target=self._listen, args=(listening,))
        self._thread.start()
        listening.wait()
        return self

    def __exit__(self, *_: object) -> None:
        stored().get(self._end)
        self._thread.join(10)

    def _listen(self, listening: threading.Event) -> None:
        ours = stored().client_info()["db"]
        with stored().monitor() as monitor:  # type: ignore[no-untyped-call]  # redis-py types it not
            listening.set()
            # All databases are heard, those of other tests too.
            for command in (heard for heard in monitor.listen() if heard["db"] == ours):
                words = command["command"]
                if self._end in words:
                    return
                self.heard += self._name in words and "EVALSHA" in words

"""The embedded Redis. Standard library only."""

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from config.binaries import find_redis
from config.children import Child, end_of, is_running_with
from config.home import Home, say
from config.refusal import Refused

_START_PATIENCE_S = 60.0
_POLL_S = 0.02
# One for each worker of a parallel test run.
_DATABASES = 64


class RedisServer:
    """One Redis with its append-only file in `TOLLGATE_HOME/redis`, reachable through a socket in a private folder."""

    variable = "REDIS_URL"

    def __init__(self, home: Home, sockets: Path, *, durable: bool) -> None:
        self._data = home.path / "redis"
        self._socket = sockets / "redis.sock"
        self._pid_file = self._data / "redis.pid"
        self._durable = durable
        self.child = Child("redis", [], log=home.logs / "redis.log")

    @property
    def url(self) -> str:
        """The form that redis-py reads."""
        return f"unix://{self._socket}"

    def prepare(self, environ: dict[str, str]) -> None:
        """Find the program and wait for a predecessor to end.

        Raises:
            Refused: no program that would do.
        """
        del environ
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "pidfile": str(self._pid_file),
            "dir": str(self._data),
            "databases": str(_DATABASES),
            "save": "",
            "appendonly": "yes" if self._durable else "no",
            "loglevel": "warning",
        }
        program = find_redis()
        self._data.mkdir(mode=0o700, exist_ok=True)
        self._await_predecessor()
        self.child = Child(
            "redis",
            [program, *(part for name, value in options.items() for part in (f"--{name}", value))],
            log=self.child.log,
            death_signal=signal.SIGTERM if self._durable else signal.SIGKILL,
        )

    def start(self, environ: dict[str, str]) -> None:
        """Start the server; `wait_until_ready` says when it can be used."""
        self.child.start(environ)

    def wait_until_ready(self, pause: Callable[[float], None]) -> None:
        """Return when it answers; `pause(seconds)` is called between looks.

        Raises:
            Refused: it ended instead, or took more than a minute.
        """
        waited_s = 0.0
        while not self._answers():
            if not self.child.is_running or waited_s > _START_PATIENCE_S:
                self.child.kill()
                raise Refused(f"Redis did not start; the end of {self.child.log}:\n{self.child.last_words()}")
            pause(_POLL_S)
            waited_s += _POLL_S

    def _answers(self) -> bool:
        """Whether a PING gets its PONG; a server that still reads its file answers LOADING instead."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1)
                connection.connect(str(self._socket))
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False

    def _await_predecessor(self) -> None:
        """The server of an instance that was killed ends by itself; we hold the lock, so nobody needs it."""
        try:
            pid = int(self._pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return
        if not is_running_with(pid, str(self._socket)):
            return
        say("waiting for the Redis of an instance that was killed")
        os.kill(pid, signal.SIGTERM)
        if not end_of(pid, str(self._socket), patience_s=_START_PATIENCE_S):
            raise Refused(
                f"Redis (pid {pid}) of an earlier instance does not end: end it with `kill -KILL {pid}`"
            )

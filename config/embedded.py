"""PostgreSQL and Redis as children of this process, on unix sockets only. Standard library only."""

import hashlib
import os
import re
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from config.children import Child, stop_together
from config.home import Home
from config.postgres_server import PostgresServer
from config.privileges import STAND_IN
from config.redis_server import RedisServer
from config.refusal import Refused

# The kernel's limit for the path of a socket is 107 bytes on Linux and 103 on macOS; the longest name in the folder,
# `.s.PGSQL.5432.lock`, takes 19.
_LONGEST_FOLDER_BYTES = 80
_STOP_PATIENCE_S = 20.0

Server = PostgresServer | RedisServer


class Embedded:
    """The services that the environment does not provide."""

    def __init__(
        self, home: Home, *, postgres: bool, redis: bool, durable: bool = True, max_connections: int = 60
    ) -> None:
        """Take `durable=False` for tests: nothing waits for the disk, and a crash may lose everything."""
        self._sockets = socket_folder(home.path)
        self._postgres = (
            PostgresServer(home, self._sockets, durable=durable, max_connections=max_connections)
            if postgres
            else None
        )
        self._redis = RedisServer(home, self._sockets, durable=durable) if redis else None
        self.servers: list[Server] = [server for server in (self._redis, self._postgres) if server]

    @property
    def children(self) -> list[Child]:
        """The processes, for a supervisor to watch and restart."""
        return [server.child for server in self.servers]

    @property
    def urls(self) -> dict[str, str]:
        """DATABASE_URL and REDIS_URL, as far as these services are ours."""
        return {server.variable: server.url for server in self.servers}

    def start(self, environ: dict[str, str], *, pause: Callable[[float], None] = time.sleep) -> None:
        """Start both and wait until both answer; `pause(seconds)` is called between looks and may raise.

        Raises:
            Refused: a service could not be started; its last words are in the message.
        """
        if self.servers:
            _make_private(self._sockets)
        for server in self.servers:
            server.prepare(environ)
        for server in self.servers:
            server.start(environ)
        for server in self.servers:
            server.wait_until_ready(pause)

    def restart(self, child: Child, environ: dict[str, str]) -> None:
        """Start a service again that has died."""
        for server in self.servers:
            if server.child is child:
                server.start(environ)

    def stop(self) -> None:
        """Stop both: SIGINT is PostgreSQL's fast shutdown, SIGTERM lets Redis write what it holds."""
        if self._redis:
            stop_together([self._redis.child], signal.SIGTERM, patience_s=_STOP_PATIENCE_S)
        if self._postgres:
            stop_together([self._postgres.child], signal.SIGINT, patience_s=_STOP_PATIENCE_S)
        if self.servers:
            shutil.rmtree(self._sockets, ignore_errors=True)

    def is_migrated(self, migrations: set[tuple[str, str]]) -> bool:
        """Whether our own database has seen these (app, name) pairs. Another's database is taken as prepared."""
        return self._postgres is None or migrations <= self._postgres.applied_migrations()


def socket_folder(home: Path) -> Path:
    """Where the sockets of a home lie: its own path may be long and full of odd characters."""
    name = f"tollgate-{os.geteuid()}-{hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:12]}"
    folder = Path(tempfile.gettempdir()) / name
    # PostgreSQL reads a comma-separated list here, and URLs carry the path unquoted.
    if len(os.fsencode(folder)) > _LONGEST_FOLDER_BYTES or not re.fullmatch(
        r"[\w/.-]+", str(folder), re.ASCII
    ):
        return Path("/tmp") / name  # noqa: S108 - made private, and checked to be so, below
    return folder


def _make_private(folder: Path) -> None:
    """Create a folder that only we can enter.

    Raises:
        Refused: somebody else has made one of that name.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise Refused(
            f"cannot make {folder} for sockets ({error.strerror}): set TMPDIR to a folder of yours"
        ) from error
    # PostgreSQL may be run for root by another user (see postgres_server.py), whose folder it then is.
    owners = {os.geteuid(), STAND_IN.user[0] if STAND_IN.user and os.geteuid() == 0 else os.geteuid()}
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in owners:
        raise Refused(f"{folder} belongs to somebody else: set TMPDIR to a folder of yours")
    folder.chmod(0o700)

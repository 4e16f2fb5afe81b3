"""A PostgreSQL and a Redis of a test's own: to stop, kill, halt and start again, with nobody else harmed."""

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import environ
from django.db import connection, connections

from config.children import stop_together
from config.embedded import Embedded, Server
from config.home import Home
from tests.instance import prepared_home

_RUN_HOME = "TOLLGATE_TEST_RUN_HOME"
_ADDRESS = ("HOST", "PORT", "USER", "PASSWORD", "NAME")


class OwnServices:
    """Both in a folder of their own, run as `./tollgate up` runs them. The database is migrated, with a catalogue."""

    def __init__(self, home: Path, *, postgres: bool, redis: bool) -> None:
        if postgres:
            shutil.copytree(prepared_home(Path(os.environ[_RUN_HOME])) / "postgres", home / "postgres")
        self.home = Home(home)
        self.home.make()
        # As it is shipped: what a crash must not lose waits for the disk, and a Redis that starts again has old counts.
        self._embedded = Embedded(self.home, postgres=postgres, redis=redis, durable=True)
        self._embedded.start(dict(os.environ))
        self.urls = self._embedded.urls

    def stop(self, name: str) -> None:
        """End a service in order, as an administrator does; its clients are cut off."""
        child = self._server(name).child
        stop_together([child], signal.SIGINT if name == "postgres" else signal.SIGTERM, patience_s=20)

    def kill(self, name: str) -> None:
        """End a service the hard way."""
        self._server(name).child.kill()

    def start(self, name: str) -> None:
        """Start it again, and return when it answers."""
        server = self._server(name)
        server.start(dict(os.environ))
        server.wait_until_ready(time.sleep)

    @contextlib.contextmanager
    def halted(self, name: str) -> Iterator[None]:
        """In here it neither answers nor refuses; afterwards it goes on."""
        pid = self._server(name).child.pid
        assert pid is not None
        with halted(family(pid)):
            yield

    def close(self) -> None:
        self._embedded.stop()

    def _server(self, name: str) -> Server:
        return next(server for server in self._embedded.servers if server.child.name == name)


@contextlib.contextmanager
def own_services(*, postgres: bool = False, redis: bool = False) -> Iterator[OwnServices]:
    """Services that end, and whose folder goes, whatever becomes of the test."""
    home = Path(tempfile.mkdtemp(prefix="tollgate-own-", dir=os.environ[_RUN_HOME]))
    services = OwnServices(home, postgres=postgres, redis=redis)
    try:
        yield services
    finally:
        services.close()
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def halted(pids: list[int]) -> Iterator[None]:
    """Processes that stand still in here."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)


def family(pid: int) -> list[int]:
    """The process and all of its descendants."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = stat.read_text().rpartition(")")
            parents[int(name.split()[0])] = int(rest.split()[1])
    found = [pid]
    for member in found:
        found += [child for child, parent in parents.items() if parent == member]
    return found


@contextlib.contextmanager
def models_on(url: str) -> Iterator[None]:
    """In here Django's models of this process live in that database. It is thrown away as it is: nothing is emptied."""
    settings = connections["default"].settings_dict
    address = environ.Env.db_url_config(url)
    before = {name: settings[name] for name in _ADDRESS}
    forget_connections()
    settings.update({name: address[name] for name in _ADDRESS})
    try:
        yield
    finally:
        forget_connections()
        settings.update(before)


def forget_connections() -> None:
    """Those of this process, also the ones that a restart of PostgreSQL has cut and nobody has noticed."""
    connections.close_all()
    connection.close_pool()  # type: ignore[attr-defined]  # PostgreSQL's

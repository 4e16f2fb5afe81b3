"""The embedded PostgreSQL. Standard library only."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from config.binaries import PostgresBinaries, find_postgres
from config.children import Child, end_of, is_running_with
from config.home import Home, say
from config.privileges import OURSELVES, privileges_for, tethered, works
from config.refusal import Refused

NAME = "tollgate"
_PORT = 5432
_START_PATIENCE_S = 60.0
_POLL_S = 0.02
# postmaster.pid: the process id in its first line, and how far it is in its eighth.
_PID_LINE, _STATUS_LINE = 0, 7


class PostgresServer:
    """One cluster in `TOLLGATE_HOME/postgres`, with one database, reachable through a socket in a private folder."""

    variable = "DATABASE_URL"

    def __init__(self, home: Home, sockets: Path, *, durable: bool, max_connections: int) -> None:
        self._home = home
        self._data = home.path / "postgres"
        self._sockets = sockets
        self._durable = durable
        self._max_connections = max_connections
        self._privileges = OURSELVES
        self._binaries = find_postgres(major=self._major())
        self.child = Child("postgres", [], log=home.logs / "postgres.log")

    @property
    def url(self) -> str:
        """The form that django-environ reads as user, folder of the socket, port and database."""
        return f"postgres://{NAME}@:{_PORT}/{self._sockets}/{NAME}"

    def prepare(self, environ: dict[str, str]) -> None:
        """Wait for a predecessor to end, and create the cluster if there is none.

        Raises:
            Refused: no cluster could be made.
        """
        self._privileges = privileges_for(self._data)
        if self._privileges.user:
            self._open_to(*self._privileges.user)
        self._await_predecessor()
        if not self._data.exists():
            self._create(environ)
        self.child = Child(
            "postgres",
            [self._binaries.program("postgres"), "-D", str(self._data), *self._options()],
            log=self.child.log,
            # A fast shutdown when we are gone; tests throw everything away.
            death_signal=signal.SIGINT if self._durable else signal.SIGQUIT,
            privileges=self._privileges,
        )

    def start(self, environ: dict[str, str]) -> None:
        """Start the server; `wait_until_ready` says when it can be used."""
        self._forget_dead_predecessor()
        self.child.start(_environ(environ))

    def wait_until_ready(self, pause: Callable[[float], None]) -> None:
        """Return when connections are accepted; `pause(seconds)` is called between looks.

        Raises:
            Refused: it ended instead, or took more than a minute.
        """
        waited_s = 0.0
        while not self._is_ready():
            if not self.child.is_running or waited_s > _START_PATIENCE_S:
                self.child.kill()
                raise Refused(
                    f"PostgreSQL did not start; the end of {self.child.log}:\n{self.child.last_words()}"
                )
            pause(_POLL_S)
            waited_s += _POLL_S

    def applied_migrations(self) -> set[tuple[str, str]]:
        """The (app, name) pairs that Django has recorded; none in a database it has not touched."""
        query = ["-XAtF", "|", "-c", "SELECT app, name FROM django_migrations"]
        address = ["-h", str(self._sockets), "-p", str(_PORT), "-U", NAME, "-d", NAME]
        done = subprocess.run(
            [self._binaries.program("psql"), *address, *query], capture_output=True, text=True, check=False
        )
        rows = [line.partition("|") for line in done.stdout.splitlines()]
        return {(app, name) for app, _bar, name in rows}

    # --- Parts -------------------------------------------------------------------------------------------

    def _options(self) -> list[str]:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._sockets),
            "unix_socket_permissions": "0700",
            "port": _PORT,
            "max_connections": self._max_connections,
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_checkpoints": "off",
            # Lean: this shares a small machine with everything else, and its queries are short.
            "shared_buffers": "64MB",
            "maintenance_work_mem": "32MB",
            "huge_pages": "off",
            "jit": "off",
            "max_worker_processes": 2,
            "max_parallel_workers_per_gather": 0,
            "max_parallel_maintenance_workers": 0,
            "max_logical_replication_workers": 0,
            "autovacuum_max_workers": 2,
            "min_wal_size": "32MB",
            "max_wal_size": "512MB",
        }
        if self._binaries.major >= 18:  # noqa: PLR2004 - where this setting was born
            settings["io_method"] = "sync"
        if not self._durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    def _create(self, environ: dict[str, str]) -> None:
        """Make a cluster and its database under another name first: half a cluster is never taken for a whole one."""
        draft = self._data.with_suffix(".new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        if self._privileges.user:
            os.chown(draft, *self._privileges.user)
        # Before 17 the C.UTF-8 of the C library is the nearest there is to the one built in.
        provider = ["--locale-provider=builtin"] if self._binaries.major >= 17 else []  # noqa: PLR2004
        cluster = [
            "-D",
            str(draft),
            "-U",
            NAME,
            "--auth=trust",
            "--encoding=UTF8",
            *provider,
            "--locale=C.UTF-8",
        ]
        cluster.append("--lc-messages=C")
        if not self._durable:
            cluster.append("--no-sync")
        self._run([self._binaries.program("initdb"), *cluster], environ)
        fast = [] if self._durable else ["-F"]
        single_user = [self._binaries.program("postgres"), "--single", *fast, "-D", str(draft), "postgres"]
        self._run(single_user, environ, input_text=f"CREATE DATABASE {NAME}\n")
        draft.rename(self._data)

    def _run(self, command: list[str], environ: dict[str, str], *, input_text: str = "") -> None:
        done = subprocess.run(
            tethered(command, privileges=self._privileges),
            env=_environ(environ),
            input=input_text,
            capture_output=True,
            start_new_session=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise Refused(
                f"the database could not be created in {self._data.parent}:\n{done.stderr.strip()[-2000:]}"
            )

    def _major(self) -> int | None:
        """The version of the existing cluster."""
        version = self._data / "PG_VERSION"
        return int(version.read_text()) if version.exists() else None

    def _postmaster_lines(self) -> list[str]:
        try:
            return (self._data / "postmaster.pid").read_text().splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _is_ready(self) -> bool:
        lines = self._postmaster_lines()
        return (
            len(lines) > _STATUS_LINE
            and lines[_PID_LINE] == str(self.child.pid)
            and lines[_STATUS_LINE].strip() == "ready"
        )

    def _predecessor(self) -> int | None:
        lines = self._postmaster_lines()
        return int(lines[_PID_LINE]) if lines and lines[_PID_LINE].isdigit() else None

    def _await_predecessor(self) -> None:
        """The server of an instance that was killed shuts down by itself; we hold the lock, so nobody needs it."""
        pid = self._predecessor()
        if pid is None or not is_running_with(pid, str(self._data)):
            return
        say("waiting for the PostgreSQL of an instance that was killed")
        os.kill(pid, signal.SIGINT)
        if not end_of(pid, str(self._data), patience_s=_START_PATIENCE_S):
            raise Refused(
                f"PostgreSQL (pid {pid}) of an earlier instance does not end: end it with `kill -QUIT {pid}`"
            )

    def _forget_dead_predecessor(self) -> None:
        """PostgreSQL takes any process with the noted id for its predecessor, also a zombie or a stranger."""
        pid = self._predecessor()
        if pid is not None and not is_running_with(pid, str(self._data)):
            (self._data / "postmaster.pid").unlink(missing_ok=True)

    # --- Root ----------------------------------------------------------------------------------------------

    def _open_to(self, uid: int, gid: int) -> None:
        """Let the user who runs PostgreSQL for root reach its programs, its data and its sockets."""
        self._home.path.chmod(0o711)
        os.chown(self._sockets, uid, gid)
        if self._data.exists() and self._data.stat().st_uid != uid:
            for entry in (self._data, *self._data.rglob("*")):
                os.chown(entry, uid, gid, follow_symlinks=False)
        # initdb and not postgres: it also needs a library that lies beside the package.
        if not works([self._binaries.program("initdb"), "--version"], self._privileges):
            self._binaries = self._copy_of_binaries()
        if not works([self._binaries.program("initdb"), "--version"], self._privileges):
            raise Refused(
                "PostgreSQL does not run as root, and no other user can reach TOLLGATE_HOME: "
                "put it under /var/lib, or run Tollgate as an ordinary user"
            )

    def _copy_of_binaries(self) -> PostgresBinaries:
        """The programs once more, where others can reach them: a checkout under /root is closed to everybody else.

        Only a wheel's are ever out of reach. Its programs find their libraries by a relative path, which is kept.
        """
        copy = self._home.path / f"postgresql-{self._binaries.major}"
        installation = self._binaries.folder.parent
        package = installation.parent
        if not copy.exists():
            draft = copy.with_suffix(".new")
            shutil.rmtree(draft, ignore_errors=True)
            shutil.copytree(installation, draft / package.name / installation.name, symlinks=True)
            libraries = package.with_name(f"{package.name}.libs")
            if libraries.exists():
                shutil.copytree(libraries, draft / libraries.name)
            draft.rename(copy)
        return PostgresBinaries(copy / package.name / installation.name / "bin", self._binaries.major)


def _environ(environ: dict[str, str]) -> dict[str, str]:
    """A locale of the machine that is not installed would end PostgreSQL at its first message."""
    return {
        **{name: value for name, value in environ.items() if not name.startswith(("LC_", "PG"))},
        "LC_ALL": "C",
    }

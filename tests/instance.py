"""pytest plugin: a whole Tollgate, started with the real `./tollgate up`, for tests that break or browse it."""

import contextlib
import fcntl
import http.client
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from config.embedded import socket_folder
from config.environment import setting_names
from config.home import ROOT, Home, State
from config.privileges import tethered

_START_PATIENCE_S = 150.0
_STOP_PATIENCE_S = 60.0
_POLL_S = 0.05


class Instance:
    """One installation in a folder of its own, on a free port. It can be stopped and started again."""

    def __init__(self, home: Path | None = None, *, is_fresh: bool = False) -> None:
        """Take a folder for TOLLGATE_HOME, or make one that goes with the test run (`remove` deletes either).

        Unless it is to be fresh, a test run copies its database and static files from one that was prepared before,
        which makes a start a matter of seconds.
        """
        run_home = os.environ.get("TOLLGATE_TEST_RUN_HOME")
        self.home = home or Path(tempfile.mkdtemp(prefix="tollgate-instance-", dir=run_home))
        if run_home and not is_fresh and not (self.home / "postgres").exists():
            shutil.copytree(prepared_home(Path(run_home)), self.home, dirs_exist_ok=True)
        self._process: subprocess.Popen[str] | None = None
        self._extra_env: dict[str, str] = {}
        self._output = self.home.with_name(f"{self.home.name}.output")

    # --- Life ----------------------------------------------------------------------------------------------

    def start(
        self, processes: int = 1, extra_env: Mapping[str, str] | None = None, port: int = 0
    ) -> "Instance":
        """Start it and return when its first page can be served."""
        self.launch("--port", str(port), "--processes", str(processes), extra_env=extra_env)
        self.wait_until_ready()
        return self

    def launch(self, *options: str, extra_env: Mapping[str, str] | None = None) -> None:
        """Run `./tollgate up OPTION ...` and return at once."""
        self._extra_env = dict(extra_env or {})
        command = tethered([str(ROOT / "tollgate"), "up", *options], death_signal=signal.SIGTERM)
        with self._output.open("w") as output:
            self._process = subprocess.Popen(
                command, env=self._environ(), stdout=output, stderr=output, text=True
            )

    def wait_until_ready(self) -> None:
        """Return when the running process serves pages; fail with what it printed if it ends instead."""
        deadline = time.monotonic() + _START_PATIENCE_S
        while not self.is_ready:
            assert self._process is not None
            assert self._process.poll() is None, f"./tollgate up ended:\n{self.output}"
            assert time.monotonic() < deadline, f"./tollgate up is not ready:\n{self.output}"
            time.sleep(_POLL_S)

    def stop(self) -> int:
        """Stop it in order, as Ctrl-C does; return its exit code."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=_STOP_PATIENCE_S)

    def kill9(self, name: str, index: int = 0) -> int:
        """End one process the hard way: a child by name, or the `supervisor`; return its process id.

        The names are web, worker, sandbox, postgres and redis; `index` chooses among several web processes.
        """
        if name == "supervisor":
            assert self._process is not None
            self._process.kill()
            self._process.wait()
            return self._process.pid
        pid = self.pids()[name][index]
        os.kill(pid, signal.SIGKILL)
        return pid

    def remove(self) -> None:
        """Stop it if it runs, and delete its folder."""
        if self._process and self._process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.kill9("supervisor")
        shutil.rmtree(socket_folder(self.home), ignore_errors=True)
        shutil.rmtree(self.home, ignore_errors=True)
        self._output.unlink(missing_ok=True)

    # --- What it says of itself ----------------------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        """Whether this very process has served its first page."""
        state = Home(self.home).read_state()
        return bool(state and self._process and state.pid == self._process.pid and state.is_ready)

    @property
    def state(self) -> State:
        """What it tells other processes."""
        state = Home(self.home).read_state()
        assert state is not None, "not running"
        return state

    @property
    def url(self) -> str:
        """Its address, without a trailing slash."""
        return self.state.url

    @property
    def output(self) -> str:
        """What `./tollgate up` has printed so far."""
        return self._output.read_text()

    def log(self, name: str) -> str:
        """The log of one of its processes."""
        return (self.home / "logs" / f"{name}.log").read_text(errors="replace")

    def pids(self) -> dict[str, list[int]]:
        """The process ids of its children by name."""
        return self.state.children

    def wait_for_restart(self, name: str, old_pid: int, *, patience_s: float = 30.0) -> int:
        """Wait until a child that was killed has a successor; return the successor's process id."""
        deadline = time.monotonic() + patience_s
        while True:
            successors = [pid for pid in self.pids().get(name, []) if pid != old_pid]
            if successors and old_pid not in self.pids()[name]:
                return successors[-1]
            assert time.monotonic() < deadline, f"{name} was not started again:\n{self.output}"
            time.sleep(_POLL_S)

    # --- Working on it -------------------------------------------------------------------------------------

    def env(self) -> dict[str, str]:
        """The environment in which a Django process sees this instance's database, Redis and secrets."""
        return {**self._environ(), **self.state.environ, "DJANGO_SETTINGS_MODULE": "config.settings"}

    def manage(self, *arguments: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run `./tollgate manage ARGUMENT ...` on it, whether it runs or not."""
        return self.tollgate("manage", *arguments, check=check)

    def tollgate(self, *arguments: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run any command of `./tollgate` on its home."""
        command = tethered([str(ROOT / "tollgate"), *arguments], death_signal=signal.SIGTERM)
        return subprocess.run(command, env=self._environ(), capture_output=True, text=True, check=check)

    def get(self, path: str) -> int:
        """The status of a GET, or 0 when nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.state.port, timeout=10)
        try:
            connection.request("GET", path, headers={"Host": f"localhost:{self.state.port}"})
            return connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()

    def wait_until_answering(self, path: str = "/health/ready", *, patience_s: float = 60.0) -> None:
        """Return when a GET gets its 200."""
        deadline = time.monotonic() + patience_s
        while self.get(path) != http.HTTPStatus.OK:
            assert time.monotonic() < deadline, f"{path} does not answer 200:\n{self.output}"
            time.sleep(_POLL_S)

    def _environ(self) -> dict[str, str]:
        """What a person's shell would hold: nothing of this test run but the home."""
        hidden = {*setting_names(), "DJANGO_SETTINGS_MODULE", "TOLLGATE_TEST_RUN_HOME"}
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name not in hidden and not name.startswith("PYTEST_")
        }
        return {**inherited, "TOLLGATE_HOME": str(self.home), **self._extra_env}


def prepared_home(run_home: Path) -> Path:
    """A stopped home with everything in place; made once in a test run, by whichever worker needs it first."""
    folder = run_home / "prepared"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            draft = folder.with_suffix(".draft")
            Instance(draft, is_fresh=True).manage("prepare", check=True)
            draft.rename(folder)
    return folder


@contextlib.contextmanager
def installed(*, is_fresh: bool = False) -> Iterator[Instance]:
    """An installation that is removed at the end, whatever became of it."""
    instance = Instance(is_fresh=is_fresh)
    try:
        yield instance
    finally:
        instance.remove()


@pytest.fixture
def instance() -> Iterator[Instance]:
    """An installation of the test's own, not started yet."""
    with installed() as own:
        yield own


@pytest.fixture(scope="session")
def shared_instance() -> Iterator[Instance]:
    """A running instance that tests of this worker share: leave it as healthy as you found it."""
    with installed() as shared:
        yield shared.start()

"""Real gateway processes on the test's own database, in front of a real sandbox upstream."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import httpx2 as httpx
from django.conf import settings

from config.listening import listen

ROOT = Path(__file__).resolve().parents[2]
_PATIENCE_S = 30.0
_UVICORN = (
    *(sys.executable, "-m", "uvicorn", "config.asgi:application"),
    *(
        "--loop",
        "uvloop",
        "--no-access-log",
        "--no-proxy-headers",
    ),
)


class GatewayServer:
    """`uvicorn config.asgi` on one port, as `./tollgate up` starts it, with one or more processes."""

    def __init__(
        self,
        *,
        sandbox_url: str,
        home: Path,
        processes: int = 1,
        drain_s: int = 30,
        http: str = "config.http_protocol:StrictHttpProtocol",
        env: Mapping[str, str] | None = None,
        own_env: Sequence[Mapping[str, str]] = (),
    ) -> None:
        self._drain_s = drain_s
        self._http = http
        self._listener = listen("127.0.0.1", 0)
        self._environ = {
            **os.environ,
            "DATABASE_URL": database_url(),
            "SANDBOX_UPSTREAM_URL": sandbox_url,
            "TOLLGATE_HOME": str(home),
            "LOG_LEVEL": "INFO",
            **(env or {}),
        }
        # What is different for the first process, the second, …
        self._own_environ = own_env or [{}] * processes
        self._log = (home / "gateway.log").open("ab")
        self._processes = [self._start(index) for index in range(processes)]
        self.wait_until_ready()
        for index in range(processes if processes > 1 else 0):
            with self.client_of(index):
                pass

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def url(self) -> str:
        return f"{self.origin}/v1"

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    @property
    def log(self) -> str:
        return Path(self._log.name).read_text(errors="replace")

    def kill9(self, index: int = 0) -> None:
        """End one process the hard way, and start another in its place, as the supervisor does."""
        self._processes[index].kill()
        self._processes[index].wait()
        self._processes[index] = self._start(index)
        self.wait_until_ready()

    def terminate(self, index: int = 0) -> None:
        """Ask one process to stop; it finishes what it serves."""
        self._processes[index].send_signal(signal.SIGTERM)

    def end_of(self, index: int = 0, *, patience_s: float = _PATIENCE_S) -> int:
        """Wait until a process that was asked to stop has ended; its exit code."""
        return self._processes[index].wait(timeout=patience_s)

    @contextlib.contextmanager
    def only(self, index: int) -> Iterator[None]:
        """Who connects in here is served by this process: the others are halted, and cannot take the connection."""
        others = [process for number, process in enumerate(self._processes) if number != index]
        for process in others:
            process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in others:
                process.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def client_of(self, index: int) -> Iterator[httpx.Client]:
        """A client with one connection, to this process; after 5 s without use uvicorn closes it."""
        one = httpx.Limits(max_connections=1)
        # Without certificates, which take longer to load than many requests.
        with httpx.Client(base_url=self.url, limits=one, timeout=30, verify=False) as client:
            with self.only(index):
                client.get(f"{self.origin}/health/live")
            yield client

    def stop(self) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(timeout=40)
            except subprocess.TimeoutExpired:
                process.kill()
        self._listener.close()
        self._log.close()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            with contextlib.suppress(urllib.error.URLError, OSError):
                if urllib.request.urlopen(f"{self.origin}/health/live", timeout=5).status == 200:
                    return
            assert all(process.poll() is None for process in self._processes), self.log[-2000:]
            assert time.monotonic() < deadline, self.log[-2000:]
            time.sleep(0.05)

    def _start(self, index: int) -> subprocess.Popen[bytes]:
        fd = self._listener.fileno()
        return subprocess.Popen(
            [
                *(*_UVICORN, "--http", self._http, "--fd", str(fd)),
                *("--timeout-graceful-shutdown", str(self._drain_s)),
            ],
            cwd=ROOT,
            env={**self._environ, **self._own_environ[index]},
            pass_fds=[fd],
            stdout=self._log,
            stderr=self._log,
        )


def database_url() -> str:
    """The address of the database that this test runs on, whatever pytest-django has called it."""
    database = settings.DATABASES["default"]
    who = quote(database["USER"], safe="") + (
        f":{quote(database['PASSWORD'], safe='')}" if database["PASSWORD"] else ""
    )
    name = database["NAME"]
    port = f":{database['PORT']}" if database["PORT"] else ""
    if database["HOST"].startswith("/"):
        return f"postgres://{who}@{port}/{quote(database['HOST'])}/{name}"
    return f"postgres://{who}@{database['HOST']}{port}/{name}"


@contextlib.contextmanager
def running(
    *,
    sandbox_url: str,
    home: Path,
    processes: int = 1,
    drain_s: int = 30,
    own_env: Sequence[Mapping[str, str]] = (),
    http: str = "config.http_protocol:StrictHttpProtocol",
    **env: str,
) -> Iterator[GatewayServer]:
    server = GatewayServer(
        sandbox_url=sandbox_url,
        home=home,
        processes=processes,
        drain_s=drain_s,
        http=http,
        env=env,
        own_env=own_env,
    )
    try:
        yield server
    finally:
        server.stop()

"""The sandbox upstream on a free port, under uvicorn in a process of its own, as `./tollgate up` runs it."""

import contextlib
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

from config.home import ROOT
from config.listening import listen


@contextlib.contextmanager
def running() -> Iterator[str]:
    """Start it and yield its base URL, ending in /v1."""
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        command = [sys.executable, "-m", "uvicorn", "gateway.sandbox.app:app", "--fd", str(listener.fileno())]
        process = subprocess.Popen(
            [*command, "--no-access-log", "--log-level", "warning", "--timeout-graceful-shutdown", "1"],
            pass_fds=[listener.fileno()],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.05)
    raise RuntimeError("the sandbox did not start")

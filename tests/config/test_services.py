"""The plugin that starts PostgreSQL and Redis for the tests: what a run leaves behind, and what each worker gets."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from config.environment import setting_names
from config.home import ROOT
from tests.config.processes import assert_all_end, living_processes
from tests.services import _with_database

_WAITING = """
import os, time

def test_waits():
    print(os.environ["TOLLGATE_TEST_RUN_HOME"])
    time.sleep(300)
"""


@pytest.mark.parametrize(
    ("url", "raised"),
    [
        ("unix:///tmp/r.sock", "unix:///tmp/r.sock?db=3"),
        ("unix:///tmp/r.sock?db=2", "unix:///tmp/r.sock?db=5"),
        ("redis://:secret@r:6379", "redis://:secret@r:6379/3"),
        ("rediss://r:6379/1", "rediss://r:6379/4"),
    ],
)
def test_each_worker_counts_in_a_redis_database_of_its_own(url: str, raised: str) -> None:
    assert _with_database(url, 3) == raised


def test_settings_come_from_the_run_and_not_from_the_shell() -> None:
    assert os.environ["TOLLGATE_EMBEDDED"] == "1"
    assert os.environ["TOLLGATE_HOME"].startswith(os.environ["TOLLGATE_TEST_RUN_HOME"])
    assert "EMAIL_URL" in setting_names() - set(os.environ)


def test_a_run_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    """Neither its services nor its workers, and the next run removes its folder."""
    (tmp_path / "test_waiting.py").write_text(_WAITING)
    hidden = {*setting_names(), "TOLLGATE_TEST_RUN_HOME", "PYTEST_XDIST_WORKER"}
    environ = {name: value for name, value in os.environ.items() if name not in hidden}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-n",
        "1",
        "-q",
        str(tmp_path),
        "-c",
        str(ROOT / "pyproject.toml"),
    ]
    run = subprocess.Popen(
        [*command, "-p", "no:cacheprovider"], cwd=ROOT, env=environ, stdout=subprocess.DEVNULL
    )
    home = _home_of(run.pid)
    deadline = time.monotonic() + 60
    while sum("sys.stdin.readline" in line for line in living_processes(home).values()) < 1:
        assert time.monotonic() < deadline, "the worker did not start"
        time.sleep(0.1)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert_all_end(home)
    subprocess.run(
        [*command, "--collect-only"], cwd=ROOT, env=environ, stdout=subprocess.DEVNULL, check=False
    )
    assert not home.exists()


def _home_of(pid: int) -> Path:
    """The folder of a run, by its lock."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for lock in Path(tempfile.gettempdir()).glob("tollgate-tests-*/lock"):
            if re.search(rf'"pid": {pid}\b', lock.read_text()):
                return lock.parent
        time.sleep(0.1)
    raise AssertionError("the run did not start")

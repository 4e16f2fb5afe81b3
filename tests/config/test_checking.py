"""`./tollgate check`, and the lock files it looks at."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from config import checking
from config.checking import Step, check, production_environment
from config.home import ROOT
from config.lock_files import problems


def test_all_steps_run_even_if_one_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [
        Step("first", (sys.executable, "-c", "print('not shown')")),
        Step("second", (sys.executable, "-c", "import sys; print('why'); sys.exit('and more')")),
        Step("third", ()),
        Step("fourth", (sys.executable, "-c", "")),
    ]
    monkeypatch.setattr(checking, "steps", lambda: steps)
    assert not check()
    printed = capsys.readouterr().out
    verdicts = [
        line.split()[:2] for line in printed.splitlines() if line.startswith(("ok", "FAILED", "skipped"))
    ]
    assert verdicts == [["ok", "first"], ["FAILED", "second"], ["skipped", "third"], ["ok", "fourth"]]
    assert "why\nand more" in printed
    assert "not shown" not in printed
    monkeypatch.setattr(checking, "steps", lambda: steps[:1])
    assert check()


def test_the_deploy_checks_see_a_production_installation_whatever_the_shell_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOLLGATE_EMBEDDED", "1")
    monkeypatch.setenv("HTTPS", "0")
    environ = production_environment()
    assert "TOLLGATE_EMBEDDED" not in environ
    assert "HTTPS" not in environ
    assert environ["ALLOWED_HOSTS"] == "tollgate.example.com"


def test_every_tool_is_among_the_steps() -> None:
    names = [step.name for step in checking.steps()]
    assert len(names) == len(set(names)) == 10
    assert all(step.command for step in checking.steps())


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("pyproject.toml", "package.json", "package-lock.json"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    return tmp_path


def test_the_lock_files_of_this_repository_are_fit(checkout: Path) -> None:
    assert problems(checkout) == []


def _edit(path: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        text = (root / path).read_text()
        assert old in text
        (root / path).write_text(text.replace(old, new, 1))

    return edit


def _resolve(root: Path) -> None:
    lock = json.loads((root / "package-lock.json").read_text())
    entry = lock["packages"]["node_modules/chart.js"]
    entry["resolved"] = "https://registry.example.com/chart.js.tgz"
    del entry["integrity"]
    (root / "package-lock.json").write_text(json.dumps(lock))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            _edit("requirements/base.lock", "#", "--index-url https://pypi.example.com\n#"),
            "base.lock names a place",
        ),
        (_edit("requirements/dev.lock", "django==", "django==6."), "dev.lock has django 6.5.2"),
        (_edit("requirements/dev.lock", "django==", "django==6."), "different versions of django"),
        (_edit("requirements/base.lock", "whitenoise==", "blacknoise=="), "base.lock lacks whitenoise"),
        (
            _edit("package.json", "4.6.1", "4.6.0"),
            "package-lock.json and package.json differ in dependencies",
        ),
        (_resolve, "says where node_modules/chart.js came from"),
        (_resolve, "node_modules/chart.js has no hash"),
    ],
)
def test_what_is_wrong_with_a_lock_file_is_named(
    checkout: Path, damage: Callable[[Path], None], said: str
) -> None:
    damage(checkout)
    found = problems(checkout)
    assert any(said in problem for problem in found) == bool(said), found


def test_a_pin_without_a_hash_is_named(checkout: Path) -> None:
    lock_file = checkout / "requirements" / "node.lock"
    pin = next(
        line for line in lock_file.read_text().splitlines() if "==" in line and not line.startswith("#")
    )
    lock_file.write_text(pin.rstrip(" \\") + "\n")
    assert problems(checkout) == [f"node.lock: {pin.split()[0]} has no hash"]

"""TOLLGATE_HOME: its lock, state and secrets."""

import base64
import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from config.home import ROOT, Home, State
from config.refusal import Refused


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.make()
    return home


def test_a_home_is_named_by_the_environment_and_closed_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Home.of({}).path == ROOT / "var"
    home = Home.of({"TOLLGATE_HOME": "near/by"})
    assert home.path == tmp_path / "near" / "by"
    home.make()
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700


def test_a_home_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match="set TOLLGATE_HOME to a folder of yours"):
        Home(tmp_path / "file" / "home").make()


def test_only_one_process_holds_the_lock_until_it_ends(home: Home) -> None:
    with home.locked("up") as first:
        assert first
        holder = home.holder()
        assert holder is not None
        assert (holder.pid, holder.purpose) == (os.getpid(), "up")
        with home.locked("manage check", patience_s=0.2) as second:
            assert not second
        assert home.holder() == holder
    with home.locked("manage check") as third:
        assert third


def _hold_and_die(path: Path) -> None:
    with Home(path).locked("up"):
        os._exit(9)


def test_a_holder_that_is_killed_gives_the_lock_back(home: Home) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_hold_and_die, args=(home.path,))
    process.start()
    process.join(60)
    assert process.exitcode == 9
    with home.locked("up") as is_ours:
        assert is_ours


def test_state_comes_back_as_written_and_a_broken_file_is_none(home: Home) -> None:
    state = State(
        pid=1, host="::1", port=80, url="http://[::1]:80", environ={"A": "b"}, children={"web": [2, 3]}
    )
    assert home.read_state() is None
    home.write_state(state)
    assert home.read_state() == state
    assert stat.S_IMODE((home.path / "state.json").stat().st_mode) == 0o600
    (home.path / "state.json").write_text('{"pid": 1}')
    assert home.read_state() is None
    home.forget_state()
    home.forget_state()
    (home.path / "lock").write_text("half")
    assert home.holder() is None


def test_secrets_are_made_once_and_kept_private(home: Home) -> None:
    made = home.secrets(has_data=False)
    version, _colon, pepper = made["KEY_PEPPERS"].partition(":")
    assert version == "1"
    assert len(base64.b64decode(pepper, validate=True)) == 32
    assert len(made["SECRET_KEY"]) >= 50
    assert home.secrets(has_data=True) == made
    assert stat.S_IMODE((home.path / "secrets.json").stat().st_mode) == 0o600
    assert Home(home.path.with_name("other")).path != home.path


@pytest.mark.parametrize("content", ["", "[]", '{"SECRET_KEY": "x"}'])
def test_damaged_secrets_are_never_replaced(home: Home, content: str) -> None:
    """New ones would make every key that was ever issued unknown."""
    (home.path / "secrets.json").write_text(content)
    with pytest.raises(Refused, match="restore it from a backup"):
        home.secrets(has_data=True)
    assert (home.path / "secrets.json").read_text() == content


def test_missing_secrets_beside_a_database_are_not_made_anew(home: Home) -> None:
    with pytest.raises(Refused, match="missing beside its database"):
        home.secrets(has_data=True)
    assert not (home.path / "secrets.json").exists()

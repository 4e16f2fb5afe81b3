"""What can be typed after `./tollgate`."""

import subprocess

import pytest

from config.command_line import Command, parse
from config.commands import _parallel
from config.home import ROOT


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("up", Command(name="up")),
        (
            "up --port 0 --host 0.0.0.0 --processes 3",
            Command(name="up", port=0, host="0.0.0.0", processes=3),  # noqa: S104 - parsed, not listened on
        ),
        ("check", Command(name="check")),
        ("manage", Command(name="manage")),
        ("manage issue_key --help", Command(name="manage", arguments=("issue_key", "--help"))),
        ("test -k rotate tests/keys", Command(name="test", arguments=("-k", "rotate", "tests/keys"))),
        ("bench", Command(name="bench")),
        ("bench gateway --seconds 3", Command(name="bench", arguments=("gateway", "--seconds", "3"))),
    ],
)
def test_a_command_line_is_read_as_meant(typed: str, meant: Command) -> None:
    assert parse(typed.split()) == meant


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("up --port banana", "give a number from 0 to 65535"),
        ("up --port 65536", "give a number from 0 to 65535"),
        ("up --processes 0", "give a number from 1 to 64"),
        ("up --colour red", "unrecognized arguments: --colour red"),
        ("upp", "invalid choice: 'upp'"),
    ],
)
def test_a_mistake_is_answered_in_one_line(typed: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(typed.split())
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert said in printed.err
    assert printed.err.count("\n") == 1
    assert not printed.out


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse([])
    assert ended.value.code == 0
    assert {"up", "test", "check", "manage", "bench", "TOLLGATE_HOME"} <= set(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    "arguments", [["-n", "0"], ["-n4"], ["--pdb"], ["-p", "no:xdist"], ["--collect-only"]]
)
def test_who_asks_for_something_else_gets_no_parallel_tests(arguments: list[str]) -> None:
    assert not _parallel(arguments)
    assert _parallel(["tests/keys", "-k", "no"]) == ("-n", "2", "--dist", "loadgroup")


def test_the_script_itself_answers_without_an_environment() -> None:
    """`-S`: no site-packages at all, as on a bare machine."""
    done = subprocess.run(
        ["python3", "-S", str(ROOT / "tollgate"), "up", "--port", "x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_an_old_python_is_told_so() -> None:
    """The script has to parse where match, `|` between types and the rest do not exist."""
    source = (ROOT / "tollgate").read_text()
    program = f"import sys; sys.version_info = (3, 9, 1); exec({source!r}, {{'__name__': '__main__'}})"
    done = subprocess.run(["python3", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "tollgate: Python 3.11 or newer is needed, and this is 3.9\n"

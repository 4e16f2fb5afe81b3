"""What each command of `./tollgate` does, once its environment is there: `python -m config.commands <arguments>`."""

import ast
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from config.command_line import Command, parse
from config.home import ROOT
from config.managing import manage
from config.refusal import Refused
from config.supervising import up

# Tests marked with xdist_group run one after another in the same worker.
_TWO_WORKERS = ("-n", "2", "--dist", "loadgroup")


def run(command: Command) -> int:
    """Run one command and return its exit code; a refusal is one line on standard error and 2."""
    try:
        match command.name:
            case "up":
                return up(command)
            case "manage":
                return manage(command.arguments)
            case "bench" if not command.arguments:
                return _list_benchmarks()
            case "bench":
                _become("-m", _benchmark(command.arguments[0]), *command.arguments[1:])
            case "check":
                _become("-m", "config.checking")
            case _:
                _become("-m", "pytest", *_parallel(command.arguments), *command.arguments)
    except Refused as refusal:
        sys.stderr.write(f"tollgate: {refusal}\n")
        return 2
    except KeyboardInterrupt:
        return 130


def _list_benchmarks() -> int:
    """Each says in the first line of its module what it measures."""
    for path in _benchmarks().values():
        said = ast.get_docstring(ast.parse(path.read_text())) or ""
        sys.stdout.write(f"{said.partition(chr(10))[0]}\n")
    return 0


def _benchmark(name: str) -> str:
    """The module of a benchmark. Each starts what it measures by itself, away from anybody's data."""
    if name not in _benchmarks():
        raise Refused(f"there is no benchmark {name!r}: choose from {', '.join(_benchmarks())}")
    return f"bench.{name}"


def _benchmarks() -> dict[str, Path]:
    return {path.stem: path for path in sorted((ROOT / "bench").glob("[a-z]*.py"))}


def _parallel(arguments: Sequence[str]) -> Sequence[str]:
    """Two workers of pytest-xdist, unless the caller says how many, wants a debugger, or runs no tests at all."""
    alone = (
        "-n",
        "--numprocesses",
        "--pdb",
        "--trace",
        "--co",
        "-h",
        "--help",
        "-V",
        "--version",
        "--fixtures",
        "--markers",
    )
    if any(argument.startswith(alone) for argument in arguments) or "no:xdist" in arguments:
        return ()
    return _TWO_WORKERS


def _become(*arguments: str) -> NoReturn:
    """Go on as another Python program, at the root of the checkout."""
    os.chdir(ROOT)
    os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606 - our own interpreter, no shell


if __name__ == "__main__":
    sys.exit(run(parse(sys.argv[1:])))

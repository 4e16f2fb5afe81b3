"""What each command of `./tollgate` does, once its environment is there: `python -m config.commands <arguments>`."""

import os
import sys

from config.command_line import Command, parse
from config.home import ROOT
from config.managing import bench, manage
from config.refusal import Refused
from config.supervising import up


def run(command: Command) -> int:
    """Run one command and return its exit code; a refusal is one line on standard error and 2."""
    try:
        match command.name:
            case "up":
                return up(command)
            case "manage":
                return manage(command.arguments)
            case "bench":
                return bench(command.arguments)
            case "check":
                return _become("-m", "config.checking")
            case _:
                return _become("-m", "pytest", *command.arguments)
    except Refused as refusal:
        sys.stderr.write(f"tollgate: {refusal}\n")
        return 2
    except KeyboardInterrupt:
        return 130


def _become(*arguments: str) -> int:
    """Go on as another Python program, at the root of the checkout."""
    os.chdir(ROOT)
    os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606 - our own interpreter, no shell


if __name__ == "__main__":
    sys.exit(run(parse(sys.argv[1:])))

"""What of an installation is alive, seen from outside."""

import contextlib
import os
import time
from pathlib import Path


def living_processes(home: Path) -> dict[int, str]:
    """Process id and command line of everything that belongs to a home: by environment, arguments or working folder.

    Zombies have none of the three, and do not count. PostgreSQL's backends overwrite the first two.
    """
    found: dict[int, str] = {}
    marker = os.fsencode(home)
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            arguments = (folder / "cmdline").read_bytes()
            traces = [arguments, (folder / "environ").read_bytes(), os.fsencode((folder / "cwd").readlink())]
            if int(folder.name) != os.getpid() and any(marker in trace for trace in traces):
                found[int(folder.name)] = arguments.replace(b"\0", b" ").decode(errors="replace")
    return found


def assert_all_end(home: Path, *, patience_s: float = 10.0) -> None:
    """Fail if anything of a home is still alive after a while."""
    deadline = time.monotonic() + patience_s
    while left := living_processes(home):
        assert time.monotonic() < deadline, f"still alive: {left}"
        time.sleep(0.05)

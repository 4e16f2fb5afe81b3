"""TOLLGATE_HOME: the folder of one installation, and the lock, state and secrets in it. Standard library only."""

import base64
import contextlib
import fcntl
import json
import os
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from config.refusal import Refused

ROOT = Path(__file__).resolve().parent.parent
_PEPPER_BYTES = 32


@dataclass(frozen=True)
class Holder:
    """Who has the lock of a home: `purpose` is "up" for an instance, otherwise the command that runs."""

    pid: int
    purpose: str


@dataclass
class State:
    """What a running instance tells other processes; kept in `state.json`, readable by the owner alone."""

    pid: int
    host: str
    port: int
    url: str
    # Whether the first page has been served.
    is_ready: bool = False
    # What `manage` must add to its environment to work on this instance.
    environ: dict[str, str] = field(default_factory=dict)
    # Process ids by name: postgres, redis, sandbox, worker, and one or more of web.
    children: dict[str, list[int]] = field(default_factory=dict)


class Home:
    """The folder named by TOLLGATE_HOME, or `var/` in the checkout."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.logs = path / "logs"
        self._lock_file = path / "lock"
        self._state_file = path / "state.json"
        self._secrets_file = path / "secrets.json"

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Home":
        """The home that an environment names; a relative path is seen from the working directory."""
        return cls(Path(environ.get("TOLLGATE_HOME") or ROOT / "var").expanduser().absolute())

    def make(self) -> None:
        """Create the folder for our eyes alone: it will hold secrets, mail and the database.

        Raises:
            Refused: it cannot be created or written to.
        """
        try:
            if not self.path.is_dir():
                self.path.mkdir(parents=True, mode=0o700)
            self.logs.mkdir(exist_ok=True)
        except OSError as error:
            raise Refused(
                f"cannot write to {self.path} ({error.strerror}): set TOLLGATE_HOME to a folder of yours"
            ) from error

    # --- The lock ----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def locked(self, purpose: str, *, patience_s: float = 0.0) -> Iterator[bool]:
        """Try to be the only one at work in this home; yields whether that succeeded within `patience_s` seconds.

        The kernel gives the lock back when its holder ends, however it ends.
        """
        self.make()
        try:
            lock = self._lock_file.open("a+")
        except OSError as error:
            raise Refused(f"cannot write to {self._lock_file}: {error.strerror}") from error
        with lock:
            is_ours = _try_lock(lock.fileno(), patience_s)
            if is_ours:
                lock.truncate(0)
                lock.write(json.dumps(asdict(Holder(pid=os.getpid(), purpose=purpose))))
                lock.flush()
            yield is_ours

    def holder(self) -> Holder | None:
        """Who wrote last that it has the lock; tells nothing about whether it still has."""
        try:
            return Holder(**json.loads(self._lock_file.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    # --- The state of a running instance -------------------------------------------------------------------

    def write_state(self, state: State) -> None:
        """Replace `state.json` in one step."""
        _write_privately(self._state_file, json.dumps(asdict(state), indent=1))

    def read_state(self) -> State | None:
        """What the last instance wrote. It is current only while the lock is held."""
        try:
            return State(**json.loads(self._state_file.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def forget_state(self) -> None:
        """The instance has ended in order."""
        self._state_file.unlink(missing_ok=True)

    # --- Secrets of embedded mode --------------------------------------------------------------------------

    def secrets(self, *, has_data: bool) -> dict[str, str]:
        """SECRET_KEY and KEY_PEPPERS of this home, made at the first call.

        Raises:
            Refused: there is a database but no secrets. New ones would make every key that was ever issued unknown.
        """
        try:
            found = json.loads(self._secrets_file.read_text())
            return {"SECRET_KEY": str(found["SECRET_KEY"]), "KEY_PEPPERS": str(found["KEY_PEPPERS"])}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Refused(f"{self._secrets_file} cannot be read: restore it from a backup") from error
        if has_data:
            raise Refused(
                f"{self._secrets_file} is missing beside its database, and no key can be recognised without: restore it"
            )
        pepper = base64.b64encode(secrets.token_bytes(_PEPPER_BYTES)).decode()
        made = {"SECRET_KEY": secrets.token_urlsafe(50), "KEY_PEPPERS": f"1:{pepper}"}
        _write_privately(self._secrets_file, json.dumps(made))
        return made


def _try_lock(descriptor: int, patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.1)
        else:
            return True


def _write_privately(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all, also across a power cut."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def say(text: str) -> None:
    """A notice of our own. Standard output belongs to the command that runs."""
    sys.stderr.write(f"tollgate: {text}\n")
    sys.stderr.flush()

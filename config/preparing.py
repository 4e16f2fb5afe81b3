"""Brings the database and the static files in step with the code. Standard library only: Django runs in a child."""

import sys
import time
from collections.abc import Callable

from config.children import Child
from config.home import ROOT, Home
from config.refusal import Refused

_POLL_S = 0.05


def prepare(home: Home, environ: dict[str, str], *, pause: Callable[[float], None] = time.sleep) -> None:
    """Run `manage.py prepare`: migrations, the catalogue, static files. `pause(seconds)` is called while it runs.

    Raises:
        Refused: it failed; the end of its log is in the message.
    """
    child = Child(
        "prepare", [sys.executable, str(ROOT / "manage.py"), "prepare"], log=home.logs / "prepare.log"
    )
    try:
        child.start(environ)
        while child.is_running:
            pause(_POLL_S)
    finally:
        child.kill()
    if child.exit_code != 0:
        raise Refused(f"the database could not be prepared; the end of {child.log}:\n{child.last_words()}")


def migrations_on_disk() -> set[tuple[str, str]]:
    """The (app, name) pairs of our own apps' migrations."""
    return {(path.parent.parent.name, path.stem) for path in ROOT.glob("*/migrations/[0-9]*.py")}

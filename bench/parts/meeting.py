"""Processes that begin at the same moment, however long each takes to be ready. They meet in a folder."""

import time
from pathlib import Path

_POLL_S = 0.02
# From naming the moment to the moment: everybody has read it by then.
_NOTICE_S = 0.5
_PATIENCE_S = 180.0


def start_together(folder: Path, *, participants: int) -> None:
    """Wait until all of them are ready, then name the moment at which they begin."""
    deadline = time.monotonic() + _PATIENCE_S
    while len(list(folder.glob("*.ready"))) < participants:
        assert time.monotonic() < deadline, "not everybody is ready"
        time.sleep(_POLL_S)
    unfinished = folder / "unfinished"
    unfinished.write_text(str(time.monotonic() + _NOTICE_S))
    unfinished.rename(folder / "start")


def meet(folder: Path, participant: int) -> float:
    """Say that this one is ready, and sleep until the moment, which is returned. The clock is the machine's."""
    (folder / f"{participant}.ready").touch()
    deadline = time.monotonic() + _PATIENCE_S
    while not (folder / "start").exists():
        assert time.monotonic() < deadline, "nobody has named the moment to begin"
        time.sleep(_POLL_S)
    starts_at = float((folder / "start").read_text())
    time.sleep(max(0.0, starts_at - time.monotonic()))
    return starts_at

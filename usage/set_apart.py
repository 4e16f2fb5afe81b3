"""Settlements that the database refuses: the gateway sets them apart beside its journal, and the operator hears of it.

The files stay where they are, for whoever repairs what was refused. How much of one was told is in a file beside it.
"""

from dataclasses import dataclass
from pathlib import Path

from catalog.money import NanoUSD
from usage.recording import FinishedRequest

_SUFFIX = ".refused"
_TOLD = ".told"


@dataclass(frozen=True, slots=True)
class SetApart:
    """What a file has gained since somebody was told of it."""

    path: Path
    requests: list[FinishedRequest]
    unreadable: int  # lines that are no request to this version
    told_bytes: int  # of the file, once these are told

    @property
    def cost_nanousd(self) -> NanoUSD:
        """What was used and is charged to nobody."""
        return NanoUSD(sum(request.expected_cost_nanousd() for request in self.requests))


def untold(*, directory: Path) -> list[SetApart]:
    """The settlements of this machine's gateway processes that nobody was told of, by file."""
    found = []
    for path in sorted(directory.glob(f"*{_SUFFIX}")):
        content = path.read_bytes()
        # A line without its end is being written.
        whole = content.rfind(b"\n") + 1
        told = _told_bytes(path)
        if content[:told][-1:] != b"\n" or told > whole:
            told = 0  # the file was begun anew
        new = content[told:whole]
        if new:
            lines = new.split(b"\n")[:-1]
            requests = [request for request in map(FinishedRequest.readable, lines) if request is not None]
            found.append(SetApart(path, requests, len(lines) - len(requests), whole))
    return found


def mark_told(*, apart: SetApart) -> None:
    """Remember that the operator knows. Killed before this, he is told twice."""
    _beside(apart.path).write_text(str(apart.told_bytes))


def _told_bytes(path: Path) -> int:
    try:
        return int(_beside(path).read_text() or 0)
    except FileNotFoundError:
        return 0


def _beside(path: Path) -> Path:
    return path.with_name(path.name + _TOLD)

"""Settlements that PostgreSQL could not take, on disk until it can.

One file a process, one JSON line a request, each line synced before its response is completed. The file is
locked while its process lives; a process that starts takes over the files of dead ones. To replay a line
twice does no harm: a request is settled by whoever deletes its hold.
"""

import fcntl
import logging
import os
import threading
import uuid
from io import FileIO
from pathlib import Path

from usage.recording import FinishedRequest

logger = logging.getLogger(__name__)


class Journal:
    """The journal of this process. Appending is safe from any thread."""

    def __init__(self, *, directory: Path, process_id: uuid.UUID) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._path = directory / f"{process_id}.jsonl"
        self._file = self._open(self._path)
        self._mutex = threading.Lock()
        self._is_empty = True

    @property
    def is_empty(self) -> bool:
        return self._is_empty

    def append(self, *finished: FinishedRequest) -> None:
        """Keep settlements, durably."""
        lines = b"".join(request.as_json() + b"\n" for request in finished)
        with self._mutex:
            self._file.write(lines)
            os.fsync(self._file.fileno())
            self._is_empty = False

    def read(self) -> list[FinishedRequest]:
        """Everything that is kept, the oldest first."""
        with self._mutex:
            self._file.seek(0)
            return _parse(self._file.read())

    def forget(self, count: int) -> None:
        """Drop the first `count` lines, which have been settled; more may have been added since they were read.

        What is left takes the place of the whole at once: a crash in between keeps one or the other.
        """
        with self._mutex:
            self._file.seek(0)
            rest = b"".join(self._file.read().splitlines(keepends=True)[count:])
            written = self._path.with_suffix(".new")
            written.unlink(missing_ok=True)
            fresh = self._open(written)
            fresh.write(rest)
            os.fsync(fresh.fileno())
            written.replace(self._path)
            self._sync_directory()
            self._file.close()
            self._file = fresh
            self._is_empty = not rest

    def set_apart(self, finished: FinishedRequest) -> None:
        """Keep a settlement that the database refuses, for the operator, where no replay finds it."""
        with self._path.with_suffix(".refused").open("ab") as apart:
            apart.write(finished.as_json() + b"\n")

    def adopt(self) -> None:
        """Take over what dead processes have left."""
        for path in sorted(self._directory.glob("*.jsonl")):
            if path == self._path:
                continue
            with path.open("rb") as orphan:
                try:
                    fcntl.flock(orphan, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue  # its process lives
                self.append(*_parse(orphan.read()))
                path.unlink(missing_ok=True)

    def _open(self, path: Path) -> FileIO:
        """Open a file of ours, under a lock that tells others that its process lives."""
        file = path.open("ab+", buffering=0)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._sync_directory()
        return file

    def _sync_directory(self) -> None:
        """A new name is durable only when its directory is."""
        directory = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def close(self) -> None:
        """Leave nothing behind but what is still owed."""
        if self._is_empty:
            self._path.unlink(missing_ok=True)
        self._file.close()


def _parse(content: bytes) -> list[FinishedRequest]:
    """The requests of a journal. A last line without its end was cut by a crash before anyone was promised anything."""
    *lines, cut = content.split(b"\n")
    if cut:
        logger.warning("a journal ends in a line that was cut off; it is dropped")
    return [FinishedRequest.from_json(line) for line in lines]

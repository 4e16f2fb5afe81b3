"""Settlements that PostgreSQL could not take, on disk until it can.

One file a process, one JSON line a request, each line synced before its response is completed. The file is
locked while its process lives; a process that starts takes over the files of dead ones, where they lie. To replay a
line twice does no harm: a request is settled by whoever deletes its hold.
"""

import contextlib
import fcntl
import logging
import os
import threading
import uuid
from io import FileIO
from pathlib import Path
from typing import Self

from usage.recording import FinishedRequest

logger = logging.getLogger(__name__)

_READ_BYTES = 256 * 1024


class _Pages:
    """One file under its lock: lines are added at its end, read from its front, and forgotten all together."""

    def __init__(self, path: Path, file: FileIO) -> None:
        self.path = path
        self._file = file
        # Up to the end of the last whole line; nothing beyond it was promised to anyone.
        self.size = os.fstat(file.fileno()).st_size
        self._read_to = 0

    @classmethod
    def begin(cls, path: Path) -> Self:
        """A new file. It has its name only when it has its lock, which tells others that its process lives."""
        draft = path.with_suffix(".new")
        file = FileIO(draft, "ab+")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        draft.rename(path)
        _sync_directory(path.parent)
        return cls(path, file)

    @classmethod
    def take_over(cls, path: Path) -> Self | None:
        """The file of a dead process; None: its process lives, or somebody else has taken it over."""
        file = FileIO(path, "rb+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        pages = cls(path, file)
        if not os.fstat(file.fileno()).st_nlink:
            pages.close()
            return None
        pages._drop_half_a_line()
        return pages

    @property
    def has_unread(self) -> bool:
        return self._read_to < self.size

    def append(self, content: bytes) -> None:
        """Add whole lines, durably, or nothing. Raises OSError."""
        self._take_back()
        try:
            _write(self._file, content)
        except OSError:
            # Half a line would spoil the next one. If even that fails, the next call sees to it.
            with contextlib.suppress(OSError):
                self._take_back()
            raise
        self.size += len(content)

    def _take_back(self) -> None:
        if os.fstat(self._file.fileno()).st_size > self.size:
            self._file.truncate(self.size)

    def unread(self, count: int) -> list[bytes]:
        """Up to so many lines that were not read yet."""
        wanted, content = _READ_BYTES, b""
        while b"\n" not in content and self.has_unread:
            content = os.pread(self._file.fileno(), min(wanted, self.size - self._read_to), self._read_to)
            if not content:
                self.size = self._read_to  # somebody has emptied it
            wanted *= 2
        return content.split(b"\n")[:-1][:count]

    def mark_read(self, lines: list[bytes]) -> None:
        self._read_to += sum(len(line) + 1 for line in lines)

    def empty(self) -> None:
        self._file.truncate(0)
        self.size = self._read_to = 0

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        self._file.close()

    def _drop_half_a_line(self) -> None:
        """A last line without its end was cut by a crash before anyone was promised anything."""
        end, whole = self.size, 0
        while end and not whole:
            start = max(end - _READ_BYTES, 0)
            whole = os.pread(self._file.fileno(), end - start, start).rfind(b"\n") + 1
            end = start
        if end + whole < self.size:
            logger.warning("a journal ends in a line that was cut off; it is dropped")
        self.size = end + whole


class Journal:
    """The journal of this process, and those it has taken over. Every method is safe from any thread."""

    def __init__(self, *, directory: Path, process_id: uuid.UUID) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._own = _Pages.begin(directory / f"{process_id}.jsonl")
        self._adopted: list[_Pages] = []
        self._mutex = threading.Lock()

    @property
    def is_empty(self) -> bool:
        return not self._own.size and not self._adopted

    @property
    def has_unread(self) -> bool:
        return any(pages.has_unread for pages in (*self._adopted, self._own))

    @property
    def own_bytes(self) -> int:
        return self._own.size

    def append(self, *finished: FinishedRequest) -> None:
        """Keep settlements, durably. Raises OSError, and then none of them is kept."""
        lines = b"".join(request.as_json() + b"\n" for request in finished)
        with self._mutex:
            self._own.append(lines)

    def read(self, count: int) -> list[FinishedRequest]:
        """Up to so many that were not read yet, the oldest first. What cannot be read is set apart. Raises OSError."""
        with self._mutex:
            pages = next((pages for pages in (*self._adopted, self._own) if pages.has_unread), None)
            if pages is None:
                return []
            lines = pages.unread(count)
            read = [(line, FinishedRequest.readable(line)) for line in lines]
            unreadable = [line for line, request in read if request is None]
            if unreadable:
                logger.error("%d lines of a journal cannot be read; they are kept apart", len(unreadable))
                self._keep_apart(unreadable)
            pages.mark_read(lines)
            return [request for _, request in read if request is not None]

    def forget(self) -> None:
        """Drop what was read: all of it is settled. Whoever is killed before this replays it, which does no harm."""
        with self._mutex:
            for pages in [pages for pages in self._adopted if not pages.has_unread]:
                pages.remove()
                self._adopted.remove(pages)
            if not self._own.has_unread:
                self._own.empty()

    def set_apart(self, finished: FinishedRequest) -> None:
        """Keep a settlement that the database refuses, for the operator, where no replay finds it. Raises OSError."""
        with self._mutex:
            self._keep_apart([finished.as_json()])

    def adopt(self) -> None:
        """Take over what dead processes have left."""
        with self._mutex:
            for path in sorted(self._directory.glob("*.jsonl")):
                if path == self._own.path:
                    continue
                try:
                    pages = _Pages.take_over(path)
                except OSError:
                    logger.exception("the journal %s cannot be taken over", path)
                    continue
                if pages is not None and pages.size:
                    self._adopted.append(pages)
                elif pages is not None:
                    pages.remove()

    def close(self) -> None:
        """Leave nothing behind but what is still owed."""
        with self._mutex:
            for pages in self._adopted:
                pages.close()
            if self._own.size:
                self._own.close()
            else:
                self._own.remove()

    def _keep_apart(self, lines: list[bytes]) -> None:
        pages = _Pages(path := self._own.path.with_suffix(".refused"), FileIO(path, "ab+"))
        try:
            pages.append(b"".join(line + b"\n" for line in lines))
        finally:
            pages.close()


def _write(file: FileIO, content: bytes) -> None:
    """Write all of it, and sync it. A disk that fills up takes a part, and says so only at the next call."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]
    os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    """A new name is durable only when its directory is."""
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)

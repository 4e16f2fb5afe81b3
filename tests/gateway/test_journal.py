"""Settlements on disk: kept through a crash, taken over from the dead, and dropped only when they are settled."""

import fcntl
import os
import resource
import uuid
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from uuid_utils.compat import uuid7

from catalog.pricing import TokenPrice
from gateway import journal as journals
from gateway.journal import Journal
from tests.factories import now
from usage.recording import FinishedRequest

ALL = 1_000


def finished(**facts: object) -> FinishedRequest:
    at = now()
    request = FinishedRequest(
        id=uuid7(),
        account_id=1,
        key_id=2,
        endpoint="chat/completions",
        outcome="completed",
        status=200,
        started_at=at,
        ended_at=at,
    )
    for name, value in facts.items():
        setattr(request, name, value)
    return request


def journal_in(folder: Path) -> Journal:
    return Journal(directory=folder, process_id=uuid.uuid4())


def with_room_for(count: int, act: Callable[[], None]) -> None:
    """Do it while a file may have no more than so many bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, limits[1]))
    try:
        act()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_what_is_kept_reads_back_equal(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    request = finished(error_message="über 💥", is_streamed=True, time_to_first_token_ms=5, ip_address="::1")
    request.set_price(
        TokenPrice(input_micro=1, output_micro=2_500_000, cached_input_micro=0, cache_write_micro=1)
    )

    journal.append(request)

    assert not journal.is_empty
    assert journal.read(ALL) == [request]
    assert request.output_usd_per_mtok == "2.500000"


def test_what_was_read_is_forgotten_when_everything_was(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    requests = [finished() for _ in range(3)]
    journal.append(*requests)

    assert journal.read(2) == requests[:2]
    journal.forget()
    assert journal.has_unread
    assert journal.read(2) == requests[2:]
    assert journal.read(2) == []
    journal.forget()
    journal.append(requests[0])
    assert journal.read(ALL) == requests[:1]
    assert not journal.is_empty
    journal.forget()
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_a_line_longer_than_what_is_read_at_once_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "_READ_BYTES", 100)
    journal = journal_in(tmp_path)
    requests = [finished(error_message="x" * length) for length in (1, 499, 0)]
    journal.append(*requests)

    assert [request for _ in requests for request in journal.read(ALL)] == requests


def test_a_journal_that_somebody_has_emptied_has_nothing_more_to_read(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    journal.append(finished())
    next(tmp_path.glob("*.jsonl")).write_bytes(b"")

    assert journal.read(ALL) == []
    assert not journal.has_unread


def test_the_journals_of_the_dead_are_taken_over_and_those_of_the_living_are_not(tmp_path: Path) -> None:
    dead, living, own = (journal_in(tmp_path) for _ in range(3))
    lost, kept = finished(), finished()
    dead.append(lost)
    living.append(kept)
    dead.close()
    (tmp_path / f"{uuid.uuid4()}.jsonl").write_bytes(b"")

    own.adopt()

    assert own.read(ALL) == [lost]
    assert living.read(ALL) == [kept]
    assert len(list(tmp_path.iterdir())) == 3
    own.forget()
    assert len(list(tmp_path.iterdir())) == 2


def test_what_was_taken_over_and_not_settled_is_there_for_the_next_one(tmp_path: Path) -> None:
    dead, first, second = (journal_in(tmp_path) for _ in range(3))
    lost = finished()
    dead.append(lost)
    dead.close()

    first.adopt()
    second.adopt()
    assert second.read(ALL) == []
    assert first.read(ALL) == [lost]
    first.close()
    second.adopt()

    assert second.read(ALL) == [lost]


def test_a_journal_that_is_just_begun_is_not_taken_for_that_of_a_dead_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process starts, and looks for journals, between the making of the file and its lock."""
    other = journal_in(tmp_path)
    lock = fcntl.flock

    def adopt_first(file: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        other.adopt()
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", adopt_first)
    journal = journal_in(tmp_path)
    request = finished()
    journal.append(request)

    journal.close()
    other.adopt()
    assert other.read(ALL) == [request]


def test_a_journal_that_its_finder_has_done_with_is_not_taken_over_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes find it; one settles all of it between the other's opening it and locking it."""
    dead, first, second = (Journal(directory=tmp_path, process_id=uuid.UUID(int=n)) for n in range(3))
    dead.append(finished())
    dead.close()
    lock = fcntl.flock

    def settle_first(file: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        first.adopt()
        first.read(ALL)
        first.forget()
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", settle_first)
    second.adopt()

    assert second.is_empty


def test_a_journal_that_cannot_be_opened_keeps_nothing_else_from_being_taken_over(tmp_path: Path) -> None:
    (tmp_path / "0.jsonl").mkdir()
    dead, own = journal_in(tmp_path), journal_in(tmp_path)
    lost = finished()
    dead.append(lost)
    dead.close()

    own.adopt()

    assert own.read(ALL) == [lost]


@pytest.mark.parametrize("read_bytes", [10, 100, 10_000])
def test_a_last_line_that_was_cut_off_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_bytes: int
) -> None:
    monkeypatch.setattr(journals, "_READ_BYTES", read_bytes)
    whole = finished()
    path = tmp_path / f"{uuid.uuid4()}.jsonl"
    path.write_bytes(whole.as_json() + b"\n" + whole.as_json()[:30])
    (tmp_path / f"{uuid.uuid4()}.jsonl").write_bytes(whole.as_json()[:30])
    journal = journal_in(tmp_path)

    journal.adopt()

    assert journal.read(ALL) == [whole]
    assert not journal.has_unread


def test_lines_that_cannot_be_read_are_kept_apart_and_the_others_are_read(tmp_path: Path) -> None:
    whole, newer = finished(), orjson.loads(finished().as_json()) | {"of_a_newer_version": 1}
    unreadable = [b"", b"\0" * 20, b"[]", b"5", b'"text"', b"{}", orjson.dumps(newer), b'{"id": "x"', b"\xff"]
    path = tmp_path / f"{uuid.uuid4()}.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in [*unreadable, whole.as_json()]))
    journal = journal_in(tmp_path)

    journal.adopt()

    assert journal.read(ALL) == [whole]
    assert not journal.has_unread
    (apart,) = tmp_path.glob("*.refused")
    assert apart.read_bytes().splitlines() == unreadable


def test_a_disk_that_takes_half_a_line_has_taken_nothing(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    first, second, third = finished(), finished(), finished()
    journal.append(first)
    room = len(first.as_json()) + 50

    def append() -> None:
        with pytest.raises(OSError):
            journal.append(second, third)

    with_room_for(room, append)
    assert journal.own_bytes == len(first.as_json()) + 1
    journal.append(third)

    journal.close()
    assert next(tmp_path.glob("*.jsonl")).read_bytes() == first.as_json() + b"\n" + third.as_json() + b"\n"


def test_half_a_line_that_could_not_be_taken_back_is_taken_back_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = journal_in(tmp_path)
    first, second = finished(), finished()

    def fail(*_: object) -> None:
        raise OSError("no answer from the disk")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail)
        broken.setattr(journals._Pages, "_take_back", fail)
        with pytest.raises(OSError):
            journal.append(first)
    journal.append(second)

    assert journal.read(ALL) == [second]


def test_what_the_database_refuses_is_kept_where_no_replay_finds_it(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)

    journal.set_apart(finished())

    assert journal.is_empty
    (apart,) = tmp_path.glob("*.refused")
    assert b"completed" in apart.read_bytes()

"""Settlements on disk: kept through a crash, taken over from the dead, and dropped only when they are settled."""

import uuid
from pathlib import Path

from uuid_utils.compat import uuid7

from catalog.pricing import TokenPrice
from gateway.journal import Journal
from tests.factories import now
from usage.recording import FinishedRequest


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


def test_what_is_kept_reads_back_equal(tmp_path: Path) -> None:
    journal = Journal(directory=tmp_path, process_id=uuid.uuid4())
    request = finished(error_message="über 💥", is_streamed=True, time_to_first_token_ms=5, ip_address="::1")
    request.set_price(
        TokenPrice(input_micro=1, output_micro=2_500_000, cached_input_micro=0, cache_write_micro=1)
    )

    journal.append(request)

    assert not journal.is_empty
    assert journal.read() == [request]
    assert request.output_usd_per_mtok == "2.500000"


def test_only_what_was_settled_is_forgotten(tmp_path: Path) -> None:
    journal = Journal(directory=tmp_path, process_id=uuid.uuid4())
    requests = [finished() for _ in range(3)]
    for request in requests:
        journal.append(request)

    journal.forget(2)
    assert journal.read() == requests[2:]
    journal.forget(1)

    assert journal.is_empty
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_the_journals_of_the_dead_are_taken_over_and_those_of_the_living_are_not(tmp_path: Path) -> None:
    dead, living, own = (Journal(directory=tmp_path, process_id=uuid.uuid4()) for _ in range(3))
    lost, kept = finished(), finished()
    dead.append(lost)
    living.append(kept)
    dead.close()

    own.adopt()

    assert own.read() == [lost]
    assert living.read() == [kept]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_last_line_that_was_cut_off_is_dropped(tmp_path: Path) -> None:
    whole = finished()
    path = tmp_path / f"{uuid.uuid4()}.jsonl"
    path.write_bytes(whole.as_json() + b"\n" + whole.as_json()[:30])
    journal = Journal(directory=tmp_path, process_id=uuid.uuid4())

    journal.adopt()

    assert journal.read() == [whole]


def test_what_the_database_refuses_is_kept_where_no_replay_finds_it(tmp_path: Path) -> None:
    journal = Journal(directory=tmp_path, process_id=uuid.uuid4())

    journal.set_apart(finished())

    assert journal.is_empty
    (apart,) = tmp_path.glob("*.refused")
    assert b"completed" in apart.read_bytes()

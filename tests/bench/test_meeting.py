"""Writers of a benchmark begin at the same moment, however long each takes to be ready."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench.parts import meeting


def test_whoever_is_ready_waits_for_the_others_and_all_begin_together(tmp_path: Path) -> None:
    def take_part(participant: int) -> tuple[float, float]:
        time.sleep(0.1 * participant)
        return meeting.meet(tmp_path, participant), time.monotonic()

    with ThreadPoolExecutor(max_workers=3) as pool:
        took_part = [pool.submit(take_part, participant) for participant in range(3)]
        meeting.start_together(tmp_path, participants=3)
        began = [each.result() for each in took_part]
    assert len({starts_at for starts_at, _ in began}) == 1
    assert all(woke_at >= starts_at for starts_at, woke_at in began)


def test_nobody_waits_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "_PATIENCE_S", 0.05)
    with pytest.raises(AssertionError, match="not everybody is ready"):
        meeting.start_together(tmp_path, participants=1)
    with pytest.raises(AssertionError, match="nobody has named"):
        meeting.meet(tmp_path, 0)

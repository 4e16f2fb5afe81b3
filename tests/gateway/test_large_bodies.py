"""Bodies that are too large, too slow, or not as long as they say: cut while they come, on flat memory and disk."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.gateway.conftest import Stage
from tests.gateway.nothing_happened import Victim
from tests.gateway.raw_http import RawConnection, trickle
from usage.models import UsageRecord

MIB = 1 << 20
LIMIT_BYTES = 4 * MIB


@pytest.fixture
def victim(stage: Stage) -> Victim:
    return Victim(stage)


def post(victim: Victim, *headers: str, path: str = "/v1/chat/completions") -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {victim.secret}",
    ]
    return "\r\n".join([*lines, *headers, "", ""]).encode()


def connect(victim: Victim) -> RawConnection:
    return RawConnection(int(victim.stage.gateway.origin.rpartition(":")[2]))


class Usage:
    """What a process has used at most since it was reset: resident memory, and bytes written to disk."""

    def __init__(self, pid: int) -> None:
        self._proc = Path(f"/proc/{pid}")
        # The kernel's peak starts anew.
        (self._proc / "clear_refs").write_text("5")
        self._began = self._read("status", "VmRSS"), self._read("io", "write_bytes")

    def grown_bytes(self) -> tuple[int, int]:
        memory, disk = self._began
        return (self._read("status", "VmHWM") - memory) * 1024, self._read("io", "write_bytes") - disk

    def _read(self, name: str, field: str) -> int:
        lines = (self._proc / name).read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/accounts/login/", "/"])
def test_a_hundred_megabytes_in_chunks_are_cut_on_flat_memory_and_disk(victim: Victim, path: str) -> None:
    chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"

    def upload() -> int:
        with connect(victim) as connection:
            connection.send(post(victim, "Transfer-Encoding: chunked", path=path))
            for _ in range(1_600):
                connection.send(chunk)
            answer = connection.answer()
            assert answer.headers["connection"] == "close"
            assert answer.json["error"]["code"] == "request_too_large"
            return answer.status

    with victim.unharmed():
        upload()  # what the first one allocates is kept for the next
        usage = Usage(victim.stage.gateway.pids[0])
        for _ in range(3):
            assert upload() == 413
        memory, disk = usage.grown_bytes()
    assert memory < 16 * MIB
    assert disk < MIB


def test_a_hundred_megabytes_that_are_announced_are_refused_before_they_are_read(victim: Victim) -> None:
    with victim.unharmed(), connect(victim) as connection:
        connection.send(post(victim, f"Content-Length: {100 * MIB}"))

        answer = connection.answer()

        assert (answer.status, answer.json["error"]["code"]) == (413, "request_too_large")
        assert connection.is_closed()


@pytest.mark.parametrize("length", [LIMIT_BYTES + 1, 2**63, 2**64 - 1])
def test_a_length_beyond_the_limit_is_refused(victim: Victim, length: int) -> None:
    with victim.unharmed(), connect(victim) as connection:
        connection.send(post(victim, f"Content-Length: {length}") + b"{}")

        assert connection.answer().status == 413


def test_a_chunk_that_claims_to_be_endless_is_refused_while_it_comes(victim: Victim) -> None:
    with victim.unharmed(), connect(victim) as connection:
        connection.send(post(victim, "Transfer-Encoding: chunked") + b"ffffffffffffffff\r\n")
        connection.send(b"x" * (LIMIT_BYTES + 1))

        assert connection.answer().status == 413


def test_a_body_longer_than_it_says_is_not_read_beyond_that(victim: Victim) -> None:
    with victim.unharmed(), connect(victim) as connection:
        connection.send(post(victim, "Content-Length: 2") + b'{}{"model": "m"}')

        assert connection.answer().json["error"]["code"] == "invalid_value"
        assert connection.answer().json["error"]["code"] == "malformed_request"
        assert connection.is_closed()


def test_a_body_shorter_than_it_says_is_not_acted_on(victim: Victim) -> None:
    with victim.unharmed(), connect(victim) as connection:
        connection.send(post(victim, "Content-Length: 200") + b'{"model": "m"}')
        connection.end()

        assert connection.is_closed()


@pytest.mark.faults
def test_whoever_is_slow_is_cut_at_thirty_seconds(victim: Victim) -> None:
    head = post(victim, "Content-Length: 100")

    def wait(start: bytes, trickled: bytes) -> tuple[float, int | None]:
        with connect(victim) as connection:
            began = time.monotonic()
            connection.send(start)
            trickle(connection, trickled, every_s=1)
            status = connection.answer().status if start else None
            closed = connection.is_closed(within_s=35)
            assert closed
            return time.monotonic() - began, status

    with victim.unharmed(), ThreadPoolExecutor(3) as pool:
        headers = pool.submit(wait, head[:-2], b"X-A: aaaaaaaaaaaaaaaaaaaaaaa")
        body = pool.submit(wait, head, b"{" + b" " * 26)
        silence = pool.submit(wait, b"", b"")

    assert [headers.result()[1], body.result()[1], silence.result()[1]] == [408, 408, None]
    assert all(28 < call.result()[0] < 34 for call in (headers, body, silence))
    # The slow body had a good key: its account sees what became of it.
    assert UsageRecord.objects.filter(account=victim.account, error_code="request_timeout").count() == 1

"""The replay of a trace, against a gateway's stand-in on a real socket that answers as it is told to."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.core.management.base import OutputWrapper

from config.home import ROOT
from gateway import replaying
from gateway.management.commands.replay_trace import _Progress
from gateway.replaying import BadTrace, Replay, Target, TraceRequest, read_trace, replay

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
TRACE = HEADER + (
    "2023-11-16 18:17:03.9799600,48,10\n2023-11-16 18:17:04.0319600,3,0\n2023-11-16 18:17:05.9799600,110,27\n"
)


class Gateway(ThreadingHTTPServer):
    """Answers in the gateway's dialect: first what `script` holds, a (status, headers) each, then successes."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script: list[tuple[int, dict[str, str]]] = []
        self.requests: list[dict[str, Any]] = []
        self.times_s: list[float] = []
        self.is_free_tier = False
        self.miscounts = False
        self.hangs = threading.Event()
        self.hangs.set()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Gateway
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        pricing = {"prompt": "0.00000015", "completion": "0.0000006"}
        documents: dict[str, Any] = {
            "/v1/models": {"data": [{"id": "gpt-oss-120b", "pricing": pricing}]},
            "/v1/key": {"data": {"is_free_tier": self.server.is_free_tier}},
            "/v1/credits": {"data": {"available": "0.000010000"}},
        }
        if self.headers["Authorization"] == "Bearer good":
            self._answer(200, documents[self.path])
        else:
            self._answer(401, _error("This API key is not valid."))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append(body)
            self.server.times_s.append(time.monotonic())
            status, headers = self.server.script.pop(0) if self.server.script else (200, {})
        self.server.hangs.wait()
        if status == 0:
            self.close_connection = True
            return
        if status != 200:
            plain = headers.pop("x-plain", None)
            self._answer(status, _error("Slow down.") if plain is None else plain, headers)
            return
        words = sum(len(message["content"].split()) for message in body["messages"])
        usage = {
            "prompt_tokens": words + self.server.miscounts,
            "completion_tokens": body["sandbox"]["output_tokens"],
        }
        self._answer(200, {"choices": [], "usage": usage}, {"x-tollgate-cost-usd": "0.000001500"})

    def _answer(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
        body = document.encode() if isinstance(document, str) else json.dumps(document).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "x", "param": None, "code": "y"}}


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with Gateway() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.hangs.set()
            server.shutdown()
            thread.join()


def replayed(gateway: Gateway, requests: list[TraceRequest], **options: Any) -> Replay:
    target = Target(url=gateway.url, key="good", model="gpt-oss-120b")
    options = {"speed": 1000.0, "concurrency": 8, "on_progress": lambda _state: None, **options}
    return asyncio.run(replay(target=target, requests=requests, **options))


def run_command(
    gateway: Gateway, tmp_path: Path, *options: str, trace: str = TRACE, key: str = "good"
) -> str:
    file = tmp_path / "trace.csv"
    file.write_text(trace)
    out = io.StringIO()
    arguments = ["--key", key, "--speed", "1000", "--url", gateway.url, *options]
    try:
        call_command("replay_trace", str(file), *arguments, stdout=out)
    except SystemExit as end:
        out.write(f"exit {end.code}")
    return out.getvalue()


def test_a_trace_is_read_with_times_relative_to_its_first_request() -> None:
    assert read_trace(io.StringIO(TRACE)) == [
        TraceRequest(0.0, 48, 10),
        TraceRequest(0.052, 3, 0),
        TraceRequest(2.0, 110, 27),
    ]
    assert len(read_trace(io.StringIO(TRACE), limit=2)) == 2


def test_a_trace_out_of_order_is_replayed_in_order() -> None:
    lines = TRACE.splitlines(keepends=True)
    assert read_trace([lines[0], *reversed(lines[1:])]) == read_trace(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 must be TIMESTAMP"),
        ("time,in,out\n", "line 1 must be TIMESTAMP"),
        (HEADER, "no request"),
        (TRACE + "2023-11-16 18:18:00,1\n", "line 5: 3 values"),
        (TRACE + "\n\nyesterday,1,1\n", "line 7: 'yesterday' is no time"),
        (TRACE + "2023-11-16 18:18:00,-1,1\n", "line 5: ContextTokens"),
        (TRACE + "2023-11-16 18:18:00,1,1.5\n", "line 5: GeneratedTokens"),
        (TRACE + "2023-11-16 18:18:00,1," + "9" * 5000, "line 5: GeneratedTokens"),
        (TRACE + "x" * 200_000 + ",1,1\n", "after line 5: field larger"),
    ],
)
def test_a_bad_trace_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(BadTrace, match=message):
        read_trace(io.StringIO(text))


def test_every_request_is_sent_with_exactly_its_tokens(gateway: Gateway) -> None:
    result = replayed(gateway, read_trace(io.StringIO(TRACE)))

    sent = sorted(
        (len(body["messages"][0]["content"].split()), body["sandbox"]["output_tokens"], body["max_tokens"])
        for body in gateway.requests
    )
    assert sent == [(3, 0, 1), (48, 10, 10), (110, 27, 27)]
    assert result.is_complete
    assert (result.input_tokens, result.output_tokens) == (161, 37)
    assert (result.reported_input_tokens, result.reported_output_tokens) == (161, 37)
    assert (result.miscounted, result.failed, result.cost_usd) == (0, 0, Decimal("0.0000045"))


def test_arrival_times_are_kept_at_the_speed_asked_for(gateway: Gateway) -> None:
    result = replayed(gateway, read_trace(io.StringIO(TRACE)), speed=10.0)

    assert 0.2 <= result.elapsed_s < 1.5


def test_a_refusal_for_the_rate_is_waited_out_and_retried(gateway: Gateway) -> None:
    gateway.script = [(429, {"retry-after": "60", "retry-after-ms": "150"}), (503, {"retry-after": "soon"})]

    result = replayed(gateway, [TraceRequest(0.0, 5, 5)])

    assert result.is_complete
    assert result.refusals_retried == 2
    assert result.elapsed_s >= 1.15
    assert len(gateway.requests) == 3


def test_one_refusal_makes_every_worker_wait(gateway: Gateway) -> None:
    gateway.script = [(429, {"retry-after-ms": "1000"})]

    result = replayed(
        gateway, [TraceRequest(index / 20, 5, 5) for index in range(20)], speed=1.0, concurrency=4
    )

    assert result.is_complete
    assert result.refusals_retried == 1
    refused_at_s = gateway.times_s[0]
    assert not [at_s for at_s in gateway.times_s if refused_at_s + 0.5 < at_s < refused_at_s + 0.95]


def test_a_refusal_that_no_waiting_helps_stops_the_replay(gateway: Gateway) -> None:
    gateway.script = [(429, {"x-should-retry": "false", "retry-after": "1"})]

    result = replayed(
        gateway, [TraceRequest(float(index), 5, 5) for index in range(50)], concurrency=1, speed=1e6
    )

    assert (result.done, result.failed, len(gateway.requests)) == (0, 1, 1)
    assert result.stopped_because == "429 Slow down."


def test_a_request_without_a_whole_answer_is_not_sent_twice(gateway: Gateway) -> None:
    gateway.script = [(500, {}), (502, {})]

    result = replayed(gateway, [TraceRequest(0.0, 5, 5)] * 3, concurrency=1)

    assert (result.done, result.failed, len(gateway.requests)) == (1, 2, 3)
    assert result.failures == {"500 Slow down.": 1, "502 Slow down.": 1}


def test_a_connection_that_breaks_is_a_failure_and_one_that_cannot_be_made_is_waited_for(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.script = [(0, {})]
    result = replayed(gateway, [TraceRequest(0.0, 5, 5)] * 2, concurrency=1)
    assert (result.done, result.failed) == (1, 1)
    assert result.failures == {"no whole answer: ServerDisconnectedError": 1}

    monkeypatch.setattr(replaying, "_RECONNECT_S", 0.001)
    nowhere = Target(url="http://127.0.0.1:1", key="good", model="m")
    result = asyncio.run(
        replay(
            target=nowhere,
            requests=[TraceRequest(0.0, 5, 5)],
            speed=1.0,
            concurrency=1,
            on_progress=lambda _state: None,
        )
    )
    assert result.failures == {"refused or not reached 60 times": 1}


def test_an_error_that_explains_nothing_is_quoted(gateway: Gateway) -> None:
    gateway.script = [
        (418, {"x-plain": "short and stout"}),
        (503, {"x-should-retry": "false", "x-plain": ""}),
    ]

    result = replayed(gateway, [TraceRequest(0.0, 5, 5)] * 2, concurrency=1)

    assert result.failures == {"418 short and stout": 1, "503 an empty answer": 1}


@pytest.mark.parametrize("is_terminal", [False, True])
def test_progress_says_how_far_it_is_and_how_long_it_takes(*, is_terminal: bool) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return is_terminal

    screen = Screen()
    progress = _Progress(OutputWrapper(screen))
    for done in (0, 100, 200):
        progress._last -= 6
        progress(Replay(total=7400, done=done, in_flight=3, elapsed_s=done / 2))
        if not is_terminal:
            progress(Replay(total=7400, done=done))

    written = screen.getvalue()
    assert "0%  0 done, 0 failed, 3 in flight, 0/s, - left" in written
    assert "1%  100 done, 0 failed, 3 in flight, 2/s, 1 h 0 min left" in written
    assert written.count("\x1b[K") == (3 if is_terminal else 0)
    assert written.count("\n") == (0 if is_terminal else 3)


def test_the_command_announces_the_cost_and_sums_up(gateway: Gateway, tmp_path: Path) -> None:
    output = run_command(gateway, tmp_path)

    assert "3 requests with 161 tokens in and 37 out" in output
    assert "expected cost on gpt-oss-120b: $0.0000; available credit: $0.0000" in output
    assert "the credit may not last" in output
    assert "3 served, 0 failed, 0 not finished, of 3" in output
    assert "161 sent, 161 reported" in output
    assert "charged to credits $0.000004500" in output
    assert "exit" not in output


def test_the_command_fails_when_a_request_did(gateway: Gateway, tmp_path: Path) -> None:
    gateway.script = [(402, {})]

    output = run_command(gateway, tmp_path, "--concurrency", "1")

    assert "failed 1 times: 402 Slow down." in output
    assert "every further request would have been refused" in output
    assert output.endswith("exit 1")


def test_answers_that_count_otherwise_than_the_trace_are_pointed_out(
    gateway: Gateway, tmp_path: Path
) -> None:
    gateway.miscounts = True
    gateway.is_free_tier = True

    output = run_command(gateway, tmp_path, "--limit", "2")

    assert "NOT EQUAL          2 answers" in output
    assert "free plan" in output


def test_what_cannot_work_is_said_before_the_first_request(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CommandError, match="401: This API key is not valid"):
        run_command(gateway, tmp_path, key="bad")
    with pytest.raises(CommandError, match="may not call 'gpt-9'; it may call: gpt-oss-120b"):
        run_command(gateway, tmp_path, "--model", "gpt-9")
    with pytest.raises(CommandError, match="does not answer"):
        run_command(gateway, tmp_path, "--url", "http://127.0.0.1:1")
    with pytest.raises(CommandError, match="must start with http"):
        run_command(gateway, tmp_path, "--url", "localhost:8000")
    with pytest.raises(CommandError, match=r"trace\.csv: line 1"):
        run_command(gateway, tmp_path, trace="x")
    with pytest.raises(CommandError, match="cannot read"):
        call_command("replay_trace", str(tmp_path / "absent"), "--key", "good", "--speed", "1")
    with pytest.raises(CommandError, match="above 0"):
        run_command(gateway, tmp_path, "--speed", "nan")
    with pytest.raises(CommandError, match="above 0"):
        run_command(gateway, tmp_path, "--speed", "fast")
    with pytest.raises(CommandError, match="whole number"):
        run_command(gateway, tmp_path, "--limit", "0")
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    with pytest.raises(CommandError, match="give the key"):
        run_command(gateway, tmp_path, key="-")
    assert gateway.requests == []


def test_ctrl_c_prints_the_summary_so_far(gateway: Gateway, tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text(TRACE + "2023-11-16 19:18:00,1,1\n")
    process = subprocess.Popen(
        [
            sys.executable,
            str(ROOT / "manage.py"),
            "replay_trace",
            str(file),
            "--speed",
            "100",
            "--url",
            gateway.url,
        ],
        env={**os.environ, "TOLLGATE_KEY": "good"},
        stdout=subprocess.PIPE,
        text=True,
        # A test run that was started in the background ignores Ctrl-C, and would hand that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
    )
    while len(gateway.requests) < 3:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)

    assert "0 failed, " in output
    assert "of 4" in output
    assert output.rstrip().endswith("interrupted")
    assert process.returncode == 130

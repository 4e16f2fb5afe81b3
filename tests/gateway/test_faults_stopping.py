"""An instance that is told to stop: what runs is finished, and whoever comes meanwhile is told when to come again."""

import threading
import uuid

import pytest

from tests.gateway import open_streams
from tests.gateway.conftest import chat, wait_for
from tests.gateway.raw_http import RawAnswer, RawConnection
from tests.gateway.test_faults import MODEL, Customer
from tests.instance import Instance

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("instance")]


def asked(port: int, line: str, body: bytes = b"") -> RawAnswer | None:
    """One call on a new connection; None where nobody listens any more."""
    head = f"{line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    try:
        with RawConnection(port) as connection:
            connection.send(head + body)
            return connection.answer(has_body=not line.startswith("HEAD"))
    except ConnectionRefusedError:
        return None


def turned_away(port: int, line: str, body: bytes = b"") -> RawAnswer:
    """The answer of who stands at the door. A web process that has not heard yet may take the caller before."""
    answers = []

    def comes_again() -> bool:
        answers.append(asked(port, line, body))
        return _status(answers[-1]) == 503

    wait_for(comes_again, patience_s=2)
    assert answers[-1] is not None
    return answers[-1]


def test_while_it_stops_new_callers_are_told_to_come_again_and_running_streams_end_whole(
    instance: Instance,
) -> None:
    instance.start(processes=2)
    customer = Customer(instance, "leaving")
    port = instance.state.port
    body = chat(MODEL, stream=True, max_tokens=60, sandbox={"output_tokens": 60, "chunk_delay_ms": 50})

    with open_streams.opened(f"{instance.url}/v1") as streams:
        streams.open(5, secret=customer.secret, body=body)
        stopping = threading.Thread(target=instance.stop)
        stopping.start()
        wait_for(lambda: _status(asked(port, "GET /health/ready")) == 503, patience_s=2)
        large = b'{"model": "' + b"m" * 200_000 + b'"}'
        openai = turned_away(port, "POST /v1/chat/completions", large)
        anthropic = turned_away(port, "POST /v1/messages", large)
        page = turned_away(port, "GET /keys/")
        head = turned_away(port, "HEAD /v1/models")
        ended = streams.ended()
        stopping.join()

    assert all(stream.is_complete for stream in ended)
    for answer in (openai, anthropic, page, head):
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert uuid.UUID(answer.headers["x-request-id"]).version == 7
    assert openai.json["error"]["code"] == "temporarily_unavailable"
    assert set(openai.json["error"]) == {"message", "type", "param", "code"}
    assert anthropic.json["error"]["type"] == "overloaded_error"
    assert anthropic.json["request_id"] == anthropic.headers["x-request-id"]
    assert page.body.startswith(b"Tollgate is stopping")
    assert asked(port, "GET /health/ready") is None


def test_a_caller_who_says_nothing_keeps_no_instance_from_stopping(instance: Instance) -> None:
    instance.start()
    port = instance.state.port

    with RawConnection(port), RawConnection(port):
        assert instance.stop() == 0


def _status(answer: RawAnswer | None) -> int:
    return answer.status if answer else 0

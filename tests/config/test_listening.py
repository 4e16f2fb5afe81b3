"""The listening socket and the address that is printed."""

import os
import socket
import threading

import pytest

from config.listening import answers_ready, listen, url_of, warn_about_strangers
from config.refusal import Refused


def test_port_0_takes_a_free_one_and_a_taken_one_is_refused() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        assert port > 0
        with pytest.raises(
            Refused, match=f"port {port} is in use: .* --port {port + 1 if port < 65535 else port - 1}"
        ):
            listen("127.0.0.1", port, patience_s=0.1)


def test_a_port_that_gets_free_in_time_is_taken() -> None:
    """The processes of an instance that was killed need a moment to go."""
    first = listen("127.0.0.1", 0)
    port = first.getsockname()[1]
    threading.Timer(0.2, first.close).start()
    with listen("127.0.0.1", port, patience_s=20) as second:
        assert second.getsockname()[1] == port


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host.invalid"])
def test_an_address_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(Refused, match=f"--host {host} is no address of this machine"):
        listen(host, 0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may take any port")
def test_a_port_for_root_is_refused_to_others() -> None:
    with pytest.raises(Refused, match="choose one above 1023"):
        listen("127.0.0.1", 1)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://localhost:80"),
        ("0.0.0.0", "http://localhost:80"),  # noqa: S104 - not listened on
        ("192.0.2.7", "http://192.0.2.7:80"),
        ("2001:db8::1", "http://[2001:db8::1]:80"),
    ],
)
def test_the_printed_address_can_be_opened(host: str, url: str) -> None:
    assert url_of(host, 80) == url


@pytest.mark.parametrize(
    ("answer", "is_ready"),
    [(b"HTTP/1.1 200 OK\r\n\r\n", True), (b"HTTP/1.1 503 Not yet\r\n\r\n", False), (b"", False)],
)
def test_ready_is_a_200_of_the_health_page(answer: bytes, is_ready: bool) -> None:
    with listen("127.0.0.1", 0) as listener:
        heard: list[bytes] = []

        def serve() -> None:
            connection, _address = listener.accept()
            with connection:
                heard.append(connection.recv(1000))
                connection.sendall(answer)

        server = threading.Thread(target=serve)
        server.start()
        assert answers_ready(listener, "tollgate.example.com") == is_ready
        server.join()
        assert heard[0].startswith(b"GET /health/ready HTTP/1.0\r\nHost: tollgate.example.com\r\n")


def test_a_closed_door_is_not_ready() -> None:
    with listen("127.0.0.1", 0) as listener, socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        assert not answers_ready(other, "localhost")
        del listener


def test_opening_to_a_network_is_remarked(capsys: pytest.CaptureFixture[str]) -> None:
    warn_about_strangers("127.0.0.1")
    assert not capsys.readouterr().err
    warn_about_strangers("0.0.0.0")  # noqa: S104 - not listened on
    assert "plain http" in capsys.readouterr().err

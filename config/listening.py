"""The listening socket of an instance. Standard library only.

The supervisor opens it and the web processes inherit it: a port in use is found before anything is started, a web
process that restarts finds its callers waiting in the queue, and several processes share one port.
"""

import errno
import os
import socket
import time

from config.home import say
from config.refusal import Refused

_BACKLOG = 2048
# The kernel takes so much of an answer before it can be sent. Without a bound it takes megabytes for a slow reader.
_UNSENT_BYTES = 32 * 1024
# Processes of an instance that was killed end within milliseconds, but not within none.
_PATIENCE_S = 3.0
_LARGEST_HEADER_BYTES = 4096


def listen(host: str, port: int, *, patience_s: float = _PATIENCE_S) -> socket.socket:
    """Open a listening TCP socket; port 0 takes a free one.

    Raises:
        Refused: the address is not ours, the port is taken, or it needs more rights.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise Refused(
            f"--host {host} is no address of this machine: try 127.0.0.1, or 0.0.0.0 for every one"
        ) from error
    family, kind, _protocol, _name, address = found[0]
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return _open(socket.socket(family, kind), address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise _refusal(error, host, port) from error
            time.sleep(0.05)


def _open(listener: socket.socket, address: tuple[object, ...]) -> socket.socket:
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit it. uvicorn takes an inherited socket for a Unix one and does not ask for it itself;
        # then the body of an answer waits 40 ms for the acknowledgment of its headers.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _refusal(error: OSError, host: str, port: int) -> Refused:
    if error.errno == errno.EADDRINUSE:
        return Refused(
            f"port {port} is in use: stop what listens there, or choose another port with --port {_next(port)}"
        )
    if error.errno == errno.EACCES:
        return Refused(f"port {port} needs more rights than you have: choose one above 1023 with --port")
    if error.errno == errno.EADDRNOTAVAIL:
        return Refused(
            f"--host {host} is no address of this machine: try 127.0.0.1, or 0.0.0.0 for every one"
        )
    return Refused(f"cannot listen on {host} port {port}: {os.strerror(error.errno or 0)}")


def _next(port: int) -> int:
    return port + 1 if port < 65535 else port - 1  # noqa: PLR2004 - the highest port there is


def url_of(host: str, port: int) -> str:
    """An address that a browser on this machine can open."""
    name = "localhost" if host in {"0.0.0.0", "::", "127.0.0.1", "::1", "localhost"} else host  # noqa: S104 - compared
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def answers_ready(listener: socket.socket, host_header: str) -> bool:
    """Whether GET /health/ready says 200 within a few seconds, asked through the listening socket's own address."""
    family, address = listener.family, listener.getsockname()
    request = f"GET /health/ready HTTP/1.0\r\nHost: {host_header}\r\n\r\n".encode()
    try:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(5)
            connection.connect(address)
            connection.sendall(request)
            status_line = connection.recv(_LARGEST_HEADER_BYTES).partition(b"\r\n")[0]
    except OSError:
        return False
    return status_line.split(b" ")[1:2] == [b"200"]


def warn_about_strangers(host: str) -> None:
    """Embedded mode speaks plain http: say so to whoever opens it to a network."""
    if host not in {"127.0.0.1", "::1", "localhost"}:
        say(
            "listening beyond this machine, in plain http: put a reverse proxy with TLS in front (docs/operations.md)"
        )

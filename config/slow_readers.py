"""Clients that do not take what is written for them.

What counts is what the client has acknowledged. The kernel takes more from us only when much room has been made, which
a client that reads steadily but slowly may need minutes for; one that takes nothing at all may go on saying so forever.
"""

import asyncio
import fcntl
import logging
import socket
import struct
import sys
import termios

from config.gathering import GatheringTransport

logger = logging.getLogger(__name__)

# How often one is looked at before it is cut.
_LOOKS = 10
_AN_INTEGER = bytes(struct.calcsize("i"))
# Closes at once: what was not taken is dropped, and the reader hears that it was cut.
_RESET = struct.pack("ii", 1, 0)


class SlowReader:
    """A client for which something waits. Takes it none of it for `limit_s` seconds, its connection is cut."""

    def __init__(self, transport: GatheringTransport, *, limit_s: float) -> None:
        self._transport = transport
        self._limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket = transport.get_extra_info("socket")
        self._untaken_bytes = self._count_untaken_bytes()
        self._took_at = self._loop.time()
        self._next_look = self._loop.call_later(limit_s / _LOOKS, self._look)

    def forget(self) -> None:
        """It has taken all of it, or is gone."""
        self._next_look.cancel()

    def _look(self) -> None:
        untaken_bytes, now = self._count_untaken_bytes(), self._loop.time()
        if untaken_bytes != self._untaken_bytes:
            self._untaken_bytes, self._took_at = untaken_bytes, now
        elif now - self._took_at >= self._limit_s:
            logger.info("a client has taken nothing of its answer for %g s and is cut", self._limit_s)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()
            return
        self._next_look = self._loop.call_later(self._limit_s / _LOOKS, self._look)

    def _count_untaken_bytes(self) -> int:
        """What waits here, and what the kernel waits to have acknowledged, where it tells."""
        waiting = self._transport.get_write_buffer_size()
        try:
            unacknowledged = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, _AN_INTEGER)
        except OSError:
            return waiting
        return waiting + int.from_bytes(unacknowledged, sys.byteorder)

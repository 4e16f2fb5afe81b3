"""A transport that sends what is written in one turn of the event loop at once.

uvicorn writes the headers of an answer and its body one after the other, and each write is a call of the kernel that
wakes the reader. Gathered, an answer is one call and, where it is small, one packet.
"""

import asyncio
from typing import Any

# So much is sent without waiting for the end of the turn: whoever writes more has to see whether it is taken.
_MUCH_BYTES = 64 * 1024


class GatheringTransport:
    """What uvicorn uses of a transport. Writes wait for the end of the turn; closing sends them first."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0

    def write(self, data: bytes) -> None:
        """Send soon; at once where it has become much."""
        if not self._gathered:
            self._loop.call_soon(self._send)
        self._gathered.append(data)
        self._gathered_bytes += len(data)
        if self._gathered_bytes >= _MUCH_BYTES:
            self._send()

    def close(self) -> None:
        """Send what is gathered, and close when it has been sent."""
        self._send()
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._gathered.clear()
        self._transport.abort()

    def get_write_buffer_size(self) -> int:
        """The bytes of it that the kernel has not taken yet."""
        return self._transport.get_write_buffer_size()

    def can_write_eof(self) -> bool:
        return self._transport.can_write_eof()

    def write_eof(self) -> None:
        """Send what is gathered, and say that it was the last."""
        self._send()
        self._transport.write_eof()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._transport.set_protocol(protocol)

    def _send(self) -> None:
        if not self._gathered:
            return
        gathered, self._gathered, self._gathered_bytes = self._gathered, [], 0
        if not self._transport.is_closing():
            self._transport.write(gathered[0] if len(gathered) == 1 else b"".join(gathered))

"""A TCP port in front of another server, where the way can be made slow, stalled or cut, and what passes is counted."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

_ANSWER = b"HTTP/1.1 200"


class Link:
    """Passes bytes on in both directions; each answer arrives `delay_s` late, in order, however many are under way.

    `answers` counts the good answers of HTTP that have passed. (Not the requests: one that meets a connection which is
    just being closed is sent again.)
    """

    def __init__(self, target: Path | tuple[str, int]) -> None:
        self.delay_s = 0.0
        self.answers = 0
        self.port = 0
        self._target = target
        self._is_cut = False
        self._open: set[asyncio.StreamWriter] = set()
        self._ways: list[asyncio.Event] = []  # of each connection: set while something passes
        self._loop = asyncio.new_event_loop()
        self._is_listening = threading.Event()
        self._is_over = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))
        self._thread.start()
        self._is_listening.wait(10)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._is_over.set)
        self._thread.join()
        self._loop.close()

    @contextlib.contextmanager
    def cut(self) -> Iterator[None]:
        """In here every connection is reset, those that are open and those to come."""
        self._is_cut = True
        self._loop.call_soon_threadsafe(self._reset)
        yield
        self._is_cut = False

    def _reset(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    def stall(self) -> None:
        """On the connections that are open nothing arrives any more. It waits; those that are made now pass."""
        self._each(lambda way: way.clear())

    def heal(self) -> None:
        """What was sent meanwhile arrives, also of connections that the near side has given up."""
        self._each(lambda way: way.set())

    def _each(self, act: Callable[[asyncio.Event], None]) -> None:
        async def all_of_them() -> None:
            for way in self._ways:
                act(way)

        asyncio.run_coroutine_threadsafe(all_of_them(), self._loop).result(10)

    async def _run(self) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._is_listening.set()
        await self._is_over.wait()
        server.close()
        passing = asyncio.all_tasks() - {asyncio.current_task()}
        for task in passing:
            task.cancel()
        await asyncio.gather(*passing, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        try:
            if isinstance(self._target, Path):
                far_reader, far_writer = await asyncio.open_unix_connection(self._target)
            else:
                far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        self._open.add(writer)
        way = asyncio.Event()
        way.set()
        self._ways.append(way)
        try:
            await asyncio.gather(
                self._pass(reader, far_writer, way, lambda: 0.0),
                self._pass(far_reader, writer, way, lambda: self.delay_s),
            )
        finally:
            self._open.discard(writer)
            self._ways.remove(way)
            writer.transport.abort()
            far_writer.transport.abort()

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        way: asyncio.Event,
        delay_s: Callable[[], float],
    ) -> None:
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        arriving = asyncio.create_task(_arrive(under_way, way, writer))
        piece = b"first"
        while piece:
            try:
                piece = await reader.read(65536)
            except OSError:
                piece = b""
            self.answers += piece.count(_ANSWER)
            under_way.put_nowait((self._loop.time() + delay_s(), piece))
        await arriving


async def _arrive(
    under_way: "asyncio.Queue[tuple[float, bytes]]", way: asyncio.Event, writer: asyncio.StreamWriter
) -> None:
    """Write each piece at its time and never before the one that was sent before it; the empty one is the end."""
    while True:
        due, piece = await under_way.get()
        await asyncio.sleep(max(due - asyncio.get_running_loop().time(), 0))
        await way.wait()
        if not piece:
            writer.close()
            return
        writer.write(piece)


@contextlib.contextmanager
def linked(target: Path | tuple[str, int]) -> Iterator[Link]:
    link = Link(target)
    try:
        yield link
    finally:
        link.close()

"""A TCP proxy between a client and a real server, which hurts connections on command."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Iterator
from types import TracebackType
from urllib.parse import urlsplit

from .misbehaver import close_by_reset, stop_accepting


class FaultProxy:
    """Passes everything on, until it is told otherwise.

    Args:
        upstream: The endpoint of the server.

    Attributes:
        endpoint: Where a client connects.
        latency: Seconds by which every byte is late, each way.
        losing: Whether what the server says is lost, while what it is told arrives; a connection that has lost
            something loses all that follows.
        accepted: How many connections there have been.
        told: What is called with each whole request of connections that are made from now on, as it comes.
    """

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = parts.hostname, parts.port
        self._name = socket.socket()  # bound but not listening, it keeps the port ours while connections are refused
        self._name.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._name.bind(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._name.getsockname()[1]}"
        self.latency = 0.0
        self.losing = False
        self.accepted = 0
        self.told: Callable[[bytes], object] | None = None
        self._passing = asyncio.Event()
        self._passing.set()
        self._server: asyncio.Server | None = None
        self._listening = asyncio.Lock()
        self._writers: set[asyncio.StreamWriter] = set()
        self._forgotten: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def open(self) -> int:
        """How many connections there are now."""
        return len(self._tasks)

    async def __aenter__(self) -> FaultProxy:
        await self.resume()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.refuse()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._name.close()

    async def refuse(self) -> None:
        """Refuse new connections; those that are open go on."""
        async with self._listening:
            if self._server is not None:
                server, self._server = self._server, None
                await stop_accepting(server)

    async def resume(self) -> None:
        """Accept connections, and pass everything on."""
        self._passing.set()
        async with self._listening:
            if self._server is None:
                listener = socket.socket()
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(self._name.getsockname())
                self._server = await asyncio.start_server(self._accept, sock=listener)

    def black_hole(self) -> None:
        """Keep connections open, accept more, and pass nothing."""
        self._passing.clear()

    def forget(self) -> None:
        """Pass nothing more on the connections that are open; what is sent there is answered by RST. Serve new ones."""
        self._forgotten |= self._writers

    def cut(self, *, reset: bool = False) -> int:
        """Close all connections, by FIN or by RST; how many those were."""
        for writer in self._writers:
            if writer.is_closing():
                continue
            if reset:
                close_by_reset(writer)
            else:
                writer.close()
        return len(self._tasks)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.create_task(self._serve(reader, writer), name="faultproxy")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        there: asyncio.StreamWriter | None = None
        pumps: list[asyncio.Task[None]] = []
        try:
            answers, there = await asyncio.open_connection(*self._upstream)
            self._writers.add(there)
            pumps = [
                asyncio.create_task(pump, name="faultproxy")
                for pump in (self._pump(reader, there, writer), self._pump(answers, writer, writer, answers=True))
            ]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            pass
        finally:
            for pump in pumps:
                pump.cancel()
            for end in (writer, there):
                if end is not None:
                    self._writers.discard(end)
                    self._forgotten.discard(end)
                    end.close()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        client: asyncio.StreamWriter,
        *,
        answers: bool = False,
    ) -> None:
        late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        passing = asyncio.create_task(self._pass(late, writer, answers), name="faultproxy")
        told, requests = None if answers else self.told, Requests()
        try:
            while data := await reader.read(1 << 16):
                if told is not None:
                    for request in requests.whole(data):
                        told(request)
                if client in self._forgotten:
                    if not answers:
                        close_by_reset(client)
                    continue
                late.put_nowait((asyncio.get_running_loop().time() + self.latency, data))
            late.put_nowait((0.0, b""))
            await passing
        except OSError:
            pass
        finally:
            passing.cancel()

    async def _pass(
        self, late: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, answers: bool
    ) -> None:
        lost = False
        while True:
            due, data = await late.get()
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            await self._passing.wait()
            if not data:
                return
            lost = lost or (answers and self.losing)
            if not lost:
                writer.write(data)


class Requests:
    """What a client says on one connection, request by request."""

    def __init__(self) -> None:
        self._begun = b""

    def whole(self, data: bytes) -> Iterator[bytes]:
        """The requests that are whole now that this has come; their bodies have a `Content-Length`."""
        self._begun += data
        while (end := self._begun.find(b"\r\n\r\n") + 4) > 3:
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", self._begun[:end])
            end += int(length[1]) if length else 0
            if len(self._begun) < end:
                return
            yield self._begun[:end]
            self._begun = self._begun[end:]

"""A raw server that does what no real server should, and counts what it was sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

CLUSTER_ID = "cdf818194e3a8c32"


class Seen(NamedTuple):
    """A request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))


class Exchange:
    """One request, and the connection on which it came."""

    def __init__(self, seen: Seen, writer: asyncio.StreamWriter) -> None:
        self.seen = seen
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Close by RST."""
        close_by_reset(self.writer)


def close_by_reset(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


Behaviour = Callable[[Exchange], Awaitable[bool | None]]


def answer(
    body: bytes | str | dict[str, Any] = b"",
    *,
    status: int = 200,
    index: int | None = 10,
    cluster: str | None = CLUSTER_ID,
    headers: dict[str, str] | None = None,
) -> Behaviour:
    """A complete answer; the connection stays open."""
    if isinstance(body, dict):
        body = json.dumps(body)
    data = body.encode() if isinstance(body, str) else body

    async def behave(exchange: Exchange) -> None:
        lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(data)}"]
        if index is not None:
            lines.append(f"X-Etcd-Index: {index}")
        if cluster is not None:
            lines.append(f"X-Etcd-Cluster-Id: {cluster}")
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        await exchange.send("\r\n".join([*lines, "", ""]).encode() + data)

    return behave


def raw(*pieces: bytes, pause: float = 0.0, then: Behaviour | None = None) -> Behaviour:
    """Bytes as they are, with pauses between the pieces; then something else, by default hanging up."""

    async def behave(exchange: Exchange) -> bool | None:
        for piece in pieces:
            await exchange.send(piece)
            await asyncio.sleep(pause)
        return await (then or close)(exchange)

    return behave


async def close(exchange: Exchange) -> bool:
    """Hang up without an answer, by FIN."""
    return False


async def reset(exchange: Exchange) -> bool:
    """Hang up without an answer, by RST."""
    exchange.reset()
    return False


async def hang(exchange: Exchange) -> None:
    """Never answer."""
    await asyncio.Event().wait()


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; of no data the last."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def wait_header(index: int = 10, *, cluster: str = CLUSTER_ID) -> bytes:
    """What a real server answers to a wait at once."""
    return (
        f"HTTP/1.1 200 OK\r\nX-Etcd-Index: {index}\r\nX-Etcd-Cluster-Id: {cluster}\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    ).encode()


def wait(index: int = 10) -> Behaviour:
    """A wait to which no event comes."""
    return raw(wait_header(index), then=hang)


def happened(*events: dict[str, Any], index: int = 10) -> Behaviour:
    """A wait that ends with its event, as a real server's does; or with several, as no server's does."""
    lines = b"".join(chunk(json.dumps(event).encode() + b"\n") for event in events)
    return raw(wait_header(index) + lines + chunk(b""), then=stay)


async def stay(exchange: Exchange) -> None:
    """Keep the connection for the next request."""


def key_event(key: str = "/k", index: int = 11, action: str = "set", value: str = "v", **more: Any) -> dict[str, Any]:
    """The body of a keys answer or event."""
    node = {"key": key, "value": value, "modifiedIndex": index, "createdIndex": index}
    return {"action": action, "node": node, **more}


class Misbehaver:
    """A server whose answers are scripted: one behaviour for each request, the last one for all further requests.

    A behaviour that returns `False` closes the connection. `seen` holds every request, `connections` counts, `open` is
    how many connections there are now, `behaving` on how many of them a request is still being answered. Reads that
    are no waits can have a behaviour of their own, `reads`: they are then no part of the script, since a watcher sends
    them whenever it likes.
    """

    def __init__(
        self,
        *behaviours: Behaviour,
        reads: Behaviour | None = None,
        path: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.behaviours = list(behaviours)
        self.reads = reads
        self.seen: list[Seen] = []
        self.connections = 0
        self.open = 0
        self.behaving = 0
        self._path = path
        self._at = host, port
        self._scripted = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def endpoint(self) -> str:
        assert self._server is not None
        if self._path is not None:
            return f"unix://{self._path}"
        return f"http://{self._at[0]}:{self._server.sockets[0].getsockname()[1]}"

    @property
    def waits(self) -> list[Seen]:
        """The requests that were watches."""
        return [seen for seen in self.seen if seen.query.get("wait") == "true"]

    def hang_up(self) -> None:
        """Close all connections."""
        for writer in self._writers:
            writer.close()

    async def __aenter__(self) -> Misbehaver:
        if self._path is not None:
            self._server = await asyncio.start_unix_server(self._accept, self._path)
        else:
            self._server = await asyncio.start_server(self._accept, *self._at)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        await stop_accepting(self._server)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for work in (self._serve(reader, writer), _until_closed(writer)):
            task = asyncio.create_task(work, name="misbehaver")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _next_behaviour(self, seen: Seen) -> Behaviour:
        if self.reads is not None and seen.method == "GET" and "wait" not in seen.query:
            return self.reads
        self._scripted += 1
        return self.behaviours[min(self._scripted, len(self.behaviours)) - 1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self._writers.add(writer)
        tasks: set[asyncio.Task[Any]] = set()
        try:
            while True:
                seen = await read_request(reader)
                self.seen.append(seen)
                self.behaving += 1
                behaving = asyncio.create_task(
                    _run(self._next_behaviour(seen), Exchange(seen, writer)), name="misbehaver"
                )
                tasks = {behaving, asyncio.create_task(_hung_up(reader), name="misbehaver")}
                try:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    self.behaving -= 1
                if not behaving.done() or behaving.result() is False:
                    break
                for task in tasks:
                    task.cancel()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            for task in tasks:
                task.cancel()
            self.open -= 1
            self._writers.discard(writer)
            writer.close()


async def stop_accepting(server: asyncio.Server) -> None:
    """Close a server, but let in who has just connected: asyncio would lose the socket."""
    for listener in server.sockets:
        asyncio.get_running_loop().remove_reader(listener.fileno())
    for _ in range(3):
        await asyncio.sleep(0)
    server.close()


async def _until_closed(writer: asyncio.StreamWriter) -> None:
    """Take note of how a connection ends: asyncio may complain, when it collects garbage, of an end that nobody saw."""
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def _hung_up(reader: asyncio.StreamReader) -> None:
    while not reader.at_eof() and reader.exception() is None:
        await asyncio.sleep(0.005)


async def _run(behaviour: Behaviour, exchange: Exchange) -> bool | None:
    try:
        return await behaviour(exchange)
    except ConnectionError:
        return False


async def read_request(reader: asyncio.StreamReader) -> Seen:
    """Read one request from a connection."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    request_line, *lines = head.split("\r\n")
    method, target, _ = request_line.split(" ", 2)
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Seen(method, target, headers, body)

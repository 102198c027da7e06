"""A raw server that does what no real server should, and counts what it was sent; and a proxy that hurts connections."""

from __future__ import annotations

import asyncio
import json
import struct
import socket
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

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
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


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


def raw(data: bytes, *, then_close: bool = True) -> Behaviour:
    """Bytes as they are."""

    async def behave(exchange: Exchange) -> bool:
        await exchange.send(data)
        return not then_close

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


def key_event(key: str = "/k", index: int = 11, action: str = "set", value: str = "v", **more: Any) -> dict[str, Any]:
    """The body of a keys answer or event."""
    node = {"key": key, "value": value, "modifiedIndex": index, "createdIndex": index}
    return {"action": action, "node": node, **more}


class Misbehaver:
    """A server whose answers are scripted: one behaviour for each request, the last one for all further requests.

    A behaviour that returns `False` closes the connection. `seen` holds every request, `connections` counts.
    """

    def __init__(self, *behaviours: Behaviour) -> None:
        self.behaviours = list(behaviours)
        self.seen: list[Seen] = []
        self.connections = 0
        self.open = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def endpoint(self) -> str:
        assert self._server is not None
        return "http://127.0.0.1:%d" % self._server.sockets[0].getsockname()[1]

    async def __aenter__(self) -> Misbehaver:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        watch: asyncio.Task[bytes] | None = None
        try:
            while True:
                seen = await read_request(reader)
                self.seen.append(seen)
                behaviour = self.behaviours[min(len(self.seen), len(self.behaviours)) - 1]
                behaving = asyncio.ensure_future(_run(behaviour, Exchange(seen, writer)))
                watch = asyncio.ensure_future(reader.read(1)) if behaviour is hang else None
                await asyncio.wait({behaving, *([watch] if watch else [])}, return_when=asyncio.FIRST_COMPLETED)
                if not behaving.done():
                    behaving.cancel()
                    break
                if behaving.result() is False:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            if watch is not None:
                watch.cancel()
            self.open -= 1
            writer.close()


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

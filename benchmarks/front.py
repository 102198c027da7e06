"""A TCP front before each member, like a balancer: it counts what passes, and while it is shut it cuts all that comes.

`python -m benchmarks.front ENDPOINT...` prints a line of JSON with its own endpoints. Then it takes orders, each a line
of JSON, and prints the figures. A client's connections and requests are counted here, not by the client.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
import time
from bisect import bisect_left
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .traffic import address

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
QUIET = 1.5
"""Seconds without a byte of any answer but those of probes, after which nothing more is expected."""


@dataclass
class Exchange:
    """A request on its way, and its answer.

    Attributes:
        line: The first line of the request.
        began: When it came; of the first request on a connection, when that was accepted.
        answered: When the first byte of the answer came.
        last: When its last byte so far came.
        ended: When the connection ended, or the next request on it came.
        good: The answer is a 200.
    """

    line: bytes
    began: float
    answered: float | None = None
    last: float = 0.0
    ended: float | None = None
    good: bool = False

    @property
    def waits(self) -> bool:
        """It registers a watch."""
        return b"wait=true" in self.line

    @property
    def looks(self) -> bool:
        """It reads a whole subtree."""
        return b"recursive=true" in self.line and not self.waits

    @property
    def registered(self) -> bool:
        """It is a watch, and there is a stream for it."""
        return b"stream=true" in self.line and self.good and self.ended is None


def most_at_once(spans: Iterable[tuple[float, float]]) -> int:
    """How many of the spans overlap at most."""
    steps = sorted(step for start, end in spans for step in ((start, 1), (end, -1)))
    most = now = 0
    for _, change in steps:
        now += change
        most = max(most, now)
    return most


def most_in_a_second(times: list[float]) -> int:
    """How many of the times, which are in order, lie within any one second."""
    return max((number + 1 - bisect_left(times, end - 1.0) for number, end in enumerate(times)), default=0)


class Front:
    """Passes bytes on, and counts; a period of counting lasts from one order to the next."""

    def __init__(self) -> None:
        self._open = True
        self._writers: set[asyncio.StreamWriter] = set()
        self._exchanges: list[Exchange] = []
        self._accepted: list[float] = []
        self._received = 0
        self._began = 0.0

    async def listen(self, endpoint: str) -> str:
        """Stand before an endpoint; the endpoint that clients are given."""

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._accepted.append(time.monotonic())
            self._writers.add(writer)
            try:
                if self._open:
                    await self._pass_on(endpoint, reader, writer)
            finally:
                self._writers.discard(writer)
                self._cut(writer)

        server = await asyncio.start_server(accept, "127.0.0.1", 0, backlog=4096)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def begin(self) -> dict[str, Any]:
        """Begin a period."""
        self._exchanges = [exchange for exchange in self._exchanges if exchange.ended is None]
        self._accepted = []
        self._received = 0
        self._began = time.monotonic()
        return {}

    async def shut(self) -> dict[str, Any]:
        """Cut every connection, and from now on those that come; a period begins."""
        await self.begin()
        self._open = False
        for writer in self._writers:
            self._cut(writer)
        return {}

    async def open(self) -> dict[str, Any]:
        """Pass on again: the connections that came while it was shut; another period begins."""
        figures = {
            "connects": len(self._accepted) / (time.monotonic() - self._began),
            "burst": most_in_a_second(self._accepted),
        }
        self._open = True
        await self.begin()
        return figures

    async def rates(self) -> dict[str, Any]:
        """How many requests a second there were in this period, and in the busiest second of it."""
        began = sorted(exchange.began for exchange in self._exchanges if exchange.began >= self._began)
        return {"rate": len(began) / (time.monotonic() - self._began), "burst": most_in_a_second(began)}

    async def settled(self, count: int, limit: float) -> dict[str, Any]:
        """Wait until so many watches are registered and nothing more comes; what the period has brought."""
        while (now := time.monotonic()) < self._began + limit:
            if len(self._registered()) >= count and now > self._last() + QUIET:
                break
            await asyncio.sleep(0.05)
        began = [exchange for exchange in self._exchanges if exchange.began >= self._began]
        waits = [exchange for exchange in began if exchange.waits]
        registered = self._registered()
        return {
            "registered": len(registered),
            "seconds": (self._last() - self._began) if len(registered) >= count else limit,
            "at_once": most_at_once((e.began, e.answered or e.ended or now) for e in waits),
            "requests": len(began),
            "looks": sum(exchange.looks for exchange in began),
            "received": self._received,
        }

    def _registered(self) -> list[Exchange]:
        return [exchange for exchange in self._exchanges if exchange.registered]

    def _last(self) -> float:
        """When the last registration was answered, and the last look had come."""
        looked = (exchange.last for exchange in self._exchanges if exchange.looks)
        return max((self._began, *(e.answered or 0.0 for e in self._registered()), *looked))

    async def _pass_on(self, endpoint: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted = time.monotonic()
        exchange: Exchange | None = None
        try:
            answers, there = await asyncio.open_connection(*address(endpoint))
        except OSError:
            return

        async def requests() -> None:
            nonlocal exchange
            while data := await reader.read(1 << 16):
                if data.startswith((b"GET ", b"PUT ", b"POST ", b"DELETE ")):
                    now = time.monotonic()
                    if exchange is not None:
                        exchange.ended = now
                    exchange = Exchange(data.split(b"\r\n", 1)[0], accepted if exchange is None else now)
                    self._exchanges.append(exchange)
                there.write(data)

        async def responses() -> None:
            while data := await answers.read(1 << 18):
                self._received += len(data)
                if exchange is not None:
                    exchange.last = time.monotonic()
                    if exchange.answered is None:
                        exchange.answered = exchange.last
                        exchange.good = data.startswith(b"HTTP/1.1 200")
                writer.write(data)
                await writer.drain()
            await writer.drain()

        tasks = [asyncio.ensure_future(requests()), asyncio.ensure_future(responses())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        there.close()
        if exchange is not None:
            exchange.ended = time.monotonic()

    def _cut(self, writer: asyncio.StreamWriter) -> None:
        """Reset a connection."""
        own = writer.get_extra_info("socket")
        with suppress(OSError):
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        writer.transport.abort()


async def run(endpoints: list[str]) -> None:
    """Stand before the endpoints, and take orders until there are no more."""
    front = Front()
    print(json.dumps({"endpoints": [await front.listen(endpoint) for endpoint in endpoints]}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = json.loads(line)
        print(json.dumps(await getattr(front, order.pop("do"))(**order)), flush=True)


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1:]))

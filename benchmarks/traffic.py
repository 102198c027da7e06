"""What is around a client, each a process of its own: a writer, a proxy that makes the way longer, a recorder.

`python -m benchmarks.traffic write ENDPOINT PREFIX RATE SECONDS LANES`, `... delay ENDPOINT SECONDS`, or
`... replay ENDPOINT`. Each prints a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from contextlib import suppress
from urllib.parse import urlsplit

from .watchers import END


def address(endpoint: str) -> tuple[str, int]:
    """Host and port."""
    parts = urlsplit(endpoint)
    return str(parts.hostname), int(parts.port or 0)


async def write(endpoint: str, prefix: str, rate: float, seconds: float, count: int) -> None:
    """Set keys below a prefix: pipelined on some raw connections, a tenth of what an HTTP client would cost."""
    lanes = [await asyncio.open_connection(*address(endpoint)) for _ in range(count)]
    total = int(rate * seconds)
    answered = 0

    async def read(reader: asyncio.StreamReader) -> None:
        nonlocal answered
        while data := await reader.read(1 << 16):
            answered += len(re.findall(rb"HTTP/1.1 20[01]", data))

    readers = [asyncio.ensure_future(read(reader)) for reader, _ in lanes]
    start = time.perf_counter()
    for number in range(total):
        put(lanes[number % count][1], f"{prefix}/{number % 50}", f"{number}:{time.time_ns()}")
        ahead = start + number / rate - time.perf_counter()
        if ahead > 0.001 or number % 100 == 0:
            await asyncio.sleep(max(0.0, ahead))
    while answered < total:
        await asyncio.sleep(0.01)
    took = time.perf_counter() - start
    await asyncio.sleep(0.3)
    put(lanes[0][1], f"{prefix}/0", END)
    await asyncio.sleep(0.5)
    for task in readers:
        task.cancel()
    print(json.dumps({"written": total, "rate": total / took}), flush=True)


def put(writer: asyncio.StreamWriter, key: str, value: str) -> None:
    """Send one write, and wait for nothing."""
    body = f"value={value}".encode()
    head = (
        f"PUT /v2/keys{key} HTTP/1.1\r\nHost: etcd\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)


async def delay(endpoint: str, seconds: float) -> None:
    """Pass on every byte of both directions so many seconds later."""
    loop = asyncio.get_running_loop()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 18):
            loop.call_later(seconds, writer.write, data)
        loop.call_later(seconds, writer.close)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, there = await asyncio.open_connection(*address(endpoint))
        with suppress(OSError):
            await asyncio.gather(pump(reader, there), pump(answers, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    print(json.dumps({"endpoint": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"}), flush=True)
    await server.serve_forever()


async def replay(endpoint: str) -> None:
    """Answer each request by the bytes with which the endpoint answered it the first time."""
    known: dict[bytes, bytes] = {}

    async def ask(request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(*address(endpoint))
        writer.write(request)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"\r\nContent-Length: (\d+)\r\n", answer)
        if length is not None:
            answer += await reader.readexactly(int(length[1]))
        else:
            while not answer.endswith(b"\r\n0\r\n\r\n"):
                answer += await reader.read(1 << 20)
        writer.close()
        return answer

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                line = request.split(b"\r\n", 1)[0]
                if line not in known:
                    known[line] = await ask(request)
                writer.write(known[line])
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    print(json.dumps({"endpoint": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"}), flush=True)
    await server.serve_forever()


def main() -> None:
    """Be what is named."""
    role, endpoint, *more = sys.argv[1:]
    if role == "write":
        asyncio.run(write(endpoint, more[0], float(more[1]), float(more[2]), int(more[3])))
    elif role == "delay":
        asyncio.run(delay(endpoint, float(more[0])))
    else:
        asyncio.run(replay(endpoint))


if __name__ == "__main__":
    main()

"""Watching a busy prefix: what arrives, how late, and what it costs; each contender beside the others in one run.

    python benchmarks/watch.py [--rate 6000] [--seconds 3] [--latency 10] [--only NAME ...]

A writer sets keys under one prefix at a rate; every watcher is a process of its own, on a connection of its own, behind
a proxy (a process of its own, too) that delays each byte by `--latency` milliseconds each way. Contenders: aioetcd2, a
bare aiohttp stream decoded by msgspec, bare long polling, and `aio_etcd` from PyPI where it is installed.

Printed for each: how many of the events arrived, each once and in order or not; errors that it raised; lag from the
moment the write was sent, p50 and p99; CPU microseconds of the process for each event.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import json
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import aiohttp
import msgspec

from aioetcd2 import Client, EventIndexClearedError
from aioetcd2.testing import EtcdServer

PREFIX = "/bench/watched"
END = "end"


class Node(msgspec.Struct):
    value: str | None = None
    modifiedIndex: int = 0  # noqa: N815


class Event(msgspec.Struct):
    node: Node


DECODE = msgspec.json.Decoder(Event).decode


async def ours(endpoint: str, errors: list[str], ready: asyncio.Event) -> AsyncIterator[tuple[int, str]]:
    async with Client(endpoint) as client, client.keys.watch(PREFIX, recursive=True) as watcher:
        ready.set()
        while True:
            try:
                event = await watcher.next()
            except EventIndexClearedError as error:
                errors.append(str(error))
                continue
            assert event.node is not None
            yield event.node.modified_index, event.node.value or ""


async def bare_stream(endpoint: str, errors: list[str], ready: asyncio.Event) -> AsyncIterator[tuple[int, str]]:
    url = f"{endpoint}/v2/keys{PREFIX}?wait=true&stream=true&recursive=true"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session, session.get(url) as answer:
        ready.set()
        rest = b""
        while piece := await answer.content.readany():
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                event = DECODE(line)
                yield event.node.modifiedIndex, event.node.value or ""


async def long_polling(endpoint: str, errors: list[str], ready: asyncio.Event) -> AsyncIterator[tuple[int, str]]:
    url = f"{endpoint}/v2/keys{PREFIX}?wait=true&recursive=true"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
        since = ""
        while True:
            async with session.get(url + since) as answer:
                ready.set()
                body = await answer.read()
                if answer.status != 200:
                    errors.append(body.decode())
                    since = f"&waitIndex={int(answer.headers['X-Etcd-Index']) + 1}"
                    continue
                event = DECODE(body)
                since = f"&waitIndex={event.node.modifiedIndex + 1}"
                yield event.node.modifiedIndex, event.node.value or ""


async def aio_etcd(endpoint: str, errors: list[str], ready: asyncio.Event) -> AsyncIterator[tuple[int, str]]:
    peer = importlib.import_module("aio_etcd")

    host, port = endpoint.removeprefix("http://").split(":")
    client = peer.Client(host=host, port=int(port), allow_reconnect=True)
    since = None
    ready.set()
    while True:
        try:
            event = await client.watch(PREFIX, recursive=True, index=since)
        except peer.EtcdEventIndexCleared as error:
            errors.append(str(error))
            since = None
            continue
        since = event.modifiedIndex + 1
        yield event.modifiedIndex, event.value or ""


CONTENDERS = {"aioetcd2": ours, "bare stream": bare_stream, "long polling": long_polling, "aio_etcd": aio_etcd}


async def watch(name: str, endpoint: str, limit: float) -> dict[str, object]:
    """Be one watcher, until the last event has come or nothing more does."""
    errors: list[str] = []
    seen: set[str] = set()
    indexes: list[int] = []
    lags: list[float] = []
    ready = asyncio.Event()
    events = CONTENDERS[name](endpoint, errors, ready)
    cpu = time.process_time()

    async def run() -> None:
        nonlocal cpu
        async for index, value in events:
            indexes.append(index)
            if value == END:
                return
            number, _, sent = value.partition(":")
            seen.add(number)
            lags.append((time.monotonic_ns() - int(sent)) / 1e6)

    task = asyncio.ensure_future(run())
    await asyncio.wait_for(ready.wait(), 20)
    await asyncio.sleep(0.3)
    print("ready", flush=True)
    cpu = time.process_time()
    done, _ = await asyncio.wait((task,), timeout=limit)
    cpu = time.process_time() - cpu
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    lags.sort()
    return {
        "arrived": len(seen),
        "ordered": indexes == sorted(set(indexes)),
        "finished": bool(done),
        "errors": len(errors),
        "p50": lags[len(lags) // 2] if lags else 0,
        "p99": lags[int(len(lags) * 0.99)] if lags else 0,
        "cpu": cpu / max(1, len(indexes)) * 1e6,
    }


async def write(endpoint: str, rate: float, seconds: float) -> dict[str, object]:
    """Be the writer: pipelined on a few raw connections, which costs a tenth of what an HTTP client would."""
    host, port = endpoint.removeprefix("http://").split(":")
    lanes = [await asyncio.open_connection(host, int(port)) for _ in range(16)]
    total = int(rate * seconds)
    answered = 0

    async def read(reader: asyncio.StreamReader) -> None:
        nonlocal answered
        while data := await reader.read(1 << 16):
            answered += len(re.findall(rb"HTTP/1.1 20[01]", data))

    readers = [asyncio.ensure_future(read(reader)) for reader, _ in lanes]
    start = time.perf_counter()
    for number in range(total):
        put(lanes[number % 16][1], number % 50, f"{number}:{time.monotonic_ns()}")
        ahead = start + number / rate - time.perf_counter()
        if ahead > 0.001 or number % 100 == 0:
            await asyncio.sleep(max(0.0, ahead))
    while answered < total:
        await asyncio.sleep(0.01)
    took = time.perf_counter() - start
    put(lanes[0][1], 0, END)
    await asyncio.sleep(0.5)
    for task in readers:
        task.cancel()
    return {"written": total, "rate": total / took}


def put(writer: asyncio.StreamWriter, key: int, value: str) -> None:
    body = f"value={value}".encode()
    head = (
        f"PUT /v2/keys{PREFIX}/{key} HTTP/1.1\r\nHost: etcd\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)


async def delay(endpoint: str, seconds: float) -> None:
    """Be the proxy."""
    host, port = endpoint.removeprefix("http://").split(":")
    loop = asyncio.get_running_loop()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 18):
            loop.call_later(seconds, writer.write, data)
        loop.call_later(seconds, writer.close)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, there = await asyncio.open_connection(host, int(port))
        with suppress(OSError):
            await asyncio.gather(pump(reader, there), pump(answers, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def role(*args: object) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--role", *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


async def compare(names: list[str], rate: float, seconds: float, latency: float) -> None:
    for name in names:
        async with EtcdServer() as server:
            proxy = role("proxy", server.endpoint, latency / 1000) if latency else None
            endpoint = line(proxy) if proxy is not None else server.endpoint
            watcher = role("watcher", name, endpoint, seconds * 3 + 10)
            assert await asyncio.to_thread(line, watcher) == "ready"
            writer = role("writer", server.endpoint, rate, seconds)
            written = json.loads(await asyncio.to_thread(line, writer))
            figures = json.loads(await asyncio.to_thread(line, watcher))
            for process in (proxy, watcher, writer):
                if process is not None:
                    process.kill()
                    process.communicate()
        print(
            f"{name:13} {figures['arrived']:6} of {written['written']} at {written['rate']:5.0f}/s, "
            f"in order {figures['ordered']}, errors {figures['errors']}, lag p50 {figures['p50']:7.1f} ms, "
            f"p99 {figures['p99']:7.1f} ms, CPU {figures['cpu']:5.1f} us an event"
            + ("" if figures["finished"] else ", never got the last event"),
            flush=True,
        )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=6000)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--latency", type=float, default=10, help="milliseconds each way; 0 = no proxy")
    parser.add_argument("--only", nargs="*", choices=CONTENDERS)
    parser.add_argument("--role", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.role is None:
        names = args.only or [name for name in CONTENDERS if name != "aio_etcd" or importlib.util.find_spec(name)]
        await compare(names, args.rate, args.seconds, args.latency)
    elif args.role[0] == "proxy":
        await delay(args.role[1], float(args.role[2]))
    elif args.role[0] == "watcher":
        print(json.dumps(await watch(args.role[1], args.role[2], float(args.role[3]))), flush=True)
    else:
        print(json.dumps(await write(args.role[1], float(args.role[2]), float(args.role[3]))), flush=True)


if __name__ == "__main__":
    asyncio.run(main())

"""Those who watch a busy prefix: what arrives, how late, and what it costs. They run in a worker process."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from aioetcd2 import Client, EventIndexClearedError

from .contenders import BARE, BEFORE, GO, OURS

END = "end"
"""The value of the last event; that of every other is its number, a colon, and when it was written, in nanoseconds."""


class Node(msgspec.Struct, rename="camel"):
    value: str | None = None
    modified_index: int = 0


class Event(msgspec.Struct):
    node: Node


DECODE = msgspec.json.Decoder(Event).decode

Events = AsyncIterator[tuple[int, str]]
Watch = Callable[[str, str, list[str], asyncio.Event], Events]


async def ours(endpoint: str, prefix: str, errors: list[str], ready: asyncio.Event) -> Events:
    async with Client(endpoint) as client, client.keys.watch(prefix, recursive=True) as watcher:
        ready.set()
        while True:
            try:
                event = await watcher.next()
            except EventIndexClearedError as error:
                errors.append(str(error))
                continue
            assert event.node is not None
            yield event.node.modified_index, event.node.value or ""


async def bare_stream(endpoint: str, prefix: str, errors: list[str], ready: asyncio.Event) -> Events:
    url = f"{endpoint}/v2/keys{prefix}?wait=true&stream=true&recursive=true"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session, session.get(url) as answer:
        ready.set()
        rest = b""
        while piece := await answer.content.readany():
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                event = DECODE(line)
                yield event.node.modified_index, event.node.value or ""


async def long_polls(endpoint: str, prefix: str, errors: list[str], ready: asyncio.Event) -> Events:
    url = f"{endpoint}/v2/keys{prefix}?wait=true&recursive=true"
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
            event = json.loads(body)["node"]
            since = f"&waitIndex={event['modifiedIndex'] + 1}"
            yield event["modifiedIndex"], event["value"]


async def aio_etcd(endpoint: str, prefix: str, errors: list[str], ready: asyncio.Event) -> Events:
    peer = importlib.import_module("aio_etcd")
    parts = urlsplit(endpoint)
    client = peer.Client(host=parts.hostname, port=parts.port, allow_reconnect=True)
    since = None
    ready.set()
    while True:
        try:
            event = await client.watch(prefix, recursive=True, index=since)
        except peer.EtcdEventIndexCleared as error:
            errors.append(str(error))
            since = None
            continue
        since = event.modifiedIndex + 1
        yield event.modifiedIndex, event.value or ""


STREAM = "a bare stream, decoded by msgspec"

WATCHERS: dict[str, Watch] = {
    OURS: ours,
    BEFORE: ours,
    STREAM: bare_stream,
    "bare long polls": long_polls,
    "aio_etcd": aio_etcd,
}

CONTENDER_OF = {OURS: OURS, BEFORE: BEFORE, STREAM: BARE, "bare long polls": BARE, "aio_etcd": "aio_etcd", GO: GO}
"""Whose process runs each way to watch."""


async def watch(how: Watch, endpoint: str, prefix: str, limit: float) -> dict[str, Any]:
    """Watch until the last event has come, or for `limit` seconds; say when the watch is registered."""
    errors: list[str] = []
    seen: set[str] = set()
    indexes: list[int] = []
    lags: list[float] = []
    ready = asyncio.Event()
    events = how(endpoint, prefix, errors, ready)

    async def run() -> None:
        async for index, value in events:
            indexes.append(index)
            if value == END:
                return
            number, _, sent = value.partition(":")
            seen.add(number)
            lags.append((time.time_ns() - int(sent)) / 1e9)

    task = asyncio.ensure_future(run())
    await asyncio.wait_for(ready.wait(), 20)
    await asyncio.sleep(0.3)
    print(json.dumps({"ready": True}), flush=True)
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
        "p50": lags[len(lags) // 2] if lags else limit,
        "p99": lags[int(len(lags) * 0.99)] if lags else limit,
        "cpu": cpu / max(1, len(indexes)),
    }

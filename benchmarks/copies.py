"""Those who have a whole subtree in memory: as it was listed, or as a live copy. In a fresh worker process."""

from __future__ import annotations

import asyncio
import ctypes
import random
import statistics
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from aioetcd2 import Client, Watcher
from aioetcd2.recipes import Change, Tree

from .memory import resident

QUIET = 4.0
"""Seconds after which a watch has forgotten what it has read to count its keys."""

COUNTED_WITHIN = 30.0
"""Seconds in which it has read that."""

READS = 10_000
"""Reads between two looks at the clock, and at most so many keys of all."""

FEW = 100
"""Keys that a program reads again and again."""

WRITES = 300
"""Changes whose way into the copy is measured."""


async def listed(client: Client, key: str) -> dict[str, Any]:
    """A recursive get, and what its nodes hold."""
    before, start = held(), time.perf_counter()
    response = await client.keys.get(key, recursive=True)
    took = time.perf_counter() - start
    return {"seconds": took, "memory": held() - before, "nodes": sum(1 for _ in response.leaves())}


async def copied(client: Client, key: str, seconds: float) -> dict[str, Any]:
    """A tree: entering it, what it holds, reads for some seconds, and how soon a change is there."""
    before, start = held(), time.perf_counter()
    async with Tree(client.keys, key) as tree:
        took = time.perf_counter() - start
        await counted(client)
        figures = {"seconds": took, "memory": held() - before, "nodes": len(tree)}
        keys = random.sample(list(tree), min(READS, len(tree)))
        start = time.process_time()
        ordered = sum(1 for _ in tree.items())
        figures["items"] = ordered / (time.process_time() - start)
        figures["rate"] = reads(tree, keys[:FEW] * (READS // FEW), seconds)
        figures["random"] = reads(tree, keys, seconds)
        async with client.keys.watch(key, recursive=True) as watcher:
            changes = tree.changes(from_now=True)
            lags = sorted([await lag(client, watcher, changes, keys[each % len(keys)]) for each in range(WRITES)])
        figures["p50"] = statistics.median(lags)
        figures["p99"] = lags[int(WRITES * 0.99)]
    return figures


def held() -> int:
    """What this process holds, in bytes, once the C library has given back what is free."""
    ctypes.CDLL(None).malloc_trim(0)
    return resident()


async def counted(client: Client) -> None:
    """Wait until the watch has read the subtree, too, and has forgotten it."""
    read, end = client.counters.bytes_received, time.monotonic() + COUNTED_WITHIN
    while client.counters.bytes_received < 1.9 * read and time.monotonic() < end:
        await asyncio.sleep(0.05)
    await asyncio.sleep(QUIET)


def reads(tree: Tree, keys: list[str], seconds: float) -> float:
    """Reads of these keys in a second of CPU, one after the other."""
    done, start = 0, time.process_time()
    while (now := time.process_time()) < start + seconds:
        for key in keys:
            tree[key]
        done += len(keys)
    return done / (now - start)


async def lag(client: Client, watcher: Watcher, changes: AsyncIterator[Change], key: str) -> float:
    """Seconds from the event of a write, as a watch has it, until a reader of the tree has the change; 0 if before."""
    event, change = asyncio.ensure_future(stamp(watcher.next())), asyncio.ensure_future(stamp(anext(changes)))
    await client.keys.set(key, "news")
    return max(0.0, await change - await event)


async def stamp(coming: Awaitable[object]) -> float:
    """When it has come."""
    await coming
    return time.perf_counter()

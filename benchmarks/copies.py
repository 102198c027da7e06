"""Those who have a whole subtree in memory: as it was listed, or as a live copy. In a fresh worker process."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from typing import Any

from aioetcd2 import Client
from aioetcd2.recipes import Tree

from .memory import resident

QUIET = 4.0
"""Seconds in which the watch counts its keys, and forgets what it has counted."""

READS = 10_000
"""Reads between two looks at the clock, and at most so many keys of all."""

FEW = 100
"""Keys that a program reads again and again."""

WRITES = 300
"""Changes whose way into the copy is measured."""


async def listed(client: Client, key: str) -> dict[str, Any]:
    """A recursive get, and what its nodes hold."""
    before, start = resident(), time.perf_counter()
    response = await client.keys.get(key, recursive=True)
    took = time.perf_counter() - start
    return {"seconds": took, "memory": resident() - before, "nodes": sum(1 for _ in response.leaves())}


async def copied(client: Client, key: str, seconds: float) -> dict[str, Any]:
    """A tree: entering it, what it holds, reads for some seconds, and how soon a change is there."""
    before, start = resident(), time.perf_counter()
    async with Tree(client.keys, key) as tree:
        took = time.perf_counter() - start
        await asyncio.sleep(QUIET)
        figures = {"seconds": took, "memory": resident() - before, "nodes": len(tree)}
        keys = random.sample(list(tree), min(READS, len(tree)))
        start = time.perf_counter()
        ordered = sum(1 for _ in tree.items())
        figures["items"] = ordered / (time.perf_counter() - start)
        figures["rate"] = reads(tree, keys[:FEW] * (READS // FEW), seconds)
        figures["random"] = reads(tree, keys, seconds)
        lags = sorted([await lag(client, tree, keys[number % len(keys)]) for number in range(WRITES)])
        figures["p50"] = statistics.median(lags)
        figures["p99"] = lags[int(WRITES * 0.99)]
    return figures


def reads(tree: Tree, keys: list[str], seconds: float) -> float:
    """Reads a second of these keys, one after the other."""
    done, start = 0, time.perf_counter()
    while (now := time.perf_counter()) < start + seconds:
        for key in keys:
            tree[key]
        done += len(keys)
    return done / (now - start)


async def lag(client: Client, tree: Tree, key: str) -> float:
    """Seconds from the answer to a write until the write is in the copy; 0 where it was there before."""
    written = await client.keys.set(key, "news")
    start = time.perf_counter()
    await tree.reach(written.index)
    return time.perf_counter() - start

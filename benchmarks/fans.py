"""Those who open a thousand watchers at once. They run in a fresh worker process."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import aiohttp

from aioetcd2 import Client

from .memory import resident

QUIET = 3.0
"""Seconds for which nothing happens, before memory is measured and while idle CPU is."""


def connections() -> int:
    """How many sockets this process has open."""
    return sum(os.readlink(f"/proc/self/fd/{fd}").startswith("socket:") for fd in os.listdir("/proc/self/fd")[:-1])


async def ours(endpoint: str, prefix: str, count: int) -> dict[str, Any]:
    """By watchers of one client; then nothing happens, then each has an event."""
    async with Client(endpoint) as client:
        await client.version()
        before, start = resident(), time.perf_counter()
        watchers = [client.keys.watch(f"{prefix}/{number}") for number in range(count)]
        await asyncio.gather(*(watcher.__aenter__() for watcher in watchers))
        took = time.perf_counter() - start
        tasks = [asyncio.ensure_future(watcher.next()) for watcher in watchers]
        await asyncio.sleep(QUIET)
        memory = (resident() - before) / count
        cpu = time.process_time()
        await asyncio.sleep(QUIET)
        cpu = (time.process_time() - cpu) / QUIET
        sockets, start = connections(), time.perf_counter()
        for first in range(0, count, 50):
            several = range(first, min(count, first + 50))
            await asyncio.gather(*(client.keys.set(f"{prefix}/{number}", str(number)) for number in several))
        events = await asyncio.gather(*tasks)
        return {
            "seconds": took,
            "connections": sockets,
            "memory": memory,
            "idle": cpu,
            "events": time.perf_counter() - start,
            "right": all(event.node and event.node.value == str(number) for number, event in enumerate(events)),
        }


async def bare(endpoint: str, prefix: str, count: int) -> dict[str, Any]:
    """By long polls of one aiohttp session."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
    ) as session:
        async with session.get(f"{endpoint}/version") as answer:
            await answer.read()
        before, start = resident(), time.perf_counter()
        urls = [f"{endpoint}/v2/keys{prefix}/{number}?wait=true" for number in range(count)]
        answers = await asyncio.gather(*(session.get(url) for url in urls))
        took = time.perf_counter() - start
        tasks = [asyncio.ensure_future(answer.read()) for answer in answers]
        await asyncio.sleep(QUIET)
        memory, sockets = (resident() - before) / count, connections()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return {"seconds": took, "connections": sockets, "memory": memory}

"""A thousand watchers in one client, beside a thousand bare aiohttp long polls, interleaved in one run.

    python benchmarks/fanout.py [--watchers 1000] [--rounds 5]

Prints for both the median time until all are registered, connections, and memory for each; for aioetcd2 also the CPU
that the process takes while nothing happens, and the time until every watcher has had its event.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import aiohttp

from aioetcd2 import Client
from aioetcd2.testing import EtcdServer


def resident() -> int:
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def connections() -> int:
    return sum(os.readlink(f"/proc/self/fd/{fd}").startswith("socket:") for fd in os.listdir("/proc/self/fd")[:-1])


async def ours(endpoint: str, count: int) -> dict[str, Any]:
    async with Client(endpoint) as client:
        await client.version()
        before, start = resident(), time.perf_counter()
        watchers = [client.keys.watch(f"/bench/fan/{number}") for number in range(count)]
        await asyncio.gather(*(watcher.__aenter__() for watcher in watchers))
        took = time.perf_counter() - start
        tasks = [asyncio.ensure_future(watcher.next()) for watcher in watchers]
        await asyncio.sleep(3)
        memory = (resident() - before) / count
        cpu = time.process_time()
        await asyncio.sleep(3)
        cpu = (time.process_time() - cpu) / 3
        start = time.perf_counter()
        for first in range(0, count, 50):
            await asyncio.gather(*(client.keys.set(f"/bench/fan/{n}", str(n)) for n in range(first, first + 50)))
        events = await asyncio.gather(*tasks)
        right = all(event.node and event.node.value == str(number) for number, event in enumerate(events))
        return {
            "seconds": took,
            "connections": connections(),
            "memory": memory,
            "idle": cpu,
            "events": time.perf_counter() - start,
            "right": right,
        }


async def bare(endpoint: str, count: int) -> dict[str, Any]:
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
    ) as session:
        async with session.get(f"{endpoint}/version") as answer:
            await answer.read()
        before, start = resident(), time.perf_counter()
        urls = [f"{endpoint}/v2/keys/bench/fan/{number}?wait=true" for number in range(count)]
        answers = await asyncio.gather(*(session.get(url) for url in urls))
        took = time.perf_counter() - start
        tasks = [asyncio.ensure_future(answer.read()) for answer in answers]
        await asyncio.sleep(0.2)
        memory = (resident() - before) / count
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return {"seconds": took, "connections": connections(), "memory": memory}


def run(name: str, endpoint: str, count: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--role", name, endpoint, str(count)]
    figures: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return figures


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--watchers", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--role", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.role is not None:
        name, endpoint, count = args.role
        print(json.dumps(await (ours if name == "ours" else bare)(endpoint, int(count))))
        return
    rounds = []
    async with EtcdServer() as server:
        for _ in range(args.rounds):
            rounds.append(
                [await asyncio.to_thread(run, who, server.endpoint, args.watchers) for who in ("ours", "bare")]
            )
    for place, name in enumerate(("aioetcd2", "bare aiohttp")):
        median = {key: statistics.median(pair[place][key] for pair in rounds) for key in rounds[0][place]}
        print(
            f"{name:12} {args.watchers} registered in {median['seconds']:.2f} s, "
            f"{median['connections']:.0f} connections, {median['memory'] / 1024:.1f} KiB each"
        )
        if place == 0:
            print(
                f"{'':12} idle CPU {median['idle']:.2%}, all events in {median['events']:.2f} s, "
                f"right: {median['right']}"
            )
    for key in ("seconds", "memory"):
        ratios = [ours[key] / bare[key] for ours, bare in rounds]
        print(f"{key} ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    asyncio.run(main())

"""get and set: aioetcd2 beside bare aiohttp as people write it, interleaved in one run against a real etcd.

    python benchmarks/ops.py [--rounds 9] [--seconds 1.0] [--memory]

Prints for 1, 16 and 128 concurrent tasks the median rate of both, and the median, least and greatest ratio of the
rates of a round. `--memory` prints how the process grows over 100,000 calls instead.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
import statistics
import time
from collections.abc import Awaitable, Callable

import aiohttp

from aioetcd2 import Client
from aioetcd2.testing import EtcdServer

Call = Callable[[], Awaitable[object]]


async def measure(call: Call, tasks: int, seconds: float) -> tuple[float, float]:
    """Calls a second, and CPU seconds of this process per call."""
    count = 0
    end = time.perf_counter() + seconds

    async def worker() -> None:
        nonlocal count
        while time.perf_counter() < end:
            await call()
            count += 1

    start, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(tasks)))
    return count / (time.perf_counter() - start), (time.process_time() - cpu) / count


async def compare(name: str, ours: Call, bare: Call, tasks: int, rounds: int, seconds: float) -> None:
    figures: list[tuple[float, float, float, float]] = []
    await measure(ours, tasks, seconds / 4)
    await measure(bare, tasks, seconds / 4)
    for _ in range(rounds):
        figures.append((*await measure(ours, tasks, seconds), *await measure(bare, tasks, seconds)))
    rates = [a / c for a, _, c, _ in figures]
    cpus = [b / d for _, b, _, d in figures]
    print(
        f"{name:4} {tasks:4} tasks: aioetcd2 {statistics.median(f[0] for f in figures):7.0f}/s, "
        f"bare aiohttp {statistics.median(f[2] for f in figures):7.0f}/s, "
        f"ratio {statistics.median(rates):.3f} ({min(rates):.3f} to {max(rates):.3f}), "
        f"CPU per call {statistics.median(cpus):.3f} ({min(cpus):.3f} to {max(cpus):.3f})",
        flush=True,
    )


async def growth(client: Client, calls: int = 100_000, steps: int = 5) -> None:
    for step in range(steps + 1):
        gc.collect()
        with open("/proc/self/statm") as file:
            resident = int(file.read().split()[1]) * resource.getpagesize() // 1024
        print(f"{step * calls // steps:7} calls: {resident} KiB resident, {len(gc.get_objects())} objects")
        if step < steps:
            for _ in range(calls // steps // 200):
                await asyncio.gather(*(client.keys.set("/bench/key", "value") for _ in range(20)))
                await asyncio.gather(*(client.keys.get("/bench/key") for _ in range(180)))


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--memory", action="store_true")
    args = parser.parse_args()
    async with EtcdServer() as server, Client(server.endpoints) as client, aiohttp.ClientSession() as session:
        url = f"{server.endpoint}/v2/keys/bench/key"

        async def our_set() -> None:
            await client.keys.set("/bench/key", "value")

        async def our_get() -> None:
            await client.keys.get("/bench/key")

        async def bare_set() -> None:
            async with session.put(url, data={"value": "value"}) as response:
                json.loads(await response.read())

        async def bare_get() -> None:
            async with session.get(url) as response:
                json.loads(await response.read())

        await our_set()
        if args.memory:
            await growth(client)
            return
        for tasks in (1, 16, 128):
            await compare("get", our_get, bare_get, tasks, args.rounds, args.seconds)
            await compare("set", our_set, bare_set, tasks, args.rounds, args.seconds)


if __name__ == "__main__":
    asyncio.run(main())

"""What a queue does in a second, beside the bare writes that its items cost; and that it does each item once."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack

from aioetcd2 import Client
from aioetcd2.recipes import Queue
from aioetcd2.testing import EtcdServer

from .harness import Figures, Settings, rotated
from .report import Aim, Column, Section, compared

OURS = "16 workers of one process"
SPREAD = "4 workers in each of 4 processes"
WRITES = "the bare writes: 16 tasks, 4 writes an item"
ITEMS = 1000
WORKERS = 16
PROCESSES = 4

WORKER = """
import asyncio, sys, time
from aioetcd2 import Client
from aioetcd2.recipes import LockLostError, Queue

done, lost, last = [], 0, 0.0

async def work(queue):
    global last, lost
    while True:
        try:
            async with queue.take() as item:
                done.append(item.value)
            last = time.monotonic()
        except LockLostError:
            lost += 1

async def main():
    endpoint, path, workers = sys.argv[1:]
    async with Client(endpoint) as client, Queue(client.keys, path) as queue:
        tasks = [asyncio.create_task(work(queue)) for _ in range(int(workers))]
        while not client.counters.watches_open:
            await asyncio.sleep(0.01)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        print(client.counters.calls, lost, last, *done)

asyncio.run(main())
"""


async def fill(queue: Queue) -> float:
    """Put all items, as many at a time as there are workers; items a second."""
    numbers = iter(range(ITEMS))

    async def put() -> None:
        for number in numbers:
            await queue.put(str(number))

    began = time.perf_counter()
    await asyncio.gather(*(put() for _ in range(WORKERS)))
    return ITEMS / (time.perf_counter() - began)


async def through(endpoint: str, path: str, processes: int) -> Figures:
    """All items through workers that are there before them."""
    arguments = ("-c", WORKER, endpoint, path, str(WORKERS // processes))
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client(endpoint))
        queue = Queue(client.keys, path)
        await fill(queue)
        before = time.monotonic()
        pool = [
            await asyncio.create_subprocess_exec(
                sys.executable, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
            for _ in range(processes)
        ]
        for each in pool:
            assert each.stdout is not None
            await each.stdout.readline()
        began, left = time.monotonic(), await queue.size()
        while await queue.size():
            await asyncio.sleep(0.5)  # a list costs the member as much as some items
        answers = [(await each.communicate(b"\n"))[0].split() for each in pool]
    seconds = max(float(last) for _, _, last, *_ in answers) - began
    done = Counter(value for _, _, _, *values in answers for value in values)
    return {
        "rate": left / seconds,
        "calls": sum(int(calls) for calls, *_ in answers) / ITEMS,
        "lost": sum(int(lost) for _, lost, *_ in answers),
        "missing": ITEMS - len(done),
        "twice": sum(count > 1 for count in done.values()),
        "all": seconds + began - before,
    }


async def bare(endpoint: str, path: str) -> Figures:
    """The same writes, without a queue: a claim, an attempt, and two deletions."""
    numbers = iter(range(ITEMS))
    async with Client(endpoint) as client:
        await fill(Queue(client.keys, path))
        nodes = iter((await client.keys.get(f"{path}/items")).nodes)

        async def work() -> None:
            for number, node in zip(numbers, nodes, strict=False):
                claim = f"{path}/claims/{number}"
                await client.keys.create(claim, "x" * 80, ttl=30)
                item = await client.keys.set(node.key, node.value or "", prev_index=node.modified_index)
                await client.keys.delete(node.key, prev_index=item.modified_index)
                await client.keys.delete(claim, prev_value="x" * 80)

        before, began = client.counters.calls, time.perf_counter()
        await asyncio.gather(*(work() for _ in range(WORKERS)))
        seconds = time.perf_counter() - began
        calls = (client.counters.calls - before) / ITEMS
    return {"rate": ITEMS / seconds, "calls": calls, "lost": 0, "missing": 0, "twice": 0, "all": seconds}


async def measure(settings: Settings) -> Section:
    names = [OURS, SPREAD, WRITES]
    figures: dict[str, list[Figures]] = {name: [] for name in names}
    puts = []
    async with EtcdServer() as server:
        for number in range(settings.rounds):
            async with Client(server.endpoint) as client:
                puts.append({"rate": await fill(Queue(client.keys, f"/bench/put/{number}"))})
            for name in rotated(names, number):
                path = f"/bench/queue/{names.index(name)}/{number}"
                if name == WRITES:
                    figures[name].append(await bare(server.endpoint, path))
                else:
                    figures[name].append(await through(server.endpoint, path, PROCESSES if name == SPREAD else 1))
    text = f"""\
One member on loopback. {ITEMS:,} items are put by {WORKERS} tasks, then worked off by {WORKERS} workers that do nothing
with them. An item costs a write to put and four to do. The last line has those four alone, by as many tasks of one
process: the most that a queue of such items could do there."""
    tables = [
        compared("**Put**", {"16 tasks of one process": puts}, Column("items/s", "rate", format=",.0f")),
        compared(
            "**Take, and do**",
            figures,
            Column("items/s", "rate", format=",.0f"),
            Column("over the bare writes", "rate", over=WRITES),
            Column("requests an item", "calls"),
            Column("claims lost", "lost", format=".0f", take=max),
            Column("items lost", "missing", format=".0f", take=max),
            Column("done twice", "twice", format=".0f", take=max),
        ),
    ]
    ours = figures[OURS]
    both = [*ours, *figures[SPREAD]]
    aims = [
        Aim("queue: items a second", sorted(each["rate"] for each in ours)[len(ours) // 2], 1000, "/s", at_least=True),
        Aim("queue: items lost", max(each["missing"] for each in both), 0),
        Aim("queue: items done twice", max(each["twice"] for each in both), 0),
    ]
    return Section("queue", "A queue", text, tables, aims)

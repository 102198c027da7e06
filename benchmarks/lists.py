"""Listing directories: the sizes of Go's own benchmark, and a whole subtree with the memory that it takes."""

from __future__ import annotations

import asyncio

from aioetcd2 import Client
from aioetcd2.testing import EtcdServer

from .calls import start
from .contenders import BARE, BEFORE, GO, OURS
from .harness import Crew, Figures, Settings, fresh, ratios, rotated, take_turns
from .report import Aim, Bars, Column, Section, Table, compared, ratio_aim

SIZES = ((30, 20), (300, 200), (3000, 20), (3000, 2000))
"""Nodes, and bytes of each value; in the benchmark of etcd's client/keys_bench_test.go."""

TREE = "/bench/tree"
TREE_DIRECTORIES, TREE_KEYS, TREE_BYTES = 100, 100, 100

COLUMNS = (
    Column("p50 ms", "p50", 1e3),
    Column("over bare", "p50", over=BARE),
    Column("over before", "p50", over=BEFORE),
    Column("p99 ms", "p99", 1e3),
    Column("CPU ms", "cpu", 1e3),
    Column("CPU over bare", "cpu", over=BARE),
    Column("CPU over before", "cpu", over=BEFORE),
)
TREE_COLUMNS = (
    Column("ms", "seconds", 1e3, ".1f"),
    Column("over bare", "seconds", over=BARE),
    Column("over before", "seconds", over=BEFORE),
    Column("MiB more at the peak", "peak", 2**-20, ".1f"),
    Column("over bare", "peak", over=BARE),
)


def directory(nodes: int, size: int) -> str:
    """Where the nodes of a size are."""
    return f"/bench/list/{nodes}x{size}"


async def fill(endpoint: str) -> None:
    """Write what is listed."""
    async with Client(endpoint) as client:
        for nodes, size in SIZES:
            base = directory(nodes, size)
            await write(client, [f"{base}/{n:0{29 - len(base)}}" for n in range(nodes)], "a" * size)
        names = [f"{TREE}/{d:02}/{n:02}" for d in range(TREE_DIRECTORIES) for n in range(TREE_KEYS)]
        await write(client, names, "a" * TREE_BYTES)


async def write(client: Client, keys: list[str], value: str) -> None:
    """Set many keys to one value."""
    for first in range(0, len(keys), 50):
        await asyncio.gather(*(client.keys.set(key, value) for key in keys[first : first + 50]))


async def trees(settings: Settings, endpoint: str) -> tuple[Table, list[Aim]]:
    """A recursive get, each in a process that has done nothing else."""
    figures: dict[str, list[Figures]] = {name: [] for name in settings.names}
    for number in range(settings.rounds):
        for name in rotated(settings.names, number):
            async with fresh(settings, name, endpoints=[endpoint], timeout=30.0) as worker:
                figures[name].append(await worker.ask("tree", warm=f"{TREE}/00/00", key=TREE))
    count = TREE_DIRECTORIES * TREE_KEYS
    caption = f"**A recursive get of {count:,} keys of {TREE_BYTES} bytes**, the first of its process, from etcd"
    table = compared(caption, figures, *TREE_COLUMNS)
    aims = [
        ratio_aim(f"recursive get: time over {name}'s", ratios(figures[OURS], figures[name], "seconds"), 1.0)
        for name in settings.names
        if name == GO or not name.startswith((OURS, BARE))
    ]
    return table, aims


async def measure(settings: Settings) -> Section:
    tables: list[Table] = []
    aims: list[Aim] = []
    times = Bars("Listing a directory", "time over bare aiohttp", [], {n: [] for n in settings.names if n != BARE})
    async with EtcdServer() as server, Crew(settings) as crew:
        await fill(server.endpoint)
        replay = await crew.traffic("replay", server.endpoint).answer()
        for origin, endpoint in (("recorded", replay["endpoint"]), ("etcd", server.endpoint)):
            workers = await start(crew, settings, endpoint)
            for nodes, size in SIZES:
                order = {"what": "get", "key": directory(nodes, size), "tasks": 1, "seconds": settings.seconds}
                figures = await take_turns(workers, settings.rounds, "rate", settings.seconds / 4, **order)
                bare, ours = figures[BARE], figures[OURS]
                case = f"{nodes:,} nodes of {size:,} bytes, {origin}"
                tables.append(compared(f"**{case}**", figures, *COLUMNS))
                if nodes >= 300:
                    key = "p50" if origin == "recorded" else "cpu"
                    what = "time" if origin == "recorded" else "CPU"
                    aims.append(ratio_aim(f"{case}: {what} over bare aiohttp's", ratios(ours, bare, key), 0.6))
                if GO in figures and nodes * size > 50_000:
                    aims.append(ratio_aim(f"{case}: time over Go's", ratios(ours, figures[GO], "p50"), 1.0))
                if origin == "recorded":
                    times.groups.append(f"{nodes:,} of {size:,} B")
                    for name, series in times.series.items():
                        series.append(ratios(figures[name], bare, "p50"))
        table, more = await trees(settings, server.endpoint)
    text = """\
`keys.get` of a directory with the sizes of the benchmark in etcd's `client/keys_bench_test.go`, end to end, one after
another. *etcd*: a real member answers, and its own encoding takes a good part of the time. *recorded*: a process plays
back the very bytes of that answer, so that the time is the client's."""
    return Section("lists", "Listing directories", text, [*tables, table], [*aims, *more], [times])

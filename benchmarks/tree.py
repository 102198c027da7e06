"""A live copy of a subtree, beside the listing that it is made of."""

from __future__ import annotations

from aioetcd2 import Client
from aioetcd2.testing import EtcdServer

from .contenders import OURS
from .copies import FEW
from .harness import Figures, Settings, fresh, median, ratios, rotated, spread
from .lists import write
from .report import Aim, Column, Section, compared, ratio_aim

KEY = "/bench/copied"
DIRECTORIES, BYTES = 100, 100
TIMES = 5
"""How many times the keys of a directory that many watch."""

LISTED, COPIED = "recursive get", "Tree"

COLUMNS = (
    Column("s", "seconds", format=".2f"),
    Column("over the get", "seconds", over=LISTED),
    Column("MiB held", "memory", 2**-20, ".1f"),
    Column("over the nodes", "memory", over=LISTED),
)
READING = (
    Column("reads a second", "rate", format=",.0f"),
    Column("at worst", "rate", format=",.0f", take=min),
    Column("of all keys", "random", format=",.0f"),
    Column("in order, a second", "items", format=",.0f"),
    Column("a change after ms, p50", "p50", 1e3, ".2f"),
    Column("p99", "p99", 1e3, ".2f"),
)


async def fill(endpoint: str, count: int) -> None:
    """Write what is copied."""
    async with Client(endpoint) as client:
        names = [f"{KEY}/{number % DIRECTORIES:02}/{number // DIRECTORIES:04}" for number in range(count)]
        await write(client, names, "a" * BYTES)


async def measure(settings: Settings) -> Section:
    count = TIMES * settings.keys
    figures: dict[str, list[Figures]] = {LISTED: [], COPIED: []}
    async with EtcdServer() as server:
        await fill(server.endpoint, count)
        for number in range(settings.rounds):
            for name in rotated(list(figures), number):
                async with fresh(settings, OURS, endpoints=[server.endpoint], timeout=30.0) as worker:
                    order = {"key": KEY, "warm": f"{KEY}/00/0000"}
                    what = "listed" if name == LISTED else "copied"
                    figures[name].append(await worker.ask(what, **order, seconds=settings.seconds))
    ours = figures[COPIED]
    text = f"""\
{count:,} keys of {BYTES} bytes in {DIRECTORIES} directories, in a fresh process each time. *recursive get*: `keys.get`,
and what the process holds more afterwards while it keeps the answer. *Tree*: until the tree is entered, and what the
process holds more once its watch has counted the keys. Both are measured after `malloc_trim`. Reads are `tree[key]`, by
the second of CPU: of {FEW} keys again and again, and of keys at random among all, which takes as long as the memory
takes; in order: `tree.items()`. A change has reached a reader so long after its event has reached a
plain watch of the same process."""
    tables = [
        compared("**Beginning, and memory**", figures, *COLUMNS),
        compared("**Reading, and changes**", {COPIED: ours}, *READING),
    ]
    aims = [
        Aim("tree: reads a second, at worst", min(figure["rate"] for figure in ours), 2e6, at_least=True),
        ratio_aim("tree: time to enter over a recursive get's", ratios(ours, figures[LISTED], "seconds"), 1.5),
        ratio_aim("tree: memory over the decoded nodes'", ratios(ours, figures[LISTED], "memory"), 1.3),
        Aim(
            "tree: a change after its event, p99",
            median(ours, "p99", 1e3),
            3.0,
            "ms",
            spread=spread([figure["p99"] * 1e3 for figure in ours]),
        ),
        Aim("tree: files that are missing", max(count - figure["nodes"] for figure in ours), 0),
    ]
    return Section("tree", "A live copy of a subtree", text, tables, aims)

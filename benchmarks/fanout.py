"""A thousand watchers in one client, beside a thousand bare long polls."""

from __future__ import annotations

from aioetcd2.testing import EtcdServer

from .contenders import BARE, BEFORE, OURS
from .harness import Figures, Settings, fresh, median, ratios
from .report import Column, Section, compared, ratio_aim

WATCHERS = 1000

COLUMNS = (
    Column("registered in s", "seconds"),
    Column("over bare", "seconds", over=BARE),
    Column("over before", "seconds", over=BEFORE),
    Column("connections", "connections", format=",.0f"),
    Column("KiB each", "memory", 2**-10, ".1f"),
    Column("over bare", "memory", over=BARE),
    Column("over before", "memory", over=BEFORE),
)


async def measure(settings: Settings) -> Section:
    names = settings.only((OURS, BEFORE, BARE))
    figures: dict[str, list[Figures]] = {name: [] for name in names}
    async with EtcdServer() as server:
        for number in range(settings.rounds):
            for name in names if number % 2 else names[::-1]:
                async with fresh(settings, name) as worker:
                    order = {"endpoint": server.endpoint, "prefix": f"/bench/fan/{number}", "count": WATCHERS}
                    figures[name].append(await worker.ask("fan_out", **order))
    ours, bare = figures[OURS], figures[BARE]
    right = sum(figure["right"] for figure in ours)
    text = f"""\
{WATCHERS:,} watchers registered at once, in a fresh process. After that aioetcd2 takes {median(ours, "idle"):.2%} of a
CPU while nothing happens; all {WATCHERS:,} events, one for each, take {median(ours, "events"):.2f} s with their writes,
and were right in {right} of {len(ours)} rounds."""
    aims = [
        ratio_aim("fan-out: registration over bare aiohttp's", ratios(ours, bare, "seconds"), 2.0),
        ratio_aim("fan-out: memory over bare aiohttp's", ratios(ours, bare, "memory"), 1.5),
    ]
    return Section("fanout", "A thousand watchers", text, [compared("", figures, *COLUMNS)], aims)

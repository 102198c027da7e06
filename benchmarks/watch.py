"""A busy prefix, watched over a network that takes its time."""

from __future__ import annotations

import statistics

from aioetcd2.testing import EtcdServer

from .contenders import BEFORE, OURS
from .harness import Crew, Figures, Settings, median, ratios, rotated
from .report import Aim, Column, Section, compared, ratio_aim
from .watchers import CONTENDER_OF, STREAM

PREFIX = "/bench/watched"
SECONDS = 2.0
LIMIT = 9.0

COLUMNS = (
    Column("arrived", "share", format=".1%"),
    Column("at worst", "share", format=".1%", take=min),
    Column("rounds with all, once, in order", "whole", format=".0f", take=sum),
    Column("errors a round", "errors", format=".1f", take=statistics.fmean),
    Column("lag p50 ms", "p50", 1e3, ",.0f"),
    Column("lag p99 ms", "p99", 1e3, ",.0f"),
    Column("CPU us an event", "cpu", 1e6, ",.0f"),
    Column("CPU over stream", "cpu", over=STREAM),
    Column("CPU over before", "cpu", over=BEFORE),
)


async def once(settings: Settings, how: str) -> Figures:
    """One watcher and one writer, on a member of their own."""
    async with EtcdServer() as server, Crew(settings) as crew:
        endpoint = server.endpoint
        if settings.latency:
            endpoint = (await crew.traffic("delay", endpoint, settings.latency).answer())["endpoint"]
        watcher = crew.worker(CONTENDER_OF[how])
        await watcher.ask("watch", how=OURS if how == BEFORE else how, endpoint=endpoint, prefix=PREFIX, limit=LIMIT)
        writer = crew.traffic("write", server.endpoint, PREFIX, settings.event_rate, SECONDS, settings.lanes)
        written = await writer.answer()
        seen = await watcher.answer()
        share = seen["arrived"] / written["written"]
        return {**seen, **written, "share": share, "whole": share == 1.0 and seen["ordered"]}


async def measure(settings: Settings) -> Section:
    ways = [how for how, name in CONTENDER_OF.items() if name in settings.names]
    figures: dict[str, list[Figures]] = {how: [] for how in ways}
    for number in range(settings.rounds):
        for how in rotated(ways, number):
            figures[how].append(await once(settings, how))
    ours = figures[OURS]
    written = median([figure for mine in figures.values() for figure in mine], "rate")
    text = f"""\
{settings.event_rate * SECONDS:,.0f} events below one prefix; {settings.event_rate:,.0f} a second were asked for and
{written:,.0f} written, over {settings.lanes} connections; {settings.latency * 1e3:g} ms between client and member,
each way. Lag is from the moment before a write is sent to the moment after its event is handed out, of the events that
arrived before the watcher had got the last one or {LIMIT:g} s had passed. Writer, member, proxy and watcher share the
machine."""
    aims = [
        Aim("watch: share that arrived, at worst", min(f["share"] for f in ours), 1.0, at_least=True),
        Aim("watch: lag p99, median", median(ours, "p99", 1e3), 50.0, "ms"),
        ratio_aim("watch: CPU per event over a bare stream's", ratios(ours, figures[STREAM], "cpu"), 1.5),
    ]
    return Section("watch", "A busy watch", text, [compared("", figures, *COLUMNS)], aims)

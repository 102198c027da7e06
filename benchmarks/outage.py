"""What an outage costs a client with many watchers, and how fast they are all there again."""

from __future__ import annotations

import asyncio

from aioetcd2 import Client
from aioetcd2.testing import EtcdCluster

from .contenders import BEFORE, OURS
from .harness import Crew, Figures, Settings, rotated
from .memory import cpu_of
from .report import Aim, Column, Section, compared

PREFIX = "/bench/outage"
WATCHERS = 500
LIMIT = 60.0
PEACE = 2.0
"""Seconds between the registration of all and the outage, so that nothing of theirs is left to do in it."""

UNTIL_SURE = 4.0
"""Seconds after which the client says that the outage is over."""

COLUMNS = (
    Column("connects a second", "connects", format=",.1f"),
    Column("in any one second, at most", "burst", format=",.0f", take=max),
    Column("WARNING", "WARNING", format=",.0f", take=max),
    Column("INFO", "INFO", format=",.0f", take=max),
    Column("of a core", "core", format=".1%"),
    Column("all registered after s", "seconds"),
    Column("at worst", "seconds", take=max),
    Column("at once, at most", "at_once", format=",.0f", take=max),
    Column("events afterwards, at worst", "right", format=",.0f", take=min),
    Column("seconds over before", "seconds", over=BEFORE),
)


async def once(settings: Settings, name: str, cluster: EtcdCluster, count: int) -> Figures:
    """One client with many watchers, one outage."""
    keys = [f"{PREFIX}/{number}" for number in range(count)]
    async with Crew(settings) as crew, Client(cluster.endpoints) as writer:
        front = crew.front(*cluster.endpoints)
        worker = crew.worker(name)
        await worker.ask("open", endpoints=(await front.answer())["endpoints"])
        await worker.ask("hold", keys=keys)
        await front.ask("settled", count=count, limit=LIMIT)
        await asyncio.sleep(PEACE)
        await worker.ask("logged")
        await front.ask("shut")
        cpu = cpu_of(worker.pid)
        await asyncio.sleep(settings.outage)
        cpu = cpu_of(worker.pid) - cpu
        during = await front.ask("open")
        after = await front.ask("settled", count=count, limit=LIMIT)
        for first in range(0, count, 50):
            await asyncio.gather(*(writer.keys.set(key, key) for key in keys[first : first + 50]))
        right = await worker.ask("received", values=keys)
        await asyncio.sleep(UNTIL_SURE)
        return {**during, **after, **right, **await worker.ask("logged"), "core": cpu / settings.outage}


async def measure(settings: Settings) -> Section:
    names = settings.only((OURS, BEFORE))
    count = min(WATCHERS, settings.watchers)
    figures: dict[str, list[Figures]] = {name: [] for name in names}
    async with EtcdCluster() as cluster:
        for number in range(settings.rounds):
            for name in rotated(names, number):
                figures[name].append(await once(settings, name, cluster, count))
    ours = figures[OURS]
    members = len(cluster.endpoints)
    text = f"""\
{count:,} watchers of one client, of a key each, on three members; for {settings.outage:g} s a TCP front before each
member cuts every connection, and resets each that comes, as a balancer does whose members are gone. Connections and
registrations are counted at the front; CPU is what the system says of the client's process; log lines are those of all
of the library's loggers, at INFO and above, until the outage is said to be over. At once are registrations from their
connection to their header. Events afterwards: one for each watcher, so many of which arrived."""
    aims = [
        Aim("outage: connects a second, mean, at worst", max(f["connects"] for f in ours), 10.0),
        Aim("outage: connects in any one second", max(f["burst"] for f in ours), 10.0),
        Aim("outage: log lines, two an endpoint and two", max(f["lines"] for f in ours), 2 * members + 2),
        Aim("outage: share of a core, at worst", max(f["core"] for f in ours), 0.03),
        Aim("outage: all registered again, at worst", max(f["seconds"] for f in ours), 3.0, "s"),
        Aim("outage: registrations at once", max(f["at_once"] for f in ours), 128),
        Aim("outage: watchers that got their event", min(f["right"] for f in ours), count, at_least=True),
    ]
    return Section("outage", "An outage under many watchers", text, [compared("", figures, *COLUMNS)], aims)

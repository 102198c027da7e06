"""What many watchers of one large directory ask of the server: as they begin, and when their events are gone there."""

from __future__ import annotations

import asyncio

from aioetcd2 import Client
from aioetcd2.testing import EtcdServer

from .contenders import BEFORE, OURS
from .harness import Crew, Figures, Settings, rotated
from .report import Aim, Column, Section, compared

DIRECTORY = "/bench/looks"
ELSEWHERE = "/bench/elsewhere"
VALUE = "x" * 20
NEWS = "news"
WATCHERS = 200
HISTORY = 1000
"""Events that etcd keeps."""

FLOOD_OVER = 100

LIMIT = 180.0

COLUMNS = (
    Column("recursive gets", "looks", format=",.0f"),
    Column("at most", "looks", format=",.0f", take=max),
    Column("requests", "requests", format=",.0f"),
    Column("MB received", "received", 1e-6, ",.1f"),
    Column("all on after s", "seconds"),
    Column("requests over before", "requests", over=BEFORE),
    Column("bytes over before", "received", over=BEFORE),
    Column("seconds over before", "seconds", over=BEFORE),
)


async def fill(client: Client, prefix: str, count: int) -> None:
    """Set so many keys."""
    for first in range(0, count, 100):
        some = range(first, min(count, first + 100))
        await asyncio.gather(*(client.keys.set(f"{prefix}/{number}", VALUE) for number in some))


async def once(settings: Settings, name: str, server: EtcdServer, count: int) -> tuple[Figures, Figures]:
    """One client with many watchers: what their beginning took, and what the return did after a flood elsewhere."""
    async with Crew(settings) as crew, Client(server.endpoint) as writer:
        front = crew.front(server.endpoint)
        worker = crew.worker(name)
        await worker.ask("open", endpoints=(await front.answer())["endpoints"])
        await front.ask("begin")
        await worker.ask("hold", keys=[DIRECTORY] * count, recursive=True)
        first = await front.ask("settled", count=count, limit=LIMIT)
        await front.ask("shut")
        await fill(writer, ELSEWHERE, HISTORY + FLOOD_OVER)
        await front.ask("open")
        again = await front.ask("settled", count=count, limit=LIMIT)
        await writer.keys.set(f"{DIRECTORY}/0", NEWS)
        return first, {**again, **await worker.ask("received", values=[NEWS] * count)}


async def measure(settings: Settings) -> Section:
    names = settings.only((OURS, BEFORE))
    count = min(WATCHERS, settings.watchers)
    first: dict[str, list[Figures]] = {name: [] for name in names}
    again: dict[str, list[Figures]] = {name: [] for name in names}
    async with EtcdServer() as server, Client(server.endpoint) as client:
        await fill(client, DIRECTORY, settings.keys)
        for number in range(settings.rounds):
            for name in rotated(names, number):
                begun, back = await once(settings, name, server, count)
                first[name].append(begun)
                again[name].append(back)
    text = f"""\
{count:,} watchers of one client, all of one directory of {settings.keys:,} keys with all below it, on one member. First
they are registered; then their connections are cut, nothing of theirs changes, and {HISTORY + FLOOD_OVER:,} other keys
are written, so that the member no longer holds the events since. All on: registered, and the last recursive get has
come. Requests and bytes are counted at a TCP front before the member. Events afterwards: one write, which so many
watchers got, with no error before."""
    tables = [
        compared("**As they begin**", first, *COLUMNS),
        compared(
            "**After a cut and a flood of other keys**",
            again,
            *COLUMNS,
            Column("events afterwards, at worst", "right", format=",.0f", take=min),
        ),
    ]
    aims = [
        Aim("looks: recursive gets as they begin, at most", max(f["looks"] for f in first[OURS]), 1),
        Aim("looks: recursive gets after a flood, at most", max(f["looks"] for f in again[OURS]), 1),
        Aim("looks: watchers that got their event", min(f["right"] for f in again[OURS]), count, at_least=True),
    ]
    return Section("looks", "Many watchers of a large directory", text, tables, aims)

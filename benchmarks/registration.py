"""What a thousand registrations ask of the cluster, and of the process that has them."""

from __future__ import annotations

import asyncio

from aioetcd2.testing import EtcdServer

from .contenders import BARE, OURS
from .harness import Crew, Figures, Settings
from .memory import cpu_of
from .report import Aim, Column, Section, compared

PREFIX = "/bench/registration"
TTL = 60.0

COLUMNS = (
    Column("requests a second", "rate", format=",.1f"),
    Column("in any one second, at most", "burst", format=",.0f"),
    Column("of a core", "core", format=".2%"),
    Column("of a core: as many bare sets", "bare", format=".2%"),
    Column("CPU over as many calls", "over", format=".2f"),
    Column("KiB each", "memory", 2**-10, ".1f"),
    Column("tasks more", "tasks", format=",.0f"),
    Column("all there after s", "entered"),
    Column("all gone after s", "left"),
    Column("there to the end", "there", format=",.0f"),
)


async def once(settings: Settings, server: EtcdServer) -> Figures:
    """Many registrations of one client, for a while in which nothing happens."""
    async with Crew(settings) as crew:
        front = crew.front(server.endpoint)
        worker = crew.worker(OURS)
        await worker.ask("open", endpoints=(await front.answer())["endpoints"])
        keys = [f"{PREFIX}/{number}" for number in range(settings.registrations)]
        entered = await worker.ask("register", keys=keys, ttl=TTL)
        await front.ask("begin")
        cpu = cpu_of(worker.pid)
        await asyncio.sleep(settings.registered)
        cpu = cpu_of(worker.pid) - cpu
        rates = await front.ask("rates")
        left = await worker.ask("leave")
        each = cpu / max(1.0, rates["rate"] * settings.registered)
        by_hand = cpu_of(worker.pid)
        seconds = settings.registered / 3
        called = await worker.ask(
            "refresh", key=f"{PREFIX}/by-hand", ttl=TTL, rate=3 / TTL * len(keys), seconds=seconds
        )
        by_hand = (cpu_of(worker.pid) - by_hand) / max(1, called["count"])
        bare = crew.worker(BARE)
        await bare.ask("open", endpoints=[server.endpoint])
        sets = await bare.ask("rate", what="set", key=f"{PREFIX}/bare", value="x", tasks=16, seconds=settings.seconds)
        return {
            **entered,
            **rates,
            **left,
            "core": cpu / settings.registered,
            "over": each / max(by_hand, 1e-6),
            "bare": sets["cpu"] * 3 / TTL * len(keys),
        }


async def measure(settings: Settings) -> Section:
    async with EtcdServer() as server:
        figures = await once(settings, server)
    count = settings.registrations
    text = f"""\
{count:,} registrations of one client with a TTL of {TTL:g} s, entered at once; then for {settings.registered:g} s
nothing but their refreshes. Requests are counted at a TCP front before the member, from the moment at which all are
there; CPU is what the system says of the client's process. Beside it: what as many sets of bare aiohttp take
that are sent without a pause, 16 at a time, for fewer writes keep no thousand keys; and that of as many plain refreshes
of one key, one after another at the same pace, in the same process afterwards. Tasks are those that the event loop has
more while no refresh is under way. Once, whatever the number of rounds."""
    rate = 3 / TTL * count
    aims = [
        Aim("registration: requests a second", figures["rate"], rate * 1.1),
        Aim("registration: busiest second over the mean", figures["burst"] / figures["rate"], 2.0),
        Aim("registration: share of a core", figures["core"], 0.02),
        Aim("registration: keys that were there to the end", figures["there"], count, at_least=True),
    ]
    return Section("registration", "A thousand registrations", text, [compared("", {OURS: [figures]}, *COLUMNS)], aims)

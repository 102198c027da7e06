"""get and set, at 1, 16 and 128 tasks."""

from __future__ import annotations

from aioetcd2.testing import EtcdServer

from .contenders import BARE, BEFORE, GO, OURS
from .harness import Crew, Process, Settings, ratios, take_turns
from .report import Aim, Bars, Column, Section, Table, compared, ratio_aim

TASKS = (1, 16, 128)
KEY = "/bench/key"
VALUE = "value"

COLUMNS = (
    Column("a second", "rate", format=",.0f"),
    Column("over bare", "rate", over=BARE),
    Column("over before", "rate", over=BEFORE),
    Column("p50 ms", "p50", 1e3),
    Column("p99 ms", "p99", 1e3),
    Column("p99 over bare", "p99", over=BARE),
    Column("CPU us a call", "cpu", 1e6, ",.0f"),
    Column("CPU over bare", "cpu", over=BARE),
    Column("CPU over before", "cpu", over=BEFORE),
)


async def start(crew: Crew, settings: Settings, endpoint: str) -> dict[str, Process]:
    """A worker for every contender, with a client of the endpoint."""
    workers = {name: crew.worker(name) for name in settings.names}
    for worker in workers.values():
        await worker.ask("open", endpoints=[endpoint])
    return workers


def peers(names: list[str]) -> list[str]:
    """The other libraries for Python among them."""
    return [name for name in names if not name.startswith((OURS, BARE, GO))]


async def measure(settings: Settings) -> Section:
    tables: list[Table] = []
    aims: list[Aim] = []
    rates = Bars("Calls a second", "over bare aiohttp", [], {name: [] for name in settings.names if name != BARE})
    cpus = Bars("CPU per call", "over bare aiohttp", [], {name: [] for name in rates.series})
    async with EtcdServer() as server, Crew(settings) as crew:
        workers = await start(crew, settings, server.endpoint)
        await workers[OURS].ask("rate", what="set", key=KEY, value=VALUE, tasks=1, seconds=0.1)
        for what in ("get", "set"):
            for tasks in TASKS:
                order = {"what": what, "key": KEY, "value": VALUE, "tasks": tasks, "seconds": settings.seconds}
                figures = await take_turns(workers, settings.rounds, "rate", settings.seconds / 4, **order)
                bare, ours = figures[BARE], figures[OURS]
                case = f"{what}, {tasks} task{'s' * (tasks > 1)}"
                tables.append(compared(f"**{case}**", figures, *COLUMNS))
                aims += [
                    ratio_aim(f"{case}: rate over bare aiohttp's", ratios(ours, bare, "rate"), 1.05, at_least=True),
                    ratio_aim(f"{case}: CPU per call over bare aiohttp's", ratios(ours, bare, "cpu"), 0.92),
                    ratio_aim(f"{case}: p99 over bare aiohttp's", ratios(ours, bare, "p99"), 1.10),
                ]
                for peer in peers(settings.names):
                    ahead = ratios(ours, figures[peer], "rate")
                    aims.append(ratio_aim(f"{case}: rate over {peer}'s", ahead, 1.0, at_least=True))
                for bars, key in ((rates, "rate"), (cpus, "cpu")):
                    bars.groups.append(case)
                    for name, series in bars.series.items():
                        series.append(ratios(figures[name], bare, key))
    text = """\
One key with a value of five bytes, on one member. Bare aiohttp is `async with session.get(url)` and
`json.loads(await response.read())`, and `session.put(url, data={"value": ...})`; it opens 100 connections at most, as
aiohttp does by itself. Calls that block have a thread for each task. CPU is that of the client's process."""
    return Section("calls", "get and set", text, tables, aims, [rates, cpus])

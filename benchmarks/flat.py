"""What must not make a call slower: many endpoints, open watchers, calls before; and memory over many calls."""

from __future__ import annotations

import resource

from aioetcd2.testing import EtcdServer

from .calls import KEY, VALUE
from .contenders import OURS
from .harness import Crew, Settings, ratios, take_turns
from .report import Aim, Column, Section, Table, compared, ratio_aim

ENDPOINTS = 128
TASKS = 16
STEPS = 10
SPARE_FILES = 500


def raise_file_limit() -> int:
    """Let this process and its children open as many files as the system allows; how many that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 1 << 30


async def measure(settings: Settings) -> Section:
    watchers = min(settings.watchers, raise_file_limit() - SPARE_FILES)
    names = (
        "one endpoint",
        f"{ENDPOINTS} endpoints",
        f"{watchers:,} open watchers",
        f"{settings.calls:,} earlier calls",
    )
    plain, wide, watched, used = names
    async with EtcdServer() as server, Crew(settings) as crew:
        workers = {name: crew.worker(OURS) for name in names}
        for name, worker in workers.items():
            silent = [f"http://127.0.1.{number}:1" for number in range(1, ENDPOINTS)] if name == wide else []
            await worker.ask("open", endpoints=[*silent, server.endpoint])
        await workers[plain].ask("rate", what="set", key=KEY, value=VALUE, tasks=1, seconds=0.1)
        held = await workers[watched].ask("hold", keys=[f"/bench/held/{number}" for number in range(watchers)])
        memory = (await workers[used].ask("many", key=KEY, calls=settings.calls, steps=STEPS))["memory"]
        order = {"what": "get", "key": KEY, "tasks": TASKS, "seconds": settings.seconds}
        figures = await take_turns(workers, settings.rounds * 2, "rate", settings.seconds / 4, **order)
    columns = (
        Column("a second", "rate", format=",.0f"),
        Column("over one endpoint", "rate", over=plain),
        Column("CPU us a call", "cpu", 1e6, ",.0f"),
        Column("over one endpoint", "cpu", over=plain),
    )
    steps = [[f"{settings.calls * step // STEPS:,}", f"{bytes / 1024:,.0f}"] for step, bytes in enumerate(memory)]
    text = f"""\
get at {TASKS} tasks with one client that has nothing to carry, and with others on the same member: {ENDPOINTS}
endpoints of which one answers; {watchers:,} watchers in the same client ({held["memory"] / 1024:.1f} KiB each);
{settings.calls:,} calls before, one in ten a set."""
    if watchers < settings.watchers:
        text += f"\nThis machine lets a process open too few files for {settings.watchers:,} watchers."
    tables = [
        compared("", figures, *columns),
        Table("**Memory over many calls**", ("calls", "KiB resident"), steps),
    ]
    aims = [
        ratio_aim(f"{name}: CPU per call over a plain client's", ratios(figures[name], figures[plain], "cpu"), 1.05)
        for name in names[1:]
    ]
    grown = (memory[-1] - memory[STEPS // 5]) / 1024
    aims.append(Aim(f"memory grown by the last {settings.calls * 8 // 10:,} calls", grown, 1024, "KiB"))
    return Section("flat", "What makes a call no slower", text, tables, aims)

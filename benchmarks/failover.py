"""How long a client that is at work gets no answer when the member it uses is killed, or stands still."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from aioetcd2 import Client
from aioetcd2.testing import EtcdCluster, EtcdServer

from .contenders import BEFORE, FAILING_OVER, OURS
from .harness import Figures, Process, Settings, fresh, median, rotated, spread
from .report import Aim, Section, Table

KEY = "/bench/failover"
HEADER_TIMEOUT = 1.0
ESTABLISHED = "01"
WINDOWS = {"kill -9": 1.5, "SIGSTOP": 3.5}
"""How many seconds are watched after each."""


def connected(pid: int) -> set[int]:
    """The ports to which a process has connections."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            inodes.add(os.readlink(entry).removeprefix("socket:[").removesuffix("]"))
    lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {int(line[2].split(":")[1], 16) for line in lines if line[3] == ESTABLISHED and line[9] in inodes}


def used_by(worker: Process, cluster: EtcdCluster) -> EtcdServer:
    """The member that a client is connected to; the first one for those that keep no connection."""
    ports = connected(worker.pid)
    for member in cluster.members:
        if int(member.endpoint.rpartition(":")[2]) in ports:
            return member
    return cluster.members[0]


async def once(settings: Settings, cluster: EtcdCluster, name: str, how: str) -> Figures:
    """One client, one failure."""
    async with fresh(settings, name, endpoints=cluster.endpoints, timeout=HEADER_TIMEOUT) as worker:
        await worker.ask("rate", what="get", key=KEY, tasks=1, seconds=0.2)
        member = used_by(worker, cluster)
        reading = asyncio.ensure_future(worker.ask("answers", key=KEY, seconds=WINDOWS[how] + 0.3))
        await asyncio.sleep(0.3)
        failed = time.time()
        await (member.kill() if how == "kill -9" else member.pause())
        figures = await reading
        await (member.start() if how == "kill -9" else member.resume())
    times = figures["times"]
    gaps = [end - start for start, end in pairwise(times) if end > failed and start < failed + 0.05]
    answered = bool(gaps) and times[-1] > failed + 0.05
    return {"seconds": max(gaps) if answered else WINDOWS[how], "answered": answered, "errors": len(figures["errors"])}


async def measure(settings: Settings) -> Section:
    names = settings.only((BEFORE, *FAILING_OVER))
    rows: list[list[str]] = []
    aims: list[Aim] = []
    async with EtcdCluster() as cluster, Client(cluster.endpoints) as client:
        await client.keys.set(KEY, "value")
        for how in WINDOWS:
            figures: dict[str, list[Figures]] = {name: [] for name in names}
            for number in range(settings.rounds):
                for name in rotated(names, number):
                    figures[name].append(await once(settings, cluster, name, how))
            for name, mine in figures.items():
                gap = spread([figure["seconds"] * 1e3 for figure in mine])
                answered = sum(figure["answered"] for figure in mine)
                rows.append(
                    [
                        f"{name}, {how}",
                        f"{gap.median:,.1f} ({gap.least:,.1f} to {gap.most:,.1f})" if answered else "none",
                        f"{answered} of {len(mine)}",
                        f"{median(mine, 'errors'):.0f}",
                    ]
                )
            limit = 10.0 if how == "kill -9" else HEADER_TIMEOUT * 1e3 + 100
            aims.append(Aim(f"next answer after {how}, median", median(figures[OURS], "seconds", 1e3), limit, "ms"))
    text = f"""\
A cluster of three, and a client that reads one key over and over; then the member that it is connected to is killed, or
stopped. The longest time between two good answers around that moment; every round has a client of its own. Every client
that has such a limit waits {HEADER_TIMEOUT:g} s for a header; {WINDOWS["kill -9"]:g} s were watched after a kill,
{WINDOWS["SIGSTOP"]:g} s after a stop, and a client without an answer until then counts with that."""
    header = ("", "without an answer, ms", "answered again", "errors raised")
    return Section("failover", "When a member fails", text, [Table("", header, rows)], aims)

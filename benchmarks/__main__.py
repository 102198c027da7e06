"""The one command: `python -m benchmarks` measures everything and writes docs/benchmarks.md."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from aioetcd2.testing import etcd_version, find_etcd

from . import calls, failover, fanout, flat, imports, lists, locks, looks, outage, queue, registration, tree, watch
from .contenders import BARE, CONTENDERS, GO, OURS
from .harness import ROOT, Settings, choose
from .plot import draw
from .report import Section, write_page

Measure = Callable[[Settings], Awaitable[Section]]

SECTIONS: dict[str, Measure] = {
    "calls": calls.measure,
    "lists": lists.measure,
    "imports": imports.measure,
    "watch": watch.measure,
    "fanout": fanout.measure,
    "failover": failover.measure,
    "outage": outage.measure,
    "looks": looks.measure,
    "registration": registration.measure,
    "flat": flat.measure,
    "locks": locks.measure,
    "tree": tree.measure,
    "queue": queue.measure,
}

PACKAGES = ("aioetcd2", "aiohttp", "msgspec", "uvloop", "aio_etcd", "python-etcd", "k3etcd", "kazoo")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="measure these sections only")
    parser.add_argument("--contenders", nargs="+", choices=[*CONTENDERS, GO], help="default: all that are installed")
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="another checkout of aioetcd2, to compare with")
    parser.add_argument("--rounds", type=int, default=7, help="how often each contender has its turn (7)")
    parser.add_argument("--seconds", type=float, default=0.5, help="how long a turn is (0.5)")
    parser.add_argument("--calls", type=int, default=100_000, help="earlier calls, and calls for memory (100000)")
    parser.add_argument("--watchers", type=int, default=10_000, help="open watchers, at most (10000)")
    parser.add_argument("--latency", type=float, default=10, help="milliseconds to a busy watcher, each way (10)")
    parser.add_argument("--event-rate", type=float, default=6000, help="events a second for a busy watcher (6000)")
    parser.add_argument("--lanes", type=int, default=32, help="connections over which they are written (32)")
    parser.add_argument("--outage", type=float, default=20, help="seconds of an outage under watchers (20)")
    parser.add_argument("--keys", type=int, default=20_000, help="keys in a directory that many watch (20000)")
    parser.add_argument("--registrations", type=int, default=1000, help="registrations of one client (1000)")
    parser.add_argument("--registered", type=float, default=60, help="seconds for which they are kept alive (60)")
    parser.add_argument("--output", type=Path, default=ROOT / "docs", help="where benchmarks.md goes (docs)")
    return parser.parse_args()


def versions(settings: Settings) -> str:
    """What was run on what."""
    known = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            known.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    known.append(f"etcd {'.'.join(map(str, etcd_version(find_etcd())))}")
    if settings.go_versions:
        known.append(f"Go {settings.go_versions['go']} with etcd's client {settings.go_versions['client']}")
    return f"{os.cpu_count()} cores, {platform.machine()}; {', '.join(known)}"


def setting(settings: Settings) -> str:
    """The line under a section's title."""
    line = (
        f"{date.today().isoformat()}; {settings.rounds} rounds, turns of {settings.seconds:g} s; {versions(settings)}"
    )
    return f"{line}; left out: {', '.join(settings.left_out)}" if settings.left_out else line


async def run(args: argparse.Namespace) -> None:
    settings = Settings(
        rounds=args.rounds,
        seconds=args.seconds,
        names=[],
        calls=args.calls,
        watchers=args.watchers,
        latency=args.latency / 1000,
        event_rate=args.event_rate,
        lanes=args.lanes,
        outage=args.outage,
        keys=args.keys,
        registrations=args.registrations,
        registered=args.registered,
        before=args.before,
    )
    with tempfile.TemporaryDirectory() as folder:
        await choose(settings, args.contenders, Path(folder))
        missing = {OURS, BARE} - set(settings.names)
        if missing:
            sys.exit(f"{', '.join(sorted(missing))} can't be left out: the others are measured by them")
        for reason in settings.left_out:
            print(f"left out: {reason}", file=sys.stderr)
        args.output.mkdir(parents=True, exist_ok=True)
        for name in args.only or SECTIONS:
            began = time.monotonic()
            section = await SECTIONS[name](settings)
            picture = f"benchmarks-{name}.svg"
            drawn = bool(section.bars) and draw(section.bars, args.output / picture)
            text = section.markdown(setting(settings), picture if drawn else None)
            write_page(args.output / "benchmarks.md", {name: text}, list(SECTIONS))
            print(f"{text}\n({time.monotonic() - began:.0f} s)\n", flush=True)


if __name__ == "__main__":
    asyncio.run(run(parse()))

"""The workers' side that gives the orders, rounds in which they take turns, and what is made of their figures."""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from .contenders import BEFORE, CONTENDERS, GO, OURS

Figures = dict[str, Any]

ROOT = Path(__file__).parent.parent
DEBIAN_GOPATH = "/usr/share/gocode"

WORKER_OF_ANOTHER = """\
import aioetcd2, runpy, sys
sys.path.insert(0, sys.argv.pop(1))
runpy.run_module("benchmarks.worker", run_name="__main__", alter_sys=True)
"""
"""This worker, with the library of the folder that it is started in."""

TURNS = 2
"""A round of short turns is so many: what disturbs the machine for a moment then spoils fewer of them."""


@dataclass
class Settings:
    """What was asked for on the command line.

    Attributes:
        rounds: How often every contender has its turn.
        seconds: How long a turn is.
        names: The contenders.
        calls: How many earlier calls make no later one slower.
        watchers: How many open watchers make no call slower.
        left_out: Why other contenders are not there.
        go: The program of Go's client.
        latency: Seconds on the way to a busy watcher, each way.
        event_rate: Events a second for a busy watcher.
        lanes: Over how many connections they are written.
        outage: Seconds for which nothing answers many watchers.
        keys: How many keys there are in the directory that many watch.
        registrations: How many registrations one client has.
        registered: Seconds for which they are kept alive.
        before: Another checkout of this library, which takes part.
    """

    rounds: int
    seconds: float
    names: list[str]
    calls: int
    watchers: int
    latency: float
    event_rate: float
    lanes: int
    outage: float
    keys: int
    registrations: int
    registered: float
    before: Path | None = None
    left_out: list[str] = field(default_factory=list)
    go: str | None = None
    go_versions: Figures = field(default_factory=dict)

    def only(self, names: Iterable[str]) -> list[str]:
        """Those of the names that take part."""
        return [name for name in names if name in self.names]


class Process:
    """A process that prints lines of JSON, and may be given some."""

    def __init__(self, *command: str, folder: Path = ROOT) -> None:
        self._command = " ".join(command)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - it is there as long as the process
        self._popen = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, cwd=folder
        )
        self.pid = self._popen.pid

    async def answer(self) -> Figures:
        """The next line."""
        assert self._popen.stdout is not None
        line = await asyncio.to_thread(self._popen.stdout.readline)
        if not line:
            self._errors.seek(0)
            raise RuntimeError(f"{self._command} ended:\n{self._errors.read().decode(errors='replace')[-3000:]}")
        figures: Figures = json.loads(line)
        return figures

    async def ask(self, do: str, **order: object) -> Figures:
        """Give an order, and return what it brings."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(json.dumps({"do": do, **order}) + "\n")
        self._popen.stdin.flush()
        return await self.answer()

    def stop(self) -> None:
        """End the process, and wait until it is gone."""
        self._popen.kill()
        self._popen.communicate()
        self._errors.close()


class Crew:
    """Starts processes, and ends them all; an async context manager."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Crew:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def worker(self, name: str) -> Process:
        """A contender's process."""
        if name == GO:
            assert self._settings.go is not None
            return self.process(self._settings.go)
        if name == BEFORE:
            assert self._settings.before is not None
            return self.process(sys.executable, "-c", WORKER_OF_ANOTHER, str(ROOT), OURS, folder=self._settings.before)
        return self.process(sys.executable, "-m", "benchmarks.worker", name)

    def traffic(self, *args: object) -> Process:
        """A process of traffic.py."""
        return self.process(sys.executable, "-m", "benchmarks.traffic", *map(str, args))

    def front(self, *endpoints: str) -> Process:
        """A process of front.py."""
        return self.process(sys.executable, "-m", "benchmarks.front", *endpoints)

    def process(self, *command: str, folder: Path = ROOT) -> Process:
        """Any process."""
        process = Process(*command, folder=folder)
        self._stack.callback(process.stop)
        return process


@asynccontextmanager
async def fresh(settings: Settings, name: str, **opening: object) -> AsyncIterator[Process]:
    """A contender's process for one order only."""
    async with Crew(settings) as crew:
        worker = crew.worker(name)
        if opening:
            await worker.ask("open", **opening)
        yield worker


async def take_turns(
    workers: dict[str, Process], rounds: int, do: str, warm_up: float = 0.0, **order: object
) -> dict[str, list[Figures]]:
    """Give every worker the order in every round, after a turn that does not count."""
    names = list(workers)
    figures: dict[str, list[Figures]] = {name: [] for name in names}
    if warm_up:
        for name in names:
            await workers[name].ask(do, **{**order, "seconds": warm_up})
    for number in range(TURNS * rounds):
        for name in rotated(names, number):
            figures[name].append(await workers[name].ask(do, **order))
    return figures


def rotated(names: Sequence[str], number: int) -> Sequence[str]:
    """The order of a round."""
    first = number % len(names)
    return [*names[first:], *names[:first]]


class Spread(NamedTuple):
    """What came of several rounds."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f} to {self.most:.2f})"


def spread(values: Sequence[float]) -> Spread:
    """Median, least and greatest."""
    return Spread(statistics.median(values), min(values), max(values))


def ratios(some: list[Figures], others: list[Figures], key: str) -> Spread:
    """One contender's figure over another's, round by round; NaN where that is 0, as memory is of a few keys."""
    return spread(
        [mine[key] / theirs[key] if theirs[key] else math.nan for mine, theirs in zip(some, others, strict=True)]
    )


def median(figures: list[Figures], key: str, scale: float = 1.0) -> float:
    """The median of a figure."""
    return float(statistics.median(figure[key] for figure in figures)) * scale


def build_go(folder: Path) -> tuple[str | None, str]:
    """Build Go's contender; the program, or why there is none."""
    go = shutil.which("go")
    if go is None:
        return None, "go is not installed"
    path = os.pathsep.join(filter(None, (os.environ.get("GOPATH"), DEBIAN_GOPATH)))
    program = folder / "contender"
    built = subprocess.run(
        [go, "build", "-o", str(program), "main.go"],
        cwd=Path(__file__).parent / "go",
        env={**os.environ, "GO111MODULE": "off", "GOPATH": path, "GOFLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode:
        return None, f"go build failed: {' '.join(built.stderr.split())[:200]}"
    return str(program), ""


async def choose(settings: Settings, wanted: Sequence[str] | None, folder: Path) -> None:
    """Find out which contenders can take part."""
    if settings.before is not None:
        settings.names.append(BEFORE)
    for name in wanted or [*CONTENDERS, GO]:
        if name == GO:
            settings.go, reason = await asyncio.to_thread(build_go, folder)
            if settings.go is not None:
                async with fresh(settings, GO) as worker:
                    settings.go_versions = await worker.ask("version")
        else:
            missing = CONTENDERS[name].missing
            reason = f"not installed: {', '.join(missing)}" if missing else ""
        if reason:
            settings.left_out.append(f"{name} ({reason})")
        else:
            settings.names.append(name)

"""What a soak has shown, as Markdown."""

from __future__ import annotations

import platform
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version

import aioetcd2

from .gauges import Gauges, Held
from .watched import Book

SHOWN = 20


@dataclass
class Report:
    """What a soak has shown.

    Attributes:
        seed: What it was made of.
        seconds: How long it took, with its end.
        watchers: How many there were.
        etcd: Which server.
        book: Events and calls.
        gauges: What the process held meanwhile.
        struck: How many faults there were of each kind.
        left: What the process holds of it when all is closed.
    """

    seed: int
    seconds: float
    watchers: int
    etcd: str
    book: Book
    gauges: Gauges
    struck: Counter[str]
    left: Held

    @property
    def problems(self) -> list[str]:
        """Everything that should not be."""
        grown = self.gauges.grown() if self.seconds >= 60 else []  # before that it is still warming up
        left = [
            f"{count} {name} left behind"
            for name, count in zip(Held._fields, self.left, strict=True)
            if count and name != "memory"
        ]
        return [*self.book.problems, *grown, *left]

    def __str__(self) -> str:
        book, gauges = self.book, self.gauges
        ledgers = book.ledgers.values()
        acknowledged = sum(ledger.acknowledged for ledger in ledgers)
        lost = sum(ledger.lost_writes for ledger in ledgers)
        seen = sum(ledger.unacknowledged for ledger in ledgers)
        rows = {
            "when": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC, {self.seconds:.0f} s, seed {self.seed}",
            "versions": f"aioetcd2 {aioetcd2.__version__}, aiohttp {version('aiohttp')}, "
            f"Python {platform.python_version()}, etcd {self.etcd}, three members",
            "faults": ", ".join(f"{name} {count}" for name, count in sorted(self.struck.items())),
            "calls": ", ".join(f"{count} {how}" for how, count in sorted(book.calls.items())),
            "duration of a call": f"{book.latency}; {book.calls['stuck'] or 'none'} stuck",
            "writes to watched keys": f"{acknowledged} acknowledged, {lost} lost on the way; "
            f"{seen} events by those, and by keys that expired",
            "events": f"{book.delivered} to {self.watchers} watchers; reopened at their index {book.reopened} times",
            "delay of an event": str(book.delay),
            "memory": gauges.row(0, lambda size: f"{size / (1 << 20):.0f} MiB"),
            "descriptors": gauges.row(1),
            "tasks": gauges.row(2),
            "left at the end": f"{self.left.descriptors} descriptors, {self.left.tasks} tasks",
            "problems": str(len(self.problems) or "none"),
        }
        lines = ["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows.items())]
        if self.problems:
            lines += ["", *(f"- {problem}" for problem in self.problems[:SHOWN])]
        return "\n".join(lines)

"""What a long run costs: how long things take, and what the process holds."""

from __future__ import annotations

import asyncio
import os
import resource
import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple


class Durations:
    """Many durations in little memory: whole milliseconds, counted."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """Count one."""
        self._counts[round(seconds * 1000)] += 1

    def __len__(self) -> int:
        return self._counts.total()

    def quantile(self, share: float) -> float:
        """The seconds that so large a share of all does not exceed; 0 if there are none."""
        left = share * len(self)
        for milliseconds in sorted(self._counts):
            left -= self._counts[milliseconds]
            if left <= 0:
                return milliseconds / 1000
        return 0.0

    def __str__(self) -> str:
        return f"p50 {self.quantile(0.5):.3f} s, p99 {self.quantile(0.99):.3f} s, longest {self.quantile(1.0):.3f} s"


class Held(NamedTuple):
    """What the process holds at one moment."""

    memory: int
    descriptors: int
    tasks: int

    @classmethod
    def now(cls) -> Held:
        """At this moment."""
        with open("/proc/self/statm") as file:
            memory = int(file.read().split()[1]) * resource.getpagesize()
        return cls(memory, len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks()))


SLACK = Held(16 << 20, 60, 100)
"""How much more the end of a run may hold than its beginning, besides a tenth: connections come and go."""


class Gauges:
    """Reads at intervals what the process holds."""

    def __init__(self) -> None:
        self.readings: list[Held] = []

    async def read(self, interval: float = 1.0) -> None:
        """Go on until this is cancelled."""
        while True:
            self.readings.append(Held.now())
            await asyncio.sleep(interval)

    def _median(self, first: float, last: float) -> Held:
        count = len(self.readings)
        part = self.readings[int(first * count) : max(int(last * count), int(first * count) + 1)]
        return Held(*(int(statistics.median(column)) for column in zip(*part, strict=True)))

    @property
    def early(self) -> Held:
        """The usual, when all was warm: in the second fifth of the time."""
        return self._median(0.2, 0.4)

    @property
    def late(self) -> Held:
        """The usual in the last fifth of the time."""
        return self._median(0.8, 1.0)

    def grown(self) -> list[str]:
        """What was not flat."""
        columns = zip(Held._fields, self.early, self.late, SLACK, strict=True)
        return [
            f"{name} grew from {early} to {late}" for name, early, late, slack in columns if late > 1.1 * early + slack
        ]

    def row(self, field: int, show: Callable[[int], str] = str) -> str:
        """One of the columns in words."""
        most = max(reading[field] for reading in self.readings)
        return f"{show(self.early[field])} early, {show(self.late[field])} late, {show(most)} at most"


class Stopwatch:
    """Measures what happens inside, and adds it to the durations."""

    def __init__(self, durations: Durations) -> None:
        self._durations = durations
        self._start = 0.0

    def __enter__(self) -> None:
        self._start = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._durations.add(time.monotonic() - self._start)

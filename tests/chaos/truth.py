"""What happened in each life of a store, while watches of it go on."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from aioetcd2 import ClusterError, InvalidResponseError

from .gauges import Durations
from .nemesis import HEADER_TIMEOUT, PROBE_INTERVAL

ROOT = "/past"
KEYS = tuple(f"{ROOT}/{name}" for name in ("a", "b", "c/d", "c/e", "f/g/h", "i"))
END = "end"
REMOVALS = ("delete", "compareAndDelete", "expire")
UNANSWERED = (ClusterError, InvalidResponseError)

WINDOW = 1000
"""How many events etcd keeps."""

BEYOND = WINDOW + 100

SETTLED = 2.5
"""Seconds without writes after the past has changed: what is past the cursor by then looks newer to any client."""

LATE = HEADER_TIMEOUT + 2 * PROBE_INTERVAL + 3.0
"""Seconds until an event has come: a dead connection is noticed within the first two, an outage ends within three."""

STUCK = 60.0


@dataclass
class Life:
    """What happened in one life of the store.

    Attributes:
        written: What happened at each index: a key, and a value, or `-` and the value that went.
        lost: Writes that nobody knows the outcome of.
    """

    written: dict[int, tuple[str, str]] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)

    def until(self, index: int) -> Life:
        """The same, where it was cut off behind an index."""
        return Life({at: what for at, what in self.written.items() if at <= index}, set(self.lost))

    def there(self, index: int) -> dict[str, str]:
        """What was there at an index, as far as it is known."""
        found: dict[str, str] = {}
        for _, (key, value) in sorted(item for item in self.written.items() if item[0] <= index):
            if value.startswith("-"):
                found.pop(key, None)
            else:
                found[key] = value
        return found


class World:
    """What is true.

    Attributes:
        lives: What happened in each life of the store.
        problems: What was wrong.
        told: How many watches said that events were lost.
        delay: How late events were.
        is_written: Whether the writers have finished.
    """

    def __init__(self) -> None:
        self.lives = [Life()]
        self.problems: list[str] = []
        self.told: Counter[str] = Counter()
        self.delivered = 0
        self.delay = Durations()
        self.writing = 0
        self.is_written = False
        self.may_write = asyncio.Event()
        self.may_write.set()
        self._hurt = False
        self._well_since = 0.0
        self._acknowledged: dict[tuple[int, int], float] = {}

    @property
    def life(self) -> int:
        return len(self.lives) - 1

    @contextmanager
    def hurt(self) -> Iterator[None]:
        """What happens here may make events late."""
        self._hurt = True
        try:
            yield
        finally:
            self._well_since = time.monotonic()
            self._hurt = False

    def acknowledge(self, index: int, key: str, what: str) -> None:
        self.lives[-1].written[index] = key, what
        self._acknowledged[self.life, index] = time.monotonic()

    @property
    def well_since(self) -> float:
        """Since when nothing hurts; infinite while something does."""
        return math.inf if self._hurt else self._well_since

    def lateness(self, life: int, index: int, came: float, well_since: float) -> float | None:
        """How late an event came; `None` where nobody can say."""
        acknowledged = self._acknowledged.get((life, index))
        if acknowledged is None or well_since > came:
            return None
        return max(0.0, came - max(acknowledged, well_since))

    @asynccontextmanager
    async def silence(self) -> AsyncIterator[None]:
        """Nobody writes meanwhile."""
        self.may_write.clear()
        while self.writing:
            await asyncio.sleep(0.01)
        try:
            yield
        finally:
            self.may_write.set()

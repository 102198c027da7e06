"""One outage for all watches of a client: told once as it begins, and once when it is over."""

from __future__ import annotations

import asyncio
import random

from .._net.reporter import Reporter
from ..errors import EtcdError

BACKOFF_BASE = 0.05
BACKOFF_CAP = 3.0


class Outage:
    """Whether watches can go on.

    Args:
        reporter: Told when that changes.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._lasts = False

    def interrupts(self, key: str, error: EtcdError) -> None:
        """A watch can't go on for now: one line for the whole outage, however many watches."""
        if not self._lasts:
            self._lasts = True
            self._reporter.watches_interrupted(key, error)

    def is_over(self, key: str) -> None:
        """A watch is registered again after a failure."""
        if self._lasts:
            self._lasts = False
            self._reporter.watches_resumed(key)


class Backoff:
    """The pauses of one watch: a little longer with each failure in a row; the first is resumed at once.

    Args:
        outage: Told of the second failure in a row.
        key: What is watched.

    Attributes:
        troubles: How many failures there were in a row.
    """

    __slots__ = ("_key", "_outage", "troubles")

    def __init__(self, outage: Outage, key: str) -> None:
        self._outage = outage
        self._key = key
        self.troubles = 0

    async def pause(self, error: EtcdError) -> None:
        """Take breath after a failure."""
        self.troubles += 1
        if self.troubles == 1:
            return
        self._outage.interrupts(self._key, error)
        pause = min(BACKOFF_CAP, BACKOFF_BASE * 2.0 ** min(self.troubles, 16))
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))

    def end(self) -> None:
        """All is well again."""
        self.troubles = 0

"""How recipes wait out an outage: a longer pause after each failure, and one warning."""

from __future__ import annotations

import asyncio
import logging
import random

logger = logging.getLogger("aioetcd2")

FIRST_PAUSE = 0.1


class Patience:
    """The failures of one thing that is tried again and again.

    Args:
        what: What it is, for the log: `lock /locks/db`.
        longest: The longest pause in seconds.
    """

    def __init__(self, what: str, longest: float) -> None:
        self.last: BaseException | None = None
        self._what = what
        self._longest = longest
        self._failures = 0

    async def after(self, error: BaseException) -> None:
        """Wait after a failure, with jitter; the first one of an outage is logged."""
        if self.last is None:
            logger.warning("%s: trying again until it succeeds: %s", self._what, error)
        self.last = error
        pause = min(self._longest, FIRST_PAUSE * 2.0**self._failures)
        self._failures = min(self._failures + 1, 20)
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))

    def over(self) -> None:
        """It has succeeded."""
        if self.last is not None:
            logger.info("%s: succeeded again", self._what)
        self.last = None
        self._failures = 0

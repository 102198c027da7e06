"""How recipes wait out an outage: a longer pause after each failure, and one warning for all who wait."""

from __future__ import annotations

import asyncio
import logging
import random
from copy import copy

logger = logging.getLogger("aioetcd2")

FIRST_PAUSE = 0.1


class Pauses:
    """Pauses that become longer, each with jitter.

    Args:
        longest: The longest one in seconds.
    """

    def __init__(self, longest: float) -> None:
        self.taken = 0
        """How many there were in a row."""
        self._longest = longest

    def next(self) -> float:
        """The seconds of the next one."""
        pause = min(self._longest, FIRST_PAUSE * 2.0**self.taken)
        self.taken = min(self.taken + 1, 20)
        return pause * random.uniform(0.5, 1.0)

    def anew(self) -> Pauses:
        """Such pauses from the first one on."""
        return Pauses(self._longest)


class _Outage:
    """What several things that fail for one reason have in common: they say so once."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.is_known = False


class Patience:
    """The failures of one thing that is tried again and again.

    Args:
        what: What it is for, in the log: `lock /locks/db`.
        longest: The longest pause in seconds.
    """

    def __init__(self, what: str, longest: float) -> None:
        self.last: BaseException | None = None
        """The failure, until there is success."""
        self._outage = _Outage(what)
        self._pauses = Pauses(longest)

    def of_another(self) -> Patience:
        """That of another thing tried for the same purpose: an outage of both is logged once."""
        other = copy(self)
        other.last = None
        other._pauses = self._pauses.anew()
        return other

    async def after(self, error: BaseException) -> None:
        """Wait after a failure, with jitter."""
        if not self._outage.is_known:
            self._outage.is_known = True
            logger.warning("%s: trying again until it succeeds: %s", self._outage.what, error)
        self.last = error
        await asyncio.sleep(self._pauses.next())

    def over(self) -> None:
        """It has succeeded."""
        if self.last is None:
            return
        self.last = None
        self._pauses = self._pauses.anew()
        if self._outage.is_known:
            self._outage.is_known = False
            logger.info("%s: succeeded again", self._outage.what)

"""The search for other endpoints when all have failed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from async_timeout import timeout

from ..errors import ClientClosedError
from .one_for_all import OneForAll
from .reporter import Reporter

APART = 1.0
"""Seconds between the end of a search and the next one."""

Find = Callable[[], Awaitable[Iterable[str]]]
"""Finds endpoints: a caller's own code, which may hang, raise, or find others each time."""


class Rediscovery:
    """Searches for the endpoints of a client anew: one search at a time, bounded, and none soon after another.

    Args:
        find: Finds them, the best first.
        take: Takes what was found.
        seconds: How long a search may take.
        reporter: Told what came of it.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        find: Find,
        take: Callable[[list[str]], None],
        seconds: float,
        reporter: Reporter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find = find
        self._take = take
        self._seconds = seconds
        self._reporter = reporter
        self._clock = clock
        self._ended_at = -APART
        self._searches = OneForAll()
        self.over = False

    async def search(self) -> None:
        """Search, unless that was done just now; whatever comes of it, nothing is raised but a cancellation."""
        if not self.over and self._clock() >= self._ended_at + APART:
            with suppress(ClientClosedError):  # what there is of it is said by who is closed
                await self._searches.do(None, self._search)

    def end(self) -> None:
        """Search no more, and heed nothing of what a search that is under way may find."""
        self.over = True

    async def close(self) -> None:
        """End it, and what is under way."""
        self.end()
        await self._searches.close()

    async def _search(self) -> None:
        try:
            async with timeout(self._seconds):
                found = list(await self._find())
        except asyncio.TimeoutError:
            self._reporter.discovery_failed(f"nothing found within {self._seconds} s")
        except Exception as error:  # whatever a caller's discoverer raises, the failures of the endpoints come first
            self._reporter.discovery_failed(error)
        else:
            if not self.over:
                self._take(found)
        finally:
            self._ended_at = self._clock()

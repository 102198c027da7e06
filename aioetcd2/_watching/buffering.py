"""Endpoints that hold back the header or the events of a wait, as a buffering proxy does."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from .._net.reporter import Reporter

BASE = 60.0
CAP = 3600.0
"""Seconds for which an endpoint is taken to buffer; doubled each time up to the cap."""

ANSWERS_WITHIN = 1.0
"""Seconds in which an endpoint answers a probe that has just left a wait without its header."""


class Buffering:
    """Which endpoints buffer, going by what they did not long ago.

    Args:
        problem: Probes an endpoint within some seconds; says what is wrong with it, `None` where nothing is.
        probe_timeout: Seconds until a probe has failed.
        reporter: Told when an endpoint is found to buffer.
    """

    def __init__(
        self, problem: Callable[[str, float], Awaitable[str | None]], probe_timeout: float, reporter: Reporter
    ) -> None:
        self._problem = problem
        self._answers_within = min(probe_timeout, ANSWERS_WITHIN)
        self._reporter = reporter
        self._found: dict[str, tuple[int, float]] = {}

    @property
    def anywhere(self) -> bool:
        """Whether an endpoint buffers."""
        return any(map(self.at, self._found))

    def at(self, endpoint: str | None) -> bool:
        """Whether this endpoint buffers."""
        if endpoint not in self._found:
            return False
        _, until = self._found[endpoint]
        return time.monotonic() < until

    async def judge(self, endpoint: str) -> bool:
        """Whether an endpoint that fell silent in a wait answers otherwise: a buffering proxy, most likely."""
        if await self._problem(endpoint, self._answers_within) is not None:
            return False
        self._reporter.endpoint_buffers(endpoint)
        times, _ = self._found.get(endpoint, (0, 0.0))
        self._found[endpoint] = (times + 1, time.monotonic() + min(BASE * 2.0**times, CAP))
        return True

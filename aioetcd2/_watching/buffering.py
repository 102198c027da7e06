"""Endpoints that hold back the header or the events of a wait, as a buffering proxy does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from async_timeout import timeout

from .._net.reporter import Reporter
from ..errors import (
    ClientClosedError,
    ClusterError,
    ConnectionLostError,
    EtcdError,
    HeaderTimeoutError,
    NoLeaderError,
    ServerError,
)

Answers = Callable[[str], Awaitable[None]]
"""Reads at one endpoint, and no other, what takes as long as the registration of a stream."""

HELD_BACK = 1.0
"""Seconds after which a stream that ends without a header may have been held back, and did not just fail."""

_ENDED = (HeaderTimeoutError, ConnectionLostError, ServerError, NoLeaderError)
"""How a wait ends that a proxy holds back: by our patience, or by the proxy's."""

BASE = 60.0
CAP = 3600.0
"""Seconds for which an endpoint is taken to buffer; doubled each time up to the cap."""

ANSWERS_WITHIN = 1.0
"""Seconds in which an endpoint answers a probe that has just left a wait without its header."""


class Buffering:
    """Which endpoints buffer, going by what they did not long ago.

    Args:
        answers: Reads at an endpoint what takes as long as the registration of a stream.
        probe_timeout: Seconds until a probe has failed.
        reporter: Told when an endpoint is found to buffer.
    """

    def __init__(self, answers: Answers, probe_timeout: float, reporter: Reporter) -> None:
        self._answers = answers
        self._answers_within = min(probe_timeout, ANSWERS_WITHIN)
        self._reporter = reporter
        self._found: dict[str, tuple[int, float]] = {}

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
        if self.at(endpoint):
            return True
        try:
            async with timeout(self._answers_within):
                await self._answers(endpoint)
        except ClientClosedError:
            raise
        except (EtcdError, asyncio.TimeoutError):
            return False
        if self.at(endpoint):  # others have found that, too, in the same moment
            return True
        self._reporter.endpoint_buffers(endpoint)
        times, _ = self._found.get(endpoint, (0, 0.0))
        self._found[endpoint] = (times + 1, time.monotonic() + min(BASE * 2.0**times, CAP))
        return True

    async def explains(self, error: EtcdError, took: float) -> bool:
        """Whether the header of a stream did not come because an endpoint buffers, which is known then.

        Args:
            error: Why there is no stream.
            took: Seconds until that was known.
        """
        failures = error.errors if isinstance(error, ClusterError) else ()
        kinds = _ENDED if took >= HELD_BACK else (HeaderTimeoutError,)
        silent = [each.endpoint for each in failures if isinstance(each, kinds)]
        return any([await self.judge(endpoint) for endpoint in silent if not self.at(endpoint)])

"""Whether the endpoint that calls go to is alive: a member that is cut off from the others answers reads of old."""

from __future__ import annotations

import asyncio

from .._net.failover import Failover, Where
from .._net.reporter import Reporter
from .liveness import THOROUGH_EVERY, Liveness


class Calls:
    """Probes the pinned endpoint once an interval while calls are made; one that is ill, or silent, loses the pin.

    Idle at first; with the next call it begins to probe, and is idle again after an interval without any.

    Args:
        failover: Carries the calls.
        liveness: Asks an endpoint how it is; what it probes anyway is not asked twice.
        probe_interval: Seconds between two probes.
        reporter: Told when calls leave an endpoint.
    """

    def __init__(self, failover: Failover, liveness: Liveness, probe_interval: float, reporter: Reporter) -> None:
        self._failover = failover
        self._liveness = liveness
        self._probe_interval = probe_interval
        self._reporter = reporter
        self._made = False
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._probing: asyncio.Task[None] | None = None
        self._thorough_at = 0.0
        failover.on_use = self.call_is_made

    def call_is_made(self) -> None:
        """Probe an interval from now, if that is not to be done anyway."""
        self._made = True
        if self._timer is None and self._probing is None and not self._closed:
            self._thorough_at = asyncio.get_running_loop().time() + THOROUGH_EVERY
            self._rest(self._probe_interval)

    async def close(self) -> None:
        """End the probing."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait((self._probing,))

    def _rest(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._failover.on_use = self.call_is_made
        if not self._made or self._closed:
            return
        self._made = False
        where = self._failover.pinned
        if self._liveness.is_probed(where) or not self._failover.elsewhere(*where):
            self._rest(self._probe_interval)
        else:
            self._probing = asyncio.ensure_future(self._probe(where))

    async def _probe(self, where: Where) -> None:
        now = asyncio.get_running_loop().time
        began = now()
        thorough = began >= self._thorough_at
        if thorough:
            self._thorough_at = began + THOROUGH_EVERY
        try:
            problem = await self._liveness.why_leave(where, thorough=thorough)
            if problem is not None and where[0] == self._failover.pinned[0]:
                self._reporter.calls_leave(problem)
                self._failover.suspect(*where)
        finally:
            self._probing = None
            if not self._closed:
                self._rest(max(0.0, began + self._probe_interval - now()))

"""What the watches of one client share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .._net.deadlines import Deadlines
from .._net.exchange import OpenStream
from .._net.failover import Failover
from .._net.reporter import Reporter
from .._net.request import Request
from .buffering import Buffering
from .liveness import Liveness, Probe
from .looks import Look, Looks
from .outage import Outage

REGISTRATIONS_AT_ONCE = 128

SILENCE = 0.05
"""Seconds after which a stream that may have been dropped is asked for again."""


class Surroundings:
    """What the watches of one client share.

    Args:
        failover: Carries the requests.
        probe: Asks an endpoint whether it is healthy.
        look: Reads a path.
        reporter: Told of what happens to watches.
        probe_interval: Seconds between two probes of an endpoint.
        header_timeout: Seconds until a probe has failed; `None` = as long as the interval.

    Attributes:
        failover: Carries the requests.
        reporter: Told of what happens to watches.
        liveness: Whether the endpoints are alive.
        buffering: Which of them hold things back.
        outage: Whether watches can go on.
        looks: What is there now.
        hush: Bounds how long a stream may be silent that the server may have dropped.
        stuck: Bounds how long the rest of half an event may take.
    """

    def __init__(
        self,
        failover: Failover,
        probe: Probe,
        look: Look,
        reporter: Reporter,
        *,
        probe_interval: float,
        header_timeout: float | None,
    ) -> None:
        probe_timeout = probe_interval if header_timeout is None else header_timeout
        self.failover = failover
        self.reporter = reporter
        self.liveness = Liveness(failover, probe, probe_interval, probe_timeout, reporter)
        self.buffering = Buffering(self.liveness.problem, probe_timeout, reporter)
        self.outage = Outage(reporter)
        self.looks = Looks(look)
        self.hush = Deadlines(SILENCE)
        self.stuck = Deadlines(probe_timeout)
        self._registering = asyncio.Semaphore(REGISTRATIONS_AT_ONCE)

    async def register(
        self, make: Callable[[str], Request], check: Callable[[OpenStream, Request], OpenStream]
    ) -> OpenStream:
        """Register a wait: not too many at once, or all of them would run into the header timeout together.

        Raises:
            EtcdError: As `Failover.open()` does, whose arguments these are.
        """
        if self.buffering.anywhere:  # the header comes with the event
            return await self.failover.open(make, check)
        async with self._registering:
            return await self.failover.open(make, check)

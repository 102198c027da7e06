"""What the watches of one client share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from .._net.deadlines import Deadlines
from .._net.exchange import OpenStream
from .._net.failover import Failover
from .._net.reporter import Reporter
from .._net.request import Request
from .._net.turns import QUICK, Turns
from ..errors import ClusterError, HeaderTimeoutError
from .buffering import Answers, Buffering
from .liveness import Liveness, Probe
from .looks import Ask, Looks, Read
from .outage import Outage

SILENCE = 0.05
"""Seconds after which a stream that may have been dropped is asked for again."""

AT_FIRST, AT_MOST = 16, 128
"""How many register at once, at first and at the most."""


class Surroundings:
    """What the watches of one client share.

    Args:
        failover: Carries the requests.
        probe: Asks an endpoint whether it is healthy.
        answers: Reads at an endpoint what takes as long as the registration of a stream.
        read: Reads a path.
        ask: Asks how far the cluster has come.
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
        patience: Seconds after which a header that nothing else bounds may have been held back; `None` = it is bounded.
    """

    def __init__(
        self,
        failover: Failover,
        probe: Probe,
        answers: Answers,
        read: Read,
        ask: Ask,
        reporter: Reporter,
        *,
        probe_interval: float,
        header_timeout: float | None,
    ) -> None:
        probe_timeout = probe_interval if header_timeout is None else header_timeout
        self.failover = failover
        self.reporter = reporter
        bound = probe_timeout if header_timeout is None else 2 * header_timeout  # it may wait for a connection first
        self.liveness = Liveness(failover, probe, probe_interval, bound, reporter)
        self.buffering = Buffering(answers, probe_timeout, reporter)
        self.outage = Outage(reporter)
        self.looks = Looks(read, ask)
        self.hush = Deadlines(SILENCE)
        self.stuck = Deadlines(probe_timeout)
        self.patience = probe_interval if header_timeout is None else None
        self._turns = Turns(AT_FIRST, AT_MOST)
        self._quick = QUICK * probe_timeout

    async def register(
        self, make: Callable[[str], Request], check: Callable[[OpenStream, Request], OpenStream]
    ) -> OpenStream | None:
        """Register a stream: as many at once as the server bears, or all would run into the header timeout together.

        `None` where an endpoint was found to buffer meanwhile, and something else is to be asked for.

        Raises:
            EtcdError: As `Failover.open()` does, whose arguments these are.
        """
        if self.buffering.anywhere():  # the header comes with the event
            return await self.failover.open(make, check)
        async with self._turns.take() as turn:
            if self.buffering.anywhere():
                return None
            start = time.monotonic()
            if self.patience is not None:  # a header that is held back keeps nobody else from registering
                asyncio.get_running_loop().call_later(self.patience, turn.give_back)
            try:
                stream = await self.failover.open(make, check)
            except ClusterError as error:
                if any(isinstance(each, HeaderTimeoutError) for each in error.errors):
                    self._turns.timed_out(start)
                raise
            self._turns.succeeded(quickly=time.monotonic() - start < self._quick)
            return stream

    def begin_anew(self) -> None:
        """Leave every endpoint, and forget what was seen: the cluster is another, or its life has ended."""
        self.looks.forget()
        self.liveness.leave_all()

    async def close(self) -> None:
        """Close every watcher, and end all that goes on for them."""
        self.outage.close()
        await self.liveness.close()
        await self.looks.close()

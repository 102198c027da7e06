"""Whether the endpoints at which watches wait are alive: probes, who leaves when one is not, and who registers anew."""

from __future__ import annotations

import asyncio
import random
import time
import weakref
from collections.abc import Awaitable, Callable, Container
from typing import Protocol

from async_timeout import timeout

from .._net.failover import Failover, Where
from .._net.reporter import Reporter
from ..errors import (
    ClientClosedError,
    ClusterError,
    ConnectError,
    EndpointError,
    EtcdError,
    HeaderTimeoutError,
    NoLeaderError,
)
from ..models import Health

Probe = Callable[[str, "str | None", bool], Awaitable[Health]]
"""Asks one endpoint, at one address of its name perhaps, whether it is healthy; thoroughly perhaps."""

THOROUGH_EVERY = 30.0
"""Seconds between two thorough probes, each of which costs the cluster an entry in its log."""

REST = (200.0, 270.0)
"""Seconds of silence after which a stream is registered anew, drawn each time: balancers forget idle connections."""


class Watching(Protocol):
    """What liveness needs of a watcher."""

    def evict(self) -> None:
        """Leave the endpoint; it does not answer."""

    def renew_if_quiet_since(self, moment: float) -> None:
        """Register anew where nothing was heard since then."""

    def abort(self) -> None:
        """Stop watching."""

    async def aclose(self) -> None:
        """Stop watching, and wait until all of it has ended."""


class Liveness:
    """Keeps the watchers of a client at endpoints that are alive.

    While an endpoint has watchers it is probed, once per address and interval however many they are. One that does not
    answer loses its watchers, and so does one that says it is unhealthy while another one is healthy.

    Args:
        failover: Carries the requests.
        probe: Asks an endpoint.
        probe_interval: Seconds between two probes of an endpoint.
        probe_timeout: Seconds until a probe has failed.
        reporter: Told when watchers leave an endpoint.
    """

    def __init__(
        self, failover: Failover, probe: Probe, probe_interval: float, probe_timeout: float, reporter: Reporter
    ) -> None:
        self._failover = failover
        self._probe = probe
        self._probe_interval = probe_interval
        self._probe_timeout = probe_timeout
        self._reporter = reporter
        self._watchers: weakref.WeakSet[Watching] = weakref.WeakSet()
        self._at: dict[Where, weakref.WeakSet[Watching]] = {}
        self._probing: dict[Where, asyncio.Task[None]] = {}
        self._answered: dict[Where, float] = {}
        self._due: dict[str, float] = {}

    def add(self, watcher: Watching) -> None:
        """Count a watcher in."""
        self._watchers.add(watcher)

    def discard(self, watcher: Watching) -> None:
        """Count a watcher out."""
        self._watchers.discard(watcher)

    def attach(self, watcher: Watching, endpoint: str, address: str | None) -> None:
        """A watcher waits at an endpoint from now on."""
        where = endpoint, address
        here = self._at.get(where)
        if here is None:
            here = self._at[where] = weakref.WeakSet()
            self._probing[where] = asyncio.ensure_future(self._keep_probing(where, here, self._first_due(endpoint)))
        here.add(watcher)

    def detach(self, watcher: Watching, endpoint: str, address: str | None) -> None:
        """A watcher no longer waits at an endpoint; the last to leave ends the probing."""
        where = endpoint, address
        here = self._at.get(where)
        if here is not None:
            here.discard(watcher)
            if not here:
                del self._at[where]
                self._answered.pop(where, None)
                self._probing.pop(where).cancel()

    def _first_due(self, endpoint: str) -> float:
        """When to probe: an interval from now, or when that was due before all had left, be it long ago.

        Or an endpoint that ends each wait before the first probe would never be probed.
        """
        now = asyncio.get_running_loop().time()
        self._due = {each: due for each, due in self._due.items() if due > now - self._probe_interval}
        return self._due.setdefault(endpoint, now + self._probe_interval)

    @property
    def watching(self) -> int:
        """How many watchers there are."""
        return len(self._watchers)

    def is_probed(self, where: Where) -> bool:
        """Whether a place is probed anyway, for the sake of watches."""
        return where in self._at

    def answered_at(self, endpoint: str, address: str | None) -> float | None:
        """When an endpoint answered a probe for the last time."""
        return self._answered.get((endpoint, address))

    def leave(self, endpoints: Container[str]) -> None:
        """Leave what is not among these endpoints."""
        for (endpoint, _), watchers in list(self._at.items()):
            if endpoint not in endpoints:
                for watcher in list(watchers):
                    watcher.evict()

    def leave_all(self) -> None:
        """Leave every endpoint: what the streams there rest on is no more."""
        for watcher in list(self._watchers):
            watcher.evict()

    async def close(self) -> None:
        """Close every watcher, and end all probing; all of it begins to end at once."""
        probing = list(self._probing.values())
        watchers = list(self._watchers)
        for watcher in watchers:
            watcher.abort()
        for task in probing:
            task.cancel()
        self._probing.clear()
        self._at.clear()
        for watcher in watchers:
            await watcher.aclose()
        if probing:
            await asyncio.wait(probing)

    async def _ask(self, where: Where, within: float, *, thorough: bool) -> tuple[EndpointError | None, Health | None]:
        """Why there is no answer, and the answer."""
        endpoint = where[0]
        try:
            async with timeout(within):
                return None, await self._probe(*where, thorough)
        except asyncio.TimeoutError:
            return HeaderTimeoutError(endpoint, f"no answer to a probe within {within} s"), None
        except ClusterError as error:
            failure = error.errors[0]
            return (None if isinstance(failure, ConnectError) and failure.ours else failure), None
        except ClientClosedError as error:
            return EndpointError(endpoint, str(error)), None
        except EtcdError:
            return None, None  # it answers, and that is what was asked

    async def _keep_probing(self, where: Where, here: weakref.WeakSet[Watching], due: float) -> None:
        loop = asyncio.get_running_loop()
        thorough_at = loop.time() + THOROUGH_EVERY
        rest = random.uniform(*REST)
        while not self._failover.closed:
            await asyncio.sleep(max(0.0, due - loop.time()))
            due = self._due[where[0]] = max(due, loop.time()) + self._probe_interval
            thorough = loop.time() >= thorough_at
            if thorough:
                thorough_at = loop.time() + THOROUGH_EVERY
            problem = await self.why_leave(where, thorough=thorough)
            if problem is None:
                self._answered[where] = now = time.monotonic()
                for watcher in list(here):
                    watcher.renew_if_quiet_since(now - rest)
                rest = random.uniform(*REST)
            elif here:
                self._reporter.watches_leave(len(here), problem)
                self._failover.suspect(*where)
                for watcher in list(here):
                    watcher.evict()

    async def why_leave(self, where: Where, *, thorough: bool) -> EndpointError | None:
        """Why nobody should stay; `None` = they should: a member that is ill is left for a healthy one only."""
        silence, health = await self._ask(where, self._probe_timeout, thorough=thorough)
        if silence is not None or health is None or health.healthy:
            return silence
        others = self._failover.elsewhere(*where)
        asked = [asyncio.ensure_future(self._ask(other, self._probe_timeout, thorough=False)) for other in others]
        try:
            for task in asyncio.as_completed(asked):
                _, other = await task
                if other is not None and other.healthy:
                    return _illness(where[0], health)
        finally:
            for each in asked:
                each.cancel()
            if asked:
                await asyncio.wait(asked)
        return None


def _illness(endpoint: str, health: Health) -> EndpointError:
    return NoLeaderError(endpoint, f"it is not healthy: {health.reason or 'no leader'}")

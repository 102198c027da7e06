"""Whether the endpoints at which watches wait are alive: probes, and who leaves when one is not."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Container
from typing import Protocol

from async_timeout import timeout

from .._net.failover import Failover
from .._net.reporter import Reporter
from ..errors import ClientClosedError, ClusterError, EtcdError
from ..models import Health

Probe = Callable[[str], Awaitable[Health]]
"""Asks one endpoint, and no other, whether it is healthy."""


class Watching(Protocol):
    """What liveness needs of a watcher."""

    def evict(self) -> None:
        """Leave the endpoint; it does not answer."""

    def abort(self) -> None:
        """Stop watching."""

    async def aclose(self) -> None:
        """Stop watching, and wait until all of it has ended."""


class Liveness:
    """Keeps the watchers of a client at endpoints that are alive.

    While an endpoint has watchers it is probed, once per interval however many they are. One that does not answer, or
    that has no leader, loses its watchers to the others.

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
        self._at: dict[str, weakref.WeakSet[Watching]] = {}
        self._probing: dict[str, asyncio.Task[None]] = {}

    def add(self, watcher: Watching) -> None:
        """Count a watcher in."""
        self._watchers.add(watcher)

    def discard(self, watcher: Watching) -> None:
        """Count a watcher out."""
        self._watchers.discard(watcher)

    def attach(self, watcher: Watching, endpoint: str) -> None:
        """A watcher waits at an endpoint from now on."""
        here = self._at.get(endpoint)
        if here is None:
            here = self._at[endpoint] = weakref.WeakSet()
            self._probing[endpoint] = asyncio.ensure_future(self._keep_probing(endpoint, here))
        here.add(watcher)

    def detach(self, watcher: Watching, endpoint: str) -> None:
        """A watcher no longer waits at an endpoint; the last to leave ends the probing."""
        here = self._at.get(endpoint)
        if here is not None:
            here.discard(watcher)
            if not here:
                del self._at[endpoint]
                self._probing.pop(endpoint).cancel()

    def leave(self, endpoints: Container[str]) -> None:
        """Leave what is not among these endpoints."""
        for endpoint, watchers in list(self._at.items()):
            if endpoint not in endpoints:
                for watcher in list(watchers):
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

    async def problem(self, endpoint: str, within: float) -> str | None:
        """Why watchers should not stay at an endpoint; `None` = they should."""
        try:
            async with timeout(within):
                health = await self._probe(endpoint)
        except asyncio.TimeoutError:
            return f"no answer to a probe within {within} s"
        except ClusterError as error:
            return str(error.errors[0])
        except ClientClosedError as error:
            return str(error)
        except EtcdError:
            return None  # it answers, and that is what was asked
        if health.healthy or not self._failover.has_choice:
            return None
        return f"it is not healthy: {health.reason or 'no leader'}"

    async def _keep_probing(self, endpoint: str, here: weakref.WeakSet[Watching]) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not self._failover.closed:
            due = max(due + self._probe_interval, loop.time())
            await asyncio.sleep(due - loop.time())
            problem = await self.problem(endpoint, self._probe_timeout)
            if problem is not None and here:
                self._reporter.watches_leave(len(here), endpoint, problem)
                self._failover.suspect(endpoint)
                for watcher in list(here):
                    watcher.evict()

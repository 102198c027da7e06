"""What the watchers of one client share: the liveness of their endpoints, and a look at the keys now and then."""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections.abc import Callable, Container
from typing import Protocol

from async_timeout import timeout

from . import _response
from ._census import Census, take_census
from ._failover import Failover, OpenStream, one_line
from ._limits import Limits
from ._request import Request, build
from .errors import ClientClosedError, ClusterError, EtcdError, KeyNotFoundError, NotDirError
from .models import Node

logger = logging.getLogger("aioetcd2")

CENSUS_GRACE = 0.5
"""Seconds in which an event from before a count arrives, if there was one."""

COUNTING_AT_ONCE = 8

REGISTRATIONS_AT_ONCE = 128

LATE_BASE = 60.0
LATE_CAP = 3600.0
"""Seconds for which an endpoint is taken to hold back; doubled each time up to the cap."""

SILENCE = 0.05
"""Seconds after which a stream that may have been dropped is asked for again."""

HOLDING_BACK = 1.0
"""Seconds in which an endpoint answers a probe that has just left a wait without its header."""

HEALTH = build("GET", "/health")


class Watching(Protocol):
    """What the hub needs of a watcher."""

    def evict(self) -> None:
        """Leave the endpoint; it does not answer."""

    def shut(self) -> None:
        """Stop watching."""

    async def aclose(self) -> None:
        """Stop watching, and wait until all of it has ended."""


class WatchHub:
    """Serves all watchers of a client.

    While an endpoint has watchers it is probed with `GET /health`, once per interval however many they are. One that
    does not answer, or that has no leader, loses its watchers to the others.

    Args:
        failover: Carries the requests.
        probe_interval: Seconds between two probes of an endpoint.
        header_timeout: Seconds until a probe has failed; `None` = as long as the interval.

    Attributes:
        hush: Limits how long a stream may be silent that the server may have dropped.
        stuck: Limits how long the rest of half an event may take.
    """

    def __init__(self, failover: Failover, probe_interval: float, header_timeout: float | None) -> None:
        self.failover = failover
        self._late: dict[str, tuple[int, float]] = {}
        self._registering = asyncio.Semaphore(REGISTRATIONS_AT_ONCE)
        self._probe_interval = probe_interval
        self._probe_timeout = probe_interval if header_timeout is None else header_timeout
        self.hush = Limits(SILENCE)
        self.stuck = Limits(self._probe_timeout)
        self._watchers: weakref.WeakSet[Watching] = weakref.WeakSet()
        self._at: dict[str, weakref.WeakSet[Watching]] = {}
        self._probing: dict[str, asyncio.Task[None]] = {}
        self._counting = asyncio.Semaphore(COUNTING_AT_ONCE)
        self._outage = False

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
            self._probing[endpoint] = asyncio.ensure_future(self._probe(endpoint, here))
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
            watcher.shut()
        for task in probing:
            task.cancel()
        self._probing.clear()
        self._at.clear()
        for watcher in watchers:
            await watcher.aclose()
        if probing:
            await asyncio.wait(probing)

    def interrupted(self, key: str, error: EtcdError) -> None:
        """A watcher can't go on for now: one line for the whole outage, however many watchers."""
        if not self._outage:
            self._outage = True
            logger.warning("watches are interrupted, and go on trying; that of %s: %s", key or "/", one_line(error))

    def resumed(self, key: str) -> None:
        """A watcher is registered again after a failure."""
        if self._outage:
            self._outage = False
            logger.info("watches go on again, that of %s the first", key or "/")

    def resynchronized(self, key: str, index: int) -> None:
        """A watcher goes on behind a gap."""
        logger.info("watch of %s lost events up to index %d, and goes on from there", key or "/", index)

    @property
    def has_late(self) -> bool:
        """Whether an endpoint holds back the headers or events of waits."""
        return any(map(self.is_late, self._late))

    def is_late(self, endpoint: str | None) -> bool:
        """Whether this endpoint holds back the headers or events of waits, going by what it did not long ago."""
        if endpoint not in self._late:
            return False
        _, until = self._late[endpoint]
        return time.monotonic() < until

    async def open(self, make: Callable[[str], Request]) -> OpenStream:
        """Register a wait: not too many at once, or all of them would run into the header timeout together.

        Raises:
            EtcdError: As `Failover.open()` does.
        """
        if self.has_late:  # the header comes with the event
            return await self.failover.open(make)
        async with self._registering:
            return await self.failover.open(make)

    async def holds_back(self, endpoint: str) -> bool:
        """Whether an endpoint that fell silent in a wait answers otherwise: a buffering proxy, most likely."""
        if await self._problem(endpoint, min(self._probe_timeout, HOLDING_BACK)) is None:
            logger.info("%s holds back what a wait brings, as a buffering proxy does; using long polls", endpoint)
            times, _ = self._late.get(endpoint, (0, 0.0))
            self._late[endpoint] = (times + 1, time.monotonic() + min(LATE_BASE * 2.0**times, LATE_CAP))
            return True
        return False

    async def look(self, path: str, recursive: bool) -> tuple[int, Node | None]:
        """A subtree as it is now, and the index at which it was so."""
        query = [("recursive", "true")] if recursive else []
        try:
            response = await self.failover.read(build("GET", path, query=query))
        except (KeyNotFoundError, NotDirError) as absent:
            return absent.index, None
        return response.index, response.node

    async def census(self, path: str, recursive: bool, rest: float, cursor: Callable[[], int | None]) -> Census | None:
        """Count the nodes of a subtree, after a rest; `None` where that fails.

        Returns some time after the count, so that an event from before it has reached a watcher that is registered;
        at once where the watcher is there already.
        """
        await asyncio.sleep(rest)
        try:
            async with self._counting:
                index, node = await self.look(path, recursive)
        except EtcdError:
            return None
        if cursor() != index:
            await asyncio.sleep(CENSUS_GRACE)
        return take_census(index, node, recursive)

    async def _probe(self, endpoint: str, here: weakref.WeakSet[Watching]) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not self.failover.closed:
            due = max(due + self._probe_interval, loop.time())
            await asyncio.sleep(due - loop.time())
            problem = await self._problem(endpoint, self._probe_timeout)
            if problem is not None and here:
                logger.info("%d watches leave %s: %s", len(here), endpoint, problem)
                self.failover.suspect(endpoint)
                for watcher in list(here):
                    watcher.evict()

    async def _problem(self, endpoint: str, limit: float) -> str | None:
        """Why watchers should not stay at an endpoint; `None` = they should."""
        try:
            async with timeout(limit):
                health = await self.failover.at(endpoint, HEALTH, _response.health)
        except asyncio.TimeoutError:
            return f"no answer to a probe within {limit} s"
        except ClusterError as error:
            return str(error.errors[0])
        except ClientClosedError as error:
            return str(error)
        except EtcdError:
            return None  # it answers, and that is what was asked
        if health.healthy or not self.failover.has_choice:
            return None
        return f"it is not healthy: {health.reason or 'no leader'}"

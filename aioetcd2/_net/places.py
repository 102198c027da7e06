"""The connections of a caller's connector that lends only so many: who waits for one, and what holds them."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol
from weakref import WeakSet

import aiohttp

from .deadlines import Deadline
from .reporter import Reporter


class Holder(Protocol):
    """What holds a connection for as long as it likes: a stream."""

    @property
    def endpoint(self) -> str: ...
    @property
    def closed(self) -> bool: ...


class Wait:
    """A request that may have to wait for a connection.

    Attributes:
        waits: Whether it waits for one now.
    """

    __slots__ = ("_deadline", "waits")

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self.waits = False

    def turn(self, waits: bool) -> None:
        """Waiting begins, or ends: it has a time of its own, which is no part of what the request may take."""
        self.waits = waits
        self._deadline.begin_anew()


class Places:
    """The connections that a caller's connector lends at a time, to all of its sessions together.

    Args:
        connector: The caller's connector.
        reporter: Told, once, when it proves too small.
    """

    def __init__(self, connector: aiohttp.BaseConnector, reporter: Reporter) -> None:
        self._limit = connector.limit
        self._limit_per_host = connector.limit_per_host
        self._reporter = reporter
        self._told = False
        self._holders: WeakSet[Holder] = WeakSet()
        self._waiting: ContextVar[Wait] = ContextVar("waiting")

    @classmethod
    def of(cls, connector: aiohttp.BaseConnector | None, reporter: Reporter) -> Places | None:
        """The places of a connector; `None` where it lends as many as are asked for."""
        if connector is None or not (connector.limit or connector.limit_per_host):
            return None
        return cls(connector, reporter)

    def trace(self) -> aiohttp.TraceConfig:
        """What tells from aiohttp who waits."""
        config = aiohttp.TraceConfig()

        async def begins(*_: object) -> None:
            self._waiting.get().turn(True)

        async def ends(*_: object) -> None:
            self._waiting.get().turn(False)

        config.on_connection_queued_start.append(begins)
        config.on_connection_queued_end.append(ends)
        return config

    def lend(self, deadline: Deadline) -> Wait:
        """Take note of it when the request that this task sends next has to wait for a connection."""
        wait = Wait(deadline)
        self._waiting.set(wait)
        return wait

    def held_by(self, holder: Holder) -> None:
        """A stream holds a connection until it is closed."""
        self._holders.add(holder)
        if not self._told and self._is_used_up(holder.endpoint):
            self._told = True
            self._reporter.connector_is_small(self.words(holder.endpoint))

    def words(self, endpoint: str) -> str:
        """What is the matter, and what to do, where none is free."""
        limits = {"limit": self._limit, "limit_per_host": self._limit_per_host}
        given = " and ".join(f"{name}={limit}" for name, limit in limits.items() if limit)
        held = f"{self._held_at(None)} watches are open, {self._held_at(endpoint)} of them at {endpoint}"
        return f"the connector given to this client has {given}, and {held}; give it a higher limit, or 0 for none"

    def ran_out(self, endpoint: str) -> str:
        """No connection came free in time: why, in words."""
        words = self.words(endpoint)
        if not self._told:
            self._told = True
            self._reporter.connector_is_small(words)
        return words

    def _held_at(self, endpoint: str | None) -> int:
        return sum(not each.closed and endpoint in (None, each.endpoint) for each in self._holders)

    def _is_used_up(self, endpoint: str) -> bool:
        return (0 < self._limit <= self._held_at(None)) or (0 < self._limit_per_host <= self._held_at(endpoint))

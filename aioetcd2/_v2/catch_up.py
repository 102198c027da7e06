"""Fetching from the server's history what a stream that was opened from now on will not bring."""

from __future__ import annotations

import asyncio

from .._net.failover import Failover
from .._watching.opening import settle
from .._watching.steps import Fetch
from ..errors import ConnectionLostError, InvalidResponseError
from ..models import Response
from . import requests
from .stream import index_of, poll

BLOCKED = 0.25
"""Seconds in which a long poll is answered from history, if it is; more where opening the stream took long."""

MOST_POLLS = 64
"""How many long polls fetch the server's history side by side: each brings one event."""


class CatchUp:
    """Long polls for what happened between a watcher's position and the registration of its stream.

    Each brings one event, so that several go side by side: one where few events are ours, many where most are.

    Args:
        failover: Carries the requests.
        path: The encoded path that is watched.
        recursive: Whether all below it is watched, too.
    """

    __slots__ = ("_batch", "_failover", "_path", "_polls", "_recursive")

    def __init__(self, failover: Failover, path: str, recursive: bool) -> None:
        self._failover = failover
        self._path = path
        self._recursive = recursive
        self._batch = 0
        self._polls: list[tuple[int, asyncio.Task[Response | None]]] = []

    async def fetch(self, todo: Fetch, took: float, endpoint: str) -> Response | None:
        """The next event after the cursor; `None` where there is none in the history.

        Args:
            todo: After which index, and before which.
            took: How many seconds it took to open the stream.
            endpoint: Where that is, for an error.

        Raises:
            EventIndexClearedError: The server no longer holds it.
            ConnectionLostError: A poll was ended without an event.
            InvalidResponseError: What came was not asked for.
            ClusterError: No endpoint answered.
        """
        if not self._polls:
            self._batch = self._batch or (MOST_POLLS if todo.crowd else 1)
            for since in range(todo.after, min(todo.after + self._batch, todo.until)):
                request = requests.wait(self._path, self._recursive, since, stream=False)
                self._polls.append((since, asyncio.ensure_future(poll(self._failover, request))))
        since, task = self._polls[0]
        await asyncio.wait((task,), timeout=max(BLOCKED, 4 * took))
        if not task.done():
            self._batch = 0
            return None
        self._polls.pop(0)
        if task.cancelled():
            raise ConnectionLostError(endpoint, "it was left, for it does not answer")
        try:
            event = task.result()
        except Exception:
            self._batch = max(self._batch // 4, 1)  # fewer are more likely to get through between two failures
            raise
        if event is None:
            raise ConnectionLostError(endpoint, "a poll ended without an event")
        index = index_of(event)
        if index <= since:
            raise InvalidResponseError(endpoint, f"event {index} is not one after {since}", status=200)
        if index >= todo.until:
            self._batch = 0  # all is fetched; another time begins as it is told then
        elif not self._polls:
            self._batch = min(self._batch * 4, MOST_POLLS) if index == since + 1 else max(self._batch // 2, 1)
        return event

    @property
    def tasks(self) -> list[asyncio.Task[Response | None]]:
        """What is under way."""
        return [task for _, task in self._polls]

    def evict(self) -> None:
        """Leave the endpoint, which does not answer."""
        for task in self.tasks:
            task.cancel()

    async def stop(self) -> None:
        """End all polls."""
        tasks = self.tasks
        self._polls.clear()
        for task in tasks:
            task.cancel()
        for task in tasks:
            await settle(task)

"""Fetching from the server's history what a stream that was opened from now on will not bring."""

from __future__ import annotations

import asyncio

from .._net.failover import Failover
from .._watching.opening import settle
from ..errors import ConnectionLostError, InvalidResponseError
from ..models import Response
from . import requests
from .stream import EventStream, index_of, poll

SERVER_BUFFER = 100
"""How many events the server keeps for a slow stream; when they are more it drops the stream without a word."""

BLOCKED = 0.25
"""Seconds in which a long poll is answered from history, if it is; more where opening the stream took long."""

CROWD = 3
"""Where at least one event in so many is ours, history is fetched index by index."""

MOST_POLLS = 64
"""How many long polls fetch the server's history side by side: each brings one event."""


class CatchUp:
    """Long polls for what happened between a watcher's position and the registration of its stream.

    Each brings one event, so that several go side by side: one where few events are ours, many where most are.

    Args:
        failover: Carries the requests.
        path: The encoded path that is watched.
        recursive: Whether all below it is watched, too.

    Attributes:
        needed: Whether the stream is, or is to be, opened from now on, and what was before it is to be fetched.
    """

    __slots__ = ("_batch", "_failover", "_path", "_polls", "_recursive", "needed")

    def __init__(self, failover: Failover, path: str, recursive: bool) -> None:
        self._failover = failover
        self._path = path
        self._recursive = recursive
        self._batch = 1
        self._polls: list[tuple[int, asyncio.Task[Response | None]]] = []
        self.needed = False

    def expect(self, crowd: bool) -> None:
        """Decide how to go on: with a stream from now on at once where most of many events are ours."""
        self.needed = crowd
        self._batch = MOST_POLLS if crowd else 1

    def judge(self, over: EventStream) -> None:
        """Decide how to go on by what a wait has brought that is over."""
        if over.last > over.index:
            crowd = over.events >= max(SERVER_BUFFER, (over.last - over.index) // CROWD)
            self.expect(crowd and not over.ends)

    def slow_down(self) -> None:
        """After a failure: fewer polls at a time are more likely to get through between two of them."""
        if self._polls:
            self._batch = max(self._batch // 4, 1)

    async def fetch(self, cursor: int, live: EventStream) -> Response | None:
        """The next event after the cursor; `None` where there is none in the history.

        Raises:
            EventIndexClearedError: The server no longer holds it.
            ConnectionLostError: A poll was ended without an event.
            InvalidResponseError: What came was not asked for.
            ClusterError: No endpoint answered.
        """
        if not self._polls:
            for since in range(cursor, min(cursor + self._batch, live.index)):
                request = requests.wait(self._path, self._recursive, since, stream=False)
                self._polls.append((since, asyncio.ensure_future(poll(self._failover, request))))
        since, task = self._polls[0]
        try:
            await asyncio.wait((task,), timeout=max(BLOCKED, 4 * live.took))
        except BaseException:
            await self.stop()
            raise
        if not task.done():
            self.expect(crowd=False)
            return None
        self._polls.pop(0)
        if task.cancelled():
            raise ConnectionLostError(live.endpoint, "it was left, for it does not answer")
        event = task.result()
        if event is None:
            raise ConnectionLostError(live.endpoint, "a poll ended without an event")
        index = index_of(event)
        if index <= since:
            raise InvalidResponseError(live.endpoint, f"event {index} is not one after {since}", status=200)
        if not self._polls:
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

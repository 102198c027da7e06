"""Fetching the history of a key and of all below it apart, from servers whose recursive waits leave out the former."""

from __future__ import annotations

import asyncio

from async_timeout import timeout

from .._net.failover import Failover
from .._watching.steps import Fetch
from ..errors import ConnectionLostError
from ..models import Response
from . import requests, responses
from .catch_up import BLOCKED
from .stream import EventStream, index_of


class HistoryApart:
    """Long polls for what happened between a watcher's position and the registration of its stream, before etcd 3.1.

    Servers before 3.1 compare only the first event of the history that they scan with the key itself, and all others
    with the key and a slash behind it. So what happened to the key is asked for without what happened below it.

    Args:
        failover: Carries the requests.
        path: The encoded path that is watched.
    """

    __slots__ = ("_failover", "_next", "_path", "_until")

    def __init__(self, failover: Failover, path: str) -> None:
        self._failover = failover
        self._path = path
        self._until = 0
        self._next: dict[bool, Response | None] = {}  # of all below, and of the key itself

    async def fetch(self, todo: Fetch, took: float) -> Response | None:
        """The next event after the cursor; `None` where the server says that there is none before the open stream.

        Args:
            todo: After which index, and before which.
            took: How many seconds it took to open the stream.

        Raises:
            EventIndexClearedError: The server no longer holds it.
            ConnectionLostError: A poll was ended without an event, or the member lags behind that of the stream.
            ClusterError: No endpoint answered.
        """
        if self._until != todo.until:
            self._until = todo.until
            self._next.clear()
        for recursive in (True, False):
            known = self._next.get(recursive)
            if recursive not in self._next or (known is not None and index_of(known) <= todo.after):
                self._next[recursive] = await self._poll(todo, took, recursive=recursive)
        return min((each for each in self._next.values() if each is not None), key=index_of, default=None)

    async def _poll(self, todo: Fetch, took: float, *, recursive: bool) -> Response | None:
        request = requests.wait(self._path, recursive, todo.after, stream=False)
        wait = EventStream(await self._failover.open(lambda endpoint: request, responses.opened))
        try:
            if wait.index < todo.until:
                raise ConnectionLostError(wait.endpoint, "it lags behind the member that has the stream")
            async with timeout(max(BLOCKED, 4 * took)):
                while (events := await wait.read()) is not None:
                    for event in events:
                        return event if index_of(event) <= todo.until else None
            raise ConnectionLostError(wait.endpoint, "a poll ended without an event")
        except asyncio.TimeoutError:
            return None  # its header said that the history was searched up to there
        finally:
            wait.close()

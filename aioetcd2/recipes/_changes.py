"""What a reader has not read yet of the changes of a tree."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable

from ..errors import TreeBehindError
from ._copy import Change


class Changes(AsyncIterator[Change]):
    """One reader: some changes to begin with, and then those of each event.

    Nothing is lost where a task that waits in it is cancelled.

    Args:
        first: The changes to begin with.
        limit: How many events a reader may be behind.
    """

    __slots__ = ("__weakref__", "_error", "_events", "_limit", "_now", "_over", "_wake")

    def __init__(self, first: Iterable[Change], limit: int) -> None:
        self._now = iter(first)
        self._events: deque[list[Change]] = deque()
        self._limit = limit
        self._over = False
        self._error: Exception | None = None
        self._wake: asyncio.Future[None] | None = None

    def put(self, changes: list[Change]) -> None:
        """Take the changes of an event."""
        if self._over:
            return
        self._events.append(changes)
        if len(self._events) > self._limit:
            self._now = iter(())
            self._events.clear()
            self.end(TreeBehindError(f"a reader was more than {self._limit} changes behind; begin anew with changes()"))
        self._notify()

    def end(self, error: Exception | None) -> None:
        """There are no more changes than those; then comes an error, perhaps."""
        if self._over:
            return
        self._over = True
        self._error = error
        self._notify()

    async def __anext__(self) -> Change:
        while True:
            for change in self._now:
                return change
            if self._events:
                self._now = iter(self._events.popleft())
            elif self._error is not None:
                raise self._error.with_traceback(None)
            elif self._over:
                raise StopAsyncIteration
            else:
                await self._wait()

    async def _wait(self) -> None:
        if self._wake is not None:
            raise RuntimeError("another task is waiting for these changes; call changes() for each")
        self._wake = asyncio.get_running_loop().create_future()
        try:
            await self._wake
        finally:
            self._wake = None

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

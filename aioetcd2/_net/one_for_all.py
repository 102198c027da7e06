"""Work that several want at a time: it is done once, for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ..errors import ClientClosedError

T = TypeVar("T")


class _Shared:
    """Work, and how many wait for it."""

    __slots__ = ("task", "wanted")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task = task
        self.wanted = 0


class OneForAll:
    """Does the same work once at a time, however many want it; it ends with the last who waits for it."""

    def __init__(self) -> None:
        self._under_way: dict[object, _Shared] = {}

    async def do(self, what: object, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What comes of some work.

        Args:
            what: Which work it is.
            work: Begins it, where it is not under way.

        Raises:
            Exception: What the work raises.
            ClientClosedError: It was cancelled, as all of it is when the client is closed.
        """
        shared = self._under_way.get(what)
        if shared is None:
            shared = self._under_way[what] = _Shared(asyncio.ensure_future(work()))
            shared.task.add_done_callback(lambda done: self._done(what, done))
        task: asyncio.Task[T] = shared.task
        shared.wanted += 1
        try:
            await asyncio.wait((task,))
        finally:
            shared.wanted -= 1
            if not shared.wanted:
                task.cancel()
                self._leave(what, task)
        if task.cancelled():
            raise ClientClosedError("what was waited for was cancelled, as all is when the client is closed")
        return task.result()

    def forget(self) -> None:
        """Begin anew for all who come from now on; what is under way goes on for those who wait for it."""
        self._under_way.clear()

    async def close(self) -> None:
        """End what is under way."""
        tasks = [shared.task for shared in self._under_way.values()]
        self.forget()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _done(self, what: object, task: asyncio.Task[Any]) -> None:
        self._leave(what, task)
        if not task.cancelled():
            task.exception()  # or asyncio complains where nobody waits for it any more

    def _leave(self, what: object, task: asyncio.Task[Any]) -> None:
        shared = self._under_way.get(what)
        if shared is not None and shared.task is task:
            del self._under_way[what]

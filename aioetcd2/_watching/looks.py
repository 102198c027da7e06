"""Looks at what is watched: how it is now, and the index at which it was so. One look serves all watches of a path."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from .._net.one_for_all import OneForAll
from ..errors import APIError, EtcdError

if TYPE_CHECKING:
    from .steps import Seen

Read = Callable[[str, bool, bool], Coroutine[Any, Any, "Seen"]]
"""Reads a path, with all below it perhaps, with quorum perhaps: its index, and what is there."""

Ask = Callable[[str], Coroutine[Any, Any, Any]]
"""Reads a path with quorum: how far the cluster has come, in the words of an API."""

GRACE = 0.5
"""Seconds in which an event from before a look arrives, if there was one."""

AT_ONCE = 8

KEPT = 2.0
"""Seconds for which what was seen serves others, too, where it is not too old for them."""


class Looks:
    """Looks at paths for the watches of a client: one for all who want the same, few at once in the background.

    Args:
        read: Reads a path.
        ask: Asks how far the cluster has come.
    """

    def __init__(self, read: Read, ask: Ask) -> None:
        self._read = read
        self._ask = ask
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._age = 0
        self._one_for_all = OneForAll()
        self._kept: dict[tuple[str, bool], Seen] = {}
        self._timers: dict[tuple[str, bool], asyncio.TimerHandle] = {}

    async def look(self, path: str, recursive: bool, *, quorum: bool = False, at_least: int = 0) -> Seen:
        """What is at a path, with all below it perhaps.

        Args:
            path: The path.
            recursive: Whether all below it is looked at, too.
            quorum: Whether the whole cluster is asked.
            at_least: An index at which it has to be seen, if that can be had from a look that others have made.

        Raises:
            EtcdError: It can't be read.
        """
        age = self._age
        kept = self._kept.get((path, recursive))
        if kept is not None and kept[0] >= at_least > 0:
            return kept
        seen = await self._one_for_all.do((path, recursive, quorum), lambda: self._read(path, recursive, quorum))
        if seen[0] < at_least:  # it was under way before this one was wanted, perhaps
            seen = await self._one_for_all.do((path, recursive, quorum), lambda: self._read(path, recursive, quorum))
        if self._age == age:
            self._keep((path, recursive), seen)
        return seen

    async def ask(self, path: str) -> Any:
        """How far the cluster has come; one question at a time for all watches.

        Args:
            path: A path that may be read.

        Raises:
            EtcdError: There is no answer.
        """
        try:
            return await self._one_for_all.do(None, lambda: self._ask(path))
        except APIError:  # of another's path, perhaps
            return await self._ask(path)

    async def in_background(
        self, path: str, recursive: bool, rest: float, cursor: Callable[[], int | None], wanted: Callable[[], bool]
    ) -> Seen | None:
        """A look after a rest; `None` where that fails, or is not wanted any more when its turn has come.

        Returns some time after the look, so that an event from before it has reached a watcher that is registered; at
        once where the watcher is there already.

        Args:
            path: The path.
            recursive: Whether all below it is looked at, too.
            rest: Seconds before it.
            cursor: How far the watcher has come.
            wanted: Whether it is still of use; in an outage no look is, and hundreds would be tried.
        """
        await asyncio.sleep(rest)
        try:
            async with self._turn:
                if not wanted():
                    return None
                seen = await self.look(path, recursive, at_least=cursor() or 0)
        except EtcdError:
            return None
        if cursor() != seen[0]:
            await asyncio.sleep(GRACE)
        return seen

    def forget(self) -> None:
        """Forget what was seen: it is of another cluster, or of another life of this one."""
        self._age += 1
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._kept.clear()
        self._one_for_all.forget()

    async def close(self) -> None:
        """Forget all, and end what is under way."""
        await self._one_for_all.close()
        self.forget()

    def _keep(self, what: tuple[str, bool], seen: Seen) -> None:
        kept = self._kept.get(what)
        if kept is not None and kept[0] > seen[0]:
            return
        if (timer := self._timers.pop(what, None)) is not None:
            timer.cancel()
        self._kept[what] = seen
        self._timers[what] = asyncio.get_running_loop().call_later(KEPT, self._forget, what)

    def _forget(self, what: tuple[str, bool]) -> None:
        self._kept.pop(what, None)
        self._timers.pop(what, None)

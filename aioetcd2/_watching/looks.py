"""Looks at what is watched: how it is now, and the index at which it was so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ..errors import EtcdError
from ..models import Node

Look = Callable[[str, bool], Awaitable[tuple[int, Node | None]]]
"""Reads a path, with all below it perhaps: its index, and what is there."""

GRACE = 0.5
"""Seconds in which an event from before a look arrives, if there was one."""

AT_ONCE = 8


class Looks:
    """Looks at paths for the watches of a client, not too many at once in the background.

    Args:
        look: Reads a path.
    """

    def __init__(self, look: Look) -> None:
        self.look = look
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def in_background(
        self, path: str, recursive: bool, rest: float, cursor: Callable[[], int | None]
    ) -> tuple[int, Node | None] | None:
        """A look after a rest; `None` where that fails.

        Returns some time after the look, so that an event from before it has reached a watcher that is registered; at
        once where the watcher is there already.

        Args:
            path: The path.
            recursive: Whether all below it is looked at, too.
            rest: Seconds before it.
            cursor: How far the watcher has come.
        """
        await asyncio.sleep(rest)
        try:
            async with self._turn:
                index, node = await self.look(path, recursive)
        except EtcdError:
            return None
        if cursor() != index:
            await asyncio.sleep(GRACE)
        return index, node

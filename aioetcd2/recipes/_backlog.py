"""What is to be done of a queue, as told by the changes of a copy of it, and who of this process is at it. No requests.

An item is *free* where the copy has no claim to it and nobody of this process is at it. Of those the oldest one is
picked. What the copy does not tell yet is remembered until it does:

- an item that was done here: its end is to come;
- an item to which another was faster: the claim is to come. Where it came and went while events were lost, it never
  does; so this is forgotten after a while.

Processes that share a queue see the same items as the oldest ones, and all would try the same one. So each picks at
random among the first few: one, while it is alone; twice as many after each lost race, and a tenth less after each that
is won.
"""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_left, insort
from collections import deque

from ..models import Node
from ._copy import Change
from ._order import name_of
from ._places import Place

MOST = 64
"""The most items among which one is picked."""


class Backlog:
    """The items of a queue.

    Args:
        path: The directory of the queue as it was asked for; the server's keys may have more before it.
        ours: Items that somebody of this process tries or has, with the place that is their claim; kept up to date.
        memory: Seconds after which it is forgotten that another was faster.
    """

    def __init__(self, path: str, ours: dict[str, Place | None], memory: float) -> None:
        self.items: dict[str, Node] = {}
        self.error: Exception | None = None
        """What has ended the copy."""
        self._path = path
        self._ours = ours
        self._memory = memory
        self._claims: dict[str, Node] = {}
        self._index = 0
        self._free: list[int] = []
        self._names: dict[int, str] = {}
        self._done: set[str] = set()
        self._others: dict[str, asyncio.TimerHandle] = {}
        self._spread = 1.0
        self._waiting: deque[asyncio.Future[None]] = deque()

    # --- what is told ------------------------------------------------------------------------------------------------

    def take(self, change: Change) -> None:
        """Follow a change of the copy."""
        directory, name = change.key.rpartition("/")[0], name_of(change.key)
        self._index = change.index
        if directory.endswith(f"{self._path}/items"):
            self._drop(self.items.get(name))
            _put(self.items, name, change.after)
            if change.after is None:
                self._done.discard(name)
                self._forget(name)
        elif directory.endswith(f"{self._path}/claims"):
            _put(self._claims, name, change.after)
            self._forget(name)
            place = self._ours.get(name)
            if place is not None and change.index > place.token:
                place.seen(change.after)
        self._sort(name)

    def end(self, error: Exception) -> None:
        """No more will be told; those who wait get this error."""
        self.error = error
        for name in list(self._others):
            self._forget(name)
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    # --- who is at what ----------------------------------------------------------------------------------------------

    async def pick(self) -> str:
        """Wait for an item that is free, one of the oldest; nobody else of this process gets it until it is put back.

        Raises:
            Exception: What has ended the copy.
        """
        while self.error is None and not self._free:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                await waiter
            except BaseException:
                self._wake()
                raise
            finally:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
        if self.error is not None:
            raise self.error.with_traceback(None)
        name = self._names.pop(self._free.pop(random.randrange(min(len(self._free), int(self._spread)))))
        self._ours[name] = None
        return name

    def claimed(self, name: str, place: Place) -> None:
        """The item is claimed; the place is told from now on what becomes of its key."""
        self._ours[name] = place
        if self._index >= place.token:
            place.seen(self._claims.get(name))

    def lost(self, name: str) -> None:
        """Another has claimed the item."""
        if name not in self._claims:
            self._others[name] = asyncio.get_running_loop().call_later(self._memory, self._free_again, name)
        self.put_back(name)

    def put_back(self, name: str, *, done: bool = False) -> None:
        """Nobody of this process is at the item any more."""
        del self._ours[name]
        if done and name in self.items:
            self._done.add(name)
        self._sort(name)

    def spread(self, *, apart: bool) -> None:
        """Pick among more items, for another was faster; or among fewer."""
        self._spread = min(float(MOST), self._spread * 2) if apart else max(1.0, self._spread * 0.9)

    # --- the order ---------------------------------------------------------------------------------------------------

    def _sort(self, name: str) -> None:
        """See whether an item is free, and have it in its place then."""
        node = self.items.get(name)
        if node is None:
            return
        is_free = not (name in self._claims or name in self._ours or name in self._others or name in self._done)
        if not is_free:
            self._drop(node)
        elif node.created_index not in self._names:
            self._names[node.created_index] = name
            insort(self._free, node.created_index)
            self._wake()

    def _drop(self, node: Node | None) -> None:
        if node is not None and self._names.pop(node.created_index, None) is not None:
            del self._free[bisect_left(self._free, node.created_index)]

    def _wake(self) -> None:
        """Let one of those who wait have a look."""
        while self._free and self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _forget(self, name: str) -> None:
        timer = self._others.pop(name, None)
        if timer is not None:
            timer.cancel()

    def _free_again(self, name: str) -> None:
        self._forget(name)
        self._sort(name)


def _put(nodes: dict[str, Node], name: str, node: Node | None) -> None:
    if node is None:
        nodes.pop(name, None)
    else:
        nodes[name] = node

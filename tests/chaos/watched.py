"""Keys with one writer each and several watchers, and the ledgers in which both account for what they did and saw."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Awaitable, Iterable
from typing import TypeVar

from async_timeout import timeout

from aioetcd2 import (
    APIError,
    ClusterError,
    EventIndexClearedError,
    InvalidResponseError,
    KeyNotFoundError,
    KeysAPI,
    Node,
    Response,
    Watcher,
)

from .gauges import Durations, Stopwatch
from .ledger import Event, Ledger
from .recorder import STUCK

T = TypeVar("T")

END = "end"

WINDOW = 400
"""How far the writers go ahead of the slowest watcher: the server keeps 1,000 events, and this is no test of that."""

UNANSWERED = (ClusterError, InvalidResponseError)

REMOVALS = ("delete", "compareAndDelete", "expire")


def event_of(response: Response) -> Event:
    """What the answer to a write, or an event of a watch, says that happened."""
    node, before = response.node, response.prev_node
    assert node is not None
    if response.action in REMOVALS:
        assert before is not None
        return Event(node.modified_index, f"-{before.value}")
    return Event(node.modified_index, node.value or "")


class Book:
    """All ledgers, and what is known across them.

    Attributes:
        problems: Whatever was wrong.
        go: Whether writers may write.
        calls: How many calls went how.
        latency: How long calls took.
        delay: How long after the acknowledgement of a write an event came.
        delivered: How many events came.
        reopened: How often a watcher was closed, and another one went on from its index.
        newest: The highest index that was seen.
    """

    def __init__(self) -> None:
        self.ledgers: dict[str, Ledger] = {}
        self.problems: list[str] = []
        self.calls: Counter[str] = Counter()
        self.latency = Durations()
        self.delay = Durations()
        self.delivered = 0
        self.reopened = 0
        self.newest = 0
        self.go = asyncio.Event()
        self.go.set()
        self._at: dict[int, float] = {}

    def open(self, key: str) -> Ledger:
        """Begin a ledger."""
        ledger = self.ledgers[key] = Ledger(key, self.problems.append)
        return ledger

    def acknowledged(self, index: int) -> None:
        """Remember when a write was."""
        self._at[index] = time.monotonic()
        if len(self._at) > 2 * WINDOW:
            del self._at[next(iter(self._at))]

    def came(self, index: int) -> None:
        """An event has reached a watcher, perhaps before the writer has heard of it."""
        self.delivered += 1
        now = time.monotonic()
        self.delay.add(now - self._at.get(index, now))

    async def call(self, name: str, call: Awaitable[T]) -> T:
        """Make a call, and count how it went.

        Raises:
            AssertionError: It is stuck.
            APIError: It was refused.
            ClusterError: No endpoint answered.
        """
        how = "done"
        try:
            with Stopwatch(self.latency):
                async with timeout(STUCK):
                    result = await call
        except asyncio.TimeoutError:
            how = "stuck"
            raise AssertionError(f"{name} is stuck: no answer and no error within {STUCK:.0f} s") from None
        except APIError:
            how = "refused"
            raise
        except UNANSWERED as error:
            how = "lost" if error.maybe_applied else "not carried out"
            raise
        finally:
            self.calls[how] += 1
        if isinstance(result, Response):
            self.newest = max(self.newest, result.index)
        return result

    async def pace(self) -> None:
        """Hold back the writers while a watcher is far behind; go on until this is cancelled."""
        since = time.monotonic()
        while True:
            unseen = [ledger.oldest_unseen for ledger in self.ledgers.values()]
            oldest = min((index for index in unseen if index is not None), default=self.newest)
            if self.newest - oldest < WINDOW:
                self.go.set()
                since = time.monotonic()
            else:
                self.go.clear()
                if time.monotonic() - since > 2 * STUCK:
                    self.problems.append(f"a watcher is stuck: it does not get past index {oldest}")
                    self.go.set()
                    return
            await asyncio.sleep(0.05)


class Writer:
    """The only one who writes a key; each write is sent once, and is like no other."""

    def __init__(self, keys: KeysAPI, book: Book, key: str, dice: random.Random) -> None:
        self._keys = keys
        self._book = book
        self._key = key
        self._dice = dice
        self._ledger = book.open(key)
        self._values = itertools.count(1)
        self._node: Node | None = None
        self._sure = False

    async def run(self, pause: float, over: asyncio.Event) -> None:
        """Write at a rate, until the end."""
        while not over.is_set():
            await asyncio.sleep(pause * self._dice.uniform(0.5, 1.5))
            await self._book.go.wait()
            if await self._look():
                await self._write(f"{next(self._values)}")
            self._ledger.settle()

    async def finish(self) -> None:
        """Write the end, which takes effect once."""
        deadline = time.monotonic() + STUCK
        while True:
            assert time.monotonic() < deadline, f"{self._key}: the end can't be written"
            if not await self._look():
                await asyncio.sleep(0.1)
            elif self._node is not None and (self._node.value or "").startswith(END):
                break
            else:
                await self._write(f"{END}{next(self._values)}", last=True)
        self._ledger.settle()

    def close(self) -> None:
        """Settle all that is left; every watcher has had the end."""
        assert self._node is not None
        self._ledger.close(Event(self._node.modified_index, self._node.value or ""))

    async def _look(self) -> bool:
        """Learn what the key holds, where that is not known; true if it is known now."""
        if not self._sure:
            try:
                self._node = (await self._book.call("get", self._keys.get(self._key, quorum=True))).node
            except KeyNotFoundError:
                self._node = None
            except UNANSWERED:
                return False
            self._sure = True
        return True

    async def _write(self, value: str, *, last: bool = False) -> None:
        node, dice = self._node, self._dice
        ttl = None
        what = value
        if not last and dice.random() < 0.05:
            ttl = 1
            self._ledger.allow(f"-{value}")
        if node is None:
            name, call = "create", self._keys.create(self._key, value, ttl=ttl)
        elif not last and dice.random() < 0.15:
            what = f"-{node.value}"
            name, call = "delete", self._keys.delete(self._key, prev_index=node.modified_index)
        elif dice.random() < 0.5:
            name, call = "swap", self._keys.set(self._key, value, ttl=ttl, prev_value=node.value)
        else:
            name, call = "swap", self._keys.set(self._key, value, ttl=ttl, prev_index=node.modified_index)
        self._sure = False
        try:
            response = await self._book.call(name, call)
        except UNANSWERED as error:
            if error.maybe_applied:
                self._ledger.lose(what)
        except APIError:
            pass  # it has expired, or a write that was lost came late
        else:
            event = event_of(response)
            self._ledger.acknowledge(event)
            self._book.acknowledged(event.modified)
            self._node = None if name == "delete" else response.node
            self._sure = ttl is None


class Follower:
    """Watches one key, or a directory with several: mostly patiently, and mostly with one watcher.

    Attributes:
        registered: Set once the server has registered the watch.
    """

    def __init__(
        self, keys: KeysAPI, book: Book, path: str, ledgers: Iterable[Ledger], dice: random.Random, *, recursive: bool
    ) -> None:
        self._keys = keys
        self._book = book
        self._path = path
        self._recursive = recursive
        self._places = {ledger.key: (ledger, ledger.join()) for ledger in ledgers}
        self._waiting = set(self._places)
        self._dice = dice
        self._last = 0
        self.registered = asyncio.Event()

    def __str__(self) -> str:
        return f"the watcher of {self._path} that has got to {self._last}, and has no end of {sorted(self._waiting)}"

    async def run(self) -> None:
        """Follow until the end of every key."""
        after: int | None = None
        while self._waiting:
            watcher = self._keys.watch(self._path, recursive=self._recursive, after_index=after)
            try:
                async with watcher:
                    self.registered.set()
                    after = await self._follow(watcher)
                    self._book.reopened += 1
            except UNANSWERED:  # a new one can't be registered at this moment
                await asyncio.sleep(0.2)
            except EventIndexClearedError as error:
                self._book.problems.append(f"{self}: {error}")
                after = error.index

    async def _follow(self, watcher: Watcher) -> int | None:
        """Take events until the end, or until it is time for another watcher, which goes on at the index returned."""
        while self._waiting:
            patience = self._dice.uniform(0.0, 0.05) if self._dice.random() < 0.1 else None
            try:
                async with timeout(patience):
                    response = await watcher.next()
            except asyncio.TimeoutError:
                continue
            except UNANSWERED as error:
                raise AssertionError(f"{self} gave up: {error}") from error
            self._take(response)
            if self._dice.random() < 0.005:
                break
        return watcher.index

    def _take(self, response: Response) -> None:
        event = event_of(response)
        self._book.came(event.modified)
        if event.modified <= self._last:
            self._book.problems.append(f"{self} got {event}")
        self._last = event.modified
        assert response.node is not None
        ledger, number = self._places[response.node.key]
        ledger.see(number, event)
        if event.what.startswith(END):
            self._waiting.discard(ledger.key)

"""Watching: every event after a point, each once, in order, or one clear error."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType

from async_timeout import timeout
from msgspec import Struct

from . import _response
from ._failover import Failover, OpenStream
from ._request import build
from .errors import (
    ClientClosedError,
    ClusterError,
    ConnectionLostError,
    EtcdError,
    EventIndexClearedError,
    InvalidResponseError,
    KeyNotFoundError,
    NotDirError,
)
from .models import Node, Response

__all__ = ["Watcher"]

logger = logging.getLogger("aioetcd2")

DELETIONS = ("delete", "expire", "compareAndDelete")

BACKOFF_BASE = 0.05
BACKOFF_CAP = 3.0

MAX_EVENT = 64 << 20
"""The most that is read of one event; its value and the previous one are 10 MB each at most, escapes included 120."""

CENSUS_GRACE = 0.5
"""Seconds in which an event from before a count arrives, if there was one."""

CENSUS_REST = 5.0
CENSUS_REST_CAP = 60.0
"""Seconds until a watcher counts its keys again, if their number is no longer known; doubled each time up to the cap."""

_MANY_SLASHES = re.compile("//+")


class Census(Struct, frozen=True):
    """How many nodes there were at an index: what tells an undisturbed subtree from one in which keys were deleted."""

    index: int
    count: int


class WatchHub:
    """What the watchers of one client share.

    Attributes:
        failover: Carries their requests.
        settled: Seconds after which a wait without an event proves that nothing matched when it was registered.
    """

    def __init__(self, failover: Failover, settled: float) -> None:
        self.failover = failover
        self.settled = settled
        self._watchers: weakref.WeakSet[Watcher] = weakref.WeakSet()
        self._counting = asyncio.Semaphore(8)
        self._outage = False

    def add(self, watcher: Watcher) -> None:
        """Count a watcher in."""
        self._watchers.add(watcher)

    def discard(self, watcher: Watcher) -> None:
        """Count a watcher out."""
        self._watchers.discard(watcher)

    def interrupted(self, key: str, error: EtcdError) -> None:
        """A watcher can't go on for now: one line for the whole outage, however many watchers."""
        if not self._outage:
            self._outage = True
            logger.warning("watches are interrupted, and go on trying; that of %s: %s", key or "/", error)

    def resumed(self, key: str) -> None:
        """A watcher is registered again after a failure."""
        if self._outage:
            self._outage = False
            logger.info("watches go on again, that of %s the first", key or "/")

    async def close(self) -> None:
        """Close every watcher."""
        for watcher in list(self._watchers):
            await watcher.aclose()

    async def census(self, path: str, recursive: bool, rest: float) -> Census | None:
        """Count the nodes of a subtree, after a rest; `None` where that fails.

        Returns some time after the count, so that an event from before it has reached a watcher that is registered.
        """
        await asyncio.sleep(rest)
        try:
            async with self._counting:
                index, node = await self.look(path, recursive)
        except EtcdError:
            return None
        await asyncio.sleep(CENSUS_GRACE)
        return Census(index, _count(node, recursive))

    async def look(self, path: str, recursive: bool) -> tuple[int, Node | None]:
        """A subtree as it is now, and the index at which it was so."""
        query = [("recursive", "true")] if recursive else []
        try:
            response = await self.failover.read(build("GET", path, query=query))
        except (KeyNotFoundError, NotDirError) as absent:
            return absent.index, None
        return response.index, response.node


class Watcher:
    """The events of a key, or of a directory and all below it; made by `client.keys.watch()`.

    An async iterator of `Response`, and an async context manager that enters once the server has registered the
    watch: a write that starts after that is seen.

    The watcher resumes by itself whatever the network and the members do. It raises where that is impossible:
    `EventIndexClearedError` where the server no longer holds the events and something under the key has changed, an
    `APIError` where it is refused (`UnauthorizedError`), `ClusterError` where no endpoint can be reached for the first
    registration. Later outages are waited out; a deadline is the caller's `asyncio.timeout()`.

    Cancelling `next()` loses no event: the next `next()` gives it. One task at a time may wait.

    It rests on etcd's long poll (`wait=true`, `waitIndex`) and on the last 1,000 events that a member keeps.

    Example:
        >>> async for event in client.keys.watch("/services", recursive=True):
        ...     print(event.action, event.node.key, event.node.value)
    """

    __slots__ = (
        "__weakref__",
        "_census",
        "_censuses",
        "_closed",
        "_counting",
        "_cursor",
        "_delivered",
        "_hub",
        "_key",
        "_line",
        "_opened_at",
        "_opening",
        "_path",
        "_pending",
        "_recursive",
        "_registrations",
        "_resync",
        "_stream",
        "_troubles",
        "_waiting",
        "_wake",
    )

    def __init__(
        self, hub: WatchHub, path: str, key: str, recursive: bool, after_index: int | None, resync: bool
    ) -> None:
        self._hub = hub
        self._path = path
        self._key = _MANY_SLASHES.sub("/", f"/{key}").rstrip("/")
        self._recursive = recursive
        self._resync = resync
        self._cursor = after_index
        self._delivered = after_index
        self._pending: deque[Response] = deque()
        self._opening: asyncio.Task[OpenStream] | None = None
        self._stream: OpenStream | None = None
        self._opened_at = 0.0
        self._line = b""
        self._census: Census | None = None
        self._counting: asyncio.Task[Census | None] | None = None
        self._censuses = 0
        self._registrations = 0
        self._troubles = 0
        self._waiting = False
        self._closed = False
        self._wake: asyncio.Event | None = None
        hub.add(self)

    @property
    def index(self) -> int | None:
        """Where to resume: `watch(after_index=watcher.index)`. `None` before the first registration."""
        return self._delivered if self._pending else self._cursor

    async def __aenter__(self) -> Watcher:
        self._begin()
        try:
            while not self._registrations:
                await self._advance()
        except BaseException:
            await self.aclose()
            raise
        finally:
            self._waiting = False
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Watcher:
        return self

    async def __anext__(self) -> Response:
        try:
            return await self.next()
        except ClientClosedError:
            if self._closed and not self._hub.failover.closed:
                raise StopAsyncIteration from None
            raise

    def __del__(self) -> None:
        with suppress(AttributeError, RuntimeError):  # half built, or after the end of the event loop
            self._shut()

    async def next(self) -> Response:
        """Wait for the next event.

        Raises:
            EventIndexClearedError: Events are lost; the next call goes on behind them.
            APIError: The watch was refused.
            ClusterError: No endpoint could be reached to register it for the first time.
            ClientClosedError: The watcher or its client is closed.
        """
        self._begin()
        try:
            while not self._pending:
                await self._advance()
        finally:
            self._waiting = False
        event = self._pending.popleft()
        self._delivered = event.index if event.action == "resync" else _index_of(event)
        return event

    async def aclose(self) -> None:
        """Stop watching, and free the connection at once. Idempotent."""
        tasks = [task for task in (self._opening, self._counting) if task is not None]
        self._shut()
        for task in tasks:
            await _settle(task)

    def _shut(self) -> None:
        self._closed = True
        self._hub.discard(self)
        for task in (self._opening, self._counting):
            if task is not None:
                task.cancel()
        self._drop()
        if self._wake is not None:
            self._wake.set()

    def _begin(self) -> None:
        if self._closed:
            raise ClientClosedError("the watcher is closed")
        if self._waiting:
            raise RuntimeError("another task is waiting in this watcher; make one watcher for each")
        self._waiting = True

    async def _advance(self) -> None:
        """One step towards the next event: open a wait, or read from the one that is open."""
        try:
            if self._stream is None:
                await self._open()
            else:
                self._count_keys()
                await self._read(self._stream)
        except EventIndexClearedError as cleared:
            await self._cleared(cleared)
        except (ClusterError, ConnectionLostError, InvalidResponseError) as error:
            self._drop()
            if self._closed:
                raise ClientClosedError("the watcher is closed") from None
            if not self._registrations and not isinstance(error, ConnectionLostError):
                raise
            await self._back_off(error)

    async def _open(self) -> None:
        if self._opening is None:
            query = [("wait", "true")]
            if self._recursive:
                query.append(("recursive", "true"))
            if self._cursor is not None:
                query.append(("waitIndex", str(self._cursor + 1)))
            self._opening = asyncio.ensure_future(self._hub.failover.open(build("GET", self._path, query=query)))
        opening = self._opening
        try:
            await asyncio.wait((opening,))
        except BaseException:
            self._opening = None
            opening.cancel()
            await _settle(opening)
            raise
        self._opening = None
        if opening.cancelled():
            raise ClientClosedError("the watcher is closed")
        self._stream = opening.result()
        self._opened_at = asyncio.get_running_loop().time()
        index = _response.index(self._stream.head)
        self._hub.failover.saw(index)
        if self._cursor is None and index > 0:
            self._cursor = self._delivered = index
        self._registrations += 1
        if self._troubles:
            self._hub.resumed(self._key)

    async def _read(self, stream: OpenStream) -> None:
        try:
            piece = await stream.read()
        except ConnectionLostError:
            self._ended(stream)
            raise
        if not piece:
            productive = self._opened_at < 0
            self._ended(stream)
            if not productive:
                raise ConnectionLostError(stream.head.endpoint, "the wait ended without an event")
            return
        *lines, self._line = (self._line + piece).split(b"\n")
        for line in lines:
            if line.strip():
                self._take(_response.event(line, stream.head))
        if len(self._line) > MAX_EVENT:
            raise InvalidResponseError(stream.head.endpoint, f"an event is longer than {MAX_EVENT} bytes", status=200)

    def _take(self, event: Response) -> None:
        index = _index_of(event)
        if index <= (self._cursor or 0):
            return
        self._troubles = 0
        self._opened_at = -1.0
        self._cursor = index
        if not self._concerns(event):
            return
        self._census = _after(self._census, event, self._key, self._recursive)
        self._pending.append(event)

    def _concerns(self, event: Response) -> bool:
        """Whether the event is one of this watch; what the server hands out from its history is not always."""
        key = event.node.key.rstrip("/") if event.node is not None else ""
        if key == self._key:
            return True
        if key.startswith(f"{self._key}/"):
            return self._recursive and "/_" not in key[len(self._key) :]
        return event.action in DELETIONS and self._key.startswith(f"{key}/")

    def _ended(self, stream: OpenStream) -> None:
        """The wait is over; if it was a long one without an event, nothing had matched when it was registered."""
        if self._opened_at >= 0 and self._cursor is not None:
            if asyncio.get_running_loop().time() - self._opened_at > self._hub.settled:
                self._cursor = max(self._cursor, _response.index(stream.head))
                self._troubles = 0
        self._drop()

    def _drop(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        self._line = b""

    async def _back_off(self, error: EtcdError) -> None:
        """Wait a little longer with each failure in a row; the first is resumed at once."""
        self._troubles += 1
        if self._troubles == 1:
            return
        if self._troubles == 2:
            self._hub.interrupted(self._key, error)
        limit = min(BACKOFF_CAP, BACKOFF_BASE * 2.0 ** min(self._troubles, 16))
        self._wake = asyncio.Event()
        try:
            async with timeout(limit * random.uniform(0.5, 1.0)):
                await self._wake.wait()
        except asyncio.TimeoutError:
            pass
        finally:
            self._wake = None
        if self._closed:
            raise ClientClosedError("the watcher is closed")

    async def _cleared(self, cleared: EventIndexClearedError) -> None:
        """The server no longer holds the events after the cursor: see whether any of them was one of ours."""
        try:
            index, node = await self._hub.look(self._path, self._recursive)
        except ClusterError as error:
            if not self._registrations:
                raise
            await self._back_off(error)
            return
        lost = self._cursor is None or self._changed(node, self._cursor)
        self._cursor = index
        self._census = Census(index, _count(node, self._recursive))
        if not lost:
            await self._back_off(cleared)
            return
        if self._resync:
            logger.info("watch of %s lost events up to index %d; resynchronized", self._key or "/", index)
            self._pending.append(Response("resync", node, index=index))
            self._registrations += 1
            return
        self._delivered = index
        raise EventIndexClearedError(
            cleared.code,
            cleared.message,
            cleared.cause,
            index,
            cleared.status,
            endpoint=cleared.endpoint,
            request=f"watch {self._key or '/'}",
            hint=f"events are lost; read the key again and go on with after_index={index}, or watch with resync=True",
        )

    def _changed(self, node: Node | None, since: int) -> bool:
        """Whether anything under the key may have changed after an index, going by what is there now.

        A deletion leaves no trace but a smaller number of keys, so where that number is not known only a file that is
        still the same proves that nothing happened.
        """
        if any(each.modified_index > since for each in _walk(node, self._recursive)):
            return True
        if self._census is not None:
            return self._census.count != _count(node, self._recursive)
        return node is None or node.dir

    def _count_keys(self) -> None:
        """Count the keys in the background if their number is not known."""
        if self._census is not None or self._counting is not None:
            return
        rest = min(CENSUS_REST * 2.0 ** min(self._censuses - 1, 8), CENSUS_REST_CAP) if self._censuses else 0.0
        self._censuses += 1
        self._counting = asyncio.ensure_future(self._hub.census(self._path, self._recursive, rest))
        watcher, registration = weakref.ref(self), self._registrations
        self._counting.add_done_callback(lambda task: _counted(watcher(), registration, task))


def _counted(watcher: Watcher | None, registration: int, task: asyncio.Task[Census | None]) -> None:
    """Believe a count that was taken while one wait was open throughout, or before which all events had come."""
    if watcher is None:
        return
    watcher._counting = None
    census = None if task.cancelled() else task.result()
    if census is not None and watcher._cursor is not None and watcher._cursor <= census.index:
        if watcher._stream is not None and watcher._registrations == registration:
            watcher._census = census


async def _settle(task: asyncio.Task[object]) -> None:
    """Wait for the end of a cancelled task, also where this task is cancelled meanwhile."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    if not task.cancelled():
        task.exception()
    if cancelled is not None:
        raise cancelled


def _index_of(event: Response) -> int:
    return event.node.modified_index if event.node is not None else 0


def _walk(node: Node | None, recursive: bool) -> Iterator[Node]:
    pending = [] if node is None else [node]
    while pending:
        each = pending.pop()
        yield each
        if recursive:
            pending.extend(each.nodes)


def _count(node: Node | None, recursive: bool) -> int:
    return sum(1 for _ in _walk(node, recursive))


def _after(census: Census | None, event: Response, key: str, recursive: bool) -> Census | None:
    """The census after an event; `None` where the event does not tell how many nodes came or went."""
    node = event.node
    if census is None or node is None or node.modified_index <= census.index:
        return census
    gone = event.action in DELETIONS
    own = node.key.rstrip("/")
    if gone and len(own) <= len(key):
        return Census(node.modified_index, 0)
    if not recursive:
        return Census(node.modified_index, 1)
    before = event.prev_node
    if gone and before is not None and not before.dir:
        return Census(node.modified_index, census.count - 1)
    if not gone and before is not None and before.dir == node.dir:
        return Census(node.modified_index, census.count)
    if not gone and before is None and census.count and own.rpartition("/")[0] == key:
        return Census(node.modified_index, census.count + 1)
    return None

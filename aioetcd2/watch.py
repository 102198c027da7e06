"""Watching: every event after a point, each once, in order, or one clear error."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from types import TracebackType

from ._catch_up import SERVER_BUFFER, CatchUp, settle
from ._counting import Counting
from ._failover import OpenStream
from ._hub import WatchHub
from ._progress import Progress
from ._request import Request
from ._wait import Wait, request_for
from .errors import (
    ClientClosedError,
    ClusterError,
    ConnectionLostError,
    ErrorCode,
    EtcdError,
    EventIndexClearedError,
    HeaderTimeoutError,
    InvalidResponseError,
)
from .models import Response

__all__ = ["Watcher"]

BACKOFF_BASE = 0.05
BACKOFF_CAP = 3.0

PATIENCE = 5
"""How often in a row a first registration may find that events were cleared, but none of ours."""

BLOCKED_FOR_SURE = 1.0
"""Seconds after which a wait that is cut off would have brought an event of the history, had there been one."""


class Watcher:
    """The events of a key, or of a directory and all below it; made by `client.keys.watch()`.

    An async iterator of `Response`, and an async context manager that enters once the server has registered the
    watch: a write that starts after that is seen.

    The watcher resumes by itself whatever the network and the members do. It raises where that is impossible:
    `EventIndexClearedError` where the server no longer holds the events and something under the key has changed, an
    `APIError` where it is refused (`UnauthorizedError`), `ClusterError` where no endpoint can be reached for the first
    registration. Later outages are waited out; a deadline is the caller's `asyncio.timeout()`.

    Cancelling `next()` loses no event: the next `next()` gives it. One task at a time may wait.

    It rests on etcd's streams and long polls (`wait=true`, `waitIndex`), and on the last 1,000 events that a member
    keeps. Nothing is read ahead of `next()` but what the connection holds, so that a slow consumer costs no memory; one
    that falls behind by more than the server keeps gets `EventIndexClearedError`.

    Example:
        >>> async for event in client.keys.watch("/services", recursive=True):
        ...     print(event.action, event.node.key, event.node.value)
    """

    # How the events are had. A stream from the moment of its registration brings all that follows, in order; but
    # - one that was asked for events since an index brings at most one of the server's history, and then nothing;
    # - one that falls silent after as many events as the server buffers may have been dropped.
    # So a stream since the cursor is opened; if it turns out to have brought history, a second one is opened from now
    # on (`_live`), and long polls fetch what happened between the cursor and its registration (`_catching`). Where most
    # of many events of the cluster are ours, that is done at once, and with a poll for each index in between.

    __slots__ = (
        "__weakref__",
        "_at",
        "_catching",
        "_closed",
        "_cluster",
        "_counting",
        "_entered",
        "_hub",
        "_live",
        "_opening",
        "_path",
        "_progress",
        "_recursive",
        "_registered",
        "_resync",
        "_step",
        "_troubles",
        "_waiting",
    )

    def __init__(
        self, hub: WatchHub, path: str, key: str, recursive: bool, after_index: int | None, resync: bool
    ) -> None:
        self._hub = hub
        self._path = path
        self._recursive = recursive
        self._resync = resync
        self._progress = Progress(key, recursive, after_index)
        self._step: asyncio.Task[None] | None = None
        self._opening: asyncio.Task[OpenStream] | None = None
        self._live: Wait | None = None
        self._cluster = ""
        self._at: str | None = None
        self._catching = CatchUp(hub.failover, path, recursive)
        self._counting = Counting(hub, path, recursive, self._progress)
        self._registered = False
        self._troubles = 0
        self._waiting = False
        self._entered = False
        self._closed = False
        hub.add(self)

    @property
    def index(self) -> int | None:
        """Where to resume: `watch(after_index=watcher.index)`. `None` before the first registration."""
        return self._progress.index

    async def __aenter__(self) -> Watcher:
        self._begin()
        self._entered = True
        try:
            while not self._registered:
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

    def __aiter__(self) -> AsyncIterator[Response]:
        return _Iteration(self)

    async def __anext__(self) -> Response:
        if self._progress.pending:
            return self._progress.pop()
        try:
            return await self.next()
        except ClientClosedError:
            if self._closed and not self._hub.failover.closed:
                raise StopAsyncIteration from None
            raise

    def __del__(self) -> None:
        with suppress(AttributeError, RuntimeError):  # half built, or after the end of the event loop
            self.shut()

    async def next(self) -> Response:
        """Wait for the next event.

        Raises:
            EventIndexClearedError: Events are lost; the next call goes on behind them.
            APIError: The watch was refused.
            ClusterError: No endpoint could be reached to register it for the first time.
            InvalidResponseError: All that could be reached for that are no etcd.
            ClientClosedError: The watcher or its client is closed.
        """
        self._begin()
        try:
            while not self._progress.pending:
                await self._advance()
        finally:
            self._waiting = False
        return self._progress.pop()

    async def aclose(self) -> None:
        """Stop watching, and free the connection at once. Idempotent."""
        tasks = [self._step, self._opening, self._counting.task, *self._catching.tasks]
        self.shut()
        for task in tasks:
            if task is not None:
                await settle(task)

    def rest(self) -> None:
        """Free the connection until the next event is asked for, but for a watcher that `async with` closes."""
        if not self._entered and not self._waiting:
            self._move(None)
            self.evict()

    def evict(self) -> None:
        """Leave the endpoint, which does not answer, for another."""
        if self._opening is not None:
            self._opening.cancel()
        if self._live is not None:
            self._live.close()
        self._catching.evict()

    def _begin(self) -> None:
        if self._closed:
            raise ClientClosedError("the watcher is closed")
        if self._waiting:
            raise RuntimeError("another task is waiting in this watcher; make one watcher for each")
        self._waiting = True

    def shut(self) -> None:
        """Stop watching, and free the connection, without waiting for the end of what is under way."""
        self._closed = True
        self._progress.give_up()
        self._hub.discard(self)
        self._move(None)
        self.evict()
        for task in (self._step, self._counting.task):
            if task is not None:
                task.cancel()

    def _move(self, endpoint: str | None) -> None:
        if endpoint != self._at:
            if self._at is not None:
                self._hub.detach(self, self._at)
            if endpoint is not None and not self._closed:
                self._hub.attach(self, endpoint)
            self._at = endpoint

    async def _advance(self) -> None:
        """One step towards the next event.

        Where this is cancelled, a step goes on that is more than listening, so that callers with little patience get
        there too, however long it takes to connect.
        """
        if self._closed:
            raise ClientClosedError("the watcher is closed")
        if self._step is None:
            if self._live is None or self._catching.needed:
                self._begin_step(self._reach())
            else:
                try:
                    await self._listen(self._live)
                except (ConnectionLostError, InvalidResponseError) as error:
                    if self._closed:
                        raise ClientClosedError("the watcher is closed") from None
                    self._begin_step(self._recover(error))
                else:
                    return
        step = self._step
        assert step is not None
        try:
            await asyncio.wait((step,))
        except BaseException:
            if self._opening is not None and self._hub.is_late(self._at):  # this is listening, as far as it goes there
                step.cancel()
                self._step = None
                await settle(step)
            raise
        self._step = None
        if step.cancelled():
            raise ClientClosedError("the watcher is closed")
        step.result()

    def _begin_step(self, work: Coroutine[None, None, None]) -> None:
        self._step = asyncio.ensure_future(work)
        self._step.add_done_callback(_heed)

    async def _reach(self) -> None:
        """Get to where events are heard: register a wait, or fetch what it will not bring."""
        try:
            if self._live is None:
                await self._open()
            else:
                await self._catch_up(self._live)
        except EventIndexClearedError as cleared:
            await self._drop()
            await self._cleared(cleared)
        except (ClusterError, ConnectionLostError, InvalidResponseError) as error:
            await self._recover(error)

    async def _recover(self, error: EtcdError) -> None:
        """Give up what has failed, and take breath."""
        self._catching.slow_down()
        await self._drop()
        if await self._late_headers(error):
            return
        if not self._registered and not isinstance(error, ConnectionLostError):
            raise error
        await self._back_off(error)

    async def _open(self) -> None:
        """Register a wait: for what follows if history is fetched apart, otherwise for all after the cursor."""
        if self._hub.has_late and not self._registered:  # the header might come with the first event only
            await self._begin_with_a_look()
            return
        since: int | None = None
        late = False

        def make(endpoint: str) -> Request:
            nonlocal since, late  # as it was asked: the endpoint may be found to be late meanwhile
            self._move(endpoint)
            late = self._hub.is_late(endpoint)
            since = None if self._catching.needed and not late else self._progress.cursor
            return request_for(self._path, self._recursive, since, stream=not late, patient=late)

        start = asyncio.get_running_loop().time()
        opening = self._opening = asyncio.ensure_future(self._hub.open(make))
        try:
            await asyncio.wait((opening,))
        except BaseException:
            opening.cancel()
            await settle(opening)
            if not opening.cancelled() and opening.exception() is None:  # it was too late to cancel it
                opening.result().close()
            raise
        finally:
            self._opening = None
        if opening.cancelled():
            raise ConnectionLostError(self._at or "", "it was left, for it does not answer")
        live = self._live = Wait(opening.result(), since, start, ends=late)
        self._move(live.endpoint)
        moved = self._cluster if live.cluster else ""
        self._cluster = live.cluster or self._cluster
        if moved and moved != live.cluster:
            raise _MovedError(live.cluster)
        if late:
            self._catching.needed = False
        self._hub.failover.saw(live.index)
        self._progress.begin(live.index)
        self._registered = True
        if self._troubles:
            self._hub.resumed(self._progress.key)
        self._counting.begin(live)

    async def _listen(self, live: Wait) -> None:
        self._counting.begin(live)
        limits = self._hub.hush if live.events >= SERVER_BUFFER else self._hub.stuck if live.halfway else None
        start = time.monotonic()
        try:
            if limits is None:
                events = await live.read()
            else:
                limits.check(live.silence)
                with limits.begin():
                    events = await live.read()
        except asyncio.TimeoutError:
            if live.halfway:
                await self._hub.holds_back(live.endpoint)
            await self._drop()
            return
        except asyncio.CancelledError:
            live.silence += time.monotonic() - start  # who waits a little at a time has waited as well
            raise
        except ConnectionLostError:
            live.silence += time.monotonic() - start
            if live.silence > BLOCKED_FOR_SURE and not live.closed:
                self._was_blocked(live)
            raise
        if events is None:
            live.silence += time.monotonic() - start
            self._was_blocked(live)
            await self._drop()
            if not live.useful:
                raise ConnectionLostError(live.endpoint, "the wait ended without an event")
            return
        live.silence = 0.0
        for event in events:
            if self._take(event):
                live.useful = True
        self._hub.failover.saw(live.last)
        if live.since is not None and 0 < live.last <= live.index and not live.ends:
            await self._drop()
            self._catching.needed = True

    async def _catch_up(self, live: Wait) -> None:
        """Fetch what happened between the cursor and the registration of the live stream."""
        if self._progress.reached < live.index:
            event = await self._catching.fetch(self._progress.reached, live)
            if event is None:  # a stream since the cursor will bring what follows
                await self._drop()
                return
            self._take(event)
        if self._progress.reached >= live.index:
            self._catching.needed = False
            await self._catching.stop()

    def _take(self, event: Response) -> bool:
        """Move on to an event; false if it was known already."""
        new = self._progress.take(event)
        if new:
            self._troubles = 0
        return new

    def _was_blocked(self, live: Wait) -> None:
        """The wait is over; if it brought nothing, then nothing had matched when it was registered."""
        if live.since is not None and not live.last and not live.halfway and live.index > live.since:
            self._progress.cursor = live.index
            if live.silence > BLOCKED_FOR_SURE:
                self._troubles = 0

    async def _drop(self) -> None:
        live = self._live
        if live is not None:
            live.close()
            self._live = None
            self._catching.judge(live)
        await self._catching.stop()

    async def _late_headers(self, error: EtcdError) -> bool:
        """Whether the header of a wait did not come because something holds it back, which is known then."""
        failures = error.errors if isinstance(error, ClusterError) else ()
        silent = [each.endpoint for each in failures if isinstance(each, HeaderTimeoutError)]
        late = [endpoint for endpoint in silent if not self._hub.is_late(endpoint)]
        if not any([await self._hub.holds_back(endpoint) for endpoint in late]):
            return False
        if not self._registered:
            try:
                await self._begin_with_a_look()
            except (ClusterError, InvalidResponseError):
                return False
        return True

    async def _begin_with_a_look(self) -> None:
        """Begin at the index of a look at the key, instead of one that the header of a wait names."""
        index, node = await self._hub.look(self._path, self._recursive)
        self._progress.begin_with(index, node)
        self._registered = True

    async def _back_off(self, error: EtcdError) -> None:
        """Wait a little longer with each failure in a row; the first is resumed at once."""
        self._troubles += 1
        if self._troubles == 1:
            return
        self._hub.interrupted(self._progress.key, error)
        limit = min(BACKOFF_CAP, BACKOFF_BASE * 2.0 ** min(self._troubles, 16))
        await asyncio.sleep(limit * random.uniform(0.5, 1.0))

    async def _cleared(self, cleared: EventIndexClearedError) -> None:
        """The server no longer holds the events after the cursor: see whether any of them was one of ours."""
        try:
            index, node = await self._hub.look(self._path, self._recursive)
        except (ClusterError, InvalidResponseError) as error:
            if not self._registered:
                raise
            await self._back_off(error)
            return
        progress = self._progress
        lost = isinstance(cleared, _MovedError) or progress.may_have_missed(node)
        self._catching.expect(crowd=lost and not self._hub.has_late)
        if not lost and (self._registered or self._troubles < PATIENCE):
            progress.skip(index, node)
            await self._back_off(cleared)
            return
        if self._resync:
            progress.resync(index, node)
            self._registered = True
            self._hub.resynchronized(progress.key, index)
            return
        progress.skip(index, node)
        raise EventIndexClearedError(
            cleared.code,
            cleared.message,
            cleared.cause,
            index,
            cleared.status,
            endpoint=cleared.endpoint,
            request=f"watch {progress.key or '/'}",
            hint=f"events are lost; read the key again and go on with after_index={index}, or watch with resync=True",
        )


class _MovedError(EventIndexClearedError):
    """The client has moved to another cluster, whose indexes have nothing to do with those of the first."""

    def __init__(self, cluster: str) -> None:
        super().__init__(
            ErrorCode.EVENT_INDEX_CLEARED, "The event in requested index is outdated and cleared", f"cluster {cluster}"
        )


class _Iteration:
    """One `async for` over a watcher: when it is over, the watcher rests."""

    __slots__ = ("_watcher",)

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def __aiter__(self) -> _Iteration:
        return self

    def __anext__(self) -> Coroutine[None, None, Response]:
        return self._watcher.__anext__()

    def __del__(self) -> None:
        with suppress(RuntimeError):  # after the end of the event loop
            self._watcher.rest()


def _heed(task: asyncio.Task[None]) -> None:
    """Look at the error of a step, for which perhaps no one waits any more."""
    if not task.cancelled():
        task.exception()

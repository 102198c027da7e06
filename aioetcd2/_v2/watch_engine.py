"""The engine of a watch in v2: registers waits, takes their events, fetches what they will not bring."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine

from .._net.request import Request
from .._watching.opening import Opening, consume_exception, settle
from .._watching.outage import Backoff
from .._watching.surroundings import Surroundings
from ..errors import (
    ClientClosedError,
    ClusterError,
    ConnectionLostError,
    EtcdError,
    EventIndexClearedError,
    HeaderTimeoutError,
    InvalidResponseError,
)
from ..models import Response
from . import requests, responses
from .catch_up import SERVER_BUFFER, CatchUp
from .counting import Counting
from .identity import Identity
from .lost_events import MovedError, lost
from .position import Position
from .stream import EventStream

PATIENCE = 5
"""How often in a row a first registration may find that events were cleared, but none of ours."""

BLOCKED_FOR_SURE = 1.0
"""Seconds after which a wait that is cut off would have brought an event of the history, had there been one."""


class WatchEngine:
    """Behind `Watcher`.

    Args:
        surroundings: What all watches of the client share.
        identity: What is known of the cluster.
        path: The encoded path that is watched.
        recursive: Whether all below it is watched, too.
        position: Where the watch begins.
        resync: Whether lost events are an event, instead of an error.

    Attributes:
        closed: Whether the watch has ended.
        registered: Whether it was registered once.
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
        "_backoff",
        "_catching",
        "_cluster",
        "_counting",
        "_identity",
        "_live",
        "_opening",
        "_path",
        "_position",
        "_recursive",
        "_resync",
        "_shared",
        "_step",
        "closed",
        "registered",
    )

    def __init__(
        self,
        surroundings: Surroundings,
        identity: Identity,
        path: str,
        recursive: bool,
        position: Position,
        resync: bool,
    ) -> None:
        self._shared = surroundings
        self._identity = identity
        self._path = path
        self._recursive = recursive
        self._resync = resync
        self._position = position
        self._step: asyncio.Task[None] | None = None
        self._opening = Opening()
        self._live: EventStream | None = None
        self._cluster = ""
        self._at: str | None = None
        self._catching = CatchUp(surroundings.failover, path, recursive)
        self._counting = Counting(surroundings.looks, path, recursive, position)
        self._backoff = Backoff(surroundings.outage, position.key)
        self.registered = False
        self.closed = False
        surroundings.liveness.add(self)

    @property
    def index(self) -> int | None:
        """The index up to which every event was given away."""
        return self._position.index

    @property
    def client_closed(self) -> bool:
        """Whether the whole client is closed."""
        return self._shared.failover.closed

    @property
    def has_event(self) -> bool:
        """Whether an event is there to be taken."""
        return bool(self._position.pending)

    def pop(self) -> Response:
        """Take the oldest event."""
        return self._position.pop()

    async def aclose(self) -> None:
        """Stop watching, and wait for the end of what is under way. Idempotent."""
        tasks = [self._step, self._opening.task, self._counting.task, *self._catching.tasks]
        self.abort()
        for task in tasks:
            if task is not None:
                await settle(task)

    def rest(self) -> None:
        """Free the connection until the next event is asked for."""
        self._move(None)
        self.evict()

    def evict(self) -> None:
        """Leave the endpoint, which does not answer, for another."""
        self._opening.call_off()
        if self._live is not None:
            self._live.close()
        self._catching.evict()

    def abort(self) -> None:
        """Stop watching, and free the connection, without waiting for the end of what is under way."""
        self.closed = True
        self._position.give_up()
        self._shared.liveness.discard(self)
        self._move(None)
        self.evict()
        for task in (self._step, self._counting.task):
            if task is not None:
                task.cancel()

    def _move(self, endpoint: str | None) -> None:
        if endpoint != self._at:
            if self._at is not None:
                self._shared.liveness.detach(self, self._at)
            if endpoint is not None and not self.closed:
                self._shared.liveness.attach(self, endpoint)
            self._at = endpoint

    async def advance(self) -> None:
        """One step towards the next event.

        Where this is cancelled, a step goes on that is more than listening, so that callers with little patience get
        there too, however long it takes to connect.
        """
        if self.closed:
            raise ClientClosedError("the watcher is closed")
        if self._step is None:
            if self._live is None or self._catching.needed:
                self._begin_step(self._reach())
            else:
                try:
                    await self._listen(self._live)
                except (ConnectionLostError, InvalidResponseError) as error:
                    if self.closed:
                        raise ClientClosedError("the watcher is closed") from None
                    self._begin_step(self._recover(error))
                else:
                    return
        step = self._step
        assert step is not None
        try:
            await asyncio.wait((step,))
        except BaseException:
            if self._opening.task is not None and self._shared.buffering.at(
                self._at
            ):  # this is listening, as far as it goes there
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
        self._step.add_done_callback(consume_exception)

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
        if await self._headers_held_back(error):
            return
        if not self.registered and not isinstance(error, ConnectionLostError):
            raise error
        await self._backoff.pause(error)

    async def _open(self) -> None:
        """Register a wait: for what follows if history is fetched apart, otherwise for all after the cursor."""
        if self._shared.buffering.anywhere and not self.registered:  # the header might come with the first event only
            await self._begin_with_a_look()
            return
        since: int | None = None
        buffers = False

        def make(endpoint: str) -> Request:
            nonlocal since, buffers  # as it was asked: the endpoint may be found to buffer meanwhile
            self._move(endpoint)
            buffers = self._shared.buffering.at(endpoint)
            since = None if self._catching.needed and not buffers else self._position.cursor
            return requests.wait(self._path, self._recursive, since, stream=not buffers, patient=buffers)

        start = asyncio.get_running_loop().time()
        stream = await self._opening.wait_for(self._shared.register(make, responses.opened))
        if stream is None:
            raise ConnectionLostError(self._at or "", "it was left, for it does not answer")
        live = self._live = EventStream(stream, since, start, ends=buffers)
        self._move(live.endpoint)
        moved = self._cluster if live.cluster else ""
        self._cluster = live.cluster or self._cluster
        if moved and moved != live.cluster:
            raise MovedError(live.cluster)
        self._catching.needed &= not buffers
        self._identity.reached(live.index)
        self._position.begin(live.index)
        self.registered = True
        if self._backoff.troubles:
            self._shared.outage.is_over(self._position.key)
        self._counting.begin(live)

    async def _listen(self, live: EventStream) -> None:
        self._counting.begin(live)
        deadlines = self._shared.hush if live.events >= SERVER_BUFFER else self._shared.stuck if live.halfway else None
        start = time.monotonic()
        try:
            if deadlines is None:
                events = await live.read()
            else:
                deadlines.check(live.silence)
                with deadlines.begin():
                    events = await live.read()
        except asyncio.TimeoutError:
            if live.halfway:
                await self._shared.buffering.judge(live.endpoint)
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
        self._identity.reached(live.last)
        if live.since is not None and 0 < live.last <= live.index and not live.ends:
            await self._drop()
            self._catching.needed = True

    async def _catch_up(self, live: EventStream) -> None:
        """Fetch what happened between the cursor and the registration of the live stream."""
        if self._position.reached < live.index:
            event = await self._catching.fetch(self._position.reached, live)
            if event is None:  # a stream since the cursor will bring what follows
                await self._drop()
                return
            self._take(event)
        if self._position.reached >= live.index:
            self._catching.needed = False
            await self._catching.stop()

    def _take(self, event: Response) -> bool:
        """Move on to an event; false if it was known already."""
        new = self._position.take(event)
        if new:
            self._backoff.end()
        return new

    def _was_blocked(self, live: EventStream) -> None:
        """The wait is over; if it brought nothing, then nothing had matched when it was registered."""
        if live.since is not None and not live.last and not live.halfway and live.index > live.since:
            self._position.cursor = live.index
            if live.silence > BLOCKED_FOR_SURE:
                self._backoff.end()

    async def _drop(self) -> None:
        live = self._live
        if live is not None:
            live.close()
            self._live = None
            self._catching.judge(live)
        await self._catching.stop()

    async def _headers_held_back(self, error: EtcdError) -> bool:
        """Whether the header of a wait did not come because something holds it back, which is known then."""
        failures = error.errors if isinstance(error, ClusterError) else ()
        silent = [each.endpoint for each in failures if isinstance(each, HeaderTimeoutError)]
        late = [endpoint for endpoint in silent if not self._shared.buffering.at(endpoint)]
        if not any([await self._shared.buffering.judge(endpoint) for endpoint in late]):
            return False
        if not self.registered:
            try:
                await self._begin_with_a_look()
            except (ClusterError, InvalidResponseError):
                return False
        return True

    async def _begin_with_a_look(self) -> None:
        """Begin at the index of a look at the key, instead of one that the header of a wait names."""
        index, node = await self._shared.looks.look(self._path, self._recursive)
        self._position.begin_with(index, node)
        self.registered = True

    async def _cleared(self, cleared: EventIndexClearedError) -> None:
        """The server no longer holds the events after the cursor: see whether any of them was one of ours."""
        try:
            index, node = await self._shared.looks.look(self._path, self._recursive)
        except (ClusterError, InvalidResponseError) as error:
            if not self.registered:
                raise
            await self._backoff.pause(error)
            return
        position = self._position
        missed = isinstance(cleared, MovedError) or position.may_have_missed(node)
        self._catching.expect(crowd=missed and not self._shared.buffering.anywhere)
        if not missed and (self.registered or self._backoff.troubles < PATIENCE):
            position.skip(index, node)
            await self._backoff.pause(cleared)
            return
        if self._resync:
            position.resync(index, node)
            self.registered = True
            self._shared.reporter.watch_resynchronized(position.key, index)
            return
        position.skip(index, node)
        raise lost(cleared, position.key, index)

"""What one watch says in v2: its requests, what their answers mean, its polls for history, its looks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Coroutine, Iterable
from typing import Any

from .._net.exchange import OpenStream
from .._net.failover import Failover
from .._net.request import Request, build
from .._watching import speaker
from .._watching.looks import Looks
from .._watching.steps import Answered, Cleared, Fetch, Fetched, Happening, NothingFetched, Refused, Registered, Seen
from ..errors import EtcdError, EventIndexClearedError
from ..models import Response, Version
from . import requests, responses
from .catch_up import CatchUp
from .counting import Counting
from .history_apart import HistoryApart
from .identity import Identity
from .position import Position
from .stream import EventStream, index_of


class WatchSpeaker:
    """Speaks v2 for one watch.

    Args:
        failover: Carries the requests.
        identity: What is known of the cluster.
        looks: Looks for all watches of the client.
        path: The encoded path that is watched.
        recursive: Whether all below it is watched, too.
        position: What the watch has heard.
    """

    __slots__ = (
        "_apart",
        "_asked_at",
        "_catch_up",
        "_counting",
        "_failover",
        "_identity",
        "_is_old",
        "_lags",
        "_life",
        "_looks",
        "_path",
        "_recursive",
        "_took",
        "_where",
    )

    def __init__(
        self, failover: Failover, identity: Identity, looks: Looks, path: str, recursive: bool, position: Position
    ) -> None:
        self._failover = failover
        self._identity = identity
        self._looks = looks
        self._path = path
        self._recursive = recursive
        self._apart = HistoryApart(failover, path)
        self._catch_up = CatchUp(failover, path, recursive)
        self._counting = Counting(looks, path, recursive, position)
        self._lags = False
        self._life = 0
        self._is_old = False
        self._asked_at = 0.0
        self._took = 0.0
        self._where = ""

    def wait(self, since: int | None, *, patient: bool) -> Request:
        """The request for a stream; a patient one is a long poll, whose header may come with its event."""
        self._asked_at = time.monotonic()
        return requests.wait(self._path, self._recursive, since, stream=not patient, patient=patient)

    def check(self, stream: OpenStream, request: Request) -> OpenStream:
        """The same stream, if its header is good."""
        return responses.opened(stream, request)

    def hear(self, stream: OpenStream, since: int | None, *, ends: bool) -> tuple[EventStream, Registered]:
        """A stream in the words of v2, and what its header says."""
        heard = EventStream(stream)
        index, raft_index, raft_term, cluster = heard.marks
        doubtful = self._identity.doubts(index, raft_index, raft_term)
        self._identity.reached(index, raft_index, raft_term)
        self._took = time.monotonic() - self._asked_at
        self._where = heard.endpoint
        self._lags = False
        self._life = self._identity.life
        return heard, Registered(index, since, cluster, self._life, doubtful, ends)

    async def reads_history(self) -> bool:
        """Whether a stream since an index begins with the first event after it; before etcd 3.1 it may leave it out."""
        self._is_old = self._recursive and await self._identity.is_old(self._ask_version)
        return not self._is_old

    def _ask_version(self) -> Awaitable[Version]:
        return self._failover.call(build("GET", "/version"), responses.version)

    async def fetch(self, todo: Fetch) -> Happening:
        """The next event of history; nothing where there is none, or where it is that of another life."""
        if self._is_old:
            event = await self._apart.fetch(todo, self._took)
        else:
            event = await self._catch_up.fetch(todo, self._took, self._where)
        if event is not None and self._identity.doubts(event.index, event.raft_index, event.raft_term):
            if not self._lags:
                await self.ask()
            self._lags = True  # if no more than that: it is known until another stream is open
        if self._identity.life != self._life:
            return NothingFetched()
        return NothingFetched(sure=self._is_old) if event is None else Fetched(event)

    @property
    def tasks(self) -> Iterable[asyncio.Task[object]]:
        """What is under way by itself."""
        return [task for task in (self._counting.task, *self._catch_up.tasks) if task is not None]

    def evict(self) -> None:
        """Leave the endpoint, which does not answer."""
        self._catch_up.evict()

    async def stop_fetching(self) -> None:
        """End what fetches."""
        await self._catch_up.stop()

    def look(self, *, quorum: bool, at_least: int) -> Coroutine[Any, Any, Seen]:
        """What is watched, and the index at which it was so."""
        return self._looks.look(self._path, self._recursive, quorum=quorum, at_least=at_least)

    async def ask(self) -> Answered:
        """How far the cluster has come, by a read with quorum that all watches share."""
        answer: Answered = await self._looks.ask(self._path)
        return answer

    def heard(self, events: list[Response]) -> None:
        """A stream brought events: the cluster has come that far."""
        if events:
            self._identity.reached(index_of(events[-1]))

    def listens(self, stream: speaker.EventStream) -> None:
        """The watch listens to a stream: its keys are counted, unless their number is known."""
        self._counting.begin(stream)

    def mapped(self, error: EtcdError) -> Happening:
        """What a refusal means."""
        return Cleared(error) if isinstance(error, EventIndexClearedError) else Refused(error)

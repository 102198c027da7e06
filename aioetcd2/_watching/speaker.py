"""What the driver needs of an API: streams in its words, and somebody who speaks it for one watch."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, Protocol

from .._net.exchange import OpenStream
from .._net.request import Request
from ..errors import EtcdError
from ..models import Response
from .steps import Answered, Fetch, Happening, Registered, Seen


class EventStream(Protocol):
    """A registered stream, in the words of an API."""

    endpoint: str
    address: str | None
    closed: bool
    registered_at: float
    heard_at: float
    silence: float

    @property
    def age(self) -> float: ...
    @property
    def halfway(self) -> bool: ...
    async def read(self) -> list[Response] | None: ...
    def close(self) -> None: ...


class Speaker(Protocol):
    """What one watch says in an API."""

    def wait(self, since: int | None, *, patient: bool) -> Request:
        """The request for a stream; where it may take as long as it likes until its header comes, for one event."""

    def check(self, stream: OpenStream, request: Request) -> OpenStream:
        """The same stream, if its header is good."""

    def hear(self, stream: OpenStream, since: int | None, *, ends: bool) -> tuple[EventStream, Registered]:
        """A stream in the words of the API, and what its header says."""

    async def reads_history(self) -> bool:
        """Whether a stream since an index begins with the first event after it."""

    async def fetch(self, todo: Fetch) -> Happening:
        """The next event of history, or nothing."""

    @property
    def tasks(self) -> Iterable[asyncio.Task[object]]:
        """What is under way by itself."""

    def evict(self) -> None:
        """Leave the endpoint, which does not answer."""

    async def stop_fetching(self) -> None:
        """End what fetches."""

    def look(self, *, quorum: bool, at_least: int) -> Coroutine[Any, Any, Seen]:
        """What is watched, and the index at which it was so."""

    async def ask(self) -> Answered:
        """How far the cluster has come."""

    def heard(self, events: list[Response]) -> None:
        """A stream brought events."""

    def listens(self, stream: EventStream) -> None:
        """The watch listens to a stream."""

    def mapped(self, error: EtcdError) -> Happening:
        """What a refusal means."""

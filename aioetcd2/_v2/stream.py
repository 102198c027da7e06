"""One stream of events at one endpoint: a long poll, which ends with its event, or one that goes on."""

from __future__ import annotations

import asyncio

from .._net.exchange import OpenStream
from .._net.failover import Failover
from .._net.request import Request
from ..errors import InvalidResponseError
from ..models import Response
from . import responses

MAX_EVENT = 64 << 20
"""The most that is read of one event; a value has at most 10 MB of text, and so has the previous one."""


class EventStream:
    """A wait that the server has registered.

    Attributes:
        endpoint: Where it is registered.
        since: The index after which events were asked for; `None` = after the registration.
        ends: Whether it is a long poll, which ends with its first event.
        index: The cluster's index at the registration. An event at or below it came from the server's history.
        cluster: The ID of the cluster.
        closed: Whether it was ended from here.
        took: How many seconds it took to register.
        useful: Whether it has brought an event that was not known.
        events: How many events have come.
        last: The index of the last one; 0 before the first.
        silence: How many seconds were waited for the next one so far.
    """

    __slots__ = (
        "_marks",
        "_rest",
        "_stream",
        "closed",
        "cluster",
        "endpoint",
        "ends",
        "events",
        "index",
        "last",
        "silence",
        "since",
        "took",
        "useful",
    )

    def __init__(self, stream: OpenStream, since: int | None, asked_at: float = 0.0, *, ends: bool = False) -> None:
        self._stream = stream
        self._marks = responses.marks(stream.head)
        self._rest = bytearray()
        self.endpoint = stream.head.endpoint
        self.since = since
        self.ends = ends
        self.index, _, _, self.cluster = self._marks
        self.closed = False
        self.took = asyncio.get_running_loop().time() - asked_at
        self.useful = False
        self.events = 0
        self.last = 0
        self.silence = 0.0

    @property
    def halfway(self) -> bool:
        """Whether a part of an event has come, and its rest has not."""
        return bool(self._rest)

    async def read(self) -> list[Response] | None:
        """The events that have come, perhaps none yet; `None` at the end. Cancelling this loses nothing.

        Raises:
            ConnectionLostError: The connection broke.
            InvalidResponseError: What came is no event.
        """
        piece = await self._stream.read()
        if not piece and not self._rest:
            return None
        lines, newline, rest = piece.rpartition(b"\n")
        if newline or not piece:  # the end ends the last line, too
            if self._rest:
                lines = bytes(self._rest) + lines
            self._rest = bytearray(rest)
        else:
            self._rest += rest
            if len(self._rest) > MAX_EVENT:
                raise InvalidResponseError(self.endpoint, f"an event is longer than {MAX_EVENT} bytes", status=200)
        events = responses.events(lines, self._marks, self._stream.head)
        if events:
            self.events += len(events)
            self.last = index_of(events[-1])
        return events

    def close(self) -> None:
        """Stop waiting, and free the connection. Idempotent."""
        self.closed = True
        self._stream.close()


def index_of(event: Response) -> int:
    """The index at which an event happened; 0 where a lying server names none."""
    return event.node.modified_index if event.node is not None else 0


async def poll(failover: Failover, request: Request) -> Response | None:
    """One long poll to its end: its event; `None` where the server ended it without one.

    Raises:
        EventIndexClearedError: The server no longer holds the events after that index.
        EndpointError: The connection broke.
        ClusterError: No endpoint answered.
    """
    stream = EventStream(await failover.open(lambda endpoint: request, responses.opened), None)
    event: Response | None = None
    try:
        while (events := await stream.read()) is not None:
            event = event or next(iter(events), None)
    finally:
        stream.close()
    return event

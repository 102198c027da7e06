"""One stream of events at one endpoint: a long poll, which ends with its event, or one that goes on."""

from __future__ import annotations

import time

from .._net.exchange import OpenStream
from .._net.failover import Failover
from .._net.request import Request
from ..errors import InvalidResponseError
from ..models import Response
from . import responses

MAX_EVENT = 160 << 20
"""The most that is read of one event. Two values of 9.9 MB, each byte escaped as six, are 130 MB: the most there is."""


class EventStream:
    """A wait that the server has registered.

    Attributes:
        endpoint: Where it is registered.
        address: The address that its connection has; `None` = not known.
        marks: What its header says: index, raft's index and term, cluster.
        closed: Whether it was ended from here.
        registered_at: When it was registered, by the monotonic clock.
        heard_at: When something was heard of it for the last time.
        silence: How many seconds were waited for the next event so far.
    """

    __slots__ = ("_rest", "_stream", "address", "closed", "endpoint", "heard_at", "marks", "registered_at", "silence")

    def __init__(self, stream: OpenStream) -> None:
        self._stream = stream
        self._rest = bytearray()
        self.endpoint = stream.head.endpoint
        self.address = stream.address
        self.marks = responses.marks(stream.head)
        self.closed = False
        self.registered_at = self.heard_at = time.monotonic()
        self.silence = 0.0

    @property
    def index(self) -> int:
        """The cluster's index at the registration. An event at or below it came from the server's history."""
        return self.marks[0]

    @property
    def age(self) -> float:
        """Seconds since it was registered."""
        return time.monotonic() - self.registered_at

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
        self.heard_at = time.monotonic()
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
        return responses.events(lines, self.marks, self._stream.head)

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
    stream = EventStream(await failover.open(lambda endpoint: request, responses.opened))
    event: Response | None = None
    try:
        while (events := await stream.read()) is not None:
            event = event or next(iter(events), None)
    finally:
        stream.close()
    return event

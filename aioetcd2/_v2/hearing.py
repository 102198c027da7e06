"""An open stream, as a watch hears it: what its header said, and what it has brought so far."""

from __future__ import annotations

from .._watching.steps import Heard, Patience, Read, Registered
from ..models import Response
from .stream import index_of

SERVER_BUFFER = 100
"""How many events the server keeps for a slow stream; when they are more it drops the stream without a word."""

CROWD = 3
"""Where at least one event in so many is ours, history is fetched index by index."""

_ENDLESS, _HUSHED, _HALFWAY = map(Read, (Patience.ENDLESS, Patience.HUSHED, Patience.HALFWAY))


class Hearing:
    """What is heard of one stream.

    Args:
        registered: What its header said.

    Attributes:
        registered: What its header said.
        index: The cluster's index at the registration.
        held: What came while a gap's look was awaited.
    """

    __slots__ = ("_events", "_halfway", "_last", "held", "index", "registered")

    def __init__(self, registered: Registered) -> None:
        self.registered = registered
        self.index = registered.index
        self._events = 0
        self._last = 0
        self._halfway = False
        self.held: list[Response] = []

    def hear(self, what: Heard) -> None:
        """Take note of what has come."""
        self._halfway = what.halfway
        if what.events:
            self._events += len(what.events)
            self._last = index_of(what.events[-1])

    @property
    def todo(self) -> Read:
        """How to listen on."""
        if self._events >= SERVER_BUFFER:
            return _HUSHED
        return _HALFWAY if self._halfway else _ENDLESS

    @property
    def is_history(self) -> bool:
        """Whether the last event came from the server's history: such a stream brings no other."""
        stream = self.registered
        return stream.since is not None and 0 < self._last <= stream.index and not stream.ends

    @property
    def has_ended_well(self) -> bool:
        """Whether it was to end with its first event, which has come: where the cluster is, it has said."""
        return self.registered.ends and self._events > 0

    @property
    def is_crowd(self) -> bool:
        """Whether most of many events since the registration were ours."""
        stream = self.registered
        if stream.ends or self._last <= stream.index:
            return False
        return self._events >= max(SERVER_BUFFER, (self._last - stream.index) // CROWD)

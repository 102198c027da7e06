"""Whose events a watch has heard: a cluster, and one life of its store."""

from __future__ import annotations

from .._watching.steps import Registered
from ..errors import EventIndexClearedError
from .lost_events import outdated


class Past:
    """What a watch believes of where its cursor comes from: what the header said of the last stream it listened to."""

    __slots__ = ("_cluster", "_life")

    def __init__(self) -> None:
        self._cluster = ""
        self._life: int | None = None

    def believe(self, stream: Registered) -> None:
        """What this stream brings belongs to it."""
        self._cluster = stream.cluster or self._cluster
        self._life = stream.life

    def believe_life(self, life: int) -> None:
        """The cluster as a whole has answered, in this life of its store."""
        self._life = life

    def forget(self) -> None:
        """Know of none: what the next header says is where it goes on."""
        self._cluster, self._life = "", None

    def is_of_life(self, life: int) -> bool:
        """Whether it may be of that life of the store."""
        return self._life in (None, life)

    def elsewhere(self, stream: Registered) -> EventIndexClearedError | None:
        """The error where a stream belongs to another cluster, or to another life of its store."""
        if self._cluster and stream.cluster and stream.cluster != self._cluster:
            return outdated(f"cluster {stream.cluster}")
        if stream.blind or self.is_of_life(stream.life):  # no header, no word of it
            return None
        return outdated("the store has begun anew")

"""Whose events a watch has heard: a cluster, and one life of its store."""

from __future__ import annotations

from ..errors import EventIndexClearedError
from .lost_events import outdated


class Past:
    """What a watch believes of where its cursor comes from: what the last header said, or the last answer beside it."""

    __slots__ = ("_cluster", "_life")

    def __init__(self) -> None:
        self._cluster = ""
        self._life: int | None = None

    def believe(self, cluster: str, life: int | None) -> None:
        """The watch goes on there; what is not known of it is as it was."""
        self._cluster = cluster or self._cluster
        self._life = self._life if life is None else life

    def begin_anew(self, cluster: str, life: int | None) -> None:
        """Where it was has been told as lost: it goes on there, as far as that is known."""
        self._cluster, self._life = cluster, life

    def elsewhere(
        self, cluster: str, life: int | None, index: int | None = None, reached: int = 0
    ) -> EventIndexClearedError | None:
        """The error where this is another cluster, or another life of its store.

        Args:
            cluster: The cluster that has answered; empty = not known.
            life: Which life of its store, as far as the client knows.
            index: How far it has come as a whole; `None` = not asked.
            reached: How far the watch has come.
        """
        if self._cluster and cluster and cluster != self._cluster:
            return outdated(f"cluster {cluster}")
        if index is not None and (index < reached or not self._is_of(life)):
            return outdated(f"the store has begun anew, and is at index {index}")
        return None if self._is_of(life) else outdated("the store has begun anew")

    def _is_of(self, life: int | None) -> bool:
        return life is None or self._life in (None, life)

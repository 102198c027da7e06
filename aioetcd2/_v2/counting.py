"""Counting the keys under a watch, so that a deletion among lost events can be told."""

from __future__ import annotations

import asyncio
from functools import partial

from .._watching.looks import Looks
from .._watching.speaker import EventStream
from .census import Subtree
from .position import Position

REST = 5.0
REST_CAP = 60.0
"""Seconds until the keys are counted again, where their number is no longer known; doubled each time up to the cap."""


class Counting:
    """Counts the keys of one watch in the background whenever their number is not known.

    Args:
        looks: Reads.
        path: The encoded path that is watched.
        recursive: Whether all below it is watched, too.
        position: Where the number belongs.

    Attributes:
        task: What is under way; `None` = nothing.
    """

    __slots__ = ("_live", "_looks", "_path", "_position", "_recursive", "_rest", "task")

    def __init__(self, looks: Looks, path: str, recursive: bool, position: Position) -> None:
        self._looks = looks
        self._path = path
        self._recursive = recursive
        self._position = position
        self._rest = 0.0
        self._live: EventStream | None = None
        self.task: asyncio.Task[tuple[int, Subtree] | None] | None = None

    def begin(self, live: EventStream) -> None:
        """Count, unless the number is known, or about to be."""
        self._live = live
        if self._position.census is not None or self.task is not None:
            return
        rest, self._rest = self._rest, min(self._rest * 2 or REST, REST_CAP)
        self.task = asyncio.ensure_future(
            self._looks.in_background(
                self._path, self._recursive, rest, lambda: self._position.cursor, lambda: not live.closed
            )
        )
        self.task.add_done_callback(partial(self._done, live))

    def _done(self, live: EventStream, task: asyncio.Task[tuple[int, Subtree] | None]) -> None:
        """Believe a count that was taken while one wait was open throughout, or before which all events had come."""
        self.task = None
        if task.cancelled():
            return
        look = task.result()
        if look is not None and not live.closed and self._position.reached <= look[0]:
            self._position.count(*look)
        latest = self._live
        if latest is not None and latest is not live and not latest.closed:  # it was opened while this one rested
            self.begin(latest)

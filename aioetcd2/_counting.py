"""Counting the keys under a watch, so that a deletion among lost events can be told."""

from __future__ import annotations

import asyncio
from functools import partial

from ._census import Census
from ._hub import WatchHub
from ._progress import Progress
from ._wait import Wait

REST = 5.0
REST_CAP = 60.0
"""Seconds until the keys are counted again, where their number is no longer known; doubled each time up to the cap."""


class Counting:
    """Counts the keys of one watch in the background whenever their number is not known.

    Args:
        hub: Counts.
        path: The encoded path that is watched.
        recursive: Whether all below it is watched, too.
        progress: Where the number belongs.

    Attributes:
        task: What is under way; `None` = nothing.
    """

    __slots__ = ("_hub", "_path", "_progress", "_recursive", "_rest", "task")

    def __init__(self, hub: WatchHub, path: str, recursive: bool, progress: Progress) -> None:
        self._hub = hub
        self._path = path
        self._recursive = recursive
        self._progress = progress
        self._rest = 0.0
        self.task: asyncio.Task[Census | None] | None = None

    def begin(self, live: Wait) -> None:
        """Count, unless the number is known, or about to be."""
        if self._progress.census is not None or self.task is not None:
            return
        rest, self._rest = self._rest, min(self._rest * 2 or REST, REST_CAP)
        self.task = asyncio.ensure_future(
            self._hub.census(self._path, self._recursive, rest, lambda: self._progress.cursor)
        )
        self.task.add_done_callback(partial(self._done, live))

    def _done(self, live: Wait, task: asyncio.Task[Census | None]) -> None:
        """Believe a count that was taken while one wait was open throughout, or before which all events had come."""
        self.task = None
        census = None if task.cancelled() else task.result()
        if census is not None and not live.closed and self._progress.reached <= census.index:
            self._progress.census = census

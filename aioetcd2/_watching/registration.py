"""Registering a stream for one watch: at the gate of an outage, in turn, by a long poll where headers are held back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from .._net.request import Request
from ..errors import ClusterError, ConnectionLostError, EtcdError, InvalidResponseError
from . import steps
from .buffering import HELD_BACK
from .opening import Opening
from .speaker import EventStream, Speaker
from .surroundings import Surroundings

Where = tuple[str, "str | None"]
"""An endpoint, and the address that a connection to it has, where its name may have others."""


class Registration:
    """Registers the streams of one watch, one at a time.

    Args:
        surroundings: What all watches of the client share.
        speaker: Says it in the words of an API.
        key: What is watched, for people.
        move: Told where the watch waits; `None` = nowhere.

    Attributes:
        opening: What is under way.
    """

    __slots__ = ("_key", "_move", "_shared", "_speaker", "opening")

    def __init__(
        self, surroundings: Surroundings, speaker: Speaker, key: str, move: Callable[[Where | None], None]
    ) -> None:
        self._shared = surroundings
        self._speaker = speaker
        self._key = key
        self._move = move
        self.opening = Opening()

    async def register(
        self, todo: steps.Open, *, again: bool
    ) -> tuple[EventStream, steps.Registered] | steps.Happening | None:
        """A stream and what its header says, or what came instead; `None` = to be tried in another way.

        Args:
            todo: Since when.
            again: Whether the watch was registered before.
        """
        shared = self._shared
        if shared.buffering.anywhere() and (todo.cursor is None or not again or not todo.sure):
            return steps.Registered(0, blind=True)
        asked = since = todo.since
        buffers = False
        where = ""

        def make(endpoint: str) -> Request:
            nonlocal where, since, buffers  # as it was asked: the endpoint may be found to buffer meanwhile
            where = endpoint
            self._move((endpoint, None))
            buffers = shared.buffering.at(endpoint)
            since = todo.cursor if buffers else asked
            return self._speaker.wait(since, patient=buffers)

        async def is_held_back() -> bool:
            return bool(where) and not buffers and await shared.buffering.judge(where)

        attempt = asyncio.current_task()  # a watch that rests and comes back at once has two for a moment
        if again and not shared.buffering.anywhere():  # there, an answer takes until the next event
            self._move(None)  # who waits here has left the endpoint
            await shared.outage.enter(attempt)
        start = time.monotonic()
        try:
            if asked is not None and not await self._speaker.reads_history():
                asked = None  # what is before it is fetched
            opening = shared.register(make, self._speaker.check)
            stream = await self.opening.wait_for(opening, shared.patience, is_held_back)
            if stream is not None:
                shared.outage.answered(self._key)  # before this one leaves: or the next tries alone, too
        except EtcdError as error:
            return await self._failed(error, attempt, buffers, time.monotonic() - start)
        finally:
            shared.outage.leave(attempt)
        if stream is not None:
            return self._speaker.hear(stream, since, ends=buffers)
        left = ConnectionLostError(where, "it was left, for it does not answer")
        return steps.Over(None if shared.buffering.anywhere() else left)

    async def _failed(self, error: EtcdError, attempt: object, buffers: bool, took: float) -> steps.Happening | None:
        outage = self._shared.outage
        if not isinstance(error, (ClusterError, InvalidResponseError)):
            outage.answered(self._key)
            return self._speaker.mapped(error)
        if buffers and took >= HELD_BACK:
            return steps.Over(None, took)  # it was held back for as long as a proxy has patience
        if await self._shared.buffering.explains(error, took):
            return None
        outage.failed(attempt, self._key, error)
        return steps.Failed(error)

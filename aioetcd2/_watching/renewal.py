"""Registering a quiet stream anew, on a fresh connection, before the old one is closed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from .._net.request import Request
from ..errors import ClusterError, ConnectionLostError, EtcdError, InvalidResponseError
from .opening import consume_exception
from .speaker import EventStream, Speaker
from .steps import Registered
from .surroundings import Surroundings

Renewed = Callable[[EventStream, "tuple[EventStream, Registered] | EtcdError"], None]
"""Told of the old stream, and of the new one or of a refusal."""


class Renewal:
    """Renews the stream of one watch, once for each rest.

    Args:
        surroundings: What all watches of the client share.
        speaker: Says it in the words of an API.
        renewed: Told what comes of it; where there is no answer, the old stream goes on.

    Attributes:
        task: What is under way; `None` = nothing.
    """

    __slots__ = ("_renewed", "_shared", "_speaker", "task")

    def __init__(self, surroundings: Surroundings, speaker: Speaker, renewed: Renewed) -> None:
        self._shared = surroundings
        self._speaker = speaker
        self._renewed = renewed
        self.task: asyncio.Task[None] | None = None

    def begin(self, old: EventStream, since: int | None) -> None:
        """Register anew, for what follows after an index."""
        if self.task is None:
            old.heard_at = time.monotonic()  # the next rest begins, whatever becomes of this
            self.task = asyncio.ensure_future(self._renew(old, since))
            self.task.add_done_callback(self._done)

    async def _renew(self, old: EventStream, since: int | None) -> None:
        def make(endpoint: str) -> Request:
            return self._speaker.wait(since, patient=False)

        try:
            if not await self._speaker.reads_history():
                since = None
            stream = await self._shared.register(make, self._speaker.check)
        except (ClusterError, ConnectionLostError, InvalidResponseError):
            return
        except EtcdError as error:
            self._renewed(old, error)
        else:
            if stream is None:
                return
            self._renewed(old, self._speaker.hear(stream, since, ends=False))

    def _done(self, task: asyncio.Task[None]) -> None:
        self.task = None
        consume_exception(task)

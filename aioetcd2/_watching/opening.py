"""The opening of a stream, which can be called off, and leaves no stream open that nobody took."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from .._net.exchange import OpenStream


class Opening:
    """Opens streams for one watch, one at a time.

    Attributes:
        task: What is under way; `None` = nothing.
    """

    __slots__ = ("task",)

    def __init__(self) -> None:
        self.task: asyncio.Task[OpenStream] | None = None

    async def wait_for(self, work: Coroutine[None, None, OpenStream]) -> OpenStream | None:
        """The stream that comes of it; `None` where it was called off.

        Raises:
            EtcdError: As `work` does.
        """
        task = self.task = asyncio.ensure_future(work)
        try:
            await asyncio.wait((task,))
        except BaseException:
            task.cancel()
            await settle(task)
            if not task.cancelled() and task.exception() is None:  # it was too late to cancel it
                task.result().close()
            raise
        finally:
            if self.task is task:  # not another that was begun while this one ended
                self.task = None
        return None if task.cancelled() else task.result()

    def call_off(self) -> None:
        """Leave the endpoint, which does not answer."""
        if self.task is not None:
            self.task.cancel()


async def settle(task: asyncio.Task[object]) -> None:
    """Wait for the end of a cancelled task, also where this task is cancelled meanwhile."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    consume_exception(task)
    if cancelled is not None:
        raise cancelled


def consume_exception(task: asyncio.Task[object]) -> None:
    """Look at the error of a task, for which perhaps no one waits any more."""
    if not task.cancelled():
        task.exception()

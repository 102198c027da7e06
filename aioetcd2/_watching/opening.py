"""The opening of a stream, which can be called off, and leaves no stream open that nobody took."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from .._net.exchange import OpenStream


class Opening:
    """Opens streams for one watch, one at a time.

    Attributes:
        task: What is under way; `None` = nothing.
    """

    __slots__ = ("task",)

    def __init__(self) -> None:
        self.task: asyncio.Task[OpenStream | None] | None = None

    async def wait_for(
        self,
        work: Coroutine[None, None, OpenStream | None],
        patience: float | None,
        is_held_back: Callable[[], Awaitable[bool]],
    ) -> OpenStream | None:
        """The stream that comes of it; `None` where it was called off.

        Args:
            work: Opens a stream.
            patience: After how many seconds, each time, to ask whether it is held back; `None` = `work` has its limits.
            is_held_back: Whether it is; then it is called off.

        Raises:
            EtcdError: As `work` does.
        """
        task = self.task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait((task,), timeout=patience))[0]:
                if await is_held_back():
                    task.cancel()
        except BaseException:
            task.cancel()
            await settle(task)
            if not task.cancelled() and task.exception() is None and (late := task.result()) is not None:
                late.close()  # it was too late to cancel it
            raise
        finally:
            if self.task is task:  # not another that was begun while this one ended
                self.task = None
        return None if task.cancelled() else task.result()

    def call_off(self) -> None:
        """Leave the endpoint, which does not answer."""
        if self.task is not None:
            self.task.cancel()


def cancel_all(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel those that there are."""
    for task in filter(None, tasks):
        task.cancel()


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

"""What recipes await so that a cancellation leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def finished(work: Coroutine[Any, Any, T], grace: float) -> T:
    """Carry out what must not be left half done; a cancellation waits for it, and goes on after that.

    Args:
        work: What is to be done.
        grace: The most seconds that it gets after a cancellation. What is not done by then is cancelled, too.
    """
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    cancellation: asyncio.CancelledError | None = None
    end: float | None = None
    while not task.done():
        try:
            await asyncio.wait([task], timeout=None if end is None else max(0.0, end - loop.time()))
        except asyncio.CancelledError as error:
            cancellation = error
            if end is None:
                end = loop.time() + grace
        if end is not None and loop.time() >= end:
            task.cancel()
    if cancellation is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # the cancellation says enough
    raise cancellation


async def first(*works: Coroutine[Any, Any, Any]) -> None:
    """Wait until one of them is done, and cancel the others; raises what the first of them raised that did."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        done = [task for task in tasks if task.done()]
        await stopped(*tasks)
    for task in done:
        task.result()


async def stopped(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks, and wait until they are over, whatever they end with. They end at once."""
    for task in tasks:
        task.cancel()
    cancellation: asyncio.CancelledError | None = None
    while pending := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError as error:
            cancellation = error
    for task in tasks:
        if not task.cancelled():
            task.exception()
    if cancellation is not None:
        raise cancellation

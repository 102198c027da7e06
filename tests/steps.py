"""The steps of a call, at each of which a test stops it.

A step is where the call, or a task that it made, gives way to the event loop. The call is cancelled there in two
manners: as it falls asleep, before what it waits for can happen; and as it wakes, when that has happened already, which
is where results get lost and connections leak.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextvars import ContextVar
from typing import Any

from async_timeout import timeout

MOST_STEPS = 500
"""Far more than any call has; reached by one that starts anew again and again."""


class Steps:
    """Counts the steps of a call and of all tasks that it makes, and stops it at one of them.

    Args:
        at: At which one.
        waking: Whether to wait there until what the step waits for has happened.
        stop: How to stop it; given the call's task.
        later: Seconds from there on until it is stopped: by then what it has written is under way.

    Attributes:
        task: The call.
        stopped: What `stop` gave, if it came to that.
    """

    def __init__(
        self, at: int, waking: bool, stop: Callable[[asyncio.Task[Any]], object], *, later: float = 0.0
    ) -> None:
        self.taken = 0
        self.at = at
        self.waking = waking
        self.stop = stop
        self.later = later
        self.task: asyncio.Task[Any]
        self.stopped: list[object] = []

    @property
    def reached(self) -> bool:
        return self.taken >= self.at

    def take(self, future: Any) -> None:
        self.taken += 1
        if self.taken != self.at:
            return
        if self.waking and asyncio.isfuture(future):
            future.add_done_callback(self._stop)  # before the task that waits for it adds its own
        elif self.later:
            asyncio.get_running_loop().call_later(self.later, self._stop)
        else:
            self._stop()

    def _stop(self, _: object = None) -> None:
        self.stopped.append(self.stop(self.task))

    async def run(self, call: Callable[[], Awaitable[Any]]) -> asyncio.Task[Any]:
        """Run a call to its end, whatever that is."""

        async def calling() -> Any:
            return await call()

        token = _steps.set(self)
        try:
            self.task = asyncio.ensure_future(calling())
        finally:
            _steps.reset(token)
        async with timeout(30):
            await asyncio.wait((self.task,))
        return self.task


_steps: ContextVar[Steps | None] = ContextVar("steps", default=None)


class Counted(Coroutine[Any, Any, Any]):
    """A coroutine whose steps count."""

    def __init__(self, work: Coroutine[Any, Any, Any], steps: Steps) -> None:
        self.work = work
        self.steps = steps

    def send(self, value: Any) -> Any:
        future = self.work.send(value)
        self.steps.take(future)
        return future

    def throw(self, *error: Any) -> Any:
        future = self.work.throw(*error)
        self.steps.take(future)
        return future

    def close(self) -> None:
        self.work.close()

    def __await__(self) -> Any:
        raise NotImplementedError  # it is for tasks


def make_task(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
    """The task factory with which steps are counted."""
    steps = _steps.get()
    return asyncio.Task(work if steps is None else Counted(work, steps), loop=loop, **options)


def own_tasks() -> set[asyncio.Task[Any]]:
    others = {"misbehaver", "faultproxy"}
    return {task for task in asyncio.all_tasks() if task.get_name() not in others} - {asyncio.current_task()}


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)


CANCELLED = object()


async def cancelled_at(
    at: int, waking: bool, call: Callable[[], Awaitable[Any]], *, later: float = 0.0
) -> tuple[Any, bool]:
    """Cancel a call at a step: its result or error or `CANCELLED`, and whether it got there at all."""
    steps = Steps(at, waking, asyncio.Task.cancel, later=later)
    task = await steps.run(call)
    assert task.cancelled() == (steps.stopped == [True]), f"cancelled at step {at}, it went on to {task}"
    if task.cancelled():
        return CANCELLED, True
    return task.result() if (error := task.exception()) is None else error, steps.reached


BOTH = (False, True)

BEFORE_3_11 = sys.version_info < (3, 11)
"""A task does not count who cancels it then: in the one turn of the event loop in which async-timeout does, as where a
watch asks whether its endpoint holds back, anyone else's cancellation is lost."""


async def at_every_step(
    attempt: Callable[[int, bool], Awaitable[bool]], *, most: int = MOST_STEPS, manners: Iterable[bool] = BOTH
) -> None:
    """Try every step in both manners, until a try says that it did not get there."""
    for waking in manners:
        for at in range(1, most + 1):
            if not await attempt(at, waking):
                break
        else:
            assert most < MOST_STEPS, "it never ends"

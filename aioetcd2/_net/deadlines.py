"""The time-outs of all that is under way: those that may take equally long are on one timer."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from types import TracebackType
from weakref import WeakValueDictionary

from msgspec import Struct

LATE = 0.1
"""Seconds after which a timer is late: the process, or its event loop, stood still."""

GRACE = 0.05
"""Seconds that the loop gets then to take what lies in the sockets."""

_TIME_IS_UP = "the header timeout is over"

if sys.version_info >= (3, 11):
    _cancelling = asyncio.Task.cancelling
else:

    def _cancelling(task: asyncio.Task[object]) -> int:
        return 0


def _word_of(task: asyncio.Task[object]) -> object:
    """The message of the last `cancel()` of a task, which tells us who that was; for Python before 3.11."""
    return getattr(task, "_cancel_message", None)


class Deadline(Struct, eq=False):
    """The time that one step of a request may take; a context manager that raises `TimeoutError` when it has expired.

    It works as `asyncio.timeout()` does: when time is up it cancels the task, and turns that cancellation into a
    `TimeoutError` as the `with` block is left, unless someone else has cancelled the task as well.

    Before Python 3.11 a task does not count its cancellations, and shows the message of the first `cancel()` only. So
    there we cancel one turn of the event loop later, and a cancellation by someone else in that turn is the first.
    """

    _deadlines: Deadlines
    _task: asyncio.Task[object]
    _cancelling: int
    _expired: bool = False
    _left: bool = False

    def __enter__(self) -> Deadline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left = True
        self._deadlines.running.pop(self, None)
        if self._expired:
            if sys.version_info >= (3, 11):
                ours = self._task.uncancel() <= self._cancelling
            else:
                ours = error is not None and error.args == (_TIME_IS_UP,) and _word_of(self._task) == _TIME_IS_UP
            if ours and kind is asyncio.CancelledError:
                raise asyncio.TimeoutError from error

    def begin_anew(self) -> None:
        """Let it have its whole time from now on, unless it has expired."""
        self._deadlines.postpone(self)

    def expire(self) -> None:
        """Time is up: cancel the task."""
        if sys.version_info >= (3, 11):
            self._expired = True
            self._task.cancel()
        else:
            self._task.get_loop().call_soon(self._expire_late)

    def _expire_late(self) -> None:
        if not self._left:
            self._expired = True
            self._task.cancel(_TIME_IS_UP)
            self._task._cancel_message = _TIME_IS_UP  # type: ignore[attr-defined]  # who cancels later overwrites it


class Deadlines:
    """The deadlines of everything under way that may take equally long, on one timer.

    They all have the same length, so that the oldest is always the next to expire. A timer for each request would cost
    more than all the rest of this library: the event loop keeps a cancelled one until its time has come.

    Args:
        seconds: The length; `None` = they expire only when the client is closed.

    Attributes:
        running: Those whose `with` block was not left, the oldest first, and when each expires.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._seconds = math.inf if seconds is None else seconds
        self.running: dict[Deadline, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> Deadline:
        """Begin a deadline, to be entered by `with` at once."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None
        deadline = Deadline(self, task, _cancelling(task))
        self.running[deadline] = due = time.monotonic() + self._seconds
        if self._timer is None and due < math.inf:
            self._arm(loop, due)
        return deadline

    def check(self, spent: float) -> None:
        """Raise `TimeoutError` where the time is spent already, by earlier and shorter waits."""
        if spent >= self._seconds:
            raise asyncio.TimeoutError

    def postpone(self, deadline: Deadline) -> None:
        """Let a deadline have its whole time from now on; one that has expired stays as it is."""
        if self.running.pop(deadline, None) is not None:
            self.running[deadline] = time.monotonic() + self._seconds

    def expire(self) -> None:
        """Expire every deadline now, those without an end too: the client is closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadlines = list(self.running)
        self.running.clear()
        for deadline in deadlines:
            deadline.expire()

    def _arm(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._timer = loop.call_later(due - time.monotonic(), self._tick, loop, due)

    def _tick(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        """Expire what is over, or a moment later where this comes late: what has arrived meanwhile is to be read."""
        now = time.monotonic()
        if now - due > LATE:
            self._timer = loop.call_later(GRACE, self._expire_until, loop, now)
        else:
            self._expire_until(loop, now)

    def _expire_until(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        self._timer = None
        for deadline, due in list(self.running.items()):
            if due > now:
                self._arm(loop, due)
                break
            del self.running[deadline]
            deadline.expire()


class Lengths:
    """The deadlines of each length that is asked for; those of one length are kept for as long as anyone uses them.

    Args:
        usual: The length that most have; `None` = these do not expire.

    Attributes:
        usual: The deadlines of that length.
        endless: Those that expire only when the client is closed.
    """

    def __init__(self, usual: float | None) -> None:
        self._by_length: WeakValueDictionary[float | None, Deadlines] = WeakValueDictionary()
        self.usual = self.of(usual)
        self.endless = self.of(None)

    def at_most(self, seconds: float | None) -> Deadlines:
        """The deadlines of the usual length, or of another one that is less."""
        usual = self.usual
        return usual if seconds is None or (usual.seconds or math.inf) <= seconds else self.of(seconds)

    def of(self, seconds: float | None) -> Deadlines:
        """The deadlines of a length; `None` = they do not expire."""
        deadlines = self._by_length.get(seconds)
        if deadlines is None:
            deadlines = self._by_length[seconds] = Deadlines(seconds)
        return deadlines

    def expire(self) -> None:
        """Expire every deadline of every length now."""
        for deadlines in list(self._by_length.values()):
            deadlines.expire()

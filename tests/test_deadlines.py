"""The time-outs of everything that is under way, on one timer."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from aioetcd2._net.deadlines import Deadline, Deadlines, Lengths

SECONDS = 0.05

LONG = 60.0


class Work:
    """A task that enters a deadline, and keeps what became of it."""

    def __init__(self, deadlines: Deadlines) -> None:
        self.task = asyncio.ensure_future(self._work(deadlines))
        self.deadline: Deadline | None = None
        self.error: BaseException | None = None
        self.go_on = asyncio.Event()
        self.fail: Exception | None = None

    async def _work(self, deadlines: Deadlines) -> float:
        start = asyncio.get_running_loop().time()
        self.deadline = deadlines.begin()
        with self.deadline:
            try:
                await self.go_on.wait()
            except asyncio.CancelledError:
                if self.fail is not None:
                    raise self.fail from None
                raise
        return asyncio.get_running_loop().time() - start

    async def outcome(self) -> str:
        await asyncio.wait((self.task,), timeout=5)
        if self.task.cancelled():
            return "cancelled"
        error = self.task.exception()
        return "done" if error is None else type(error).__name__


class Timers:
    """Counts the timers of the event loop, and those that were cancelled."""

    def __init__(self, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch) -> None:
        self.handles: list[asyncio.TimerHandle] = []
        call_later = loop.call_later

        def counted(delay: float, callback: Any, *args: Any, **options: Any) -> asyncio.TimerHandle:
            handle = call_later(delay, callback, *args, **options)
            if getattr(callback, "__self__", None).__class__ is Deadlines:
                self.handles.append(handle)
            return handle

        monkeypatch.setattr(loop, "call_later", counted)


@pytest.fixture
async def timers(monkeypatch: pytest.MonkeyPatch) -> Timers:
    return Timers(asyncio.get_running_loop(), monkeypatch)


@pytest.fixture(autouse=True)
def no_exception_in_a_callback(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert not caplog.get_records("call")


async def begun(*works: Work) -> None:
    while any(work.deadline is None for work in works):
        await asyncio.sleep(0)


def running(deadlines: Deadlines) -> int:
    return len(deadlines.running)


async def test_who_is_done_in_time_feels_nothing() -> None:
    deadlines = Deadlines(SECONDS)
    work = Work(deadlines)
    await begun(work)
    assert running(deadlines) == 1
    work.go_on.set()
    assert await work.outcome() == "done"
    assert running(deadlines) == 0
    await asyncio.sleep(2 * SECONDS)


async def test_time_is_up() -> None:
    deadlines = Deadlines(SECONDS)
    start = asyncio.get_running_loop().time()
    work = Work(deadlines)
    assert await work.outcome() == "TimeoutError"
    error = work.task.exception()
    assert isinstance(error, asyncio.TimeoutError)
    assert isinstance(error.__cause__, asyncio.CancelledError)
    assert SECONDS <= asyncio.get_running_loop().time() - start + 0.001 < SECONDS + 0.5
    assert running(deadlines) == 0


async def test_the_task_goes_on_after_it() -> None:
    deadlines = Deadlines(SECONDS)
    for _ in range(2):
        with pytest.raises(asyncio.TimeoutError):
            with deadlines.begin():
                await asyncio.sleep(LONG)
    await asyncio.sleep(0)
    if sys.version_info >= (3, 11):
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0


async def test_everyone_has_the_same_time_on_one_timer(timers: Timers) -> None:
    seconds = 4 * SECONDS
    deadlines = Deadlines(seconds)
    loop = asyncio.get_running_loop()
    start = loop.time()
    first = Work(deadlines)
    await begun(first)
    await asyncio.sleep(seconds / 2)
    second, third = Work(deadlines), Work(deadlines)
    await begun(second, third)
    assert len(timers.handles) == 1
    assert await first.outcome() == "TimeoutError"
    assert loop.time() - start < 1.4 * seconds
    assert not second.task.done()
    assert len(timers.handles) == 2
    assert await second.outcome() == "TimeoutError"
    assert await third.outcome() == "TimeoutError"
    assert loop.time() - start > 1.4 * seconds
    assert 2 <= len(timers.handles) <= 3
    fourth = Work(deadlines)
    assert await fourth.outcome() == "TimeoutError"


async def test_who_left_early_does_not_shorten_the_time_of_others() -> None:
    deadlines = Deadlines(SECONDS)
    first = Work(deadlines)
    await begun(first)
    first.go_on.set()
    await first.outcome()
    await asyncio.sleep(SECONDS / 2)
    start = asyncio.get_running_loop().time()
    second = Work(deadlines)
    assert await second.outcome() == "TimeoutError"
    assert asyncio.get_running_loop().time() - start >= SECONDS - 0.001


@pytest.mark.slow
async def test_those_without_an_end_wait_until_all_ends(timers: Timers) -> None:
    deadlines = Deadlines(None)
    work = Work(deadlines)
    left = Work(deadlines)
    await begun(work, left)
    left.go_on.set()
    assert await left.outcome() == "done"
    assert running(deadlines) == 1
    await asyncio.sleep(3 * SECONDS)
    assert not work.task.done()
    assert not timers.handles
    deadlines.expire()
    assert await work.outcome() == "TimeoutError"


async def test_all_ends(timers: Timers) -> None:
    deadlines = Deadlines(LONG)
    works = [Work(deadlines), Work(deadlines), Work(deadlines)]
    await begun(*works)
    deadlines.expire()
    assert timers.handles[0].cancelled()
    assert [await work.outcome() for work in works] == ["TimeoutError"] * 3
    assert running(deadlines) == 0
    deadlines.expire()
    work = Work(deadlines)
    await begun(work)
    assert len(timers.handles) == 2
    deadlines.expire()
    assert await work.outcome() == "TimeoutError"


async def test_all_ends_where_nothing_is_under_way(timers: Timers) -> None:
    Deadlines(LONG).expire()
    assert not timers.handles


@pytest.mark.parametrize("seconds", [LONG, None])
async def test_all_ends_twice_at_the_same_time(seconds: float | None) -> None:
    deadlines = Deadlines(seconds)
    work = Work(deadlines)
    await begun(work)
    deadlines.expire()
    deadlines.expire()
    assert await work.outcome() == "TimeoutError"


async def test_time_is_up_as_all_ends() -> None:
    deadlines = Deadlines(SECONDS)
    work = Work(deadlines)
    await begun(work)
    asyncio.get_running_loop().call_later(SECONDS + 0.01, deadlines.expire)
    time.sleep(2 * SECONDS)
    assert await work.outcome() == "TimeoutError"


@pytest.mark.parametrize("seconds", [LONG, None])
async def test_who_is_cancelled_is_cancelled(seconds: float | None) -> None:
    deadlines = Deadlines(seconds)
    work = Work(deadlines)
    await begun(work)
    work.task.cancel()
    assert await work.outcome() == "cancelled"
    assert running(deadlines) == 0


@pytest.mark.parametrize("first", ["time", "time, by a little", "cancel"])
async def test_who_cancels_at_the_same_time_wins(first: str) -> None:
    deadlines = Deadlines(LONG)
    work = Work(deadlines)
    await begun(work)
    if first == "time":
        deadlines.expire()
        work.task.cancel()
    elif first == "time, by a little":
        deadlines.expire()
        if sys.version_info < (3, 11):  # it does it a moment later
            asyncio.get_running_loop().call_soon(work.task.cancel)
        else:
            work.task.cancel()
    else:
        work.task.cancel()
        deadlines.expire()
    assert await work.outcome() == "cancelled"


async def test_another_error_wins() -> None:
    deadlines = Deadlines(LONG)
    work = Work(deadlines)
    work.fail = ValueError("other")
    await begun(work)
    deadlines.expire()
    assert await work.outcome() == "ValueError"


async def test_who_cleans_up_after_a_cancellation_has_its_time_too() -> None:
    deadlines = Deadlines(SECONDS)

    async def clean_up() -> str:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            try:
                with deadlines.begin():
                    await asyncio.sleep(LONG)
            except asyncio.TimeoutError:
                return "time is up"
        return ""

    task = asyncio.ensure_future(clean_up())
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "time is up"


async def test_who_pays_no_heed_goes_on() -> None:
    deadlines = Deadlines(SECONDS)
    with deadlines.begin():
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            pass
    await asyncio.sleep(0)


@pytest.mark.skipif(
    (3, 11) <= sys.version_info < (3, 13), reason="there asyncio tells a task of a cancellation that it has taken back"
)
async def test_done_at_the_same_time_is_done() -> None:
    async def work() -> str:
        deadlines = Deadlines(LONG)
        with deadlines.begin():
            deadlines.expire()
        for _ in range(3):
            await asyncio.sleep(0)
        return "done"

    assert await asyncio.ensure_future(work()) == "done"


def test_time_that_was_spent_before_counts() -> None:
    Deadlines(2.0).check(1.9)
    Deadlines(None).check(1e9)
    for spent in (2.0, 2.1):
        with pytest.raises(asyncio.TimeoutError):
            Deadlines(2.0).check(spent)


async def test_deadlines_of_one_length_are_one_for_as_long_as_they_are_used() -> None:
    lengths = Lengths(LONG)
    usual, endless = lengths.of(LONG), lengths.of(None)
    assert lengths.at_most(None) is usual
    assert lengths.at_most(2 * LONG) is usual
    assert lengths.at_most(SECONDS).seconds == SECONDS
    assert lengths.of(None) is endless
    assert lengths.of(SECONDS) is not usual
    for number in range(1000):
        with lengths.of(0.001 + number * 1e-6).begin():
            pass
    for _ in range(100):  # each has a timer that ends it
        await asyncio.sleep(0.05)
        gc.collect()
        if len(lengths._by_length) == 2:
            break
    assert set(lengths._by_length) == {LONG, None}


async def test_a_deadline_keeps_those_of_its_length() -> None:
    lengths = Lengths(None)
    assert lengths.at_most(None).seconds is None
    assert lengths.at_most(SECONDS).seconds == SECONDS
    work = [Work(lengths.of(SECONDS)), Work(lengths.of(LONG)), Work(lengths.of(None))]
    gc.collect()
    assert await work[0].outcome() == "TimeoutError"
    lengths.expire()
    assert [await each.outcome() for each in work] == ["TimeoutError"] * 3

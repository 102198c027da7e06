"""When the keys under a watch are counted, and which numbers are believed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from aioetcd2._census import Census
from aioetcd2._counting import Counting
from aioetcd2._hub import WatchHub
from aioetcd2._progress import Progress
from aioetcd2._wait import Wait


@pytest.fixture(autouse=True)
def no_exception_in_a_callback(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert not caplog.get_records("call")


class Hub:
    """Counts when it is told to, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bool, float]] = []
        self.cursors: list[int | None] = []
        self.counted: asyncio.Future[Census | None] = asyncio.get_running_loop().create_future()

    async def census(self, path: str, recursive: bool, rest: float, cursor: Callable[[], int | None]) -> Census | None:
        self.asked.append((path, recursive, rest))
        self.counted = asyncio.get_running_loop().create_future()
        census = await self.counted
        self.cursors.append(cursor())
        return census


class Live:
    """An open wait."""

    closed = False


class Case:
    def __init__(self) -> None:
        self.hub = Hub()
        self.live = Live()
        self.progress = Progress("a", True, 5)
        self.counting = Counting(cast(WatchHub, self.hub), "/v2/keys/a", True, self.progress)

    async def begin(self) -> None:
        self.counting.begin(cast(Wait, self.live))
        await asyncio.sleep(0)

    async def end(self, census: Census | None) -> None:
        self.hub.counted.set_result(census)
        while self.counting.task is not None:
            await asyncio.sleep(0)

    @property
    def number(self) -> int | None:
        return None if self.progress.census is None else self.progress.census.count


async def test_a_number_that_is_not_known_is_counted_once_at_a_time() -> None:
    case = Case()
    for _ in range(3):
        await case.begin()
    assert case.hub.asked == [("/v2/keys/a", True, 0.0)]
    await case.end(Census(5, 3, 5))
    assert case.number == 3
    assert case.hub.cursors == [5]
    await case.begin()
    assert len(case.hub.asked) == 1


async def test_a_number_is_lost_and_counted_again_after_longer_and_longer_rests() -> None:
    case = Case()
    for _ in range(12):
        await case.begin()
        await case.end(Census(5, 3, 5))
        case.progress.census = None
    assert [rest for _, _, rest in case.hub.asked] == [0, 5, 10, 20, 40, 60, 60, 60, 60, 60, 60, 60]


@pytest.mark.parametrize(
    ("cursor", "closed", "counted", "number"),
    [
        (5, False, Census(5, 3, 5), 3),
        (5, False, Census(6, 3, 6), 3),
        (None, False, Census(0, 3, 0), 3),
        (6, False, Census(5, 3, 5), None),  # an event that may have been counted in would be counted twice
        (5, True, Census(5, 3, 5), None),  # an event may have been missed
        (5, False, None, None),
    ],
)
async def test_what_is_believed(cursor: int | None, closed: bool, counted: Census | None, number: int | None) -> None:
    case = Case()
    await case.begin()
    case.progress.cursor = cursor
    case.live.closed = closed
    await case.end(counted)
    assert case.number == number


async def test_cancelled_counting_may_begin_again() -> None:
    case = Case()
    await case.begin()
    assert case.counting.task is not None
    case.counting.task.cancel()
    await asyncio.sleep(0.01)
    await case.begin()
    await case.end(Census(7, 1, 7))
    assert case.number == 1

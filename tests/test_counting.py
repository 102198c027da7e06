"""When the keys under a watch are counted, and which numbers are believed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from aioetcd2 import Node
from aioetcd2._v2.census import Subtree
from aioetcd2._v2.counting import Counting
from aioetcd2._v2.position import Position
from aioetcd2._v2.stream import EventStream
from aioetcd2._watching.looks import Looks


@pytest.fixture(autouse=True)
def no_exception_in_a_callback(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert not caplog.get_records("call")


class Looking:
    """Looks when it is told to, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bool, float]] = []
        self.cursors: list[int | None] = []
        self.wanted: Callable[[], bool] = lambda: False
        self.counted: asyncio.Future[tuple[int, Subtree] | None] = asyncio.get_running_loop().create_future()

    async def in_background(
        self, path: str, recursive: bool, rest: float, cursor: Callable[[], int | None], wanted: Callable[[], bool]
    ) -> tuple[int, Subtree] | None:
        self.asked.append((path, recursive, rest))
        self.wanted = wanted
        self.counted = asyncio.get_running_loop().create_future()
        look = await self.counted
        self.cursors.append(cursor())
        return look


TREES = {1: Node("/a"), 3: Node("/a", None, True, (Node("/a/b"), Node("/a/c")))}

Counted = tuple[int, int]
"""At which index, and how many."""


class Live:
    """An open wait."""

    closed = False


class Case:
    def __init__(self) -> None:
        self.looks = Looking()
        self.live = Live()
        self.position = Position("a", True, 5)
        self.counting = Counting(cast(Looks, self.looks), "/v2/keys/a", True, self.position)

    async def begin(self) -> None:
        self.counting.begin(cast(EventStream, self.live))
        await asyncio.sleep(0)

    async def end_one(self, counted: Counted | None) -> None:
        self.looks.counted.set_result(None if counted is None else (counted[0], Subtree(TREES[counted[1]], True)))
        for _ in range(5):
            await asyncio.sleep(0)

    async def end(self, counted: Counted | None) -> None:
        await self.end_one(counted)
        while self.counting.task is not None:
            await asyncio.sleep(0)

    @property
    def number(self) -> int | None:
        return None if self.position.census is None else self.position.census.count


async def test_a_number_that_is_not_known_is_counted_once_at_a_time() -> None:
    case = Case()
    for _ in range(3):
        await case.begin()
    assert case.looks.asked == [("/v2/keys/a", True, 0.0)]
    await case.end((5, 3))
    assert case.number == 3
    assert case.looks.cursors == [5]
    await case.begin()
    assert len(case.looks.asked) == 1


async def test_a_number_is_lost_and_counted_again_after_longer_and_longer_rests() -> None:
    case = Case()
    for _ in range(12):
        await case.begin()
        await case.end((5, 3))
        case.position.census = None
    assert [rest for _, _, rest in case.looks.asked] == [0, 5, 10, 20, 40, 60, 60, 60, 60, 60, 60, 60]


@pytest.mark.parametrize(
    ("cursor", "closed", "counted", "number"),
    [
        (5, False, (5, 3), 3),
        (5, False, (6, 3), 3),
        (None, False, (0, 3), 3),
        (6, False, (5, 3), None),  # an event that may have been counted in would be counted twice
        (5, True, (5, 3), None),  # an event may have been missed
        (5, False, None, None),
    ],
)
async def test_what_is_believed(cursor: int | None, closed: bool, counted: Counted | None, number: int | None) -> None:
    case = Case()
    await case.begin()
    case.position.cursor = cursor
    case.live.closed = closed
    await case.end(counted)
    assert case.number == number


async def test_a_count_is_wanted_while_its_wait_is_open() -> None:
    case = Case()
    await case.begin()
    assert case.looks.wanted()
    case.live.closed = True
    assert not case.looks.wanted()
    await case.end(None)


async def test_cancelled_counting_may_begin_again() -> None:
    case = Case()
    await case.begin()
    assert case.counting.task is not None
    case.counting.task.cancel()
    await asyncio.sleep(0.01)
    await case.begin()
    await case.end((7, 1))
    assert case.number == 1


async def test_a_wait_that_was_opened_while_an_older_count_rests_has_its_own() -> None:
    case = Case()
    await case.begin()
    case.live.closed = True
    case.live = Live()
    await case.begin()
    await case.end_one(None)
    assert [rest for _, _, rest in case.looks.asked] == [0.0, 5.0]
    assert case.looks.wanted()
    await case.end((7, 1))
    assert case.number == 1
    assert len(case.looks.asked) == 2


async def test_nothing_is_counted_for_a_wait_that_was_given_up_meanwhile() -> None:
    case = Case()
    await case.begin()
    case.live = Live()
    await case.begin()
    case.live.closed = True
    await case.end_one(None)
    assert len(case.looks.asked) == 1
    assert case.counting.task is None

"""Looks at what is watched: one for all, few at once, kept for a moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from aioetcd2 import (
    ClientClosedError,
    ClusterError,
    ConnectError,
    KeyNotFoundError,
    Node,
    NotDirError,
    UnauthorizedError,
)
from aioetcd2._watching import looks as looks_module
from aioetcd2._watching.looks import AT_ONCE, GRACE, KEPT, Looks
from aioetcd2._watching.steps import Answered, Seen

from .clockwork import Clock, idle, stop_clocks
from .scripted import ONE, Etcd, surroundings

PATH = "/v2/keys/a"
TREE = Node("/a", None, True, (Node("/a/b", "v"), Node("/a/c", "v")))
UNREACHABLE = ClusterError("GET /v2/keys/a", [ConnectError(ONE, "refused")])
NOT_ALLOWED = UnauthorizedError(110, "no")


class Reads:
    """Answers by what is there, when it may."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bool, bool]] = []
        self.questions: list[str] = []
        self.says: Seen | Exception = (31, TREE)
        self.go = asyncio.Event()
        self.go.set()
        self.under_way = 0

    async def read(self, path: str, recursive: bool, quorum: bool) -> Seen:
        self.asked.append((path, recursive, quorum))
        return await self._answer()

    async def ask(self, path: str) -> int:
        self.questions.append(path)
        return (await self._answer())[0]

    async def _answer(self) -> Seen:
        said = self.says
        self.under_way += 1
        try:
            await asyncio.sleep(0)
            await self.go.wait()
        finally:
            self.under_way -= 1
        if isinstance(said, Exception):
            raise said
        return said


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return stop_clocks(monkeypatch, looks_module)


@pytest.fixture
def reads() -> Reads:
    return Reads()


@pytest.fixture
def looks(reads: Reads, clock: Clock) -> Looks:
    return Looks(reads.read, reads.ask)


async def looking(looks: Looks, number: int, path: str = PATH, **more: Any) -> list[asyncio.Task[Seen]]:
    tasks = [asyncio.ensure_future(looks.look(path, True, **more)) for _ in range(number)]
    await idle()
    return tasks


async def cancel(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


# --- one for all ----------------------------------------------------------------------------------------------------


async def test_all_who_want_the_same_share_a_look(looks: Looks, reads: Reads) -> None:
    reads.go.clear()
    tasks = await looking(looks, 200)
    assert reads.asked == [(PATH, True, False)]
    reads.go.set()
    assert await asyncio.gather(*tasks) == [(31, TREE)] * 200
    assert len(reads.asked) == 1


async def test_who_wants_something_else_looks_for_itself(looks: Looks, reads: Reads) -> None:
    reads.go.clear()
    tasks = await looking(looks, 2)
    tasks += await looking(looks, 2, quorum=True)
    tasks += await looking(looks, 2, "/v2/keys/b")
    tasks.append(asyncio.ensure_future(looks.look(PATH, False)))
    await idle()
    assert reads.asked == [
        (PATH, True, False),
        (PATH, True, True),
        ("/v2/keys/b", True, False),
        (PATH, False, False),
    ]
    await cancel(tasks)


async def test_a_look_ends_with_the_last_who_wants_it(looks: Looks, reads: Reads) -> None:
    reads.go.clear()
    first, second = await looking(looks, 2)
    await cancel([first])
    assert reads.under_way == 1
    await cancel([second])
    await idle()
    assert reads.under_way == 0
    tasks = await looking(looks, 1)
    assert len(reads.asked) == 2
    await cancel(tasks)


async def test_the_error_of_a_look_is_that_of_all_and_is_not_kept(looks: Looks, reads: Reads) -> None:
    reads.says = UNREACHABLE
    found = await asyncio.gather(*await looking(looks, 3), return_exceptions=True)
    assert found == [UNREACHABLE] * 3
    reads.says = (31, TREE)
    assert await looks.look(PATH, True, at_least=31) == (31, TREE)


async def test_who_needs_a_newer_one_than_was_under_way_looks_again(looks: Looks, reads: Reads) -> None:
    reads.go.clear()
    tasks = await looking(looks, 1)
    reads.says = (40, TREE)
    tasks += await looking(looks, 3, at_least=35)
    reads.go.set()
    assert [index for index, _ in await asyncio.gather(*tasks)] == [31, 40, 40, 40]
    assert len(reads.asked) == 2


async def test_who_gets_an_old_one_twice_takes_it(looks: Looks, reads: Reads) -> None:
    """The machine asks with quorum then."""
    assert await looks.look(PATH, True, at_least=35) == (31, TREE)
    assert len(reads.asked) == 2


# --- kept for a moment ----------------------------------------------------------------------------------------------


async def test_a_look_serves_others_for_a_moment(looks: Looks, reads: Reads, clock: Clock) -> None:
    await looks.look(PATH, True)
    for at_least in (1, 31):
        assert await looks.look(PATH, True, at_least=at_least) == (31, TREE)
    clock.go_on(KEPT - 0.001)
    await looks.look(PATH, True, at_least=31)
    assert len(reads.asked) == 1
    clock.go_on(0.001)
    await looks.look(PATH, True, at_least=31)
    assert len(reads.asked) == 2


@pytest.mark.parametrize("at_least", [0, 32])
async def test_a_kept_look_serves_only_who_says_how_old_it_may_be(at_least: int, looks: Looks, reads: Reads) -> None:
    await looks.look(PATH, True)
    reads.says = (33, TREE)
    assert await looks.look(PATH, True, at_least=at_least) == (33, TREE)
    assert len(reads.asked) == 2


async def test_another_look_is_kept_for_as_long_and_an_older_one_is_not(
    looks: Looks, reads: Reads, clock: Clock
) -> None:
    await looks.look(PATH, True)
    clock.go_on(KEPT / 2)
    reads.says = (40, TREE)
    await looks.look(PATH, True)
    reads.says = (35, None)
    await looks.look(PATH, True)
    clock.go_on(KEPT / 2)
    assert await looks.look(PATH, True, at_least=36) == (40, TREE)
    assert len(reads.asked) == 3
    clock.go_on(KEPT / 2)
    await looks.look(PATH, True, at_least=34)
    assert len(reads.asked) == 4


async def test_what_is_forgotten_is_looked_at_anew(looks: Looks, reads: Reads, clock: Clock) -> None:
    await looks.look(PATH, True)
    reads.go.clear()
    before = await looking(looks, 1)
    looks.forget()
    assert all(timer.cancelled for timer in clock.timers)
    reads.says = (5, None)
    after = await looking(looks, 1, at_least=4)
    reads.go.set()
    assert await asyncio.gather(*before, *after) == [(31, TREE), (5, None)]
    assert await looks.look(PATH, True, at_least=5) == (5, None)  # what was seen before is not kept
    assert len(reads.asked) == 3


async def test_closing_ends_what_is_under_way(looks: Looks, reads: Reads, clock: Clock) -> None:
    await looks.look(PATH, True)
    reads.go.clear()
    tasks = await looking(looks, 2)
    await looks.close()
    await idle()
    assert reads.under_way == 0
    assert all(isinstance(task.exception(), ClientClosedError) for task in tasks)
    assert all(timer.cancelled for timer in clock.timers)


# --- how far the cluster has come -----------------------------------------------------------------------------------


async def test_one_question_for_all(looks: Looks, reads: Reads) -> None:
    reads.go.clear()
    tasks = [asyncio.ensure_future(looks.ask(path)) for path in (PATH, "/v2/keys/b", PATH)]
    await idle()
    reads.go.set()
    assert await asyncio.gather(*tasks) == [31] * 3
    assert reads.questions == [PATH]
    assert await looks.ask("/v2/keys/b") == 31
    assert reads.questions == [PATH, "/v2/keys/b"]


async def test_a_path_that_may_not_be_read_is_no_answer_for_the_others(looks: Looks, reads: Reads) -> None:
    reads.go.clear()
    reads.says = NOT_ALLOWED
    first = asyncio.ensure_future(looks.ask("/v2/keys/b"))
    await idle()
    reads.says = (31, TREE)
    second = asyncio.ensure_future(looks.ask(PATH))
    await idle()
    reads.go.set()
    assert [await each for each in (first, second)] == [31, 31]
    assert reads.questions[0] == "/v2/keys/b"
    assert sorted(reads.questions[1:]) == [PATH, "/v2/keys/b"]
    reads.says = NOT_ALLOWED
    with pytest.raises(UnauthorizedError):
        await looks.ask(PATH)


async def test_no_answer_is_none_for_all(looks: Looks, reads: Reads) -> None:
    reads.says = UNREACHABLE
    found = await asyncio.gather(*(looks.ask(PATH) for _ in range(3)), return_exceptions=True)
    assert found == [UNREACHABLE] * 3
    assert len(reads.questions) == 1


# --- in the background ----------------------------------------------------------------------------------------------


def counting(
    looks: Looks,
    cursor: Callable[[], int | None],
    path: str = PATH,
    rest: float = 5.0,
    wanted: Callable[[], bool] = lambda: True,
) -> asyncio.Task[Seen | None]:
    return asyncio.ensure_future(looks.in_background(path, True, rest, cursor, wanted))


@pytest.mark.parametrize(
    ("cursor", "sleeps"), [(31, [5.0]), (30, [5.0, GRACE]), (32, [5.0, GRACE]), (None, [5.0, GRACE])]
)
async def test_a_census_waits_for_events_that_are_on_their_way(
    cursor: int | None, sleeps: list[float], looks: Looks, reads: Reads, clock: Clock
) -> None:
    task = counting(looks, lambda: cursor)
    await idle()
    assert not reads.asked
    await clock.wake()
    assert set(reads.asked) == {(PATH, True, False)}
    assert task.done() is (len(sleeps) == 1)
    await clock.wake()
    assert await task == (31, TREE)
    assert clock.sleeps == sleeps


async def test_a_census_that_fails_is_none(looks: Looks, reads: Reads, clock: Clock) -> None:
    reads.says = UNREACHABLE
    task = counting(looks, lambda: 31)
    await clock.wake()
    assert await task is None
    assert clock.sleeps == [5.0]


async def test_a_census_that_is_not_wanted_any_more_when_its_turn_has_come(
    looks: Looks, reads: Reads, clock: Clock
) -> None:
    reads.go.clear()
    wanted = True
    tasks = [counting(looks, lambda: 31, f"/v2/keys/{i}", wanted=lambda: wanted) for i in range(20)]
    await idle()
    for _ in tasks:
        await clock.wake()
    wanted = False
    reads.go.set()
    assert await asyncio.gather(*tasks) == [(31, TREE)] * AT_ONCE + [None] * (20 - AT_ONCE)
    assert len(reads.asked) == AT_ONCE


async def test_not_all_count_at_once(looks: Looks, reads: Reads, clock: Clock) -> None:
    reads.go.clear()
    tasks = [counting(looks, lambda: 31, f"/v2/keys/{i}") for i in range(20)]
    await idle()
    for _ in tasks:
        await clock.wake()
    assert reads.under_way == AT_ONCE == 8
    await cancel(tasks)
    assert reads.under_way == 0


async def test_200_that_count_the_same_cost_one_read(looks: Looks, reads: Reads, clock: Clock) -> None:
    tasks = [counting(looks, lambda: 31) for _ in range(200)]
    await idle()
    for _ in tasks:
        await clock.wake()
    assert await asyncio.gather(*tasks) == [(31, TREE)] * 200
    assert len(reads.asked) == 1


# --- in v2 ----------------------------------------------------------------------------------------------------------


async def test_a_look_is_a_get() -> None:
    etcd = Etcd()
    looks = surroundings(etcd, 10.0, 0.1).looks
    etcd.state = (31, TREE)
    for recursive, quorum, number in ((True, False, 3), (False, False, 1), (True, True, 3)):
        index, tree = await looks.look(PATH, recursive, quorum=quorum)
        assert (index, tree.node, tree.count) == (31, TREE, number)
    assert etcd.reads == [f"{PATH}?recursive=true", PATH, f"{PATH}?recursive=true&quorum=true"]
    await looks.close()


async def test_a_look_at_nothing() -> None:
    etcd = Etcd()
    looks = surroundings(etcd, 10.0, 0.1).looks
    for absent in (KeyNotFoundError(100, "Key not found", "/a", 32), NotDirError(104, "Not a directory", "/a", 32)):
        etcd.state = absent
        index, tree = await looks.look(PATH, True)
        assert (index, tree.node) == (32, None)
    etcd.state = NOT_ALLOWED
    with pytest.raises(UnauthorizedError):
        await looks.look(PATH, True)
    await looks.close()


async def test_the_question_is_a_read_with_quorum() -> None:
    etcd = Etcd()
    looks = surroundings(etcd, 10.0, 0.1).looks
    etcd.state = (31, TREE)
    assert await looks.ask(PATH) == Answered(31, 0)
    assert etcd.reads == [f"{PATH}?quorum=true"]

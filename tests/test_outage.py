"""One outage for all watches: who tries, who waits, what is logged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from aioetcd2 import ClusterError, ConnectError
from aioetcd2._net.reporter import Reporter
from aioetcd2._watching import outage as outage_module
from aioetcd2._watching.outage import CALM, CAP, Outage, pause_after

from .clockwork import Clock, Dice, idle, stop_clocks
from .scripted import ONE

ERROR = ClusterError("GET /v2/keys/a", [ConnectError(ONE, "refused")])
PROBLEM = "GET /v2/keys/a: no endpoint answered; http://one:1: refused [ConnectError]"
BEGINS = ("WARNING", f"watches are interrupted, and go on trying; that of /a: {PROBLEM}")
ENDS = ("INFO", "watches go on again, that of /a the first")

Lines = Callable[[], list[tuple[str, str]]]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(outage_module, "random", Dice(1.0))
    return stop_clocks(monkeypatch, outage_module)


@pytest.fixture
def outage() -> Outage:
    return Outage(Reporter())


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    caplog.set_level(logging.INFO)
    return lambda: [(record.levelname, record.message) for record in caplog.records]


class Watch:
    """Enters, and says when it is in."""

    def __init__(self, outage: Outage) -> None:
        self.task = asyncio.ensure_future(outage.enter(self))

    @property
    def tries(self) -> bool:
        return self.task.done() and not self.task.cancelled()


async def entering(outage: Outage, number: int) -> list[Watch]:
    watches = [Watch(outage) for _ in range(number)]
    await idle()
    return watches


def trying(watches: list[Watch]) -> int:
    return sum(each.tries for each in watches)


async def end(watches: list[Watch]) -> None:
    for each in watches:
        each.task.cancel()
    await asyncio.wait([each.task for each in watches])


async def test_one_tries_and_its_answer_lets_all_in(outage: Outage, clock: Clock, lines: Lines) -> None:
    watches = await entering(outage, 500)
    assert clock.sleeps == [0.0]
    await clock.wake()
    assert trying(watches) == 1
    outage.answered("/a")
    await idle()
    assert trying(watches) == 500
    assert len(clock.sleeps) == 1
    assert lines() == []


async def test_while_nothing_answers_one_after_the_other_tries(outage: Outage, clock: Clock, lines: Lines) -> None:
    watches = await entering(outage, 20)
    for tried in range(1, 9):
        await clock.wake()
        assert trying(watches) == tried
        pilot = next(each for each in watches if outage._pilot is each)
        outage.failed(pilot, "/a", ERROR)
        await idle()
    assert clock.sleeps == [0.0, 0.3, 0.6, 1.2, 1.5, 1.5, 1.5, 1.5, 1.5]
    assert lines() == [BEGINS]
    outage.answered("/a")
    await idle()
    assert lines() == [BEGINS]
    clock.go_on(CALM)
    assert lines() == [BEGINS, ENDS]
    assert outage._next == 0
    await clock.wake()
    assert trying(watches) == 20


async def test_who_gives_up_trying_lets_the_next_try_at_once(outage: Outage, clock: Clock) -> None:
    watches = await entering(outage, 3)
    first = next(each for each in watches if outage._pilot is each)
    first.task.cancel()
    await idle()
    assert outage._pilot in watches
    assert outage._pilot is not first
    await clock.wake()
    assert trying(watches) == 1
    outage.leave(outage._pilot)
    await idle()
    await clock.wake()
    assert trying(watches) == 2


async def test_who_gives_up_waiting_holds_up_nobody(outage: Outage, clock: Clock) -> None:
    watches = await entering(outage, 3)
    await clock.wake()
    waiting = [each for each in watches if not each.tries]
    waiting[0].task.cancel()
    await idle()
    assert len(outage._waiting) == 1
    outage.answered("/a")
    await idle()
    assert waiting[1].tries
    assert not outage._waiting


async def test_only_the_one_that_tries_tells_of_failures(outage: Outage, clock: Clock, lines: Lines) -> None:
    watches = await entering(outage, 2)
    await clock.wake()
    for _ in range(5):
        outage.failed(object(), "/b", ERROR)
        outage.leave(object())
    await idle()
    assert trying(watches) == 1
    assert (outage._troubles, lines()) == (0, [])
    await end(watches)


async def test_an_outage_is_one_line_however_many_watches(outage: Outage, clock: Clock, lines: Lines) -> None:
    outage.answered("/a")
    for _ in range(2):
        outage.lasts("/a", ERROR)
        outage.lasts("/b", ERROR)
        outage.answered("/a")
        outage.answered("/b")
        clock.go_on(CALM)
    assert lines() == [BEGINS, ENDS] * 2
    assert clock.timers == []


async def test_answers_that_do_not_last_are_no_end_of_an_outage(outage: Outage, clock: Clock, lines: Lines) -> None:
    """A server accepts each wait, and ends it at once."""
    for _ in range(5):
        outage.lasts("/a", ERROR)
        outage.answered("/a")
        clock.go_on(CALM - 0.1)
    outage.lasts("/a", ERROR)
    clock.go_on(2 * CALM)
    assert lines() == [BEGINS]
    outage.answered("/a")
    outage.close()
    clock.go_on(CALM)
    assert lines() == [BEGINS]


async def test_a_pause_of_one_watch(outage: Outage, clock: Clock, lines: Lines) -> None:
    for troubles, sleep, told in ((1, 0.0, []), (2, 0.3, [BEGINS]), (3, 0.6, [BEGINS]), (99, 1.5, [BEGINS])):
        pausing = asyncio.ensure_future(outage.pause("/a", troubles, ERROR))
        await idle()
        assert (clock.sleeps[-1], lines()) == (sleep, told)
        await clock.wake()
        assert pausing.done()


def test_pauses_grow_and_are_not_the_same_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    dice = Dice(0.5, 1.0)
    monkeypatch.setattr(outage_module, "random", dice)
    assert [pause_after(troubles) for troubles in (0, 1)] == [0.0, 0.0]
    assert dice.asked == []
    assert [pause_after(troubles) for troubles in (2, 2, 3, 10**9)] == [0.15, 0.3, 0.6, CAP]
    assert dice.asked == [(0.5, 1.0)] * 4

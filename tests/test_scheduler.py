"""The turns of many keys: how many at once, how they are spread, and what an outage makes of them; by a still clock."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable
from itertools import pairwise

import pytest

from aioetcd2 import APIError, ClientClosedError, ClusterError, ConnectError, UnauthorizedError
from aioetcd2.recipes import _patience, _scheduler, _shared
from aioetcd2.recipes._scheduler import Entry, Scheduler, scheduler_of
from aioetcd2.recipes._shared import SharedLease

from .clockwork import Clock, Dice, idle, stop_clocks
from .shared_keys import SharedKeys

TTL = 60.0
PERIOD = 20.0
A = "http://a:2379"


class World:
    """A client's keys, their scheduler, and time that passes when told to.

    Args:
        clock: The clock of the loop.
        dice: What is drawn.
    """

    def __init__(self, clock: Clock, dice: Dice) -> None:
        self.clock = clock
        self.dice = dice
        self.store = SharedKeys(clock)  # type: ignore[arg-type]
        self.store.clock = self  # type: ignore[assignment]
        self.took = 0.0
        self.scheduler = scheduler_of(self.store.keys)
        self.entries: list[Entry] = []
        self.failure: Exception | None = None
        self.refreshed: list[tuple[float, str]] = []
        self.in_flight = 0
        self.most = 0
        self.answering = asyncio.Event()
        self.answering.set()

    @property
    def now(self) -> float:
        return self.clock.now

    @now.setter
    def now(self, seconds: float) -> None:
        """A call takes no time here."""

    def __call__(self) -> float:
        return self.clock.now

    async def register(self, count: int = 1) -> Entry:
        """Register so many, and give the first of them."""
        first = len(self.entries)
        for number in range(first, first + count):
            lease = SharedLease(self.store.keys, f"/s/{number}", "us", TTL, clock=self)
            real = lease.refresh

            async def refresh(real: Callable[[], object] = real, key: str = lease.key) -> None:
                self.refreshed.append((self.clock.now, key))
                self.in_flight += 1
                self.most = max(self.most, self.in_flight)
                try:
                    await self.answering.wait()
                    if self.failure is not None:
                        raise self.failure
                    await real()  # type: ignore[misc]
                finally:
                    self.in_flight -= 1

            lease.refresh = refresh  # type: ignore[method-assign]
            entry = Entry(self.store.keys, lease, PERIOD, self.scheduler)
            await entry.enter()
            self.entries.append(entry)
        return self.entries[first]

    async def passes(self, seconds: float, step: float = 0.125) -> None:
        """Let time pass."""
        for _ in range(round(seconds / step)):
            self.clock.go_on(step)
            if self.scheduler._due or self.scheduler._running:
                await idle()

    def times(self, key: str = "/s/0") -> list[float]:
        return [round(at - 1000, 1) for at, other in self.refreshed if other == key]


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    clock = stop_clocks(monkeypatch, _scheduler)
    dice = Dice(1.0)
    monkeypatch.setattr(_scheduler, "random", dice)
    monkeypatch.setattr(_patience, "random", dice)
    monkeypatch.setattr(_scheduler, "now", lambda: clock.now)
    monkeypatch.setattr(_shared, "LOOK", 0.01)
    world = World(clock, dice)
    assert dice.asked == [(0.0, _scheduler.TOGETHER)]  # its phase, which is not that of other processes
    dice.asked.clear()
    yield world
    for entry in world.entries:
        await entry.leave(briefly=True)


def there(entry: Entry) -> bool:
    return entry.is_there


def down() -> ClusterError:
    return ClusterError("PUT", [ConnectError(A, "refused")])


# --- how they are spread ----------------------------------------------------------------------------------------------


async def test_first_turn_is_anywhere_in_a_period_and_the_next_ones_a_period_apart(world: World) -> None:
    await world.register()
    assert world.dice.asked == [(0.0, PERIOD)]
    await world.passes(2)
    assert world.times() == [1.0]
    assert world.dice.asked[1:] == [(0.9, 1.1)]
    await world.passes(PERIOD * 3)
    assert world.times() == [1.0, 21.0, 41.0, 61.0]


@pytest.mark.slow
async def test_a_thousand_make_an_even_stream(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    import random

    monkeypatch.setattr(_scheduler, "random", random.Random(7))
    await world.register(1000)
    await world.passes(100, step=0.25)
    seconds = Counter(int(at - 1000) for at, _ in world.refreshed if at < 1100)
    assert sum(seconds.values()) / 100 == pytest.approx(50, abs=2)
    assert max(seconds.values()) <= 100
    assert min(seconds.values()) >= 20


async def test_turns_that_are_some_time_off_come_together(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    import random

    monkeypatch.setattr(_scheduler, "random", random.Random(7))
    await world.register(100)
    await world.passes(4 * PERIOD, step=0.03125)
    turns = [at - 1000 for at, _ in world.refreshed]
    assert len({at for at in turns if at < _scheduler.LONGEST_PAUSE}) > 5
    later = [at for at in turns if at > _scheduler.LONGEST_PAUSE]
    assert len(later) > 300
    assert all(at % _scheduler.TOGETHER == 0 for at in later)
    times = {key: [at for at, other in world.refreshed if other == key] for _, key in world.refreshed}
    apart = [after - before for each in times.values() for before, after in pairwise(each)]
    assert min(apart) >= 0.9 * PERIOD - _scheduler.TOGETHER / 2
    assert max(apart) <= 1.1 * PERIOD + _scheduler.TOGETHER / 2 + 0.03125


async def test_what_is_made_again_is_spread_anew(world: World) -> None:
    await world.register()
    world.store.drop("/s/0")
    await world.passes(1.5)
    assert world.dice.asked[1:] == [(0.0, PERIOD)]


async def test_what_has_failed_is_spread_anew(world: World) -> None:
    await world.register()
    world.failure = down()
    await world.passes(1.5)
    world.failure = None
    world.dice.asked.clear()
    await world.passes(2)
    assert world.dice.asked[0] == (0.0, PERIOD)


# --- how many at once -------------------------------------------------------------------------------------------------


async def test_sixteen_in_flight_and_the_others_in_their_turn(world: World) -> None:
    await world.register(50)
    world.answering.clear()
    await world.passes(1.2)
    assert world.in_flight == 16
    assert len([task for task in asyncio.all_tasks() if (task.get_name() or "").startswith("registration")]) == 16
    world.answering.set()
    await idle()
    assert world.most == 16
    assert sorted(key for _, key in world.refreshed) == sorted(entry.lease.key for entry in world.entries)


async def test_no_task_while_nothing_is_due(world: World) -> None:
    await world.register(50)
    await world.passes(10)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_one_that_leaves_makes_room(world: World) -> None:
    await world.register(17)
    world.answering.clear()
    await world.passes(1.2)
    leaving = [asyncio.ensure_future(entry.leave(briefly=True)) for entry in world.entries[:16]]
    await asyncio.sleep(0)
    for task in leaving:
        task.cancel()
    await asyncio.wait(leaving)
    await idle()
    assert world.refreshed[-1][1] == "/s/16"
    world.answering.set()


async def test_one_that_leaves_before_its_turn_has_begun_makes_room(world: World) -> None:
    entry = await world.register()
    world.scheduler.hurry(entry)
    await entry.leave(briefly=True)
    assert not world.scheduler._running
    assert "/s/0" not in world.store.nodes


async def test_one_scheduler_for_a_client_and_a_loop(world: World) -> None:
    other = SharedKeys(world.clock)  # type: ignore[arg-type]
    assert scheduler_of(world.store.keys) is world.scheduler
    assert scheduler_of(other.keys) is not world.scheduler


def test_another_loop_another_scheduler() -> None:
    store = SharedKeys(Clock())  # type: ignore[arg-type]
    kept: list[Scheduler] = []

    async def schedule() -> None:
        kept.append(scheduler_of(store.keys))
        assert scheduler_of(store.keys) is kept[-1]

    for _ in range(2):
        asyncio.run(schedule())
    assert kept[0] is not kept[1]


def test_a_scheduler_goes_with_its_last_registration() -> None:
    made: list[weakref.ref[Scheduler]] = []

    async def schedule() -> None:
        made.append(weakref.ref(scheduler_of(SharedKeys(Clock()).keys)))  # type: ignore[arg-type]

    asyncio.run(schedule())
    gc.collect()
    assert made[0]() is None


# --- outages ----------------------------------------------------------------------------------------------------------


async def test_in_an_outage_one_tries_for_all(world: World, lines: Callable[[], list[str]]) -> None:
    await world.register(100)
    world.failure = down()
    await world.passes(1.1)
    assert len(world.refreshed) <= 17
    world.refreshed.clear()
    world.most = 0
    await world.passes(10)
    assert 15 <= len(world.refreshed) <= 25
    assert world.most == 1
    assert len([line for line in lines() if "trying again" in line]) == 1
    assert not [line for line in lines() if "succeeded" in line]


async def test_after_an_outage_all_are_kept_alive_soon(world: World, lines: Callable[[], list[str]]) -> None:
    await world.register(100)
    world.failure = down()
    await world.passes(10)
    world.refreshed.clear()
    world.failure = None
    await world.passes(2.5)
    assert len({key for _, key in world.refreshed}) == 100
    assert world.most <= 16
    assert [line for line in lines() if "succeeded again" in line] == lines()[-1:]


async def test_a_second_outage_is_another_warning(world: World, lines: Callable[[], list[str]]) -> None:
    await world.register()
    for _ in range(2):
        world.failure = down()
        await world.passes(25)
        world.failure = None
        await world.passes(5)
    assert ["trying again" in line for line in lines()] == [True, False, True, False]


async def test_what_is_refused_is_tried_again_at_its_next_turn(world: World, lines: Callable[[], list[str]]) -> None:
    await world.register(3)
    world.failure = UnauthorizedError(110, "The request requires user authentication", "", 0)
    await world.passes(45)
    assert world.times() == [1.0, 21.0, 41.0]
    world.failure = None
    await world.passes(20)
    assert [line.partition(": ")[2][:16] for line in lines()] == ["trying again unt", "succeeded again,"]
    assert all(entry.is_there for entry in world.entries)


async def test_another_kind_of_failure_is_another_warning(world: World, lines: Callable[[], list[str]]) -> None:
    await world.register(2)
    for world.failure in (down(), APIError(999, "Whatever", "", 0)):
        await world.passes(25)
    assert len([line for line in lines() if "trying again" in line]) == 2


async def test_belief_ends_with_the_ttl(world: World) -> None:
    entry = await world.register()
    world.failure = down()
    await world.passes(TTL - 6.5)
    assert there(entry)
    await world.passes(1)
    assert not there(entry)


async def test_an_error_that_is_none_of_ours_ends_nothing(world: World, lines: Callable[[], list[str]]) -> None:
    entry = await world.register()
    world.failure = ZeroDivisionError("whatever")
    await world.passes(2)
    world.failure = None
    await world.passes(PERIOD)
    assert world.times() == [1.0, 21.0]
    assert there(entry)
    assert "whatever" in lines()[0]


async def test_all_learn_in_their_turn_that_a_client_is_closed(world: World) -> None:
    await world.register(40)
    world.failure = ClientClosedError("the client is closed")
    await world.passes(1.125)
    assert not any(entry.is_there for entry in world.entries)


async def test_a_closed_client_is_asked_no_more(world: World, lines: Callable[[], list[str]]) -> None:
    entry = await world.register()
    world.failure = ClientClosedError("the client is closed")
    await entry.until_current()
    entry.lease.value = "new"
    waiting = asyncio.ensure_future(entry.until_current())
    await world.passes(50)
    assert world.times() == [1.0]
    assert not there(entry)
    with pytest.raises(ClientClosedError):
        await waiting
    assert [line.partition(": ")[2] for line in lines()] == ["is kept alive no more: the client is closed"]
    world.scheduler.hurry(entry)
    await idle()
    assert world.times() == [1.0]


# --- theirs -----------------------------------------------------------------------------------------------------------


async def test_what_is_theirs_is_watched_until_it_is_gone(world: World, lines: Callable[[], list[str]]) -> None:
    entry = await world.register()
    world.store.put("/s/0", "them")
    await world.passes(1.1)
    assert not there(entry)
    assert lines() == ["registration /s/0: another has written it; it is made again when it is gone"]
    world.store.put("/s/0", "still them")
    await world.passes(50)
    assert world.times() == [1.0]
    world.store.drop("/s/0")
    await idle()
    assert there(entry)
    assert world.store.nodes["/s/0"].value == "us"
    assert world.store.watchers[-1].closed
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert len(lines()) == 1


async def test_theirs_that_is_gone_before_the_watch(world: World) -> None:
    entry = await world.register()
    world.store.put("/s/0", "them")
    world.store.on_watch = lambda: world.store.drop("/s/0")
    await world.passes(1.125)
    assert there(entry)


async def test_theirs_of_which_the_history_is_gone(world: World) -> None:
    entry = await world.register()
    world.store.put("/s/0", "them")
    world.store.history = False
    await world.passes(1.1)
    assert not there(entry)
    world.store.drop("/s/0")
    await idle()
    assert there(entry)


async def test_theirs_that_is_gone_with_the_history(world: World) -> None:
    entry = await world.register()
    world.store.put("/s/0", "them")
    world.store.history = False
    world.store.on_watch = lambda: world.store.drop("/s/0")
    await world.passes(1.125)
    assert there(entry)


async def test_leaving_what_is_theirs(world: World) -> None:
    entry = await world.register()
    world.store.put("/s/0", "them")
    await world.passes(1.1)
    await entry.leave(briefly=False)
    assert world.store.nodes["/s/0"].value == "them"
    assert world.store.watchers[-1].closed
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_watch_that_fails_is_tried_again(world: World, lines: Callable[[], list[str]]) -> None:
    entry = await world.register()
    world.store.put("/s/0", "them")
    real = world.store.watch

    def watch(*_: object, **__: object) -> None:
        raise down()

    world.store.watch = watch  # type: ignore[method-assign,assignment]
    await world.passes(1.1)
    world.store.watch = real  # type: ignore[method-assign]
    assert [line.partition(": ")[2][:12] for line in lines()] == ["another has ", "trying again"]
    await world.clock.wake()
    world.store.drop("/s/0")
    await idle()
    await world.passes(1)
    assert there(entry)


# --- other values -----------------------------------------------------------------------------------------------------


async def test_another_value_is_written_at_once(world: World) -> None:
    entry = await world.register()
    entry.lease.value = "new"
    entry.change()
    await entry.until_current()
    assert world.store.nodes["/s/0"].value == "new"
    await world.passes(19)
    assert len(world.times()) == 1


async def test_the_same_value_is_not_written(world: World) -> None:
    entry = await world.register()
    entry.change()
    await entry.until_current()
    await idle()
    assert world.times() == []


async def test_another_value_waits_for_the_end_of_an_outage(world: World) -> None:
    entry = await world.register()
    world.failure = down()
    entry.lease.value = "new"
    entry.change()
    waiting = asyncio.ensure_future(entry.until_current())
    await world.passes(10)
    assert not waiting.done()
    world.failure = None
    await world.passes(3)
    await waiting
    assert world.store.nodes["/s/0"].value == "new"


async def test_who_waits_learns_of_the_end(world: World) -> None:
    entry = await world.register()
    entry.lease.value = "new"
    waiting = asyncio.ensure_future(entry.until_current())
    await idle()
    await entry.leave(briefly=True)
    with pytest.raises(RuntimeError, match="its block has ended"):
        await waiting


# --- leaving in an outage ---------------------------------------------------------------------------------------------


async def test_all_that_leave_in_an_outage_have_one_patience(world: World, lines: Callable[[], list[str]]) -> None:
    await world.register(20)
    tried: list[float] = []

    async def delete() -> None:
        tried.append(world.clock.now)
        raise down()

    for entry in world.entries:
        entry.lease.delete = delete  # type: ignore[method-assign]
    leaving = asyncio.ensure_future(world.entries[0].leave(briefly=False))
    await idle()
    while not leaving.done():
        world.clock.now += world.clock.sleeps[-1]
        await world.clock.wake()
    assert 9.5 <= world.clock.now - 1000 <= 10.6
    assert len(tried) >= 12
    tried.clear()
    for entry in world.entries[1:]:
        await entry.leave(briefly=False)
    assert tried == []
    assert len(lines()) == 1


async def test_leaving_in_a_hurry_is_tried_once(world: World) -> None:
    entry = await world.register()
    tried: list[int] = []

    async def delete() -> None:
        tried.append(1)
        raise down()

    entry.lease.delete = delete  # type: ignore[method-assign]
    await entry.leave(briefly=True)
    assert tried == [1]

"""How many register at once."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from async_timeout import timeout

from aioetcd2 import ClusterError, ConnectError, HeaderTimeoutError
from aioetcd2._net.turns import Turns
from aioetcd2._v2 import requests, responses
from aioetcd2._watching import surroundings as surroundings_module
from aioetcd2._watching.surroundings import AT_FIRST, Surroundings

from .clockwork import idle
from .scripted import ONE, TWO, Etcd, Stream, surroundings


class Taker:
    """Takes a turn, and gives it back when it is told to."""

    def __init__(self, turns: Turns) -> None:
        self.has = False
        self.go = asyncio.Event()
        self.task = asyncio.ensure_future(self._take(turns))

    async def _take(self, turns: Turns) -> None:
        async with turns.take():
            self.has = True
            await self.go.wait()
        self.has = False


async def takers(turns: Turns, number: int) -> list[Taker]:
    made = [Taker(turns) for _ in range(number)]
    await idle()
    return made


def having(takers: list[Taker]) -> list[int]:
    return [i for i, each in enumerate(takers) if each.has]


async def end(takers: list[Taker]) -> None:
    for each in takers:
        each.task.cancel()
    await asyncio.wait([each.task for each in takers])


async def test_as_many_have_a_turn_as_may_and_the_others_wait_in_order() -> None:
    turns = Turns(3)
    all_ = await takers(turns, 7)
    assert having(all_) == [0, 1, 2]
    all_[1].go.set()
    await idle()
    assert having(all_) == [0, 2, 3]
    for each in all_[:4]:
        each.go.set()
    await idle()
    assert having(all_) == [4, 5, 6]
    await end(all_)
    assert turns._taken == 0


async def test_each_success_allows_one_more_up_to_the_most() -> None:
    turns = Turns(2, 4)
    all_ = await takers(turns, 6)
    for allowed in (3, 4, 4):
        turns.succeeded()
        await idle()
        assert (turns.allowed, len(having(all_))) == (allowed, allowed)
    await end(all_)


async def test_slow_successes_add_no_turns() -> None:
    """The server bears so many, and more would run into the header timeout."""
    turns = Turns(2, 4)
    all_ = await takers(turns, 6)
    turns.succeeded(quickly=False)
    assert turns.allowed == 2
    turns.succeeded(quickly=True)
    assert turns.allowed == 3
    await end(all_)


async def test_nobody_waits_and_so_there_are_no_more() -> None:
    """That few do well says nothing of how many would: a burst would be too much then."""
    turns = Turns(2, 4)
    all_ = await takers(turns, 2)
    turns.succeeded()
    assert turns.allowed == 2
    await end(all_)


async def test_many_that_time_out_together_halve_once() -> None:
    turns = Turns(16)
    began = time.monotonic()
    for _ in range(10):
        turns.timed_out(began)
    assert turns.allowed == 8
    turns.timed_out(time.monotonic())
    assert turns.allowed == 4


async def test_who_comes_later_does_not_get_ahead() -> None:
    """A turn is handed on, so that nobody takes it between its end and the waking of who has waited."""
    turns = Turns(1)
    all_ = await takers(turns, 2)
    all_[0].go.set()
    while not all_[0].task.done():
        await asyncio.sleep(0)
    assert not turns.begin()
    await idle()
    assert having(all_) == [1]
    await end(all_)
    assert turns.begin()


async def test_nothing_is_left_of_those_who_gave_up() -> None:
    turns = Turns(1)
    first, *others = await takers(turns, 100)
    await end(others)
    assert not turns._waiting
    await end([first])


async def test_too_many_for_this_process() -> None:
    turns = Turns(5)
    all_ = await takers(turns, 7)
    assert turns.is_too_many()
    assert turns.allowed == 4
    all_[0].go.set()
    await idle()
    assert having(all_) == [1, 2, 3, 4]
    for each in all_[1:5]:
        each.go.set()
    await idle()
    assert having(all_) == [5, 6]
    await end(all_[5:6])
    assert not turns.is_too_many(), "one is never too many"
    await end(all_[6:])
    assert turns.allowed == 5, "until the rush is over"


async def test_all_may_go_in_the_end() -> None:
    turns = Turns(1)
    all_ = await takers(turns, 5)
    turns.open()
    await idle()
    assert len(having(all_)) == 5
    await end(all_)


async def test_a_time_out_halves_them_and_leaves_one() -> None:
    turns = Turns(13)
    for allowed in (6, 3, 1, 1, 1):
        turns.timed_out()
        assert turns.allowed == allowed
    all_ = await takers(turns, 5)
    turns.succeeded()
    await idle()
    assert having(all_) == [0, 1]
    turns.timed_out()
    all_[0].go.set()
    await idle()
    assert having(all_) == [1]  # until there are as few as may be
    all_[1].go.set()
    await idle()
    assert having(all_) == [2]
    await end(all_)


async def test_who_gives_up_waiting_holds_up_nobody() -> None:
    turns = Turns(1)
    all_ = await takers(turns, 4)
    all_[1].task.cancel()
    await idle()
    all_[0].go.set()
    await idle()
    assert having(all_) == [2]
    all_[2].go.set()
    all_[3].task.cancel()
    await idle()
    assert not having(all_)
    more = await takers(turns, 1)
    assert having(more) == [0]
    await end(all_ + more)


async def test_who_gives_up_as_its_turn_comes_passes_it_on() -> None:
    turns = Turns(1)
    all_ = await takers(turns, 3)
    all_[0].go.set()
    while not all_[0].task.done():
        await asyncio.sleep(0)
    all_[1].task.cancel()
    await idle()
    assert having(all_) == [2]
    await end(all_)


async def test_a_turn_can_be_given_back_early_and_only_once() -> None:
    turns = Turns(1)
    async with turns.take() as turn:
        turn.give_back()
        turn.give_back()
        async with turns.take():
            assert turns._taken == 1
    assert turns._taken == 0


# --- registrations --------------------------------------------------------------------------------------------------

REQUEST = requests.wait("/v2/keys/a", False, None, stream=True)


@pytest.fixture
def etcd() -> Etcd:
    return Etcd()


@pytest.fixture
def shared(etcd: Etcd) -> Surroundings:
    return surroundings(etcd, 10.0, 0.1)


def register(shared: Surroundings) -> asyncio.Task[Any]:
    return asyncio.ensure_future(shared.register(lambda endpoint: REQUEST, responses.opened))


async def cancel(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_not_all_register_at_once(shared: Surroundings, etcd: Etcd) -> None:
    tasks = [register(shared) for _ in range(40)]
    await idle()
    assert etcd.opening == AT_FIRST == 16
    await cancel(tasks[:1])
    await idle()
    assert etcd.opening == 16
    await cancel(tasks)


async def test_where_headers_are_held_back_all_wait_at_once(shared: Surroundings, etcd: Etcd) -> None:
    assert await shared.buffering.judge(TWO)
    tasks = [register(shared) for _ in range(40)]
    await idle()
    assert etcd.opening == 40
    await cancel(tasks)


async def test_without_a_header_timeout_a_late_header_keeps_nobody_out() -> None:
    """Nor where nobody can say whether it is held back: the endpoint does not answer other questions in time either."""
    etcd = Etcd()
    etcd.unreachable.add(ONE)
    shared = surroundings(etcd, 0.05, None)
    tasks = [register(shared) for _ in range(20)]
    await idle()
    assert etcd.opening == 16
    async with timeout(2):
        while etcd.opening != 20:
            await asyncio.sleep(0.01)
    await cancel(tasks)


async def test_registering_gives_the_stream(shared: Surroundings, etcd: Etcd) -> None:
    stream = Stream()
    etcd.script += [stream, stream]
    assert await register(shared) is stream
    await shared.buffering.judge(ONE)
    assert await register(shared) is stream


@pytest.mark.parametrize(("took", "allowed"), [(0.024, 17), (0.026, 16)])
async def test_only_a_quick_registration_lets_more_in(
    took: float, allowed: int, shared: Surroundings, etcd: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quick is what takes less than a quarter of the header timeout."""
    others = [register(shared) for _ in range(16)]
    await idle()
    etcd.script.append(Stream())
    monkeypatch.setattr(surroundings_module, "time", SimpleNamespace(monotonic=iter([0.0, took, 0.0, 0.0]).__next__))
    quick, waiting = register(shared), register(shared)
    await asyncio.sleep(0)
    await cancel(others[:1])
    await quick
    assert shared._turns.allowed == allowed
    await cancel([*others, waiting])


@pytest.mark.parametrize(
    ("error", "allowed"),
    [
        (HeaderTimeoutError(ONE, "no answer"), 8),
        (ConnectError(ONE, "refused"), 16),
        (ConnectError(ONE, "too many open files", ours=True), 16),
    ],
)
async def test_only_a_time_out_of_headers_halves_them(
    error: Any, allowed: int, shared: Surroundings, etcd: Etcd
) -> None:
    etcd.script.append(ClusterError("GET /v2/keys/a", [ConnectError(TWO, "refused"), error]))
    with pytest.raises(ClusterError):
        await register(shared)
    assert shared._turns.allowed == allowed

"""What the watchers of a client share: probes, what holds back, how many register and count at once, the log."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from aioetcd2 import (
    APIError,
    ClientClosedError,
    ClusterError,
    ConnectError,
    Health,
    KeyNotFoundError,
    Node,
    NotDirError,
    UnauthorizedError,
)
from aioetcd2._v2 import requests, responses
from aioetcd2._watching import buffering, liveness, looks
from aioetcd2._watching import surroundings as rooms
from aioetcd2._watching.surroundings import Surroundings

from .scripted import ONE, TWO, Etcd, Stream, surroundings

UNREACHABLE = ClusterError("GET /health", [ConnectError(ONE, "refused")])


class Clock:
    """Takes the place of a module: sleeping ends when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sleeps: list[float] = []
        self._turns = asyncio.Semaphore(0)

    def monotonic(self) -> float:
        return self.now

    time = monotonic

    def get_running_loop(self) -> Clock:
        return self

    async def sleep(self, delay: float) -> None:
        self.sleeps.append(round(delay, 6))
        await self._turns.acquire()
        self.now += delay

    async def wake(self) -> None:
        self._turns.release()
        await idle()

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)


class Watching:
    """A watcher, as far as a shared knows."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def evict(self) -> None:
        self.calls.append("evict")

    def abort(self) -> None:
        self.calls.append("abort")

    async def aclose(self) -> None:
        self.calls.append("aclose")


async def idle() -> None:
    for _ in range(40):
        await asyncio.sleep(0)


async def hang(*args: object) -> Health:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (liveness, looks):
        monkeypatch.setattr(module, "asyncio", clock)
    monkeypatch.setattr(buffering, "time", clock)
    return clock


@pytest.fixture
def etcd() -> Etcd:
    return Etcd()


@pytest.fixture
async def shared(clock: Clock, etcd: Etcd) -> AsyncIterator[Surroundings]:
    shared = surroundings(etcd, 10.0, 0.1)
    yield shared
    await shared.liveness.close()
    await idle()


# --- probes ---------------------------------------------------------------------------------------------------------


async def test_an_endpoint_is_probed_once_an_interval_while_it_has_watchers(
    shared: Surroundings, etcd: Etcd, clock: Clock
) -> None:
    watchers = [Watching() for _ in range(3)]
    for each in watchers:
        shared.liveness.attach(each, ONE)
    await idle()
    assert (clock.sleeps, etcd.probed) == ([10.0], [])
    for times in (1, 2):
        await clock.wake()
        assert etcd.probed == [ONE] * times
    assert clock.sleeps == [10.0] * 3
    for each in watchers[:2]:
        shared.liveness.detach(each, ONE)
    await clock.wake()
    assert etcd.probed == [ONE] * 3
    shared.liveness.detach(watchers[2], ONE)
    await idle()
    assert not shared.liveness._probing
    await clock.wake()
    assert etcd.probed == [ONE] * 3
    assert [each.calls for each in watchers] == [[], [], []]


async def test_a_probe_that_takes_long_delays_no_other(
    shared: Surroundings, etcd: Etcd, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = Watching()
    shared.liveness.attach(watcher, ONE)
    await idle()
    at = etcd.at

    async def slow(*args: Any) -> Health:
        clock.now += 4.0
        return await at(*args)

    monkeypatch.setattr(etcd, "at", slow)
    await clock.wake()
    assert clock.sleeps == [10.0, 6.0]

    async def slower(*args: Any) -> Health:
        clock.now += 25.0
        return await at(*args)

    monkeypatch.setattr(etcd, "at", slower)
    await clock.wake()
    assert clock.sleeps == [10.0, 6.0, 0.0]


async def test_who_is_forgotten_is_not_probed_for(shared: Surroundings, etcd: Etcd, clock: Clock) -> None:
    watcher = Watching()
    shared.liveness.attach(watcher, ONE)
    etcd.health = UNREACHABLE
    await idle()
    del watcher
    gc.collect()
    await clock.wake()
    assert not etcd.suspected


@pytest.mark.parametrize(
    ("health", "choice", "words"),
    [
        (Health(True), True, None),
        (Health(False), False, None),
        (Health(False), True, "it is not healthy: no leader"),
        (Health(False, "RAFT NO LEADER"), True, "it is not healthy: RAFT NO LEADER"),
        (UNREACHABLE, False, "http://one:1: refused"),
        (ClientClosedError("the client is closed"), True, "the client is closed"),
        (APIError(0, "what?"), True, None),
        (UnauthorizedError(110, "no"), True, None),
    ],
    ids=str,
)
async def test_who_has_no_leader_or_does_not_answer_loses_its_watchers(
    health: Health | Exception,
    choice: bool,
    words: str | None,
    shared: Surroundings,
    etcd: Etcd,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    watchers, elsewhere = [Watching(), Watching()], Watching()
    for each in watchers:
        shared.liveness.attach(each, ONE)
    shared.liveness.attach(elsewhere, TWO)
    await idle()
    etcd.health, etcd.has_choice = health, choice
    await clock.wake()
    assert [each.calls for each in watchers] == [["evict"] if words else []] * 2
    assert etcd.suspected == ([ONE] if words else [])
    assert elsewhere.calls == []
    assert clock.sleeps == [10.0] * 3  # it goes on
    assert [record.message for record in caplog.records] == ([f"2 watches leave {ONE}: {words}"] if words else [])
    for each in watchers:
        shared.liveness.detach(each, ONE)
    shared.liveness.detach(elsewhere, TWO)


@pytest.mark.parametrize(("header_timeout", "seconds"), [(0.05, 0.05), (None, 0.1)])
async def test_a_probe_has_its_time(
    header_timeout: float | None, seconds: float, etcd: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = surroundings(etcd, 0.1, header_timeout)

    monkeypatch.setattr(etcd, "at", hang)
    start = asyncio.get_running_loop().time()
    assert (
        await shared.liveness.problem(ONE, shared.liveness._probe_timeout) == f"no answer to a probe within {seconds} s"
    )
    assert seconds - 0.01 <= asyncio.get_running_loop().time() - start < seconds + 0.3
    assert shared.stuck._seconds == seconds


async def test_a_closed_client_is_not_probed_for(shared: Surroundings, etcd: Etcd, clock: Clock) -> None:
    watcher = Watching()
    shared.liveness.attach(watcher, ONE)
    await idle()
    etcd.closed = True
    await clock.wake()
    assert etcd.probed == [ONE]
    await clock.wake()
    assert len(clock.sleeps) == 1


async def test_detaching_where_nobody_is_does_nothing(shared: Surroundings) -> None:
    shared.liveness.detach(Watching(), ONE)


async def test_attaching_again_probes_again(shared: Surroundings, etcd: Etcd, clock: Clock) -> None:
    watcher = Watching()
    shared.liveness.attach(watcher, ONE)
    await idle()
    shared.liveness.detach(watcher, ONE)
    shared.liveness.attach(watcher, ONE)
    await idle()
    for _ in range(2):
        await clock.wake()
    assert etcd.probed
    assert len(shared.liveness._probing) == 1


async def test_endpoints_that_are_gone_are_left(shared: Surroundings) -> None:
    first, second = Watching(), Watching()
    shared.liveness.attach(first, ONE)
    shared.liveness.attach(second, TWO)
    shared.liveness.leave({TWO})
    assert (first.calls, second.calls) == (["evict"], [])


async def test_closing_shuts_all_before_it_waits_for_any(shared: Surroundings, etcd: Etcd) -> None:
    told: list[str] = []

    class Telling(Watching):
        def abort(self) -> None:
            told.append("abort")

        async def aclose(self) -> None:
            told.append("aclose")
            await asyncio.sleep(0)

    watchers = [Telling(), Telling(), Telling()]
    for each in watchers:
        shared.liveness.add(each)
        shared.liveness.attach(each, ONE)
    shared.liveness.discard(watchers[2])
    probing = list(shared.liveness._probing.values())
    await shared.liveness.close()
    assert told == ["abort", "abort", "aclose", "aclose"]
    assert all(each.cancelled() for each in probing)
    assert not shared.liveness._probing
    assert not shared.liveness._at


async def test_closing_waits_for_the_end_of_probes(shared: Surroundings, etcd: Etcd) -> None:
    shared.liveness.attach(Watching(), ONE)
    probing = shared.liveness._probing[ONE]
    await idle()
    await shared.liveness.close()
    assert probing.done()
    await surroundings(etcd, 1.0, 1.0).liveness.close()


async def test_limits_of_streams(shared: Surroundings) -> None:
    assert (shared.hush._seconds, shared.stuck._seconds) == (rooms.SILENCE, 0.1)


# --- the log --------------------------------------------------------------------------------------------------------


async def test_an_outage_is_one_line_however_many_watchers(
    shared: Surroundings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    shared.outage.is_over("/a")
    for _ in range(2):
        shared.outage.interrupts("", UNREACHABLE)
        shared.outage.interrupts("/b", UNREACHABLE)
        shared.outage.is_over("")
        shared.outage.is_over("/b")
    problem = "GET /health: no endpoint answered; http://one:1: refused [ConnectError]"
    outage = [
        ("WARNING", f"watches are interrupted, and go on trying; that of /: {problem}"),
        ("INFO", "watches go on again, that of / the first"),
    ]
    assert [(record.levelname, record.message) for record in caplog.records] == outage * 2


async def test_a_gap_is_a_line(shared: Surroundings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    shared.reporter.watch_resynchronized("/a", 7)
    shared.reporter.watch_resynchronized("", 8)
    assert [record.message for record in caplog.records] == [
        "watch of /a lost events up to index 7, and goes on from there",
        "watch of / lost events up to index 8, and goes on from there",
    ]


# --- what holds back ------------------------------------------------------------------------------------------------


def late(shared: Surroundings) -> tuple[bool, bool, bool]:
    return shared.buffering.anywhere, shared.buffering.at(ONE), shared.buffering.at(TWO)


async def test_who_answers_a_probe_holds_back_for_longer_and_longer(
    shared: Surroundings, etcd: Etcd, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert late(shared) == (False, False, False)
    assert not shared.buffering.at(None)
    for seconds in (60, 120, 240, 480, 960, 1920, 3600, 3600):
        assert await shared.buffering.judge(ONE)
        clock.now += seconds - 0.001
        assert late(shared) == (True, True, False)
        clock.now += 0.001
        assert late(shared) == (False, False, False)
    assert f"{ONE} holds back what a wait brings, as a buffering proxy does; using long polls" in caplog.text


async def test_who_answers_no_probe_does_not_hold_back(shared: Surroundings, etcd: Etcd) -> None:
    etcd.health = UNREACHABLE
    assert await shared.buffering.judge(ONE) is False
    assert not shared.buffering.anywhere


@pytest.mark.parametrize(("header_timeout", "seconds"), [(0.05, 0.05), (5.0, 0.1)])
async def test_holding_back_is_found_out_soon(
    header_timeout: float, seconds: float, etcd: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffering, "ANSWERS_WITHIN", 0.1)
    shared = surroundings(etcd, 10.0, header_timeout)

    monkeypatch.setattr(etcd, "at", hang)
    start = asyncio.get_running_loop().time()
    assert not await shared.buffering.judge(ONE)
    assert seconds - 0.01 <= asyncio.get_running_loop().time() - start < seconds + 0.3


async def open_many(shared: Surroundings, number: int) -> list[asyncio.Task[Any]]:
    request = requests.wait("/v2/keys/a", False, None, stream=True)
    tasks = [asyncio.ensure_future(shared.register(lambda endpoint: request, responses.opened)) for _ in range(number)]
    await idle()
    return tasks


async def end(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_not_all_register_at_once(etcd: Etcd, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "REGISTRATIONS_AT_ONCE", 3)
    shared = surroundings(etcd, 10.0, 0.1)
    tasks = await open_many(shared, 5)
    assert etcd.opening == 3
    await end(tasks[:1])
    await idle()
    assert etcd.opening == 3
    await end(tasks)


async def test_where_headers_are_held_back_all_wait_at_once(
    etcd: Etcd, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "REGISTRATIONS_AT_ONCE", 3)
    shared = surroundings(etcd, 10.0, 0.1)
    await shared.buffering.judge(TWO)
    tasks = await open_many(shared, 5)
    assert etcd.opening == 5
    await end(tasks)


async def test_opening_gives_the_stream(shared: Surroundings, etcd: Etcd) -> None:
    request = requests.wait("/v2/keys/a", False, None, stream=True)
    for late in (False, True):
        stream = Stream()
        etcd.script.append(stream)
        if late:
            await shared.buffering.judge(ONE)
        assert await shared.register(lambda endpoint: request, responses.opened) is stream


# --- looking and counting -------------------------------------------------------------------------------------------

TREE = Node("/a", None, True, (Node("/a/b", "v"), Node("/a/c", "v")))


async def test_a_look_at_the_keys(shared: Surroundings, etcd: Etcd) -> None:
    etcd.state = (31, TREE)
    assert await shared.looks.look("/v2/keys/a", True) == (31, TREE)
    assert await shared.looks.look("/v2/keys/a", False) == (31, TREE)
    assert etcd.reads == ["/v2/keys/a?recursive=true", "/v2/keys/a"]


async def test_a_look_at_nothing(shared: Surroundings, etcd: Etcd) -> None:
    for absent in (KeyNotFoundError(100, "Key not found", "/a", 32), NotDirError(104, "Not a directory", "/a", 32)):
        etcd.state = absent
        assert await shared.looks.look("/v2/keys/a", True) == (32, None)
    etcd.state = UnauthorizedError(110, "no")
    with pytest.raises(UnauthorizedError):
        await shared.looks.look("/v2/keys/a", True)


def counting(
    shared: Surroundings, cursor: Callable[[], int | None], rest: float = 5.0
) -> asyncio.Task[tuple[int, Node | None] | None]:
    return asyncio.ensure_future(shared.looks.in_background("/v2/keys/a", True, rest, cursor))


@pytest.mark.parametrize(("cursor", "sleeps"), [(31, [5.0]), (30, [5.0, 0.5]), (32, [5.0, 0.5]), (None, [5.0, 0.5])])
async def test_a_census_waits_for_events_that_are_on_their_way(
    cursor: int | None, sleeps: list[float], shared: Surroundings, etcd: Etcd, clock: Clock
) -> None:
    etcd.state = (31, TREE)
    task = counting(shared, lambda: cursor)
    await idle()
    assert not etcd.reads
    await clock.wake()
    assert etcd.reads == ["/v2/keys/a?recursive=true"]
    assert task.done() is (len(sleeps) == 1)
    await clock.wake()
    assert await task == (31, TREE)
    assert clock.sleeps == sleeps


async def test_a_census_that_fails_is_none(shared: Surroundings, etcd: Etcd, clock: Clock) -> None:
    etcd.state = UNREACHABLE
    task = counting(shared, lambda: 31)
    await clock.wake()
    assert await task is None
    assert clock.sleeps == [5.0]


async def test_not_all_count_at_once(etcd: Etcd, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "AT_ONCE", 2)
    shared = surroundings(etcd, 10.0, 0.1)
    reading = 0

    async def hang(*args: object) -> None:
        nonlocal reading
        reading += 1
        await asyncio.Event().wait()

    monkeypatch.setattr(etcd, "call", hang)
    tasks = [counting(shared, lambda: 31) for _ in range(4)]
    await idle()
    for _ in tasks:
        await clock.wake()
    assert reading == 2
    await end(tasks)

"""What the watchers of a client share: probes, what holds back, how many register and count at once, the log."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

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
    _hub,
)
from aioetcd2._census import Census
from aioetcd2._failover import Failover
from aioetcd2._hub import WatchHub
from aioetcd2._wait import request_for

from .scripted import ONE, TWO, Etcd, Stream

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
    """A watcher, as far as a hub knows."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def evict(self) -> None:
        self.calls.append("evict")

    def shut(self) -> None:
        self.calls.append("shut")

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
    monkeypatch.setattr(_hub, "asyncio", clock)
    monkeypatch.setattr(_hub, "time", clock)
    return clock


@pytest.fixture
def etcd() -> Etcd:
    return Etcd()


@pytest.fixture
async def hub(clock: Clock, etcd: Etcd) -> AsyncIterator[WatchHub]:
    hub = WatchHub(cast(Failover, etcd), 10.0, 0.1)
    yield hub
    await hub.close()
    await idle()


# --- probes ---------------------------------------------------------------------------------------------------------


async def test_an_endpoint_is_probed_once_an_interval_while_it_has_watchers(
    hub: WatchHub, etcd: Etcd, clock: Clock
) -> None:
    watchers = [Watching() for _ in range(3)]
    for each in watchers:
        hub.attach(each, ONE)
    await idle()
    assert (clock.sleeps, etcd.probed) == ([10.0], [])
    for times in (1, 2):
        await clock.wake()
        assert etcd.probed == [ONE] * times
    assert clock.sleeps == [10.0] * 3
    for each in watchers[:2]:
        hub.detach(each, ONE)
    await clock.wake()
    assert etcd.probed == [ONE] * 3
    hub.detach(watchers[2], ONE)
    await idle()
    assert not hub._probing
    await clock.wake()
    assert etcd.probed == [ONE] * 3
    assert [each.calls for each in watchers] == [[], [], []]


async def test_a_probe_that_takes_long_delays_no_other(
    hub: WatchHub, etcd: Etcd, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = Watching()
    hub.attach(watcher, ONE)
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


async def test_who_is_forgotten_is_not_probed_for(hub: WatchHub, etcd: Etcd, clock: Clock) -> None:
    watcher = Watching()
    hub.attach(watcher, ONE)
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
    hub: WatchHub,
    etcd: Etcd,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    watchers, elsewhere = [Watching(), Watching()], Watching()
    for each in watchers:
        hub.attach(each, ONE)
    hub.attach(elsewhere, TWO)
    await idle()
    etcd.health, etcd.has_choice = health, choice
    await clock.wake()
    assert [each.calls for each in watchers] == [["evict"] if words else []] * 2
    assert etcd.suspected == ([ONE] if words else [])
    assert elsewhere.calls == []
    assert clock.sleeps == [10.0] * 3  # it goes on
    assert [record.message for record in caplog.records] == ([f"2 watches leave {ONE}: {words}"] if words else [])
    for each in watchers:
        hub.detach(each, ONE)
    hub.detach(elsewhere, TWO)


@pytest.mark.parametrize(("header_timeout", "seconds"), [(0.05, 0.05), (None, 0.1)])
async def test_a_probe_has_its_time(
    header_timeout: float | None, seconds: float, etcd: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = WatchHub(cast(Failover, etcd), 0.1, header_timeout)

    monkeypatch.setattr(etcd, "at", hang)
    start = asyncio.get_running_loop().time()
    assert await hub._problem(ONE, hub._probe_timeout) == f"no answer to a probe within {seconds} s"
    assert seconds - 0.01 <= asyncio.get_running_loop().time() - start < seconds + 0.3
    assert hub.stuck._seconds == seconds


async def test_a_closed_client_is_not_probed_for(hub: WatchHub, etcd: Etcd, clock: Clock) -> None:
    watcher = Watching()
    hub.attach(watcher, ONE)
    await idle()
    etcd.closed = True
    await clock.wake()
    assert etcd.probed == [ONE]
    await clock.wake()
    assert len(clock.sleeps) == 1


async def test_detaching_where_nobody_is_does_nothing(hub: WatchHub) -> None:
    hub.detach(Watching(), ONE)


async def test_attaching_again_probes_again(hub: WatchHub, etcd: Etcd, clock: Clock) -> None:
    watcher = Watching()
    hub.attach(watcher, ONE)
    await idle()
    hub.detach(watcher, ONE)
    hub.attach(watcher, ONE)
    await idle()
    for _ in range(2):
        await clock.wake()
    assert etcd.probed
    assert len(hub._probing) == 1


async def test_endpoints_that_are_gone_are_left(hub: WatchHub) -> None:
    first, second = Watching(), Watching()
    hub.attach(first, ONE)
    hub.attach(second, TWO)
    hub.leave({TWO})
    assert (first.calls, second.calls) == (["evict"], [])


async def test_closing_shuts_all_before_it_waits_for_any(hub: WatchHub, etcd: Etcd) -> None:
    told: list[str] = []

    class Telling(Watching):
        def shut(self) -> None:
            told.append("shut")

        async def aclose(self) -> None:
            told.append("aclose")
            await asyncio.sleep(0)

    watchers = [Telling(), Telling(), Telling()]
    for each in watchers:
        hub.add(each)
        hub.attach(each, ONE)
    hub.discard(watchers[2])
    probing = list(hub._probing.values())
    await hub.close()
    assert told == ["shut", "shut", "aclose", "aclose"]
    assert all(each.cancelled() for each in probing)
    assert not hub._probing
    assert not hub._at


async def test_closing_waits_for_the_end_of_probes(hub: WatchHub, etcd: Etcd) -> None:
    hub.attach(Watching(), ONE)
    probing = hub._probing[ONE]
    await idle()
    await hub.close()
    assert probing.done()
    await WatchHub(cast(Failover, etcd), 1.0, 1.0).close()


async def test_limits_of_streams(hub: WatchHub) -> None:
    assert (hub.hush._seconds, hub.stuck._seconds) == (_hub.SILENCE, 0.1)


# --- the log --------------------------------------------------------------------------------------------------------


async def test_an_outage_is_one_line_however_many_watchers(hub: WatchHub, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    hub.resumed("/a")
    for _ in range(2):
        hub.interrupted("", UNREACHABLE)
        hub.interrupted("/b", UNREACHABLE)
        hub.resumed("")
        hub.resumed("/b")
    problem = "GET /health: no endpoint answered; http://one:1: refused [ConnectError]"
    outage = [
        ("WARNING", f"watches are interrupted, and go on trying; that of /: {problem}"),
        ("INFO", "watches go on again, that of / the first"),
    ]
    assert [(record.levelname, record.message) for record in caplog.records] == outage * 2


async def test_a_gap_is_a_line(hub: WatchHub, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    hub.resynchronized("/a", 7)
    hub.resynchronized("", 8)
    assert [record.message for record in caplog.records] == [
        "watch of /a lost events up to index 7, and goes on from there",
        "watch of / lost events up to index 8, and goes on from there",
    ]


# --- what holds back ------------------------------------------------------------------------------------------------


def late(hub: WatchHub) -> tuple[bool, bool, bool]:
    return hub.has_late, hub.is_late(ONE), hub.is_late(TWO)


async def test_who_answers_a_probe_holds_back_for_longer_and_longer(
    hub: WatchHub, etcd: Etcd, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert late(hub) == (False, False, False)
    assert not hub.is_late(None)
    for seconds in (60, 120, 240, 480, 960, 1920, 3600, 3600):
        assert await hub.holds_back(ONE)
        clock.now += seconds - 0.001
        assert late(hub) == (True, True, False)
        clock.now += 0.001
        assert late(hub) == (False, False, False)
    assert f"{ONE} holds back what a wait brings, as a buffering proxy does; using long polls" in caplog.text


async def test_who_answers_no_probe_does_not_hold_back(hub: WatchHub, etcd: Etcd) -> None:
    etcd.health = UNREACHABLE
    assert await hub.holds_back(ONE) is False
    assert not hub.has_late


@pytest.mark.parametrize(("header_timeout", "seconds"), [(0.05, 0.05), (5.0, 0.1)])
async def test_holding_back_is_found_out_soon(
    header_timeout: float, seconds: float, etcd: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_hub, "HOLDING_BACK", 0.1)
    hub = WatchHub(cast(Failover, etcd), 10.0, header_timeout)

    monkeypatch.setattr(etcd, "at", hang)
    start = asyncio.get_running_loop().time()
    assert not await hub.holds_back(ONE)
    assert seconds - 0.01 <= asyncio.get_running_loop().time() - start < seconds + 0.3


async def open_many(hub: WatchHub, number: int) -> list[asyncio.Task[Any]]:
    request = request_for("/v2/keys/a", False, None, stream=True)
    tasks = [asyncio.ensure_future(hub.open(lambda endpoint: request)) for _ in range(number)]
    await idle()
    return tasks


async def end(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_not_all_register_at_once(etcd: Etcd, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hub, "REGISTRATIONS_AT_ONCE", 3)
    hub = WatchHub(cast(Failover, etcd), 10.0, 0.1)
    tasks = await open_many(hub, 5)
    assert etcd.opening == 3
    await end(tasks[:1])
    await idle()
    assert etcd.opening == 3
    await end(tasks)


async def test_where_headers_are_held_back_all_wait_at_once(
    etcd: Etcd, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_hub, "REGISTRATIONS_AT_ONCE", 3)
    hub = WatchHub(cast(Failover, etcd), 10.0, 0.1)
    await hub.holds_back(TWO)
    tasks = await open_many(hub, 5)
    assert etcd.opening == 5
    await end(tasks)


async def test_opening_gives_the_stream(hub: WatchHub, etcd: Etcd) -> None:
    request = request_for("/v2/keys/a", False, None, stream=True)
    for late in (False, True):
        stream = Stream()
        etcd.script.append(stream)
        if late:
            await hub.holds_back(ONE)
        assert await hub.open(lambda endpoint: request) is stream


# --- looking and counting -------------------------------------------------------------------------------------------

TREE = Node("/a", None, True, (Node("/a/b", "v"), Node("/a/c", "v")))


async def test_a_look_at_the_keys(hub: WatchHub, etcd: Etcd) -> None:
    etcd.state = (31, TREE)
    assert await hub.look("/v2/keys/a", True) == (31, TREE)
    assert await hub.look("/v2/keys/a", False) == (31, TREE)
    assert etcd.reads == ["/v2/keys/a?recursive=true", "/v2/keys/a"]


async def test_a_look_at_nothing(hub: WatchHub, etcd: Etcd) -> None:
    for absent in (KeyNotFoundError(100, "Key not found", "/a", 32), NotDirError(104, "Not a directory", "/a", 32)):
        etcd.state = absent
        assert await hub.look("/v2/keys/a", True) == (32, None)
    etcd.state = UnauthorizedError(110, "no")
    with pytest.raises(UnauthorizedError):
        await hub.look("/v2/keys/a", True)


def counting(hub: WatchHub, cursor: Callable[[], int | None], rest: float = 5.0) -> asyncio.Task[Census | None]:
    return asyncio.ensure_future(hub.census("/v2/keys/a", True, rest, cursor))


@pytest.mark.parametrize(("cursor", "sleeps"), [(31, [5.0]), (30, [5.0, 0.5]), (32, [5.0, 0.5]), (None, [5.0, 0.5])])
async def test_a_census_waits_for_events_that_are_on_their_way(
    cursor: int | None, sleeps: list[float], hub: WatchHub, etcd: Etcd, clock: Clock
) -> None:
    etcd.state = (31, TREE)
    task = counting(hub, lambda: cursor)
    await idle()
    assert not etcd.reads
    await clock.wake()
    assert etcd.reads == ["/v2/keys/a?recursive=true"]
    assert task.done() is (len(sleeps) == 1)
    await clock.wake()
    assert await task == Census(31, 3, 31)
    assert clock.sleeps == sleeps


async def test_a_census_that_fails_is_none(hub: WatchHub, etcd: Etcd, clock: Clock) -> None:
    etcd.state = UNREACHABLE
    task = counting(hub, lambda: 31)
    await clock.wake()
    assert await task is None
    assert clock.sleeps == [5.0]


async def test_not_all_count_at_once(etcd: Etcd, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hub, "COUNTING_AT_ONCE", 2)
    hub = WatchHub(cast(Failover, etcd), 10.0, 0.1)
    reading = 0

    async def hang(request: object) -> None:
        nonlocal reading
        reading += 1
        await asyncio.Event().wait()

    monkeypatch.setattr(etcd, "read", hang)
    tasks = [counting(hub, lambda: 31) for _ in range(4)]
    await idle()
    for _ in tasks:
        await clock.wake()
    assert reading == 2
    await end(tasks)

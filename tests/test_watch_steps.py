"""The steps of a watcher one by one, against an etcd in memory: what it asks for, and what it makes of the answers."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest
from async_timeout import timeout

from aioetcd2 import (
    APIError,
    ClientClosedError,
    ClusterError,
    ConnectError,
    ConnectionLostError,
    EventIndexClearedError,
    HeaderTimeoutError,
    InvalidResponseError,
    Node,
    Response,
    UnauthorizedError,
    Version,
    Watcher,
)
from aioetcd2._net.failover import Failover
from aioetcd2._net.request import Request
from aioetcd2._v2 import stream as stream_module
from aioetcd2._v2.position import Position
from aioetcd2._v2.stream import index_of
from aioetcd2._v2.watch_machine import WatchMachine
from aioetcd2._v2.watching import WatchSpeaker
from aioetcd2._watching import driver, outage, registration, renewal
from aioetcd2._watching.driver import Driver

from .scripted import END, ONE, TWO, Etcd, Failing, Stream, line, surroundings

LOST = ConnectionLostError(ONE, "it broke")
INVALID = InvalidResponseError(ONE, "no etcd")
UNREACHABLE = ClusterError("GET /a", [ConnectError(ONE, "refused")])
SILENT = ClusterError("GET /a", [HeaderTimeoutError(ONE, "no answer")])
REFUSED = UnauthorizedError(110, "The request requires user authentication", status=401)
CLEARED = EventIndexClearedError(401, "The event in requested index is outdated and cleared", "[9/2]", 2000, 400)

FROM_NOW = "wait=true&stream=true&recursive=true"


def since(index: int) -> str:
    return f"{FROM_NOW}&waitIndex={index + 1}"


def poll_since(index: int) -> str:
    return f"wait=true&recursive=true&waitIndex={index + 1}"


class Clock:
    """Takes the place of a module, and of the loop: time passes, and sleeping ends, as the test says."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sleeps: list[float] = []
        self.awake = asyncio.Event()
        self.awake.set()

    def monotonic(self) -> float:
        return self.now

    time = monotonic

    def passes(self, seconds: float) -> None:
        self.now += seconds

    def get_running_loop(self) -> Clock:
        return self

    def create_future(self) -> asyncio.Future[bool]:
        return asyncio.get_running_loop().create_future()

    def call_later(self, delay: float, what: Callable[..., object], *args: object) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(delay, what, *args)

    async def sleep(self, delay: float) -> None:
        if delay > 0:
            self.sleeps.append(round(delay, 6))
            await self.awake.wait()
            self.now += delay
        await asyncio.sleep(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)


class Case:
    """A watcher, and what is around it."""

    def __init__(self, clock: Clock, *script: Stream | Exception | Failing, **options: Any) -> None:
        self.clock = clock
        self.etcd = Etcd(*script)
        self.etcd.passes = clock.passes
        self.shared = surroundings(self.etcd, 1000.0, 0.1)
        self.watcher = self.make_watcher(**options)

    def make_watcher(
        self,
        path: str = "/v2/keys/a",
        key: str = "a",
        *,
        recursive: bool = True,
        after_index: int | None = None,
        resync: bool = False,
    ) -> Watcher:
        position = Position(key, recursive, after_index)
        failover = cast(Failover, self.etcd)
        speaker = WatchSpeaker(failover, self.etcd.identity, self.shared.looks, path, recursive, position)
        machine = WatchMachine(position, resync)
        return Watcher(Driver(self.shared, machine, speaker), machine)

    @property
    def driver(self) -> Driver:
        return self.watcher._driver

    @property
    def machine(self) -> WatchMachine:
        return cast(WatchMachine, self.watcher._machine)

    @property
    def speaker(self) -> WatchSpeaker:
        return cast(WatchSpeaker, self.driver._speaker)

    @property
    def attached(self) -> list[str]:
        """Where it waits."""
        return [endpoint for endpoint, _ in self.shared.liveness._at]

    @property
    def asked(self) -> list[str]:
        return [wanted.query for wanted in self.etcd.waits]

    async def next(self, watcher: Watcher | None = None) -> Response:
        async with timeout(3):
            return await (watcher or self.watcher).next()

    async def indexes(self, number: int) -> list[int]:
        return [index_of(await self.next()) for _ in range(number)]

    def waiting(self) -> asyncio.Task[Response]:
        return asyncio.ensure_future(self.watcher.next())

    async def nothing_comes(self) -> None:
        task = self.waiting()
        await idle()
        assert not task.done(), task
        task.cancel()
        await asyncio.wait((task,))

    def pilot(self, watchers: list[Watcher]) -> Driver:
        """Who tries for all."""
        attempt = self.shared.outage._pilot
        assert attempt is not None
        return next(each._driver for each in watchers if each._driver._step is attempt)

    def hold_back(self, endpoint: str = ONE) -> None:
        """The endpoint is known to hold back headers and events."""
        self.shared.buffering._found[endpoint] = (1, float("inf"))


async def idle() -> None:
    for _ in range(60):
        await asyncio.sleep(0)


def hold_reads(case: Case) -> asyncio.Event:
    """Reads are answered only when the event is set."""
    call = case.etcd.call
    release = asyncio.Event()

    async def call_late(request: Request, decode: object) -> Response | Version:
        if request.target != "/version":
            await release.wait()
        return await call(request, decode)

    case.etcd.call = call_late  # type: ignore[method-assign]
    return release


Make = Callable[..., Case]


@pytest.fixture
async def make(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    clock = Clock()
    monkeypatch.setattr(outage, "asyncio", clock)
    for module in (driver, registration, renewal, stream_module):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(outage, "random", Dice())
    cases: list[Case] = []

    def case(*script: Stream | Exception | Failing, **options: Any) -> Case:
        cases.append(Case(clock, *script, **options))
        return cases[-1]

    yield case
    for each in cases:
        await each.shared.close()
    cases.clear()


class Dice:
    @staticmethod
    def uniform(least: float, most: float) -> float:
        assert (least, most) == (0.5, 1.0)
        return most


def children(*nodes: tuple[str, int]) -> Node:
    files = tuple(Node(f"/a/{name}", "v", created_index=index, modified_index=index) for name, index in nodes)
    return Node("/a", None, True, files, 1, 1)


# --- registering ----------------------------------------------------------------------------------------------------


async def test_it_begins_with_a_stream_from_now(make: Make) -> None:
    case = make(Stream(line(12), line(13), index=11))
    assert case.watcher.index is None
    async with case.watcher as watcher:
        assert watcher is case.watcher
        assert watcher.index == 11
        assert case.asked == [FROM_NOW]
        assert case.etcd.identity.indexes == [11]
        assert not case.etcd.waits[0].patient
        assert await case.indexes(2) == [12, 13]
        assert watcher.index == 13
        assert case.etcd.identity.indexes == [11, 12, 13]
        assert case.asked == [FROM_NOW]
    assert not case.clock.sleeps


async def test_it_begins_after_an_index(make: Make) -> None:
    stream = Stream(index=11)
    case = make(stream, after_index=7, recursive=False)
    async with case.watcher as watcher:
        assert case.asked == ["wait=true&stream=true&waitIndex=8"]
        assert watcher.index == 7
        await case.nothing_comes()
        stream.feed(line(12))
        assert await case.indexes(1) == [12]


async def test_next_registers_too(make: Make) -> None:
    case = make(Stream(line(12)))
    assert await case.indexes(1) == [12]
    assert case.asked == [FROM_NOW]


async def test_a_wait_is_attached_to_its_endpoint(make: Make) -> None:
    case = make(Failing((ONE, TWO), Stream(LOST, endpoint=TWO)), Stream(endpoint=ONE))
    async with case.watcher:
        assert case.attached == [TWO]
        await case.nothing_comes()
        assert case.attached == [ONE]
    assert not case.shared.liveness._at
    assert not list(case.shared.liveness._watchers)


async def test_a_registered_wait_ends_an_outage_for_the_log(
    make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "CALM", 0.01)
    caplog.set_level(logging.INFO)
    case = make(Stream(LOST), UNREACHABLE, UNREACHABLE, Stream(), after_index=4)
    async with case.watcher:
        await case.nothing_comes()
        await asyncio.sleep(0.05)
        assert [record.message.partition(",")[0] for record in caplog.records] == [
            "watches are interrupted",
            "watches go on again",
        ]
        assert "that of /a:" in caplog.records[0].message
        assert "that of /a " in caplog.records[1].message


async def test_an_outage_begins_with_the_second_failure(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    case = make(Stream(line(12), LOST), Stream(LOST), Stream(line(13)))
    assert await case.indexes(2) == [12, 13]
    assert [record.message.partition(",")[0] for record in caplog.records] == ["watches are interrupted"]
    case = make(Stream(line(12), LOST), Stream(line(13)))
    caplog.clear()
    assert await case.indexes(2) == [12, 13]
    assert not caplog.records


async def test_the_first_registration_raises_what_is_wrong(make: Make) -> None:
    for error in (UNREACHABLE, INVALID, REFUSED):
        case = make(error)
        with pytest.raises(type(error)) as caught:
            await case.next()
        assert caught.value is error
        case = make(error)
        with pytest.raises(type(error)):
            async with case.watcher:
                pass
        with pytest.raises(ClientClosedError):
            await case.watcher.next()


async def test_after_it_next_tries_again(make: Make) -> None:
    case = make(UNREACHABLE, Stream(line(12)))
    with pytest.raises(ClusterError):
        await case.next()
    assert await case.indexes(1) == [12]


async def test_a_later_outage_is_waited_out(make: Make) -> None:
    case = make(Stream(LOST), *[UNREACHABLE, INVALID] * 5, Stream(line(12)))
    assert await case.indexes(1) == [12]
    assert case.clock.sleeps == [0.3, 0.6, 1.2, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5]
    assert case.asked == [FROM_NOW] + [since(10)] * 11


async def test_not_all_try_again_at_the_same_time(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dice, "uniform", staticmethod(lambda least, most: 0.5 * least))
    case = make(Stream(LOST), UNREACHABLE, Stream(line(12)))
    assert await case.indexes(1) == [12]
    assert case.clock.sleeps == [0.075]


async def test_a_later_refusal_is_raised(make: Make) -> None:
    case = make(Stream(LOST), REFUSED, Stream(line(12)))
    with pytest.raises(UnauthorizedError):
        await case.next()
    assert await case.indexes(1) == [12]


async def test_being_left_before_the_first_registration_is_no_failure(make: Make) -> None:
    case = make()
    task = case.waiting()
    await idle()
    case.etcd.script.append(Stream(line(12)))
    case.driver.evict()
    async with timeout(3):
        await task
    assert case.asked == [FROM_NOW] * 2
    assert not case.clock.sleeps


async def test_registering_counts_the_keys(make: Make) -> None:
    case = make(Stream(line(11), index=10))
    case.etcd.state = (10, children(("b", 3)))
    async with case.watcher:
        await idle()
        assert case.etcd.reads == ["/v2/keys/a?recursive=true"]
        assert case.machine.position.census is not None
        assert case.machine.position.census.count == 2


async def test_listening_counts_the_keys_again(make: Make) -> None:
    stream = Stream()
    case = make(stream)
    async with case.watcher:
        await idle()
        case.machine.position.census = None
        stream.feed(line(11))
        await case.next()
        assert case.speaker._counting.task is not None


# --- listening ------------------------------------------------------------------------------------------------------


async def test_a_broken_stream_is_opened_again_at_once(make: Make) -> None:
    for broken in (LOST, INVALID):
        case = make(Stream(line(12), broken), Stream(line(13), broken, index=12), Stream(line(14), index=13))
        assert await case.indexes(3) == [12, 13, 14]
        assert case.asked == [FROM_NOW, since(12), since(13)]
        assert not case.clock.sleeps


async def test_opening_again_at_the_same_endpoint_puts_off_no_probe(make: Make) -> None:
    """Or an endpoint that ends each wait before its first probe would never be probed."""
    first = Stream(line(12))
    case = make(first, Stream(line(13)))
    await case.next()
    due = case.shared.liveness._due[ONE]
    first.feed(LOST)
    await case.next()
    assert case.shared.liveness._due[ONE] == due


async def test_a_redirected_wait_is_attached_where_it_got_to(make: Make) -> None:
    case = make(Failing((ONE,), Stream(endpoint=TWO)))
    async with case.watcher:
        assert case.attached == [TWO]


async def test_who_begins_in_an_outage_ends_it_for_all(
    make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "CALM", 0.01)
    caplog.set_level(logging.INFO)
    case = make(Stream())
    case.shared.outage.lasts("/b", UNREACHABLE)
    async with case.watcher:
        await asyncio.sleep(0.05)
        assert "watches go on again, that of /a the first" in caplog.text


async def listening(
    case: Case, number: int
) -> tuple[list[Watcher], list[asyncio.Task[Response]], Callable[[], Awaitable[None]]]:
    """Watches that listen, the first of them that of the case; and what breaks off all their streams in one moment."""
    streams = [Stream() for _ in range(number)]
    case.etcd.script += streams
    watchers = [case.watcher, *(case.make_watcher() for _ in range(number - 1))]
    tasks = [asyncio.ensure_future(watcher.next()) for watcher in watchers]
    await idle()

    async def break_off() -> None:
        for stream in streams:
            stream.feed(LOST)
        await idle()

    return watchers, tasks, break_off


async def test_one_watch_tries_for_all(make: Make) -> None:
    """The others wait for its word; where it is left instead, the next one tries."""
    case = make()
    watchers, tasks, break_off = await listening(case, 3)
    await break_off()
    assert case.asked == [FROM_NOW] * 3 + [since(10)]
    pilot = case.pilot(watchers)
    pilot.evict()
    await idle()
    assert case.asked == [FROM_NOW] * 3 + [since(10)] * 2
    assert case.etcd.opening == 1
    case.etcd.script += [Stream(line(11)), Stream(line(11)), Stream(line(11))]
    second = case.pilot(watchers)
    assert second is not pilot
    second.evict()
    async with timeout(3):
        assert [index_of(await task) for task in tasks] == [11, 11, 11]
    assert case.asked == [FROM_NOW] * 3 + [since(10)] * 5
    for watcher in watchers:
        await watcher.aclose()


async def test_who_rests_and_comes_back_at_once_keeps_its_second_attempt(make: Make) -> None:
    """The end of the first attempt, which comes later, is not that of the second."""
    case = make()
    watchers, tasks, break_off = await listening(case, 2)
    await break_off()
    pilot = case.pilot(watchers)
    first = 0 if pilot is case.driver else 1
    tasks[first].cancel()
    await asyncio.wait((tasks[first],))
    pilot.rest()
    again = asyncio.ensure_future(watchers[first].next())
    await idle()
    assert case.etcd.opening == 1
    assert len(case.asked) == 4
    for task in (again, tasks[1 - first]):
        task.cancel()
    await asyncio.wait((again, tasks[1 - first]))
    for watcher in watchers:
        await watcher.aclose()


async def test_who_waits_at_the_gate_has_left_its_endpoint(make: Make) -> None:
    """Or each probe that fails would send it away again, and say so in the log."""
    case = make()
    watchers, tasks, break_off = await listening(case, 3)
    assert [len(each) for each in case.shared.liveness._at.values()] == [3]
    await break_off()
    assert [len(each) for each in case.shared.liveness._at.values()] == [1]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for watcher in watchers:
        await watcher.aclose()


async def test_who_waits_at_the_gate_and_leaves_keeps_nobody_out(make: Make) -> None:
    case = make()
    watchers, tasks, break_off = await listening(case, 2)
    await break_off()
    case.etcd.script += [Stream(line(11))]
    pilot = case.pilot(watchers)
    first = 0 if pilot is case.driver else 1
    await pilot.aclose()
    async with timeout(3):
        assert index_of(await tasks[1 - first]) == 11
        await asyncio.wait((tasks[first],))
    assert isinstance(tasks[first].exception(), ClientClosedError)
    await watchers[1 - first].aclose()


async def test_an_event_ends_the_row_of_failures(make: Make) -> None:
    case = make(
        *(Stream(LOST), UNREACHABLE, UNREACHABLE, Stream(line(12), LOST), UNREACHABLE, UNREACHABLE, Stream(line(13)))
    )
    assert await case.indexes(2) == [12, 13]
    assert case.clock.sleeps == [0.3, 0.6, 0.3, 0.6]


async def test_streams_that_bring_nothing_new_are_failures(make: Make) -> None:
    """Also those of a member that lags behind the cursor."""
    again = [Stream(line(12), END, index=9) for _ in range(3)]
    case = make(Stream(line(12), END), *again, Stream(line(13), index=9))
    assert await case.indexes(2) == [12, 13]
    assert case.clock.sleeps == [0.3, 0.6, 1.2]


async def test_a_stream_that_brought_something_may_end(make: Make) -> None:
    case = make(*[Stream(line(12 + each), END, index=11 + each) for each in range(5)], Stream(line(17)))
    assert await case.indexes(6) == [12, 13, 14, 15, 16, 17]
    assert not case.clock.sleeps


async def test_a_stream_that_ends_without_an_event_is_a_failure(make: Make) -> None:
    case = make(Stream(END), Stream(END), Stream(END), Stream(line(12)))
    assert await case.indexes(1) == [12]
    assert case.clock.sleeps == [0.3, 0.6]


async def test_an_event_of_elsewhere_moves_the_cursor_only(make: Make) -> None:
    case = make(Stream(line(12, "/b"), line(13, "/a/_c"), LOST), Stream(line(14)))
    assert await case.indexes(1) == [14]
    assert case.asked == [FROM_NOW, since(13)]


async def test_several_events_at_once(make: Make) -> None:
    case = make(Stream(line(12) + line(13) + line(14, "/b")))
    assert await case.indexes(1) == [12]
    assert case.watcher.index == 12
    assert await case.indexes(1) == [13]
    assert case.watcher.index == 14
    assert case.etcd.identity.indexes[-1] == 14


async def test_a_stream_that_may_have_been_dropped_is_opened_again(make: Make) -> None:
    for number, again in ((99, False), (100, True)):
        streams = [Stream(line(11 + each)) for each in range(number)]
        first = Stream(*(stream.pieces[0] for stream in streams))
        case = make(first, Stream(index=120))
        case.shared.hush._seconds = 0.02
        await case.indexes(number)
        task = case.waiting()
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.wait((task,))
        assert case.asked == [FROM_NOW] * (1 + again)
        assert not case.etcd.probed
        assert not case.clock.sleeps
        if again:
            assert first.closed


async def listen_for(case: Case, seconds: float) -> None:
    task = case.waiting()
    await idle()
    case.clock.now += seconds
    task.cancel()
    await asyncio.wait((task,))


async def test_patience_adds_up_over_calls(make: Make) -> None:
    """Who asks for the next event a little at a time has waited as long as who waits once."""
    first = Stream(*(line(11 + each) for each in range(100)))
    case = make(first, Stream())
    case.shared.hush._seconds = 5.0
    await case.indexes(100)
    await listen_for(case, 2.6)
    first.feed(line(200, "/b"))
    await listen_for(case, 0.0)
    for _ in range(2):
        await listen_for(case, 2.6)
        assert len(case.asked) == 1
    await case.nothing_comes()
    assert len(case.asked) == 2
    assert first.closed


async def test_half_an_event_that_stays_half_is_held_back(make: Make) -> None:
    event = line(12)
    case = make(Stream(event[:9]), Stream(event, END, index=11))
    case.shared.stuck._seconds = 0.02
    assert await case.indexes(1) == [12]
    assert case.etcd.probed == [ONE]
    assert case.asked == [FROM_NOW, poll_since(10)]
    assert [wanted.patient for wanted in case.etcd.waits] == [False, True]


async def test_a_whole_event_may_be_waited_for(make: Make) -> None:
    stream = Stream(line(12))
    case = make(stream)
    case.shared.stuck._seconds = case.shared.hush._seconds = 0.02
    await case.indexes(1)
    task = case.waiting()
    await asyncio.sleep(0.1)
    assert not task.done()
    assert not case.etcd.probed
    stream.feed(line(13))
    await task
    assert len(case.asked) == 1


# --- what was blocked -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [30, 20, 10])
@pytest.mark.parametrize("wait", [0.0, 0.9, 1.1, 3600.0])
@pytest.mark.parametrize("pieces", [(END,), (LOST,), (line(25)[:9], LOST)])
async def test_a_wait_that_ends_moves_no_cursor(
    pieces: tuple[bytes | Exception, ...], wait: float, index: int, make: Make
) -> None:
    """A proxy may have passed the header, and swallowed the event; a wait that was cut looks like a clean end there."""
    first = Stream(*pieces[:-1], index=index)
    case = make(first, Stream(line(25), index=24), after_index=20)
    case.etcd.quorum = 30
    task = case.waiting()
    await idle()
    case.clock.now += wait
    first.feed(pieces[-1])
    async with timeout(3):
        assert index_of(await task) == 25
    assert case.asked == [since(20), since(20)]


async def test_an_event_before_the_end_moves_it(make: Make) -> None:
    case = make(Stream(line(25), LOST, index=22), Stream(line(26), index=25), after_index=20)
    assert await case.indexes(2) == [25, 26]
    assert case.asked == [since(20), since(25)]


async def test_blocked_waits_that_end_at_once_are_failures(make: Make) -> None:
    case = make(*[Stream(END, index=30 + each) for each in range(3)], Stream(line(40), index=39), after_index=20)
    assert await case.indexes(1) == [40]
    assert case.asked == [since(20)] * 4
    assert case.clock.sleeps == [0.3, 0.6]


async def test_a_blocked_wait_from_now_on_moves_nothing(make: Make) -> None:
    case = make(Stream(END, index=10), Stream(line(12), index=30))
    assert await case.indexes(1) == [12]
    assert case.asked == [FROM_NOW, since(10)]


async def test_a_wait_that_is_left_proves_nothing(make: Make) -> None:
    case = make(Stream(index=30), Stream(line(25), index=40), after_index=20)
    task = case.waiting()
    await idle()
    case.clock.now += 2
    case.driver.evict()
    await idle()
    assert case.asked[1] == since(20)
    task.cancel()
    await asyncio.wait((task,))


@pytest.mark.parametrize("end", [LOST, END])
async def test_a_wait_that_was_blocked_for_long_ends_the_row_of_failures(end: bytes | Exception, make: Make) -> None:
    first = Stream(index=30)
    script = [UNREACHABLE, UNREACHABLE, first, UNREACHABLE, UNREACHABLE, Stream(index=40)]
    case = make(Stream(LOST, index=20), *script)
    task = case.waiting()
    await idle()
    case.clock.now += 1.1
    first.feed(end)
    await idle()
    assert case.clock.sleeps == [0.3, 0.6, 0.3, 0.6]
    task.cancel()
    await asyncio.wait((task,))


# --- history --------------------------------------------------------------------------------------------------------


async def test_history_is_fetched_beside_a_stream_from_now(make: Make) -> None:
    old = Stream(line(12), index=20)
    case = make(old, Stream(line(21), index=20), after_index=10)
    case.etcd.history = [12, 15, 20]
    assert await case.indexes(4) == [12, 15, 20, 21]
    assert case.asked == [since(10), FROM_NOW]
    assert old.closed
    assert case.etcd.polls == [13, 16]
    assert not case.speaker._catch_up.tasks


async def test_history_that_ends_before_the_stream_began(make: Make) -> None:
    """A stream since the cursor takes over where a poll is not answered."""
    case = make(*(Stream(line(12), index=20), Stream(index=20), Stream(line(22), index=21)), after_index=10)
    case.etcd.history = [12]
    assert await case.indexes(2) == [12, 22]
    assert case.asked == [since(10), FROM_NOW, since(12)]


@pytest.mark.parametrize(("first", "index"), [(20, 20), (1, 20), (1, 1)])
async def test_an_event_up_to_the_registration_is_history(first: int, index: int, make: Make) -> None:
    case = make(Stream(line(first), index=index), Stream(line(21), index=index), after_index=0)
    case.etcd.history = [1, 20]
    assert await case.indexes(1) == [first]
    assert await case.indexes(1) == [20 if (first, index) == (1, 20) else 21]
    assert case.asked == [since(0), FROM_NOW]


async def test_an_event_behind_the_registration_is_no_history(make: Make) -> None:
    case = make(Stream(line(21), line(22), index=20), after_index=10)
    assert await case.indexes(2) == [21, 22]
    assert case.asked == [since(10)]


async def test_a_lying_stream_from_now_is_believed(make: Make) -> None:
    """Only who was asked for history brings one."""
    case = make(Stream(line(5), line(22), index=20))
    assert await case.indexes(1) == [22]
    assert case.asked == [FROM_NOW]


async def test_polls_that_fail_are_taken_up_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """First comes a stream since the cursor: the events may be gone, and it brings the next one at once if not."""
    streams = [Stream(line(12), index=20), Stream(index=20), Stream(line(15), index=20), Stream(index=20)]
    case = make(*streams, after_index=10)
    case.etcd.history = [12, 15, 20]
    polls = iter([Stream(END)])
    poll = case.etcd._poll

    async def poll_once_in_vain(wanted: int) -> Stream:
        return next(polls, None) or await poll(wanted)

    monkeypatch.setattr(case.etcd, "_poll", poll_once_in_vain)
    assert await case.indexes(3) == [12, 15, 20]
    assert case.asked == [since(10), FROM_NOW, since(12), FROM_NOW]
    assert not case.clock.sleeps


# --- what holds back ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("indexes", [(12, 13), (20, 20)], ids=["new", "from history"])
async def test_an_endpoint_that_holds_back_is_polled(indexes: tuple[int, int], make: Make) -> None:
    first, second = indexes
    case = make(Stream(line(12), END, index=first), Stream(line(13), END, index=second), after_index=10)
    case.hold_back()
    assert await case.indexes(2) == [12, 13]
    assert case.asked == [poll_since(10), poll_since(12)]
    assert all(wanted.patient for wanted in case.etcd.waits)
    assert not case.etcd.polls
    assert not case.clock.sleeps


async def test_where_it_is_known_to_hold_back_it_begins_with_a_look(make: Make) -> None:
    case = make(Stream(line(33), END, index=33))
    case.etcd.state = (31, children(("b", 3)))
    case.hold_back()
    async with case.watcher as watcher:
        assert watcher.index == 31
        assert case.asked == []
        assert case.machine.position.census is not None
        assert case.machine.position.census.count == 2
        assert await case.indexes(1) == [33]
        assert case.asked == [poll_since(31)]


async def test_a_silent_header_is_found_to_be_held_back(make: Make) -> None:
    case = make(Failing((ONE,), SILENT, 1.0), Stream(line(33), END, index=33))
    case.etcd.state = (31, None)
    async with case.watcher as watcher:
        assert case.etcd.probed == [ONE]
        assert watcher.index == 31
        assert await case.indexes(1) == [33]
    assert case.asked == [FROM_NOW, poll_since(31)]
    assert not case.clock.sleeps


async def test_a_silent_header_of_who_answers_no_probe_is_a_failure(make: Make) -> None:
    case = make(Failing((ONE,), SILENT, 1.0))
    case.etcd.health = UNREACHABLE
    with pytest.raises(ClusterError) as caught:
        await case.next()
    assert caught.value is SILENT
    assert case.etcd.probed == [ONE]
    assert not case.etcd.reads


async def test_a_stream_that_breaks_early_was_not_held_back(make: Make) -> None:
    broken = ClusterError("GET /a", [ConnectionLostError(ONE, "reset")])
    case = make(Failing((ONE,), broken, 0.9))
    with pytest.raises(ClusterError):
        await case.next()
    assert not case.etcd.probed


async def test_a_poll_that_a_proxy_ends_is_no_failure(make: Make) -> None:
    """It was held back for as long as the proxy has patience."""
    case = make(*[Failing((ONE,), SILENT, 60.0)] * 5, Stream(line(12), END), after_index=10)
    case.hold_back()
    assert await case.indexes(1) == [12]
    assert case.asked == [poll_since(10)] * 6
    assert not case.clock.sleeps
    assert not case.etcd.probed


async def test_only_who_is_silent_is_probed(make: Make) -> None:
    mixed = ClusterError("GET /a", [ConnectError(ONE, "refused"), HeaderTimeoutError(TWO, "silent")])
    case = make(Failing((ONE, TWO), mixed, 1.0))
    case.etcd.health = UNREACHABLE
    with pytest.raises(ClusterError):
        await case.next()
    assert case.etcd.probed == [TWO]


async def test_one_that_holds_back_is_enough(make: Make) -> None:
    both = ClusterError("GET /a", [HeaderTimeoutError(each, "silent") for each in (ONE, TWO)])
    case = make(Stream(LOST), Failing((ONE,), both, 1.0), Stream(line(12), END))
    case.etcd.unreachable = {TWO}
    assert await case.indexes(1) == [12]
    assert case.etcd.probed == [ONE, TWO]
    assert (case.shared.buffering.at(ONE), case.shared.buffering.at(TWO)) == (True, False)
    assert case.asked == [FROM_NOW, since(10), poll_since(10)]


async def test_who_is_known_to_hold_back_is_not_probed_again(make: Make) -> None:
    case = make(Stream(LOST), SILENT, SILENT, Stream(line(12), END))
    async with case.watcher:
        case.hold_back()
        assert await case.indexes(1) == [12]
    assert not case.etcd.probed
    assert case.clock.sleeps == [0.3, 0.6]


async def test_where_headers_are_held_back_a_first_look_that_fails_is_told(make: Make) -> None:
    case = make(Failing((ONE,), SILENT, 1.0), Stream(line(33), END, index=33))
    case.etcd.state = UNREACHABLE
    with pytest.raises(ClusterError) as caught:
        await case.next()
    assert caught.value is UNREACHABLE
    case.etcd.state = (31, None)
    assert await case.indexes(1) == [33]
    assert case.asked == [FROM_NOW, poll_since(31)]


async def test_later_the_silent_header_needs_no_look(make: Make) -> None:
    case = make(Stream(LOST, index=20), Failing((ONE,), SILENT, 1.0), Stream(line(33), END, index=33))
    async with case.watcher:
        await idle()
        reads = len(case.etcd.reads)
        assert await case.indexes(1) == [33]
        assert case.etcd.reads[reads:] == ["/v2/keys/a?quorum=true"]  # where the cluster is, no header says
    assert case.asked == [FROM_NOW, since(20), poll_since(20)]
    assert not case.clock.sleeps


async def test_where_headers_are_held_back_a_store_that_began_anew_is_found_out_before_it_has_grown(make: Make) -> None:
    """The poll would bring an event of another life, whose index says nothing by then."""
    case = make(Failing((ONE,), SILENT, 60.0), Stream(line(1304), END, index=1306), after_index=1290)
    case.hold_back()
    case.etcd.quorum = 1300
    waiting = case.waiting()
    while not case.asked:
        await asyncio.sleep(0)
    case.etcd.quorum = 7  # restored, for a moment
    with pytest.raises(EventIndexClearedError, match="the store has begun anew, and is at index 7"):
        await waiting
    assert case.etcd.reads.count("/v2/keys/a?quorum=true") == 2


async def test_where_headers_are_held_back_an_index_that_was_never_reached_is_told(make: Make) -> None:
    case = make(after_index=5000)
    case.hold_back()
    case.etcd.quorum = 7
    with pytest.raises(EventIndexClearedError, match="the store has begun anew, and is at index 7"):
        await case.next()


async def test_where_headers_are_held_back_an_event_says_where_the_cluster_is(make: Make) -> None:
    """One poll follows the other, with nothing asked in between."""
    case = make(Stream(line(11), END, index=11), Stream(line(12), END, index=12), after_index=10)
    case.hold_back()
    assert await case.indexes(2) == [11, 12]
    assert case.asked == [poll_since(10), poll_since(11)]
    assert case.etcd.reads.count("/v2/keys/a?quorum=true") == 1


async def test_a_late_endpoint_needs_no_history_beside_it(make: Make) -> None:
    case = make(Stream(line(12), index=20), Stream(line(15), END, index=20), after_index=10)
    assert await case.indexes(1) == [12]
    case.hold_back()
    assert await case.indexes(1) == [15]
    assert case.asked == [since(10), poll_since(12)]
    assert not case.etcd.polls


async def test_found_to_be_late_while_its_header_is_awaited(make: Make) -> None:
    """It was asked for a stream, so a stream it is."""
    case = make(Stream(line(12), line(13), index=11))
    task = case.waiting()
    while not case.etcd.opening:
        await asyncio.sleep(0)
    case.hold_back()
    await task
    assert await case.indexes(1) == [13]
    assert case.asked == [FROM_NOW]


async def test_cancelled_while_a_late_header_is_awaited(make: Make) -> None:
    """That is listening, as far as it goes there: the poll ends with who waited for it."""
    case = make(after_index=10)
    case.hold_back()
    task = case.waiting()
    await idle()
    assert case.etcd.opening == 1
    step = case.driver._step
    assert step is not None
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
    assert step.cancelled()
    assert case.etcd.opening == 0
    assert not case.machine.troubles
    case.etcd.script.append(Stream(line(12), END, index=12))
    assert await case.indexes(1) == [12]


# --- events that are gone -------------------------------------------------------------------------------------------


async def cleared(case: Case) -> EventIndexClearedError:
    with pytest.raises(EventIndexClearedError) as caught:
        await case.next()
    return caught.value


async def test_lost_events_are_told(make: Make) -> None:
    case = make(Stream(LOST), CLEARED, Stream(line(2001), line(2002), line(2003), index=2000))
    case.etcd.state = (10, children(("b", 3)))
    async with case.watcher as watcher:
        await idle()
        case.etcd.state = (2001, children(("b", 1500)))
        error = await cleared(case)
        assert (error.index, error.code, error.status, error.message) == (2001, 401, 400, CLEARED.message)
        assert error.cause == "[9/2]"
        assert "watch /a" in str(error)
        assert "after_index=2001" in str(error)
        assert watcher.index == 2001
        assert await case.indexes(2) == [2002, 2003]
        assert case.asked == [FROM_NOW, since(10), FROM_NOW]
    assert not case.clock.sleeps


async def test_of_the_root_too(make: Make) -> None:
    case = make(CLEARED, Stream(index=2001), after_index=10)
    watcher = case.make_watcher("/v2/keys/", "", after_index=10)
    case.etcd.state = (2001, Node("/", None, True, (Node("/b", "v", modified_index=1500),)))
    with pytest.raises(EventIndexClearedError, match="watch /:"):
        await watcher.next()
    await watcher.aclose()


async def test_nothing_has_changed_so_it_goes_on(make: Make) -> None:
    case = make(Stream(LOST), CLEARED, Stream(line(2003), index=2001))
    case.etcd.state = (10, children(("b", 3)))
    async with case.watcher as watcher:
        await idle()
        case.etcd.state = (2001, children(("b", 3)))
        task = case.waiting()
        while watcher.index == 10:
            await asyncio.sleep(0)
        assert watcher.index in (2001, 2003)
        assert index_of(await task) == 2003
    assert case.asked == [FROM_NOW, since(10), FROM_NOW]
    assert not case.clock.sleeps


async def test_it_goes_on_for_as_long_as_nothing_has_changed(make: Make) -> None:
    again = [each for _ in range(9) for each in (CLEARED, Stream(LOST, index=2001))]
    case = make(Stream(LOST), *again, CLEARED, Stream(line(2003), index=2001))
    case.etcd.state = (10, children(("b", 3)))
    async with case.watcher:
        await idle()
        case.etcd.state = (2001, children(("b", 3)))
        assert await case.indexes(1) == [2003]


async def test_a_resync_stands_for_what_is_lost(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    case = make(CLEARED, Stream(line(2001), line(2002), line(2003), index=2000), after_index=10, resync=True)
    case.etcd.state = (2001, children(("b", 1500)))
    async with case.watcher as watcher:
        assert watcher.index == 10
        response = await case.next()
        assert (response.action, response.index, response.node) == ("resync", 2001, children(("b", 1500)))
        assert watcher.index == 2001
        assert await case.indexes(2) == [2002, 2003]
    assert "watch of /a lost events up to index 2001" in caplog.text


async def test_a_resync_enters_the_context(make: Make) -> None:
    case = make(CLEARED, Stream(index=2001), after_index=10, resync=True)
    case.etcd.state = (2001, None)
    async with timeout(2), case.watcher:
        assert case.asked == [since(10), FROM_NOW]
        assert (await case.next()).action == "resync"


async def test_at_first_too_it_goes_on_where_nothing_has_changed(make: Make) -> None:
    case = make(CLEARED, Stream(line(2003), index=2001), after_index=10)
    case.etcd.state = (2001, Node("/a", "v", modified_index=4))
    assert await case.indexes(1) == [2003]
    assert case.asked == [since(10), FROM_NOW]
    assert not case.clock.sleeps


@pytest.mark.parametrize(("error", "streams"), [(UNREACHABLE, 1), (INVALID, 2)])
async def test_a_look_that_fails_is_tried_again_later(error: Exception, streams: int, make: Make) -> None:
    """Beside the same stream, unless what answers is no etcd."""
    case = make(Stream(LOST), CLEARED, *(Stream(line(2003), index=2001) for _ in range(streams)))
    case.etcd.state = (10, children(("b", 3)))
    async with case.watcher:
        await idle()
        case.etcd.state = error
        case.clock.awake.clear()
        task = case.waiting()
        while not case.clock.sleeps:
            await asyncio.sleep(0)
        case.etcd.state = (2001, children(("b", 3)))
        case.clock.awake.set()
        async with timeout(3):
            assert index_of(await task) == 2003
    assert case.asked == [FROM_NOW, since(10), *[FROM_NOW] * streams]
    assert case.clock.sleeps == [0.3]


@pytest.mark.parametrize(("error", "streams"), [(UNREACHABLE, 1), (INVALID, 3), (REFUSED, 1)])
async def test_a_first_look_that_fails_is_told(error: Exception, streams: int, make: Make) -> None:
    """What can't be decoded is asked for three times."""
    case = make(CLEARED, *(Stream(index=2001) for _ in range(streams)), after_index=10)
    case.etcd.state = error
    with pytest.raises(type(error)):
        await case.next()
    assert case.asked == [since(10), *[FROM_NOW] * streams]


async def test_after_lost_events_the_stream_comes_first(make: Make) -> None:
    stream = Stream(index=2000)
    case = make(CLEARED, stream, after_index=10)
    release = hold_reads(case)
    case.etcd.state = (2002, children(("b", 1500)))
    task = case.waiting()
    await idle()
    assert case.asked == [since(10), FROM_NOW]
    assert stream.given
    assert case.etcd.reads == []
    stream.feed(*(line(index) for index in range(2001, 2011)))
    await idle()
    assert stream.pieces == []  # it is read meanwhile, or the server would drop it
    assert case.watcher.index == 10
    release.set()
    async with timeout(3):
        await asyncio.wait((task,))
    error = task.exception()
    assert isinstance(error, EventIndexClearedError)
    assert error.index == 2002
    assert await case.indexes(8) == list(range(2003, 2011))
    assert case.asked == [since(10), FROM_NOW]
    assert not case.etcd.polls


async def test_an_answer_that_makes_no_sense_is_a_failure(make: Make) -> None:
    """Nobody can have cleared what a read asks for."""
    case = make(Stream(index=12), Stream(LOST, index=9), Stream(line(13), index=9), after_index=10)
    async with case.watcher:
        await case.nothing_comes()
        case.driver.rest()
        case.etcd.state = CLEARED
        case.clock.awake.clear()
        task = case.waiting()
        while not case.clock.sleeps:
            await asyncio.sleep(0)
        case.etcd.state = (10, None)
        case.clock.awake.set()
        async with timeout(3):
            assert index_of(await task) == 13


async def test_a_look_at_a_member_that_lags_is_repeated_with_quorum(make: Make) -> None:
    case = make(CLEARED, Stream(index=2001), after_index=10)
    case.etcd.state = (2000, children(("b", 1500)))
    assert (await cleared(case)).index == 2001
    assert ["quorum=true" in read for read in case.etcd.reads] == [False, False, True]


async def test_a_look_whose_stream_ends_is_made_again(make: Make) -> None:
    first = Stream(index=2000)
    case = make(Stream(LOST), CLEARED, first, Stream(line(2003), index=2001))
    async with case.watcher:
        await idle()
        release = hold_reads(case)
        case.etcd.state = (2002, children(("b", 1500)))
        task = case.waiting()
        await idle()
        first.feed(line(2001), END)
        await idle()
        release.set()
        async with timeout(3):
            await asyncio.wait((task,))
        error = task.exception()
        assert isinstance(error, EventIndexClearedError)
        assert error.index == 2002
        assert await case.indexes(1) == [2003]
    assert case.asked == [FROM_NOW, since(10), FROM_NOW, FROM_NOW]


async def test_cancelling_during_a_look_loses_nothing(make: Make) -> None:
    """At any moment, again and again, while the stream brings one event after another."""
    for moments in range(12):
        stream = Stream(index=2000)
        case = make(CLEARED, stream, after_index=10)
        release = hold_reads(case)
        case.etcd.state = (2001, children(("b", 1500)))
        found: list[int | str] = []
        for step in range(2001, 2011):
            stream.feed(line(step))
            task = case.waiting()
            for _ in range(moments):
                await asyncio.sleep(0)
            if step == 2006:
                release.set()
            task.cancel()
            await asyncio.wait((task,))
            if not task.cancelled():
                error = task.exception()
                found.append(index_of(task.result()) if error is None else type(error).__name__)
        while len(found) < 10:
            try:
                found += await case.indexes(1)
            except EventIndexClearedError as error:
                found.append(type(error).__name__)
        assert found == ["EventIndexClearedError", *range(2002, 2011)]
        assert case.asked == [since(10), FROM_NOW]
        await case.watcher.aclose()


async def test_resting_during_a_look_loses_nothing(make: Make) -> None:
    """What the stream has brought is behind what the next look will show."""
    first = Stream(line(2001), line(2002), index=2000)
    case = make(CLEARED, first, Stream(line(2004), index=2003), after_index=10, resync=True)
    release = hold_reads(case)
    case.etcd.state = (2003, children(("b", 1500)))
    await case.nothing_comes()
    case.driver.rest()
    await idle()
    assert first.closed
    release.set()
    assert (await case.next()).index == 2003
    assert await case.indexes(1) == [2004]
    assert case.asked == [since(10), FROM_NOW, FROM_NOW]


async def test_nothing_to_fetch_after_lost_events(make: Make) -> None:
    case = make(CLEARED, Stream(line(2002), index=2001), after_index=10)
    case.etcd.state = (2001, children(("b", 1500)))
    await cleared(case)
    assert await case.indexes(1) == [2002]
    assert not case.etcd.polls


def crowded() -> Stream:
    """A stream of so many events that the server may have dropped it, most of them ours."""
    return Stream(*(line(11 + each) for each in range(100)))


async def test_where_most_events_are_ours_many_polls_go_side_by_side(make: Make) -> None:
    case = make(crowded(), Stream(line(201), index=200))
    case.shared.hush._seconds = 0.02
    case.etcd.history = list(range(111, 201))
    assert await case.indexes(191) == list(range(11, 202))
    assert case.asked == [FROM_NOW] * 2
    assert case.etcd.polls == list(range(111, 201))


async def test_polls_that_are_no_longer_needed_end(make: Make) -> None:
    case = make(crowded(), Stream(line(201), index=200))
    case.shared.hush._seconds = 0.02
    case.etcd.history = [200]
    assert await case.indexes(101) == [*range(11, 111), 200]
    assert case.etcd.polls == list(range(111, 175))
    assert not case.speaker._catch_up.tasks
    assert await case.indexes(1) == [201]


async def test_fewer_polls_go_on_after_a_failure(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make(crowded(), Stream(index=200), Stream(line(111), index=200), Stream(index=200))
    case.shared.hush._seconds = 0.02
    case.etcd.history = list(range(111, 201))
    poll = case.etcd._poll

    async def poll_in_vain(wanted: int) -> Stream:
        stream = await poll(wanted)
        return Stream(LOST) if len(case.asked) == 2 else stream

    monkeypatch.setattr(case.etcd, "_poll", poll_in_vain)
    assert await case.indexes(102) == list(range(11, 113))
    assert case.etcd.polls == [*range(111, 175), *range(112, 128)]
    assert case.asked == [FROM_NOW, FROM_NOW, since(110), FROM_NOW]


async def test_after_lost_events_a_look_is_enough_where_headers_are_held_back(make: Make) -> None:
    case = make(CLEARED, Stream(line(2003), END, index=2003), after_index=10)
    case.etcd.state = (2001, children(("b", 1500)))
    case.hold_back()
    assert (await cleared(case)).index == 2001
    assert await case.indexes(1) == [2003]
    assert case.asked == [poll_since(10), poll_since(2001)]
    assert not case.etcd.polls


async def test_history_that_is_gone_while_it_is_fetched(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    last = Stream(line(2002), line(2003), index=2001)
    case = make(Stream(line(12), index=20), Stream(index=20), last, after_index=10)
    case.etcd.state = (2001, children(("b", 1500)))

    async def gone(index: int) -> Stream:
        raise CLEARED

    monkeypatch.setattr(case.etcd, "_poll", gone)
    assert await case.indexes(1) == [12]
    await cleared(case)
    assert await case.indexes(2) == [2002, 2003]


# --- another cluster ------------------------------------------------------------------------------------------------


async def test_another_cluster_has_other_events(make: Make) -> None:
    stream = Stream(line(6), line(7), line(8), cluster="c2", index=5)
    case = make(Stream(LOST, cluster="c1"), Stream(cluster="c2", index=5), stream)
    case.etcd.state = (10, children(("b", 3)))
    async with case.watcher as watcher:
        await idle()
        case.etcd.state = (6, children(("b", 3)))
        case.shared.begin_anew()  # as the client does where it forgets the cluster
        error = await cleared(case)
        assert (error.code, error.message, error.cause, error.index) == (401, CLEARED.message, "cluster c2", 6)
        assert watcher.index == 6
        assert await case.indexes(2) == [7, 8]


async def test_a_cluster_without_a_name_is_the_same(make: Make) -> None:
    for names in (("c1", "", "c1"), ("", "c1", "c1"), ("", "", "")):
        case = make(*(Stream(LOST, cluster=name) for name in names), Stream(line(12), cluster=names[-1]))
        assert await case.indexes(1) == [12]
    case = make(Stream(LOST, cluster="c1"), Stream(LOST, cluster=""), Stream(cluster="c2"), Stream(cluster="c2"))
    await cleared(case)


# --- cancelling and closing -----------------------------------------------------------------------------------------


async def test_a_step_goes_on_where_nobody_waits(make: Make) -> None:
    case = make(Stream(line(12)))
    task = case.waiting()
    while not case.etcd.opening:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))
    await idle()
    assert case.watcher.index == 10
    assert await case.indexes(1) == [12]
    assert case.asked == [FROM_NOW]


async def test_the_error_of_a_step_waits_for_who_asks_next(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    case = make(UNREACHABLE, Stream(line(12)))
    task = case.waiting()
    while not case.etcd.opening:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))
    await idle()
    with pytest.raises(ClusterError):
        await case.next()
    assert await case.indexes(1) == [12]


async def test_an_error_that_nobody_asks_for_is_forgotten(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    case = make(UNREACHABLE)
    task = case.waiting()
    while not case.etcd.opening:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))
    await idle()
    assert case.driver._step is not None
    case.driver._step = None
    del task
    gc.collect()
    await idle()
    assert "never retrieved" not in caplog.text


async def test_cancelled_back_off_goes_on(make: Make) -> None:
    case = make(Stream(LOST), UNREACHABLE, UNREACHABLE, Stream(line(12)))
    case.clock.awake.clear()
    for _ in range(3):
        task = case.waiting()
        await idle()
        task.cancel()
        await asyncio.wait((task,))
    assert case.clock.sleeps == [0.3]
    case.clock.awake.set()
    assert await case.indexes(1) == [12]


async def test_only_one_task_may_wait(make: Make) -> None:
    case = make(Stream())
    task = case.waiting()
    await idle()
    for call in (case.watcher.next(), case.watcher.__aenter__(), case.watcher.__anext__()):
        with pytest.raises(RuntimeError, match="another task is waiting"):
            await call
    assert not task.done()
    assert not case.watcher._entered
    task.cancel()
    await asyncio.wait((task,))
    await case.nothing_comes()


async def test_entering_frees_the_watcher_for_the_next(make: Make) -> None:
    case = make(Stream(line(12)))
    async with case.watcher:
        assert await case.indexes(1) == [12]


@pytest.mark.parametrize("stage", ["unused", "opening", "listening", "back-off", "catching up"])
async def test_closing_ends_all(stage: str, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    stream = Stream(index=20)
    script: dict[str, tuple[Stream | Exception, ...]] = {
        "listening": (stream,),
        "back-off": (stream, UNREACHABLE, UNREACHABLE),
        "catching up": (Stream(line(12), index=20), stream),
    }
    case = make(*script.get(stage, ()), after_index=10)
    task = None
    if stage == "back-off":
        stream.feed(LOST)
        case.clock.awake.clear()
    if stage == "catching up":
        await case.indexes(1)
    if stage != "unused":
        task = case.waiting()
        await idle()
    probing = set(case.shared.liveness._probing.values())
    await case.watcher.aclose()
    assert not asyncio.all_tasks() - probing - {task, asyncio.current_task()}
    if task is not None:
        with pytest.raises(ClientClosedError, match="the watcher is closed"):
            await task
    if stage == "listening":
        assert stream.closed
    assert not case.shared.liveness._at
    assert not list(case.shared.liveness._watchers)
    with pytest.raises(ClientClosedError, match="the watcher is closed"):
        await case.watcher.next()
    with pytest.raises(ClientClosedError, match="the watcher is closed"):
        async with case.watcher:
            pass
    await case.watcher.aclose()
    assert "callback" not in caplog.text


async def test_a_closed_watcher_attaches_to_nothing(make: Make) -> None:
    case = make(Failing((ONE, TWO), Stream(endpoint=TWO)))
    task = case.waiting()
    while not case.etcd.opening:
        await asyncio.sleep(0)
    case.driver.abort()
    case.driver._move((ONE, None))
    assert not case.shared.liveness._at
    await asyncio.wait((task,))
    assert isinstance(task.exception(), ClientClosedError)


async def test_shut_while_a_stream_arrives_leaves_no_stream(make: Make) -> None:
    for moments in range(8):
        stream = Stream()
        case = make(stream)
        task = case.waiting()
        while not case.etcd.opening:
            await asyncio.sleep(0)
        for _ in range(moments):
            await asyncio.sleep(0)
        await case.watcher.aclose()
        await asyncio.wait((task,))
        assert isinstance(task.exception(), ClientClosedError)
        assert bool(stream.closed) is stream.given
        assert not case.etcd.opening


async def test_what_was_heard_and_not_taken_is_not_passed_over(make: Make) -> None:
    case = make(Stream(line(12) + line(13)))
    assert await case.indexes(1) == [12]
    await case.watcher.aclose()
    assert case.watcher.index == 12
    with pytest.raises(ClientClosedError):
        await case.watcher.next()
    with pytest.raises(StopAsyncIteration):
        await case.watcher.__anext__()


async def test_async_for_gives_what_was_heard(make: Make) -> None:
    case = make(Stream(line(12) + line(13) + line(14)))
    got: list[int] = []
    async for event in case.watcher:
        got.append(index_of(event))
        if len(got) == 3:
            break
    assert got == [12, 13, 14]


async def test_an_iterator_of_the_watcher_iterates(make: Make) -> None:
    iterator = aiter(make(Stream(line(12))).watcher)
    async for event in iterator:
        assert index_of(event) == 12
        break


async def test_async_for_ends_with_the_watcher(make: Make) -> None:
    case = make(Stream(line(12)))
    got: list[int] = []

    async def read() -> None:
        async for event in case.watcher:
            got.append(index_of(event))

    task = asyncio.ensure_future(read())
    await idle()
    await case.watcher.aclose()
    async with timeout(2):
        await task
    assert got == [12]
    with pytest.raises(StopAsyncIteration):
        await case.watcher.__anext__()


async def test_async_for_tells_of_a_closed_client(make: Make) -> None:
    case = make(Stream(line(12)))

    async def read() -> None:
        async for _ in case.watcher:
            pass

    task = asyncio.ensure_future(read())
    await idle()
    case.etcd.closed = True
    await case.shared.liveness.close()
    with pytest.raises(ClientClosedError):
        await task


async def test_a_client_that_closes_under_a_registration_is_told(make: Make) -> None:
    case = make(ClientClosedError("the client is closed"))
    with pytest.raises(ClientClosedError, match="the client is closed"):
        await case.watcher.__anext__()


async def test_break_frees_the_connection_and_the_watcher_goes_on(make: Make) -> None:
    first = Stream(line(12) + line(13), index=11)
    case = make(first, Stream(line(14), index=13))
    async for event in case.watcher:
        assert index_of(event) == 12
        break
    assert first.closed
    assert not case.shared.liveness._at
    assert await case.indexes(2) == [13, 14]
    assert case.asked == [FROM_NOW, since(13)]


async def test_break_inside_the_context_frees_nothing(make: Make) -> None:
    stream = Stream(line(12))
    case = make(stream)
    async with case.watcher as watcher:
        async for _ in watcher:
            break
        assert not stream.closed
        assert case.attached == [ONE]


async def test_an_iteration_that_was_left_frees_nothing_of_another(make: Make) -> None:
    stream = Stream()
    case = make(stream)
    iteration = aiter(case.watcher)
    task = case.waiting()
    await idle()
    del iteration
    gc.collect()
    assert not stream.closed
    stream.feed(line(12))
    async with timeout(2):
        await task


async def test_break_while_polls_are_under_way_ends_them(make: Make) -> None:
    case = make(Stream(line(12), index=20), Stream(index=20), after_index=10)
    assert await case.indexes(1) == [12]
    task = case.waiting()
    await idle()
    task.cancel()
    await asyncio.wait((task,))
    await idle()
    assert case.speaker._catch_up.tasks
    iteration = aiter(case.watcher)
    del iteration
    gc.collect()
    await idle()
    assert not case.speaker._catch_up.tasks or all(each.cancelled() for each in case.speaker._catch_up.tasks)


async def test_a_watcher_that_is_forgotten_frees_all(make: Make) -> None:
    stream = Stream()
    case = make(stream)
    await case.nothing_comes()
    forgotten = weakref.ref(case.watcher)
    del case.watcher
    gc.collect()
    assert forgotten() is None
    assert stream.closed
    assert not case.shared.liveness._at
    await idle()


def test_a_watcher_that_was_never_built_frees_nothing() -> None:
    Watcher.__new__(Watcher).__del__()


async def test_closed_as_its_stream_ends(make: Make) -> None:
    stream = Stream(line(12))
    case = make(stream)
    await case.indexes(1)
    task = case.waiting()
    await idle()
    stream.feed(END)
    case.driver.abort()
    await idle()
    assert isinstance(task.exception(), ClientClosedError)
    assert len(case.asked) == 1


async def test_closing_while_it_listens_waits_for_no_back_off(make: Make) -> None:
    case = make(Stream(LOST), UNREACHABLE, UNREACHABLE, Stream())
    task = case.waiting()
    await idle()
    case.clock.awake.clear()
    await case.watcher.aclose()
    await idle()
    assert isinstance(task.exception(), ClientClosedError)


async def test_cancelled_back_off_of_a_late_endpoint_goes_on(make: Make) -> None:
    last = Stream(line(12), END, index=12)
    case = make(Stream(line(11), END, index=11), UNREACHABLE, UNREACHABLE, last, after_index=10)
    case.hold_back()
    async with case.watcher:
        assert await case.indexes(1) == [11]
        case.clock.awake.clear()
        for _ in range(3):
            await case.nothing_comes()
        assert case.asked == [poll_since(10), poll_since(11)]
        case.clock.awake.set()
        assert await case.indexes(1) == [12]
        assert case.clock.sleeps == [0.3, 0.6]


async def test_being_left_again_and_again_is_an_outage_of_that_endpoint(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    case = make()
    task = case.waiting()
    for _ in range(3):
        await idle()
        case.driver.evict()
    await idle()
    assert f"{ONE}: it was left, for it does not answer" in caplog.text
    assert case.asked == [FROM_NOW] * 4
    task.cancel()
    await asyncio.wait((task,))


async def test_being_left_is_no_answer(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """An outage is not over where a registration is called off."""
    caplog.set_level(logging.INFO)
    case = make(Stream(LOST), UNREACHABLE, UNREACHABLE)
    task = case.waiting()
    await idle()
    assert case.etcd.opening == 1
    case.driver.evict()
    await idle()
    assert [record.message.partition(",")[0] for record in caplog.records] == ["watches are interrupted"]
    task.cancel()
    await asyncio.wait((task,))


async def test_being_left_goes_on_elsewhere(make: Make) -> None:
    first, second = Stream(line(12)), Stream(line(13), endpoint=TWO)
    case = make(first, second)
    assert await case.indexes(1) == [12]
    task = case.waiting()
    await idle()
    case.driver.evict()
    async with timeout(2):
        assert index_of(await task) == 13
    assert first.closed
    assert case.attached == [TWO]
    assert not case.clock.sleeps


async def test_errors_of_the_api_have_their_place(make: Make) -> None:
    case = make(APIError(300, "Raft Internal Error"))
    with pytest.raises(APIError, match="Raft Internal Error"):
        await case.next()


# --- renewing -------------------------------------------------------------------------------------------------------


async def test_a_quiet_stream_is_registered_anew_before_the_old_one_is_closed(make: Make) -> None:
    old, new = Stream(index=10), Stream(index=10)
    case = make(old)
    task = case.waiting()
    await idle()
    case.clock.now += 250
    case.driver.renew_if_quiet_since(case.clock.now - 200)
    await idle()
    assert case.asked == [FROM_NOW, since(10)]
    assert not old.closed
    assert case.machine.streams
    case.driver.renew_if_quiet_since(case.clock.now - 200)  # it is under way already
    await idle()
    assert case.etcd.opening == 1
    assert case.driver._renewal.task is not None
    case.driver._renewal.task.cancel()
    await idle()
    case.etcd.script = [new]
    case.clock.now += 250
    case.driver.renew_if_quiet_since(case.clock.now - 200)
    await idle()
    assert (new.given, new.closed, old.closed) == (True, 0, 1)
    assert not task.done()
    new.feed(line(11))
    async with timeout(3):
        assert index_of(await task) == 11
    assert len(case.asked) == 3
    assert not case.machine.troubles
    assert not case.clock.sleeps


async def test_who_was_heard_is_not_registered_anew(make: Make) -> None:
    stream = Stream()
    case = make(stream)
    case.driver.renew_if_quiet_since(case.clock.now)  # it has no stream yet
    async with case.watcher:
        case.clock.now += 100
        stream.feed(line(11))
        await case.next()
        case.driver.renew_if_quiet_since(case.clock.now - 1)
        await idle()
        assert case.asked == [FROM_NOW]


@pytest.mark.parametrize("index", [10, 13])
async def test_a_renewal_loses_and_doubles_nothing(index: int, make: Make) -> None:
    """Whatever the old stream brings until then, and wherever the new one begins."""
    for moments in range(10):
        old = Stream(index=10)
        case = make(old)
        async with case.watcher:
            await idle()
            events = [line(each) for each in (11, 12, 13)]
            news = events if index == 10 else events[:1]  # of history there is one
            case.etcd.script = [Stream(*news, index=index), Stream(line(14), index=13)]
            case.etcd.history = [11, 12, 13]
            case.driver.renew_if_quiet_since(case.clock.now)
            task = case.waiting()
            old.feed(*events[:2])
            for _ in range(moments):
                await asyncio.sleep(0)
            if not old.closed:
                old.feed(events[2])
            got = [index_of(await task), *(await case.indexes(2))]
            assert got == [11, 12, 13]
            assert not case.clock.sleeps


@pytest.mark.parametrize("error", [UNREACHABLE, SILENT, INVALID, LOST])
async def test_a_renewal_that_fails_leaves_the_old_stream(error: Exception, make: Make) -> None:
    old = Stream()
    case = make(old, error)
    async with case.watcher:
        case.clock.now += 250
        case.driver.renew_if_quiet_since(case.clock.now)
        await idle()
        assert len(case.asked) == 2
        assert case.driver._renewal.task is None
        case.driver.renew_if_quiet_since(case.clock.now - 1)  # the next rest begins then
        await idle()
        assert len(case.asked) == 2
        old.feed(line(11))
        assert await case.indexes(1) == [11]
        assert not old.closed
        assert not case.machine.troubles


async def test_a_renewal_that_is_refused_is_told(make: Make) -> None:
    old = Stream()
    case = make(old, REFUSED, Stream(line(11)))
    async with case.watcher:
        task = case.waiting()
        await idle()
        case.driver.renew_if_quiet_since(case.clock.now)
        async with timeout(3):
            await asyncio.wait((task,))
        assert task.exception() is REFUSED
        assert old.closed
        assert await case.indexes(1) == [11]


async def test_a_renewal_where_history_is_gone_is_a_gap(make: Make) -> None:
    """A quiet key in a busy store: nothing has changed, so that it goes on unseen."""
    case = make(Stream(), CLEARED, Stream(line(2003), index=2001))
    case.etcd.state = (10, children(("b", 3)))
    async with case.watcher:
        await idle()
        case.etcd.state = (2001, children(("b", 3)))
        case.driver.renew_if_quiet_since(case.clock.now)
        assert await case.indexes(1) == [2003]
    assert case.asked == [FROM_NOW, since(10), FROM_NOW]


async def test_a_stream_that_ended_meanwhile_needs_no_renewal(make: Make) -> None:
    old, second, late = Stream(), Stream(line(11)), Stream()
    case = make(old)
    async with case.watcher:
        task = case.waiting()
        await idle()
        case.etcd.script = [late, second]
        case.driver.renew_if_quiet_since(case.clock.now)
        old.feed(LOST)
        async with timeout(3):
            assert index_of(await task) == 11
        await idle()
        assert late.closed + second.closed == 1  # whichever came first is listened to


# --- resting --------------------------------------------------------------------------------------------------------


RESTS: dict[str, tuple[Callable[[], tuple[Stream | Exception, ...]], str]] = {
    "opening": (lambda: (), "Open"),
    "listening": (lambda: (Stream(),), "Read"),
    "pausing": (lambda: (Stream(LOST), UNREACHABLE), "Pause"),
    "fetching": (lambda: (Stream(line(12), index=20), Stream(index=20)), "Fetch"),
    "asking": (lambda: (Stream(index=9),), "Ask"),
    "looking": (lambda: (CLEARED, Stream(index=2000)), "Look"),
    "renewing": (lambda: (Stream(),), "Read"),
    "counting": (lambda: (Stream(),), "Read"),
    "at the gate": (lambda: (Stream(LOST),), "Open"),
}


@pytest.mark.parametrize("stage", RESTS)
async def test_resting_leaves_no_task_and_is_no_failure(
    stage: str, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    script, todo = RESTS[stage]
    case = make(*(streams := script()), after_index=10)
    if stage in ("asking", "looking", "counting"):
        release = hold_reads(case)
    if stage == "pausing":
        case.clock.awake.clear()
    if stage == "fetching":
        assert await case.indexes(1) == [12]
    if stage == "at the gate":
        await case.shared.outage.enter("another")
    before = asyncio.all_tasks()
    await case.nothing_comes()
    if stage == "renewing":
        case.driver.renew_if_quiet_since(case.clock.now)
        await idle()
        assert case.etcd.opening == 1
    assert type(case.machine.todo).__name__ == todo
    troubles = case.machine.troubles
    case.driver.rest()
    await idle()
    assert not {task for task in asyncio.all_tasks() - before if not task.done()}
    assert all(stream.closed for stream in streams if isinstance(stream, Stream) and stream.given)
    assert case.etcd.opening == 0
    assert case.attached == []
    assert case.machine.troubles == troubles
    if stage != "pausing":
        assert not case.clock.sleeps
        assert not caplog.records
    case.clock.awake.set()
    if stage in ("asking", "looking", "counting"):
        release.set()
    case.shared.outage.leave("another")
    case.etcd.quorum = 10
    case.etcd.state = (2000, Node("/a", "v", modified_index=4)) if stage == "looking" else (10, None)
    case.etcd.script = [Stream(line(2001), index=2000 if stage == "looking" else 12)]
    assert await case.indexes(1) == [2001]
    assert case.machine.troubles == 0

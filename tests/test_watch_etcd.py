"""Every event after the start, each once, in order, whatever the network and the members do."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import pytest
from async_timeout import timeout

from aioetcd2 import (
    Client,
    ClientClosedError,
    ClusterError,
    EndpointSelection,
    EventIndexClearedError,
    InvalidResponseError,
    KeysAPI,
    RedirectError,
    Response,
    UnauthorizedError,
    Watcher,
)
from aioetcd2._v2.position import Position
from aioetcd2._watching import outage as outage_module
from aioetcd2.testing import EtcdCluster, EtcdServer

from .faultproxy import FaultProxy
from .misbehaver import (
    Behaviour,
    Misbehaver,
    answer,
    chunk,
    close,
    hang,
    happened,
    key_event,
    raw,
    reset,
    stay,
    wait,
    wait_header,
)

HISTORY = 1000


def position_of(watcher: Watcher) -> Position:
    """What a watcher has heard, with all that v2 knows of it."""
    return cast(Position, watcher._machine.position)


@asynccontextmanager
async def through(server: EtcdServer, **options: Any) -> AsyncIterator[tuple[FaultProxy, Client]]:
    """A client whose connections can be hurt."""
    async with FaultProxy(server.endpoint) as proxy, Client(proxy.endpoint, **options) as client:
        yield proxy, client


def client_of(*servers: Misbehaver | EtcdServer, **options: Any) -> Client:
    endpoints = [server.endpoint for server in servers]
    return Client(endpoints, selection=EndpointSelection.PRIORITIZE_LEADER, **options)


def modified(event: Response) -> int:
    assert event.node is not None
    return event.node.modified_index


def brief(event: Response) -> tuple[str, str]:
    assert event.node is not None
    return event.action, event.node.key


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def soon(watcher: Watcher, seconds: float = 15.0) -> Response:
    async with timeout(seconds):
        return await watcher.next()


async def take(watcher: Watcher, number: int) -> list[Response]:
    return [await soon(watcher) for _ in range(number)]


async def nothing_comes(watcher: Watcher) -> None:
    with pytest.raises(asyncio.TimeoutError):
        await soon(watcher, 0.15)


def waiting_in(watcher: Watcher) -> asyncio.Task[Response]:
    return asyncio.create_task(watcher.next())


async def registered(client: Client) -> int:
    """How many watchers the server has."""
    return (await client.stats.store()).watchers


async def until_registered(client: Client, number: int) -> None:
    async with timeout(10):
        while await registered(client) != number:
            await asyncio.sleep(0.01)


async def write_elsewhere(client: Client, prefix: str, number: int = HISTORY + 100) -> None:
    """Push everything that was out of the server's history."""
    for start in range(0, number, 100):
        await asyncio.gather(*(client.keys.set(f"{prefix}-else/{start + each}", "x") for each in range(100)))


async def until_counted(watcher: Watcher) -> None:
    """Wait until the watcher knows how many keys there are."""
    await until(lambda: position_of(watcher).census is not None)


def mine() -> set[asyncio.Task[Any]]:
    """All tasks but this one and those of the helpers."""
    tasks = {task for task in asyncio.all_tasks() if task.get_name() not in ("misbehaver", "faultproxy")}
    return tasks - {asyncio.current_task()}


# --- what is an event -----------------------------------------------------------------------------------------------


async def test_events_of_many_writers_each_once_in_order(client: Client, prefix: str) -> None:
    async with client.keys.watch(prefix, recursive=True) as watcher:
        written = await asyncio.gather(*(client.keys.set(f"{prefix}/{each % 7}", str(each)) for each in range(300)))
        events = await take(watcher, 300)
        assert list(map(modified, events)) == sorted(map(modified, written))
        assert watcher.index == modified(events[-1])
        await nothing_comes(watcher)


async def test_write_after_entering_is_seen(client: Client, prefix: str) -> None:
    for each in range(20):
        async with client.keys.watch(prefix) as watcher:
            written = await client.keys.set(prefix, str(each))
            assert modified(await soon(watcher)) == modified(written)


async def test_every_action(client: Client, prefix: str) -> None:
    keys, key = client.keys, f"{prefix}/k"
    async with keys.watch(prefix, recursive=True) as watcher:
        created = await keys.create(key, "1")
        await keys.update(key, "2")
        await keys.set(key, "3", prev_value="2")
        await keys.set(key, "4")
        await keys.refresh(key, 100)
        await keys.delete(key, prev_value="4")
        await keys.create_in_order(prefix, "5")
        await keys.mkdir(f"{prefix}/d")
        await keys.set(f"{prefix}/t", "6", ttl=1)
        await keys.delete(f"{prefix}/d", dir=True)
        events = await take(watcher, 10)
    ordered = f"{prefix}/{modified(created) + 6:020}"
    assert list(map(brief, events)) == [
        ("create", key),
        ("update", key),
        ("compareAndSwap", key),
        ("set", key),
        ("compareAndDelete", key),
        ("create", ordered),
        ("create", f"{prefix}/d"),
        ("set", f"{prefix}/t"),
        ("delete", f"{prefix}/d"),
        ("expire", f"{prefix}/t"),
    ]
    assert events[1].prev_node is not None
    assert events[1].prev_node.value == "1"


async def disturb(client: Client, prefix: str) -> list[Response]:
    """Events in and around `prefix/d`, hidden ones and those of keys that share the string prefix among them."""
    keys = client.keys
    return [
        await keys.set(f"{prefix}/d/a", "1"),
        await keys.set(f"{prefix}/d/_hidden", "1"),
        await keys.set(f"{prefix}/dd", "1"),
        await keys.set(f"{prefix}/d/_h/x", "1"),
        await keys.set(f"{prefix}/d/s/_h", "1"),
        await keys.set(f"{prefix}/d/s/b_", "1"),
        await keys.set(f"{prefix}/_d/a", "1"),
        await keys.delete(f"{prefix}/d/_hidden"),
        await keys.delete(f"{prefix}/d/s", recursive=True),
        await keys.delete(f"{prefix}/dd"),
        await keys.set(f"{prefix}/d/a", "2"),
        await keys.delete(f"{prefix}/d", recursive=True),
        await keys.set(f"{prefix}/d", "file"),
        await keys.set(f"{prefix}/x", "end"),
    ]


@pytest.mark.parametrize("history", [False, True], ids=["live", "history"])
@pytest.mark.parametrize(
    ("key", "recursive", "expected", "only_in_history"),
    [
        ("d", True, [0, 5, 8, 10, 11, 12], []),
        ("d", False, [11, 12], []),
        ("d/", True, [0, 5, 8, 10, 11, 12], []),
        ("d/a", False, [0, 10, 11], []),
        (
            "d/_hidden",
            False,
            [1, 7],
            [11],
        ),  # the server's history tells of the end of a parent even if the key had gone
        ("d/_h", True, [3, 11], []),
        ("d/_h/x", False, [3, 11], []),
        ("dd", False, [2, 9], []),
        ("dd", True, [2, 9], []),
        ("d/s/b_", False, [5, 8], [11]),
        ("ddd", True, [], []),
    ],
)
async def test_only_events_of_the_key(
    key: str,
    recursive: bool,
    expected: list[int],
    only_in_history: list[int],
    history: bool,
    client: Client,
    prefix: str,
) -> None:
    start = (await client.keys.set(f"{prefix}/x", "start")).index
    if history:
        expected = expected + only_in_history
        written = await disturb(client, prefix)
        watcher = client.keys.watch(f"{prefix}/{key}", recursive=recursive, after_index=start)
    else:
        watcher = client.keys.watch(f"{prefix}/{key}", recursive=recursive)
        await watcher.__aenter__()
        written = await disturb(client, prefix)
    async with watcher:
        events = await take(watcher, len(expected))
        assert list(map(modified, events)) == [modified(written[each]) for each in expected]
        await nothing_comes(watcher)


async def test_root(client: Client, prefix: str) -> None:
    async with client.keys.watch("/", recursive=True) as watcher:
        written = await client.keys.set(f"{prefix}/a/b", "1")
        assert modified(await soon(watcher)) == modified(written)


async def test_end_of_a_parent_is_an_event(client: Client, prefix: str) -> None:
    await client.keys.mkdir(prefix, ttl=1)
    await client.keys.set(f"{prefix}/a/b", "1")
    async with (
        client.keys.watch(f"{prefix}/a/b") as key,
        client.keys.watch(f"{prefix}/a", recursive=True) as directory,
        client.keys.watch(prefix, recursive=True) as expiring,
    ):
        for watcher in (key, directory, expiring):
            assert brief(await soon(watcher)) == ("expire", prefix)
            await nothing_comes(watcher)
        written = await client.keys.set(f"{prefix}/a/b", "2")
        for watcher in (key, directory, expiring):
            assert modified(await soon(watcher)) == modified(written)


async def test_values_of_any_kind(client: Client, prefix: str) -> None:
    values = ["", "\n", '"\\', "\0\r\n\n", "\u2028\N{PILE OF POO}<&>", "x" * 1_000_000, "{}", "last"]
    async with client.keys.watch(prefix) as watcher:
        for value in values:
            await client.keys.set(prefix, value)
        events = await take(watcher, len(values))
    assert [event.node.value for event in events if event.node is not None] == values


# --- where it begins ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 5, 150, 700])
async def test_after_index_begins_in_the_past(number: int, client: Client, prefix: str) -> None:
    start = await client.keys.set(f"{prefix}/0", "before")
    written = await asyncio.gather(*(client.keys.set(f"{prefix}/{each}", "1") for each in range(number)))
    async with client.keys.watch(prefix, recursive=True, after_index=start.index) as watcher:
        later = [await client.keys.set(f"{prefix}/x", "2")]
        events = await take(watcher, number)
        later += [await client.keys.set(f"{prefix}/x", "3") for _ in range(5)]
        events += await take(watcher, len(later))
        assert list(map(modified, events)) == sorted(map(modified, [*written, *later]))
        await nothing_comes(watcher)


async def test_after_index_of_the_future_is_of_another_past(client: Client, prefix: str) -> None:
    start = await client.keys.set(prefix, "0")
    async with client.keys.watch(prefix, after_index=start.index + 3) as watcher:
        with pytest.raises(EventIndexClearedError) as caught:
            await soon(watcher)
    assert caught.value.index == start.index
    async with client.keys.watch(prefix, after_index=start.index + 3, resync=True) as watcher:
        written = [await client.keys.set(prefix, str(each)) for each in range(6)]
        events = await take(watcher, 7)
        assert (events[0].action, events[0].index) == ("resync", start.index)
        assert list(map(modified, events[1:])) == list(map(modified, written))


async def test_index_is_where_to_resume(client: Client, prefix: str) -> None:
    assert client.keys.watch(prefix).index is None
    async with client.keys.watch(prefix) as watcher:
        assert watcher.index is not None
        written = [await client.keys.set(prefix, str(each)) for each in range(5)]
        for each in range(5):
            async with client.keys.watch(prefix, after_index=watcher.index) as other:
                assert list(map(modified, await take(other, 5 - each))) == list(map(modified, written))[each:]
            await soon(watcher)


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
async def test_cut_before_the_first_event_skips_nothing(
    reset: bool, server: EtcdServer, client: Client, prefix: str
) -> None:
    async with through(server) as (proxy, other), other.keys.watch(prefix, recursive=True) as watcher:
        await proxy.refuse()
        proxy.cut(reset=reset)
        written = [await client.keys.set(f"{prefix}/{each}", "1") for each in range(3)]
        await proxy.resume()
        assert list(map(modified, await take(watcher, 3))) == list(map(modified, written))


async def test_first_registration_without_an_endpoint(prefix: str) -> None:
    html = Misbehaver(answer("<html>", index=None))
    async with Misbehaver(close) as first, html as second, client_of(first, second) as client:
        with pytest.raises(ClusterError) as caught:
            await soon(client.keys.watch(prefix))
        assert len(caught.value.errors) == 2
        with pytest.raises(ClusterError):
            async with client.keys.watch(prefix):
                pass


@pytest.mark.parametrize("status", [200, 404, 302])
async def test_first_registration_at_no_etcd(status: int, prefix: str) -> None:
    html = answer("<html>\n<body>\n", status=status, index=None, cluster=None)
    async with Misbehaver(html) as server, client_of(server) as client:
        with pytest.raises((InvalidResponseError, RedirectError)):
            await soon(client.keys.watch(prefix))


@pytest.mark.slow
async def test_first_registration_that_is_always_too_late(prefix: str) -> None:
    cleared = answer({"errorCode": 401, "message": "cleared", "cause": "x", "index": 10}, status=400)
    async with Misbehaver(cleared, reads=answer(key_event("/k", 7, "get"))) as server, client_of(server) as client:
        with pytest.raises(EventIndexClearedError):
            await soon(client.keys.watch(prefix, after_index=8))
        assert len(server.waits) == 2  # since that index, and from now on


async def test_refusal_is_raised(prefix: str) -> None:
    refusal = answer({"errorCode": 110, "message": "The request requires user authentication"}, status=401)
    async with Misbehaver(refusal) as server, client_of(server) as client:
        with pytest.raises(UnauthorizedError):
            await soon(client.keys.watch(prefix))
        assert len(server.waits) == 1


# --- what the server does -------------------------------------------------------------------------------------------

FIRST, SECOND = key_event(index=11, value="1"), key_event(index=12, value="2")
WHOLE = json.dumps(FIRST).encode() + b"\n"
EMPTY = raw(b"HTTP/1.1 200 OK\r\nX-Etcd-Index: 10\r\nContent-Length: 0\r\n\r\n", then=close)


@pytest.mark.parametrize(
    "end",
    [
        answer(b""),
        EMPTY,
        raw(wait_header() + chunk(b"")),
        raw(wait_header()),
        raw(wait_header(), then=reset),
        raw(wait_header() + chunk(WHOLE[:20])),
        raw(wait_header() + chunk(WHOLE[:20]), then=reset),
        raw(wait_header() + chunk(WHOLE)[:20]),
        raw(wait_header() + chunk(WHOLE[:-1])),
        raw(wait_header() + chunk(WHOLE[:20]) + chunk(b"")),
        raw(wait_header() + chunk(b"\n")),
        raw(wait_header() + chunk(b"<html>\n")),
        answer("oops", status=500),
        answer({"message": "proxy: zero endpoints currently available"}, status=503),
        close,
    ],
    ids=[
        "empty", "empty-closed", "no-event", "eof", "rst", "half", "half-rst", "half-chunk", "no-newline", "half-clean",
        "blank", "html", "500", "503", "no-answer",
    ],
)  # fmt: skip
@pytest.mark.slow
async def test_end_without_an_event_is_resumed(end: Behaviour) -> None:
    rest = happened(FIRST), happened(SECOND)
    async with (
        Misbehaver(wait(), end, end, *rest, wait(), reads=answer(key_event(), index=20)) as server,
        client_of(server, header_timeout=5) as client,
        client.keys.watch("/k") as watcher,
    ):
        server.hang_up()
        events = await take(watcher, 2)
        assert list(map(modified, events)) == [11, 12]
        assert server.waits[1].query["waitIndex"] == "11"


async def test_event_without_a_newline() -> None:
    body = json.dumps(FIRST).encode()
    async with (
        Misbehaver(raw(wait_header() + chunk(body) + chunk(b"")), wait(11), reads=hang) as server,
        client_of(server) as client,
        client.keys.watch("/k") as watcher,
    ):
        assert modified(await soon(watcher, 3)) == 11


async def test_event_in_pieces() -> None:
    pieces = [chunk(bytes([byte])) for byte in WHOLE]
    async with (
        Misbehaver(raw(wait_header(), *pieces, chunk(b"")), wait(11), reads=hang) as server,
        client_of(server) as client,
        client.keys.watch("/k") as watcher,
    ):
        assert modified(await soon(watcher)) == 11


async def test_known_events_are_not_given_again() -> None:
    waits = [happened(*(key_event(index=index) for index in indexes)) for indexes in ([11, 11], [12, 11, 13], [13, 14])]
    async with (
        Misbehaver(*waits, wait(14), reads=answer(key_event(), index=20)) as server,
        client_of(server) as client,
        client.keys.watch("/k", after_index=10) as watcher,
    ):
        assert list(map(modified, await take(watcher, 4))) == [11, 12, 13, 14]


USELESS = {
    "empty": answer(b""),
    "empty, closed": EMPTY,
    "old event": happened(key_event(index=5)),
    "no answer": close,
    "eof": raw(wait_header()),
    "500": answer("oops", status=500),
    "cleared": answer({"errorCode": 401, "message": "cleared", "index": 10}, status=400),
}


@pytest.mark.parametrize("after_index", [None, 10])
@pytest.mark.slow
async def test_no_busy_loop(after_index: int | None) -> None:
    async def requests(useless: Behaviour) -> int:
        async with (
            Misbehaver(wait(), useless, reads=answer(key_event(index=3))) as server,
            client_of(server) as client,
            client.keys.watch("/k", after_index=after_index) as watcher,
        ):
            server.hang_up()
            with pytest.raises(asyncio.TimeoutError):
                await soon(watcher, 1.0)
            return len(server.seen)

    counts = await asyncio.gather(*map(requests, USELESS.values()))
    assert {name: count for name, count in zip(USELESS, counts, strict=True) if not 3 <= count <= 25} == {}


@pytest.mark.slow
@pytest.mark.parametrize("resync", [False, True])
async def test_an_event_that_cannot_be_taken_is_asked_for_three_times(resync: bool) -> None:
    spoilt = raw(wait_header() + chunk(b"<html>\n"), then=hang)
    rest = [spoilt, spoilt, spoilt] if not resync else [spoilt, spoilt, spoilt, wait()]
    async with (
        Misbehaver(wait(), *rest, reads=answer(key_event("/k", 10, "get"))) as server,
        client_of(server) as client,
        client.keys.watch("/k", resync=resync) as watcher,
    ):
        server.hang_up()
        if resync:
            event = await soon(watcher, 5)
            assert (event.action, event.index) == ("resync", 10)
        else:
            with pytest.raises(InvalidResponseError):
                await soon(watcher, 5)
        assert len(server.waits) == 1 + len(rest)


# --- what the network does ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reset", "recursive", "latency"),
    [(False, False, 0.0), (True, True, 0.0), (False, True, 0.01), (True, False, 0.01)],
    ids=["fin-key", "rst-tree", "fin-tree-far", "rst-key-far"],
)
async def test_cuts_lose_and_repeat_nothing(
    reset: bool, recursive: bool, latency: float, server: EtcdServer, client: Client, prefix: str
) -> None:
    written: list[int] = []
    received: list[int] = []

    async def write() -> None:
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            key = f"{prefix}/{len(written) % 5}" if recursive else prefix
            written.append(modified(await client.keys.set(key, "x")))
            await client.keys.set(f"{prefix}-else", "x")
            await asyncio.sleep(0.005)

    async def read(watcher: Watcher) -> None:
        while True:
            received.append(modified(await watcher.next()))

    async with through(server) as (proxy, other), other.keys.watch(prefix, recursive=recursive) as watcher:
        proxy.latency = latency
        reading = asyncio.create_task(read(watcher))
        writing = asyncio.create_task(write())
        try:
            while not writing.done():
                await asyncio.sleep((0.03 + random.random() * 0.04) * (3 if latency else 1))
                proxy.cut(reset=reset)
            await until(lambda: len(received) >= len(written) or reading.done())
            await asyncio.sleep(0.2)
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading
        assert received == written
        assert proxy.accepted > 5


async def test_bursts_between_cuts(server: EtcdServer, client: Client, prefix: str) -> None:
    async with through(server) as (proxy, other), other.keys.watch(prefix, recursive=True) as watcher:
        written: list[int] = []
        received: list[int] = []
        for number in (1, 120, 3, 400, 90, 101):
            batch = await asyncio.gather(*(client.keys.set(f"{prefix}/{each}", "x") for each in range(number)))
            written += sorted(map(modified, batch))
            proxy.cut()
            received += list(map(modified, await take(watcher, number // 2)))
            proxy.cut(reset=True)
            received += list(map(modified, await take(watcher, number - number // 2)))
            assert received == written
        await nothing_comes(watcher)


async def test_killed_member_is_left(cluster: EtcdCluster, prefix: str) -> None:
    async with (
        Client(cluster.endpoints, header_timeout=2) as client,
        Client(cluster.endpoints, header_timeout=1) as writer,
    ):
        written: list[int] = []
        received: list[int] = []
        writing = True

        async def write() -> None:
            while writing:
                with suppress(ClusterError):
                    await writer.keys.set(f"{prefix}/k", str(len(written)))
                await asyncio.sleep(0.01)

        async def read(watcher: Watcher) -> None:
            while True:
                received.append(modified(await watcher.next()))

        async with client.keys.watch(prefix, recursive=True) as watcher:
            tasks = [asyncio.create_task(write()), asyncio.create_task(read(watcher))]
            await until(lambda: len(received) > 20)
            serving = next(member for member in cluster.members if (member.endpoint, None) == watcher._driver._at)
            await serving.kill()
            so_far = len(received)
            await until(lambda: len(received) > so_far + 50, 30)
            writing = False
            await tasks[0]
            start = received[0] - 1
            end = (await writer.keys.get(f"{prefix}/k", quorum=True)).node
            assert end is not None
            await until(lambda: received[-1] == end.modified_index)
            tasks[1].cancel()
            with suppress(asyncio.CancelledError):
                await tasks[1]
        async with writer.keys.watch(prefix, recursive=True, after_index=start) as again:
            assert received == list(map(modified, await take(again, len(received))))


async def test_outage_is_waited_out_with_one_warning(
    server: EtcdServer, client: Client, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "aioetcd2")
    async with through(server) as (proxy, other):
        watchers = [other.keys.watch(f"{prefix}/{each}") for each in range(3)]
        for watcher in watchers:
            await watcher.__aenter__()
        waiting = [waiting_in(watcher) for watcher in watchers]
        await proxy.refuse()
        proxy.cut()
        await asyncio.sleep(2)
        written = [await client.keys.set(f"{prefix}/{each}", "x") for each in range(3)]
        await proxy.resume()
        async with timeout(10):
            events = await asyncio.gather(*waiting)
        assert list(map(modified, events)) == list(map(modified, written))
        assert proxy.accepted < 30
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].name == "aioetcd2"


async def test_every_outage_is_told_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage_module, "CALM", 0.01)
    caplog.set_level(logging.INFO, "aioetcd2")
    async with Client("http://127.0.0.1:1") as client:
        outage, error = client._watches.outage, ClusterError("GET /v2/keys/a?wait=true", [])
        for _ in range(2):
            outage.lasts("/a", error)
            outage.lasts("", error)
            outage.answered("")
            outage.answered("/a")
            await asyncio.sleep(0.05)
    told = [(record.levelname, record.getMessage().partition(", that of ")[0]) for record in caplog.records]
    assert [level for level, _ in told] == ["WARNING", "INFO"] * 2
    assert told[1][1] == "watches go on again"


@pytest.mark.slow
async def test_endpoint_is_asked_for_its_leader_while_it_is_watched() -> None:
    async with Misbehaver(wait(), reads=answer({"id": "1", "name": "m0"})) as server:
        async with client_of(server, probe_interval=0.1) as client:
            async with client.keys.watch("/a") as first, client.keys.watch("/b"):
                waiting = waiting_in(first)
                await until(lambda: sum(seen.target == "/v2/members/leader" for seen in server.seen) > 1)
                waiting.cancel()
            await asyncio.sleep(0.05)  # what has been sent by now arrives
            requests = len(server.seen)
            await asyncio.sleep(0.3)
            assert len(server.seen) == requests


async def test_quick_reconnect_warns_of_nothing(
    server: EtcdServer, client: Client, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with through(server) as (proxy, other), other.keys.watch(prefix) as watcher:
        for _ in range(5):
            waiting = waiting_in(watcher)
            await asyncio.sleep(0.05)
            proxy.cut()
            written = await client.keys.set(prefix, "x")
            async with timeout(10):
                assert modified(await waiting) == modified(written)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# --- when the server has forgotten ----------------------------------------------------------------------------------

Change = Callable[[Client, str], Awaitable[object]]


async def no_change(client: Client, prefix: str) -> None:
    pass


@asynccontextmanager
async def gap(
    server: EtcdServer, client: Client, prefix: str, change: Change, **options: Any
) -> AsyncIterator[tuple[Watcher, int]]:
    """A watcher that has been away for longer than the server remembers, and how much it had seen before."""
    async with through(server) as (proxy, other), other.keys.watch(**options) as watcher:
        waiting = waiting_in(watcher)
        await until_counted(watcher)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        before = watcher.index or 0
        await proxy.refuse()
        proxy.cut()
        await change(client, prefix)
        await write_elsewhere(client, prefix)
        await proxy.resume()
        yield watcher, before


@pytest.mark.parametrize(
    ("key", "recursive"), [("d/a", False), ("d", True), ("missing", False), ("missing", True), ("d", False)]
)
async def test_quiet_key_survives_a_busy_cluster(
    key: str, recursive: bool, server: EtcdServer, client: Client, prefix: str
) -> None:
    await client.keys.set(f"{prefix}/d/a", "1")
    await client.keys.set(f"{prefix}/d/s/b", "1")
    key = f"{prefix}/{key}"
    async with gap(server, client, prefix, no_change, key=key, recursive=recursive) as (watcher, _):
        waiting = waiting_in(watcher)
        await asyncio.sleep(0.3)
        if key.endswith("d") and not recursive:
            await client.keys.delete(key, recursive=True)
        else:
            await client.keys.set(f"{key}/x" if recursive else key, "2")
        async with timeout(10):
            event = await waiting
        assert brief(event)[1].startswith(key)


CHANGES: dict[str, tuple[str, bool, Change]] = {
    "file set": ("d/a", False, lambda client, prefix: client.keys.set(f"{prefix}/d/a", "2")),
    "file deleted": ("d/a", False, lambda client, prefix: client.keys.delete(f"{prefix}/d/a")),
    "parent deleted": ("d/a", False, lambda client, prefix: client.keys.delete(f"{prefix}/d", recursive=True)),
    "file made": ("d/new", False, lambda client, prefix: client.keys.set(f"{prefix}/d/new", "2")),
    "child set": ("d", True, lambda client, prefix: client.keys.set(f"{prefix}/d/s/b", "2")),
    "child deleted": ("d", True, lambda client, prefix: client.keys.delete(f"{prefix}/d/s/b")),
    "child made": ("d", True, lambda client, prefix: client.keys.mkdir(f"{prefix}/d/new")),
    "tree deleted": ("d", True, lambda client, prefix: client.keys.delete(f"{prefix}/d", recursive=True)),
}


@pytest.mark.parametrize(
    ("name", "resync"), [*((name, False) for name in CHANGES), ("child set", True), ("tree deleted", True)]
)
async def test_change_in_the_gap_is_told(
    name: str, resync: bool, server: EtcdServer, client: Client, prefix: str
) -> None:
    key, recursive, change = CHANGES[name]
    await client.keys.set(f"{prefix}/d/a", "1")
    await client.keys.set(f"{prefix}/d/s/b", "1")
    key = f"{prefix}/{key}"
    options = {"key": key, "recursive": recursive, "resync": resync}
    async with gap(server, client, prefix, change, **options) as (watcher, before):
        if resync:
            response = await soon(watcher)
            assert response.action == "resync"
            assert (response.node is None) == (name == "tree deleted")
            index = response.index
        else:
            with pytest.raises(EventIndexClearedError) as caught:
                await soon(watcher)
            index = caught.value.index
        assert index > before + HISTORY
        assert watcher.index == index
        waiting = waiting_in(watcher)
        await asyncio.sleep(0.1)
        written = await client.keys.set(f"{key}/x" if recursive else key, "3")
        async with timeout(10):
            assert modified(await waiting) == modified(written)


async def test_directory_made_without_an_event_hides_no_deletion(
    server: EtcdServer, client: Client, prefix: str
) -> None:
    await client.keys.set(f"{prefix}/a", "1")
    await client.keys.set(f"{prefix}/b", "1")
    async with through(server) as (proxy, other), other.keys.watch(prefix, recursive=True) as watcher:
        await until_counted(watcher)
        await client.keys.set(f"{prefix}/new/_hidden", "1")
        await client.keys.set(f"{prefix}/a", "2")
        assert brief(await soon(watcher)) == ("set", f"{prefix}/a")
        await proxy.refuse()
        proxy.cut()
        await client.keys.delete(f"{prefix}/b")
        await write_elsewhere(client, prefix)
        await proxy.resume()
        with pytest.raises(EventIndexClearedError):
            await soon(watcher)


async def test_after_index_of_long_ago(client: Client, prefix: str) -> None:
    file, directory, missing = f"{prefix}/file", f"{prefix}/d", f"{prefix}/missing"
    await client.keys.set(f"{directory}/a", "1")
    start = (await client.keys.set(file, "1")).index
    await write_elsewhere(client, prefix)
    unchanged = client.keys.watch(file, after_index=start)
    waiting = waiting_in(unchanged)
    await asyncio.sleep(0.3)
    written = await client.keys.set(file, "2")
    async with timeout(10):
        assert modified(await waiting) == modified(written)
    await unchanged.aclose()
    for key, recursive in ((missing, False), (missing, True), (directory, True), (file, False)):
        async with client.keys.watch(key, recursive=recursive, after_index=start, resync=True) as watcher:
            response = await soon(watcher)
            assert (response.action, response.node is None) == ("resync", key == missing)
        with pytest.raises(EventIndexClearedError) as caught:
            await soon(client.keys.watch(key, recursive=recursive, after_index=start))
        assert caught.value.index >= written.index


async def test_what_was_lost_before_entering_is_told_after_it(client: Client, prefix: str) -> None:
    start = (await client.keys.set(prefix, "1")).index
    await client.keys.set(prefix, "2")
    await write_elsewhere(client, prefix)
    async with client.keys.watch(prefix, after_index=start) as watcher:
        with pytest.raises(EventIndexClearedError):
            await soon(watcher)
        written = await client.keys.set(prefix, "3")
        assert modified(await soon(watcher)) == modified(written)


# --- cancellation and closing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("hurt", [False, True], ids=["quiet", "cut"])
async def test_cancelled_next_loses_nothing(hurt: bool, server: EtcdServer, client: Client, prefix: str) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    number = 200

    async def write() -> list[int]:
        written = []
        for each in range(number):
            written.append(modified(await client.keys.set(f"{prefix}/{each % 3}", "x")))
            await asyncio.sleep(dice.random() * 0.006)
        return written

    received: list[int] = []
    async with through(server) as (proxy, other), other.keys.watch(prefix, recursive=True) as watcher:
        writing = asyncio.create_task(write())
        async with timeout(30):
            while len(received) < number:
                waiting = waiting_in(watcher)
                for _ in range(dice.randrange(4)):
                    await asyncio.sleep(0)
                await asyncio.sleep(dice.random() * 0.01)
                if hurt and dice.random() < 0.05:
                    proxy.cut(reset=dice.random() < 0.5)
                waiting.cancel()
                with suppress(asyncio.CancelledError):
                    received.append(modified(await waiting))
        assert received == await writing
        await nothing_comes(watcher)


async def test_wait_for_around_next(client: Client, prefix: str) -> None:
    async with client.keys.watch(prefix) as watcher:
        writing = asyncio.gather(*(client.keys.set(prefix, str(each)) for each in range(50)))
        received: list[int] = []
        while len(received) < 50:
            with suppress(asyncio.TimeoutError):
                received.append(modified(await asyncio.wait_for(watcher.next(), 0.003)))
        assert received == sorted(map(modified, await writing))


@pytest.mark.parametrize("past", [False, True], ids=["now", "past"])
async def test_short_waits_get_there_over_a_slow_network(
    past: bool, server: EtcdServer, client: Client, prefix: str
) -> None:
    start = (await client.keys.set(prefix, "0")).index
    async with through(server, header_timeout=5) as (proxy, other):
        proxy.latency = 0.06
        watcher = other.keys.watch(prefix, after_index=start if past else None)
        received: list[int] = []
        written: list[int] = []
        async with timeout(20):
            while len(received) < 5:
                with suppress(asyncio.TimeoutError):
                    received.append(modified(await asyncio.wait_for(watcher.next(), 0.05)))
                if watcher.index is not None and len(written) < 5:
                    written.append(modified(await client.keys.set(prefix, "x")))
        assert received == written
        await watcher.aclose()


async def test_two_tasks_in_next_are_refused(client: Client, prefix: str) -> None:
    async with client.keys.watch(prefix) as watcher:
        waiting = waiting_in(watcher)
        await asyncio.sleep(0.05)
        with pytest.raises(RuntimeError, match="another task"):
            await watcher.next()
        written = await client.keys.set(prefix, "1")
        async with timeout(5):
            assert modified(await waiting) == modified(written)


async def test_next_after_close(client: Client, prefix: str) -> None:
    watcher = client.keys.watch(prefix)
    await watcher.aclose()
    await watcher.aclose()
    with pytest.raises(ClientClosedError):
        await watcher.next()
    with pytest.raises(ClientClosedError):
        async with watcher:
            pass
    assert [event async for event in watcher] == []


async def leave_by_break(watcher: Watcher, client: Client) -> None:
    async for _ in watcher:
        break


async def leave_by_aclose(watcher: Watcher, client: Client) -> None:
    await watcher.next()
    await watcher.aclose()


async def leave_the_context(watcher: Watcher, client: Client) -> None:
    async with watcher:
        await watcher.next()


async def leave_by_error(watcher: Watcher, client: Client) -> None:
    with suppress(ZeroDivisionError):
        async with watcher:
            raise ZeroDivisionError


async def leave_by_closing_the_client(watcher: Watcher, client: Client) -> None:
    await watcher.next()
    await client.close()


async def forget(watcher: Watcher, client: Client) -> None:
    await watcher.next()


LEAVING = [leave_by_break, leave_by_aclose, leave_the_context, leave_by_error, leave_by_closing_the_client, forget]


@pytest.mark.parametrize("leave", LEAVING)
async def test_leaving_frees_the_connection(leave: Callable[[Watcher, Client], Awaitable[None]]) -> None:
    gc.disable()
    try:
        more = raw(wait_header() + chunk(WHOLE), then=hang)
        async with Misbehaver(more, reads=answer(key_event())) as server, client_of(server) as client:
            before = mine()
            await leave(client.keys.watch("/k"), client)
            await until(lambda: mine() == before, 2)
            assert len(server.waits) == 1
            await until(lambda: not server.behaving, 2)
    finally:
        gc.enable()


async def test_server_counts_no_watchers_after_leaving(server: EtcdServer, client: Client, prefix: str) -> None:
    before = await registered(client)
    async with Client(server.endpoints) as other:
        kept = [other.keys.watch(f"{prefix}/{each}") for each in range(4)]
        for watcher in kept:
            await watcher.__aenter__()
        await until_registered(client, before + 4)
        await kept[0].aclose()
        await until_registered(client, before + 3)
        del watcher
        kept.pop()
        await until_registered(client, before + 2)
    await until_registered(client, before)


@pytest.mark.parametrize("stage", ["header", "event", "back-off"])
@pytest.mark.parametrize("whole_client", [False, True], ids=["watcher", "client"])
@pytest.mark.slow
async def test_close_ends_next_of_another_task(stage: str, whole_client: bool) -> None:
    script = {"header": (hang,), "event": (wait(),), "back-off": (wait(), answer("oops", status=500))}[stage]
    async with (
        Misbehaver(*script, reads=answer(key_event())) as server,
        client_of(server, header_timeout=30) as client,
    ):
        watcher = client.keys.watch("/k")
        waiting = waiting_in(watcher)
        await until(lambda: bool(server.waits))
        await asyncio.sleep(0.05)
        if stage == "back-off":
            server.hang_up()
            await until(lambda: len(server.waits) > 4)
        began = time.monotonic()
        await (client.close() if whole_client else watcher.aclose())
        with pytest.raises(ClientClosedError):
            await waiting
        assert time.monotonic() - began < 1
        await until(lambda: not server.behaving)


async def test_async_for_in_another_task_ends_with_the_watcher() -> None:
    async with Misbehaver(wait(), reads=hang) as server, client_of(server) as client:
        watcher = client.keys.watch("/k")

        async def read() -> list[Response]:
            return [event async for event in watcher]

        reading = asyncio.create_task(read())
        await until(lambda: bool(server.waits))
        await asyncio.sleep(0.05)
        await watcher.aclose()
        async with timeout(2):
            assert await reading == []


@pytest.mark.parametrize("how", ["cancel", "close"])
@pytest.mark.parametrize("moments", range(5))
async def test_registering_at_the_last_moment_leaks_nothing(how: str, moments: int) -> None:
    async with Misbehaver(wait(), reads=answer(key_event())) as server, client_of(server) as client:
        before = mine()
        watcher = client.keys.watch("/k")
        waiting = waiting_in(watcher)
        while (
            watcher._driver._registration.opening.task is None or not watcher._driver._registration.opening.task.done()
        ):
            await asyncio.sleep(0)
        for _ in range(moments):
            await asyncio.sleep(0)
        if how == "cancel":
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                await waiting
        await watcher.aclose()
        if how == "close":
            with pytest.raises(ClientClosedError):
                async with timeout(2):
                    await waiting
        await until(lambda: not server.behaving, 2)
        await until(lambda: mine() == before, 2)


async def test_dropped_after_a_cancelled_next_leaves_nothing() -> None:
    async with Misbehaver(wait(), reads=answer(key_event())) as server, client_of(server) as client:
        before = mine()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(client.keys.watch("/k").next(), 0.1)
        gc.collect()
        await until(lambda: not server.behaving, 2)
        await until(lambda: mine() == before, 2)


async def test_cancelled_entering_leaves_nothing() -> None:
    async with Misbehaver(hang) as server, client_of(server) as client:
        before = mine()
        entering = asyncio.create_task(client.keys.watch("/k").__aenter__())
        await until(lambda: bool(server.waits))
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering
        await until(lambda: not server.behaving, 2)
        await until(lambda: mine() == before, 2)


async def test_many_watchers_of_one_client(server: EtcdServer, client: Client, prefix: str) -> None:
    async with Client(server.endpoints) as other:
        watchers = [other.keys.watch(f"{prefix}/{each}") for each in range(200)]
        await asyncio.gather(*(watcher.__aenter__() for watcher in watchers))
        written = [await client.keys.set(f"{prefix}/{each}", "x") for each in range(200)]
        events = await asyncio.gather(*map(soon, watchers))
        assert list(map(modified, events)) == list(map(modified, written))


# --- what a blocked wait proves -------------------------------------------------------------------------------------


def key_line(key: str, index: int) -> bytes:
    return json.dumps(key_event(key, index)).encode() + b"\n"


GONE = answer({"errorCode": 100, "message": "Key not found", "cause": "/k", "index": 10}, status=404)
GONE_LATER = answer({"errorCode": 100, "message": "Key not found", "cause": "/k", "index": 900}, status=404, index=900)


@pytest.mark.parametrize(
    "ends",
    [
        raw(wait_header(5000), chunk(b""), then=stay),  # the server ended it, or a proxy that swallowed the event
        raw(wait_header(5000), pause=1.2),
        raw(wait_header(5000), pause=1.2, then=reset),
        raw(wait_header(5000)),
        raw(wait_header(5000), b'5\r\n{"act', pause=1.2),
    ],
    ids=["clean", "late-fin", "late-rst", "early-fin", "halfway"],
)
@pytest.mark.slow
async def test_a_wait_that_ends_proves_nothing(ends: Behaviour, prefix: str) -> None:
    async with Misbehaver(raw(wait_header(10)), ends, wait(6000), reads=GONE) as server, client_of(server) as client:
        async with client.keys.watch(prefix) as watcher:
            waiting = waiting_in(watcher)
            await until(lambda: len(server.waits) == 3)
            assert [seen.query.get("waitIndex") for seen in server.waits] == [None, "11", "11"]
            assert {seen.query.get("stream") for seen in server.waits} == {"true"}
            waiting.cancel()


@pytest.mark.slow
async def test_a_member_that_is_left_proves_nothing(prefix: str) -> None:
    async with Misbehaver(raw(wait_header(10)), wait(5000), wait(6000), reads=hang) as server:
        async with client_of(server, header_timeout=0.7, probe_interval=0.7) as client:
            watcher = client.keys.watch(prefix)
            waiting = waiting_in(watcher)
            await until(lambda: len(server.waits) == 3)
            assert server.waits[2].query["waitIndex"] == "11"
            waiting.cancel()
            await watcher.aclose()


async def test_a_few_events_before_a_cut_are_kept_and_make_no_crowd(prefix: str) -> None:
    script = [raw(wait_header(10 + each), chunk(key_line(prefix, 11 + each))) for each in range(2)]
    async with Misbehaver(*script, wait(12), reads=GONE_LATER) as server, client_of(server) as client:
        async with client.keys.watch(prefix) as watcher:
            assert list(map(modified, await take(watcher, 2))) == [11, 12]
        assert server.waits[1].query["waitIndex"] == "12"


@pytest.mark.parametrize("number", [99, 100])
async def test_silence_after_as_many_events_as_the_server_buffers_is_looked_into(number: int, prefix: str) -> None:
    last = 10 + number
    burst = b"".join(chunk(key_line(prefix, index)) for index in range(11, last + 1))
    missed = happened(key_event(prefix, last + 1), index=last + 1)
    script = raw(wait_header(10), burst, then=hang), wait(last + 1), missed, hang
    async with Misbehaver(*script, reads=GONE_LATER) as server, client_of(server) as client:
        async with client.keys.watch(prefix) as watcher:
            assert list(map(modified, await take(watcher, number))) == list(range(11, last + 1))
            if number < 100:
                await nothing_comes(watcher)
                assert len(server.waits) == 1
            else:
                assert modified(await soon(watcher)) == last + 1
                assert server.waits[2].query["waitIndex"] == str(last + 1)


# --- foreign traffic, and another cluster ---------------------------------------------------------------------------


@pytest.mark.parametrize("recursive", [False, True])
@pytest.mark.parametrize("there", [False, True], ids=["missing", "directory"])
async def test_a_cut_after_foreign_traffic_is_unseen(
    recursive: bool, there: bool, server: EtcdServer, client: Client, prefix: str
) -> None:
    if there:
        await client.keys.set(f"{prefix}/a/b", "1")
    async with through(server) as (proxy, other), other.keys.watch(prefix, recursive=recursive) as watcher:
        await asyncio.sleep(0.1)
        await write_elsewhere(client, prefix)  # and no one is waiting in next() meanwhile
        proxy.cut()
        waiting = waiting_in(watcher)
        await until(lambda: watcher.index == client._identity.high_water_mark)
        if there:
            written = await client.keys.delete(prefix, recursive=True)
        else:
            written = await client.keys.set(prefix, "1")
        assert modified(await waiting) == modified(written)


async def test_directory_that_is_still_the_same_is_proof_enough(client: Client, prefix: str) -> None:
    start = (await client.keys.mkdir(prefix)).index
    await write_elsewhere(client, prefix)
    async with client.keys.watch(prefix, after_index=start) as watcher:
        written = await client.keys.delete(prefix, dir=True)
        assert modified(await soon(watcher)) == modified(written)


@pytest.mark.parametrize("resync", [False, True])
@pytest.mark.etcd
async def test_another_cluster_is_not_asked_for_the_indexes_of_the_first(resync: bool, prefix: str) -> None:
    async with EtcdServer() as first, EtcdServer() as second, Client(first.endpoints) as client:
        for each in range(20):
            await client.keys.set(prefix, str(each))
        async with client.keys.watch(prefix, resync=resync) as watcher:
            waiting = waiting_in(watcher)
            await asyncio.sleep(0.1)
            client.set_endpoints(second.endpoints)
            if resync:
                event = await waiting
                assert (event.action, event.node) == ("resync", None)
            else:
                with pytest.raises(EventIndexClearedError, match="cluster"):
                    await waiting
            written = await client.keys.set(prefix, "there")
            assert written.index < 20
            assert modified(await soon(watcher)) == modified(written)


# --- the end of a loop ----------------------------------------------------------------------------------------------


async def test_break_frees_the_connection_and_the_watcher_goes_on_later(client: Client, prefix: str) -> None:
    watcher = client.keys.watch(prefix, after_index=(await client.keys.set(prefix, "0")).index)
    before = await registered(client)
    written = [await client.keys.set(prefix, str(each)) for each in range(1, 4)]
    seen: list[Response] = []
    for _ in written:
        async for event in watcher:
            seen.append(event)
            break
        await until_registered(client, before)
    assert list(map(modified, seen)) == list(map(modified, written))
    await watcher.aclose()


async def test_break_within_async_with_keeps_the_connection(client: Client, prefix: str) -> None:
    async with client.keys.watch(prefix) as watcher:
        for each in range(3):
            written = await client.keys.set(prefix, str(each))
            async for event in watcher:
                assert modified(event) == modified(written)
                break
            assert watcher._driver._live is not None
            assert not watcher._driver._live.closed


async def test_events_count_for_never_back_in_time(prefix: str) -> None:
    old = answer(key_event(prefix, 40), index=40)
    async with Misbehaver(raw(wait_header(10), chunk(key_line(prefix, 50)), then=hang), reads=old) as server:
        async with client_of(server) as client, client.keys.watch(prefix) as watcher:
            await soon(watcher)
            await client.keys.get(prefix)
            assert server.seen[-1].query == {"quorum": "true"}


@pytest.mark.parametrize("start", ["v2/keys", "/v2//keys", "/v2/keys/"])
async def test_prefix_is_folded_as_keys_are(start: str, client: Client, prefix: str) -> None:
    keys = KeysAPI(client, f"{start}/{prefix}//app/")
    async with keys.watch("/a//b") as watcher:
        written = await keys.set("a/b", "1")
        assert modified(await soon(watcher)) == modified(written)


# --- endpoints that hold back ---------------------------------------------------------------------------------------


async def test_endpoint_found_to_be_late_while_a_stream_is_opened_there(
    server: EtcdServer, client: Client, prefix: str
) -> None:
    start = await client.keys.set(prefix, "0")
    written = [await client.keys.set(prefix, str(each)) for each in range(1, 11)]
    async with through(server) as (proxy, other):
        async with other.keys.watch(prefix, after_index=start.index) as watcher:
            events = [await soon(watcher)]  # of the history: now a second stream is opened, from now on
            proxy.latency = 0.2
            waiting = waiting_in(watcher)
            await asyncio.sleep(0.1)
            other._watches.buffering._found[proxy.endpoint] = (1, time.monotonic() + 60)  # as another watcher finds out
            await asyncio.sleep(0.5)
            written.append(await client.keys.set(prefix, "after"))
            events += [await waiting, *await take(watcher, 9)]
            assert list(map(modified, events)) == list(map(modified, written))


async def test_an_endpoint_is_not_taken_to_hold_back_for_ever(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    buffering, (endpoint,) = client._watches.buffering, client.endpoints
    monkeypatch.setattr("aioetcd2._watching.buffering.BASE", 0.4)
    await client.version()
    for seconds in (0.4, 0.8):
        assert await buffering.judge(endpoint)
        assert buffering.at(endpoint)
        assert buffering.anywhere()
        await asyncio.sleep(seconds + 0.02)
        assert not buffering.at(endpoint)
        assert not buffering.anywhere()


async def test_index_after_closing_is_that_of_the_last_event_delivered(
    server: EtcdServer, client: Client, prefix: str
) -> None:
    async with through(server) as (proxy, other):
        async with other.keys.watch(prefix) as watcher:
            await asyncio.sleep(0.1)
            proxy.black_hole()
            for each in range(5):
                await client.keys.set(prefix, str(each))
            await asyncio.sleep(0.1)
            await proxy.resume()
            event = await soon(watcher)
            assert position_of(watcher).pending
        assert watcher.index == modified(event)

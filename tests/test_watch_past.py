"""What a watch makes of a server whose past is another, of connections that die without a word, and of long outages."""

from __future__ import annotations

import asyncio
import collections
import json
import logging
import shutil
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest
from async_timeout import timeout

from aioetcd2 import (
    Client,
    ClusterMismatchError,
    EventIndexClearedError,
    InvalidResponseError,
    Response,
    UnauthorizedError,
    Watcher,
)
from aioetcd2._net.failover import Failover
from aioetcd2._net.request import Request
from aioetcd2._net.transport import Transport
from aioetcd2._v2.census import Subtree
from aioetcd2.testing import EtcdServer

from .conftest import FAST_CLUSTER, until_led
from .faultproxy import FaultProxy
from .misbehaver import (
    Exchange,
    Misbehaver,
    answer,
    chunk,
    hang,
    happened,
    key_event,
    raw,
    reset,
    stay,
    wait,
    wait_header,
)

pytestmark = [pytest.mark.slow, pytest.mark.etcd]

LONG = 60.0


def modified(event: Response) -> int:
    assert event.node is not None
    return event.node.modified_index


async def soon(watcher: Watcher, seconds: float = 15.0) -> Response:
    async with timeout(seconds):
        return await watcher.next()


async def take(watcher: Watcher, number: int) -> list[int]:
    return [modified(await soon(watcher)) for _ in range(number)]


async def nothing_comes(watcher: Watcher, seconds: float = 0.3) -> None:
    with pytest.raises(asyncio.TimeoutError):
        await soon(watcher, seconds)


async def lost(watcher: Watcher, *, resync: bool) -> int:
    """What a watch says that has lost events, and the index from which it goes on."""
    if resync:
        event = await soon(watcher)
        assert event.action == "resync"
        return event.index
    with pytest.raises(EventIndexClearedError) as caught:
        await soon(watcher)
    return caught.value.index


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# --- another life, another cluster ------------------------------------------------------------------------------------


async def wipe(server: EtcdServer, *, other_cluster: bool = False) -> None:
    """Start a server anew without its data, with the flags it had, or as another cluster."""
    await server.kill()
    shutil.rmtree(server._folder / "data")
    if other_cluster:
        server._flags.append("--initial-cluster-token=other")
    await server.start()


@pytest.mark.parametrize("resync", [False, True])
@pytest.mark.parametrize("other_cluster", [False, True], ids=["same-id", "other-id"])
async def test_cluster_wiped_under_a_watch(other_cluster: bool, resync: bool) -> None:
    async with EtcdServer() as server, Client(server.endpoints, header_timeout=2) as client:
        for each in range(60):
            await client.keys.set("/w/a", str(each))
        async with client.keys.watch("/w", recursive=True, resync=resync) as watcher:
            before = (await client.keys.set("/w/a", "before")).index
            assert await take(watcher, 1) == [before]
            was = client._identity.cluster
            waiting = asyncio.create_task(watcher.next())
            await asyncio.sleep(0.1)
            await wipe(server, other_cluster=other_cluster)
            if other_cluster:  # nobody else answers: it has to be allowed
                for _ in range(2):
                    with pytest.raises(ClusterMismatchError):
                        async with timeout(LONG):
                            await waiting
                    assert watcher.index == before
                    waiting = asyncio.create_task(watcher.next())
                client.forget_cluster()
            if resync:
                event = await waiting
                assert event.action == "resync"
                index = event.index
            else:
                with pytest.raises(EventIndexClearedError) as caught:
                    await waiting
                index = caught.value.index
            assert index < before
            assert watcher.index == index
            async with Client(server.endpoints) as writer:
                written = [(await writer.keys.set("/w/a", str(each))).index for each in range(before + 5)]
                assert (writer._identity.cluster != was) is other_cluster
            assert written[0] < before < written[-1]
            assert await take(watcher, len(written)) == written
            await nothing_comes(watcher)


@pytest.mark.parametrize("resync", [False, True])
async def test_cluster_wiped_while_the_watch_was_away_and_past_the_cursor_again(resync: bool) -> None:
    """The index is higher than ever; what tells is the raft index, where the old life spent it on other things."""
    async with EtcdServer() as server, Client(server.endpoints, header_timeout=2) as client:
        for _ in range(200):
            await client.keys.get("/w", quorum=True) if await exists(client, "/w") else await client.keys.set("/w", "0")
        async with FaultProxy(server.endpoint) as proxy, Client(proxy.endpoint, header_timeout=2) as watching:
            async with watching.keys.watch("/w", resync=resync) as watcher:
                before = (await client.keys.set("/w", "before")).index
                assert await take(watcher, 1) == [before]
                await proxy.refuse()
                proxy.cut()
                await wipe(server)
                async with Client(server.endpoints) as writer:
                    while (await writer.keys.set("/w", "new")).index < before + 3:
                        pass
                    await proxy.resume()
                    index = await lost(watcher, resync=resync)
                    assert index >= before + 3
                    written = (await writer.keys.set("/w", "later")).index
                    assert await take(watcher, 1) == [written]


async def exists(client: Client, key: str) -> bool:
    return (await client.request("GET", f"/v2/keys{key}")).status == 200


@pytest.mark.parametrize("resync", [False, True])
async def test_after_index_of_another_life(resync: bool) -> None:
    async with EtcdServer() as server, Client(server.endpoints) as client:
        while (now := (await client.keys.set("/w", "0")).index) < 7:
            pass
        watcher = client.keys.watch("/w", after_index=5000, resync=resync)
        assert await lost(watcher, resync=resync) == now
        written = [(await client.keys.set("/w", str(each))).index for each in range(5)]
        assert await take(watcher, 5) == written
        await watcher.aclose()


# --- another cluster, where the look fails ----------------------------------------------------------------------------


@pytest.mark.parametrize("wiped", [True, False], ids=["wiped", "lags"])
async def test_history_is_fetched_from_a_member_with_a_shorter_past(wiped: bool) -> None:
    """The store was wiped between two polls, and its next event is beyond the cursor already; or the member lags."""
    now = 100
    asked = 0

    async def behave(exchange: Exchange) -> bool | None:
        nonlocal now
        since = int(exchange.seen.query.get("waitIndex", "0"))
        if "stream" in exchange.seen.query:
            first = [key_event("/k", 11)] if since == 11 else []
            return await raw(
                wait_header(now) + b"".join(chunk(json.dumps(each).encode() + b"\n") for each in first), then=hang
            )(exchange)
        now = 60 if wiped else 100
        return await happened(key_event("/k", max(60, since)), index=max(60, since))(exchange)

    async def read(exchange: Exchange) -> bool | None:
        nonlocal asked
        asked += exchange.seen.query.get("quorum") == "true"
        return await answer(key_event("/k", now, "get"), index=now)(exchange)

    async with Misbehaver(behave, reads=read) as server, Client(server.endpoint) as client:
        watcher = client.keys.watch("/k", after_index=10)
        assert await take(watcher, 1) == [11]
        if wiped:
            assert await lost(watcher, resync=False) == 60
        else:
            assert await take(watcher, 3) == [60, 61, 62]
            assert asked == 1
        await watcher.aclose()


async def test_entering_tells_of_no_lost_events_and_next_does(server: EtcdServer, prefix: str) -> None:
    """So that the same watcher goes on behind them."""
    async with Client(server.endpoints) as client:
        index = (await client.keys.set(f"{prefix}/a", "x")).index
        async with client.keys.watch(prefix, recursive=True, after_index=index + 5000) as watcher:
            assert await lost(watcher, resync=False) >= index
            written = await client.keys.set(f"{prefix}/a", "y")
            assert await take(watcher, 1) == [written.index]


class Gate:
    """A server between a client and a real one: its first reads of keys that are no waits fail, as is said."""

    def __init__(self, upstream: str, failure: str, times: int) -> None:
        self._upstream = upstream
        self._failure = failure
        self.left = times

    async def __call__(self, exchange: Exchange) -> bool | None:
        seen = exchange.seen
        if seen.target.startswith("/v2/keys") and "wait" not in seen.query and self.left:
            self.left -= 1
            if self._failure == "401":
                refusal = {"errorCode": 110, "message": "The request requires user authentication", "index": 0}
                return await answer(refusal, status=401, index=0, cluster=None)(exchange)
            await asyncio.sleep(30)
        host, port = self._upstream.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(f"{seen.method} {seen.target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            while data := await reader.read(1 << 16):
                await exchange.send(data)
        finally:
            writer.close()
        return False


@pytest.mark.parametrize("resync", [False, True])
@pytest.mark.parametrize("failure", ["time-out", "401"])
async def test_a_gap_stays_one_while_the_look_fails(failure: str, resync: bool) -> None:
    async with EtcdServer("m0") as one, EtcdServer("m1") as two:
        gate = Gate(two.endpoint, failure, 1)
        async with (
            Misbehaver(gate) as there,
            Client(one.endpoint, header_timeout=1) as client,
            Client(two.endpoint) as direct,
        ):
            for each in range(30):
                await client.keys.set("/a/x", str(each))
            async with client.keys.watch("/a", recursive=True, resync=resync) as watcher:
                before = (await client.keys.set("/a/x", "last")).index
                assert await take(watcher, 1) == [before]
                waiting = asyncio.create_task(soon(watcher))
                await asyncio.sleep(0.1)
                client.set_endpoints(there.endpoint)
                if failure == "401":
                    with pytest.raises(UnauthorizedError):
                        await waiting
                    assert watcher.index == before
                    index = await lost(watcher, resync=resync)
                elif resync:
                    event = await waiting
                    assert event.action == "resync"
                    index = event.index
                else:
                    with pytest.raises(EventIndexClearedError) as caught:
                        await waiting
                    index = caught.value.index
                assert not gate.left
                written = [(await direct.keys.set("/a/y", str(each))).index for each in range(before + 2)]
                assert written[0] > index
                assert await take(watcher, len(written)) == written


# --- rest -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [False, True], ids=["next", "async-for"])
async def test_a_quiet_key_asked_for_half_a_second_at_a_time(
    whole: bool, client: Client, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "aioetcd2")
    await client.keys.set(prefix, "1")
    watcher = client.keys.watch(prefix)
    for _ in range(6):
        with suppress(asyncio.TimeoutError):
            async with timeout(0.5):
                if whole:
                    async for _ in watcher:
                        raise AssertionError("nothing has happened")
                else:
                    await watcher.next()
    waiting = asyncio.create_task(watcher.next())
    await asyncio.sleep(0.3)
    began = time.monotonic()
    written = await client.keys.set(prefix, "2")
    assert modified(await waiting) == written.index
    assert time.monotonic() - began < 0.25
    if whole:
        for _ in range(3):  # and at rest
            with suppress(asyncio.TimeoutError):
                async with timeout(0.2):
                    async for _ in watcher:
                        raise AssertionError("nothing has happened")
    written = await client.keys.set(prefix, "3")
    began = time.monotonic()
    assert modified(await watcher.next()) == written.index
    assert time.monotonic() - began < 0.25
    await watcher.aclose()
    assert caplog.records == []


# --- connections that die without a word ------------------------------------------------------------------------------


def socket_of(watcher: Watcher) -> socket.socket:
    live: Any = watcher._driver._live
    connection: socket.socket = live._stream._response.connection.transport.get_extra_info("socket")
    return connection


async def test_a_dead_connection_that_answers_keepalive_is_left_after_a_rest(
    server: EtcdServer, client: Client, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aioetcd2._watching.liveness.REST", (1.0, 1.2))
    async with (
        FaultProxy(server.endpoint) as proxy,
        Client(proxy.endpoint, header_timeout=1, probe_interval=0.3) as watching,
        watching.keys.watch(prefix) as watcher,
    ):
        written = [(await client.keys.set(prefix, "1")).index]
        assert await take(watcher, 1) == written
        proxy.forget()
        written = [(await client.keys.set(prefix, str(each))).index for each in range(3)]
        began = time.monotonic()
        assert await take(watcher, 3) == written
        assert time.monotonic() - began < 1.2 + 2 * 0.3 + 1.0
        for _ in range(3):  # and again and again, with nothing lost or doubled
            await nothing_comes(watcher, 1.6)
            written = [(await client.keys.set(prefix, "x")).index]
            assert await take(watcher, 1) == written


async def test_quiet_watches_are_renewed_one_by_one_and_none_is_left_open(
    server: EtcdServer, client: Client, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aioetcd2._watching.liveness.REST", (0.5, 0.6))
    async with FaultProxy(server.endpoint) as proxy, Client(proxy.endpoint, probe_interval=0.2) as watching:
        async with AsyncExitStack() as stack:
            watchers = [await stack.enter_async_context(watching.keys.watch(f"{prefix}/{each}")) for each in range(10)]
            tasks = [asyncio.create_task(watcher.next()) for watcher in watchers]
            await asyncio.sleep(3)
            assert proxy.accepted >= 30
            assert proxy.open <= 25
            written = [(await client.keys.set(f"{prefix}/{each}", "x")).index for each in range(10)]
            async with timeout(10):
                assert list(map(modified, await asyncio.gather(*tasks))) == written


@pytest.mark.parametrize("own", [False, True], ids=["ours", "the-callers"])
@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="this system names its options otherwise")
async def test_the_connection_of_a_watch_is_kept_alive(own: bool, server: EtcdServer, prefix: str) -> None:
    connector = aiohttp.TCPConnector() if own else None
    try:
        async with Client(server.endpoints, probe_interval=3, connector=connector) as client:
            async with client.keys.watch(prefix) as watcher:
                connection = socket_of(watcher)
                assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                names = ["TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"]
                idle, interval, count = (
                    connection.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names
                )
                assert idle + interval * count <= 2 * 3 + 1
                if hasattr(socket, "TCP_USER_TIMEOUT"):
                    assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 2 * 3 * 1000
    finally:
        if connector is not None:
            await connector.close()


TCP_REPAIR = 19


@pytest.mark.skipif(sys.platform != "linux", reason="needs TCP_REPAIR")
async def test_a_peer_that_vanished_is_noticed() -> None:
    """Without FIN or RST, while probes are answered on another connection."""
    vanishing: list[Exchange] = []

    async def register(exchange: Exchange) -> None:
        vanishing.append(exchange)
        await wait()(exchange)

    event = happened(key_event("/k", 11), index=11)
    reads = answer(key_event("/k", 9, "get"), index=11)
    async with (
        Misbehaver(register, event, wait(11), reads=reads) as server,
        Client(server.endpoint, header_timeout=1, probe_interval=1) as client,
        client.keys.watch("/k") as watcher,
    ):
        await asyncio.sleep(0.2)
        writer = vanishing[0].writer
        try:
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        except OSError:
            pytest.skip("needs root")
        writer.transport.abort()
        began = time.monotonic()
        assert await take(watcher, 1) == [11]
        assert time.monotonic() - began < 1 + 2 * 1


# --- one name, three addresses ----------------------------------------------------------------------------------------


class Names:
    """Looks up any name, and finds the addresses of all members."""

    def __init__(self, addresses: list[str]) -> None:
        self._addresses = addresses

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[Any]:
        flags: dict[str, Any] = {"port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}
        return [{"hostname": host, "host": address, **flags} for address in self._addresses]

    async def close(self) -> None:
        pass


@asynccontextmanager
async def members_of_one_name() -> AsyncIterator[tuple[int, dict[str, EtcdServer]]]:
    """Three members that listen on the same port, each at an address of its own."""
    members = [EtcdServer(f"m{each}", flags=FAST_CLUSTER) for each in range(3)]
    port = members[0].endpoint.rpartition(":")[2]
    addresses = [f"127.0.0.{each}" for each in (2, 3, 4)]
    for member, address in zip(members, addresses, strict=True):
        member.endpoint = f"http://{address}:{port}"
        member._client_urls = [member.endpoint]
        member._join(members)
    async with AsyncExitStack() as stack:
        for member in members:
            stack.push_async_exit(member)
            member._spawn()
        for member in members:
            await member._ready()
        yield int(port), dict(zip(addresses, members, strict=True))


@pytest.mark.skipif(sys.platform != "linux", reason="needs all of 127.0.0.0/8")
async def test_one_name_with_three_addresses_the_one_in_use_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    async with members_of_one_name() as (port, members):
        monkeypatch.setattr(aiohttp, "DefaultResolver", lambda: Names(list(members)))
        async with Client(f"http://etcd.svc:{port}", header_timeout=1, probe_interval=1) as client:
            await client.keys.set("/a", "1")
            async with client.keys.watch("/w", recursive=True) as watcher:
                frozen = members[socket_of(watcher).getpeername()[0]]
                await frozen.pause()
                try:
                    began = time.monotonic()
                    waiting = asyncio.create_task(take(watcher, 12))
                    others = [member.endpoint for member in members.values() if member is not frozen]
                    async with Client(others, header_timeout=1) as writer:
                        await until_led(writer)
                        written = [(await writer.keys.set(f"/w/{each}", "x")).index for each in range(12)]
                    wrote = time.monotonic() - began
                    assert await waiting == written
                    assert time.monotonic() - began < max(wrote, 1 + 1) + 1.0
                finally:
                    await frozen.resume()


# --- what comes, and what does not ------------------------------------------------------------------------------------


SPOILT = {
    "undecodable": b'{"action":"set","node":{"key":1}}\n',
    "no-json": b"<html>\n",
    "no-utf-8": b'{"action":"set","node":{"key":"/k\xff","modifiedIndex":11}}\n',
}


@pytest.mark.parametrize("resync", [False, True])
@pytest.mark.parametrize("kind", ["undecodable", "no-json", "too-long"])
async def test_an_event_that_cannot_be_taken(kind: str, resync: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for three times; then it is an error, each time, or a resync behind it."""
    monkeypatch.setattr("aioetcd2._v2.stream.MAX_EVENT", 10_000)
    event = SPOILT.get(kind, json.dumps(key_event("/k", 11, value="x" * 300_000)).encode() + b"\n")

    async def behave(exchange: Exchange) -> bool | None:
        """A server with an event at 11, and one that comes at 12."""
        since = exchange.seen.query.get("waitIndex")
        if since == "11":
            return await raw(wait_header(11) + chunk(event), then=stay)(exchange)
        if "stream" in exchange.seen.query or since is None:
            later = json.dumps(key_event("/k", 12)).encode() + b"\n"
            return await raw(wait_header(11), chunk(later), pause=0.2, then=stay)(exchange)
        return await wait(11)(exchange)

    reads = answer(key_event("/k", 11, "get"), index=11)
    async with Misbehaver(behave, reads=reads) as server, Client(server.endpoint) as client:
        watcher = client.keys.watch("/k", after_index=10, resync=resync)
        if resync:
            assert await lost(watcher, resync=True) == 11
        else:
            for times in (3, 6):
                with pytest.raises(InvalidResponseError):
                    await soon(watcher)
                assert [seen.query.get("waitIndex") for seen in server.waits] == ["11"] * times
                assert watcher.index == 10
            await watcher.aclose()
            watcher = client.keys.watch("/k", after_index=11)
        assert await take(watcher, 1) == [12]
        await watcher.aclose()


@pytest.mark.parametrize(
    "end",
    [
        raw(wait_header(11), pause=1.5, then=reset),
        raw(wait_header(11), pause=1.5),
        raw(wait_header(11) + chunk(b""), then=stay),
        raw(wait_header(11).replace(b"Transfer-Encoding: chunked", b"Connection: close")),
    ],
    ids=["reset-late", "closed-late", "clean-at-once", "without-a-length"],
)
async def test_a_header_without_its_event(end: Callable[[Exchange], Any]) -> None:
    """Something in between has passed the header of an event, and swallowed the event."""
    event = happened(key_event("/k", 11), index=11)
    reads = answer(key_event("/k", 11, "get"), index=11)
    async with (
        Misbehaver(end, event, wait(11), reads=reads) as server,
        Client(server.endpoint) as client,
        client.keys.watch("/k", after_index=10) as watcher,
    ):
        assert await take(watcher, 1) == [11]
        assert [seen.query.get("waitIndex") for seen in server.waits[:2]] == ["11", "11"]


class OldEtcd:
    """Its recursive waits compare only the first event of the history that they scan with the key itself.

    So did servers before 3.1: they put a slash behind the key, and left it there for all further events.
    """

    def __init__(self, version: str) -> None:
        self.version = version
        self.events: list[dict[str, Any]] = []
        self.index = 10
        self.asked: list[str] = []
        self.accepts = asyncio.Event()
        self.accepts.set()
        self._happened = asyncio.Condition()

    async def happen(self, *keys: str) -> None:
        for key in keys:
            self.index += 1
            self.events.append(key_event(key, self.index))
        async with self._happened:
            self._happened.notify_all()

    async def behave(self, exchange: Exchange) -> bool | None:
        seen = exchange.seen
        self.asked.append(seen.target)
        if seen.target == "/version":
            return await answer({"etcdserver": self.version, "etcdcluster": self.version}, index=None)(exchange)
        if "wait" not in seen.query:
            ours = [each for each in self.events if each["node"]["key"].startswith("/a")]
            newest = ours[-1]["node"] if ours else {"key": "/a", "dir": True, "modifiedIndex": 1, "createdIndex": 1}
            return await answer({"action": "get", "node": newest}, index=self.index)(exchange)
        await self.accepts.wait()
        return await self._wait(exchange)

    async def _wait(self, exchange: Exchange) -> bool | None:
        query, now = exchange.seen.query, self.index
        recursive = query.get("recursive") == "true"
        begin = int(query.get("waitIndex") or now + 1)
        await exchange.send(wait_header(now))
        for event in (each for each in self.events if begin <= each["node"]["modifiedIndex"] <= now):
            key = event["node"]["key"]
            own = key == "/a" and (not recursive or event["node"]["modifiedIndex"] == begin)
            if own or (recursive and key.startswith("/a/")):
                await exchange.send(chunk(json.dumps(event).encode() + b"\n"))
                return await (hang if "stream" in query else raw(chunk(b""), then=stay))(exchange)
        while True:
            for event in [each for each in self.events if each["node"]["modifiedIndex"] > now]:
                now = event["node"]["modifiedIndex"]
                if event["node"]["key"] == "/a" or (recursive and event["node"]["key"].startswith("/a/")):
                    await exchange.send(chunk(json.dumps(event).encode() + b"\n"))
                    if "stream" not in query:
                        return await raw(chunk(b""), then=stay)(exchange)
            async with self._happened:
                await self._happened.wait()


@asynccontextmanager
async def watched_at(etcd: OldEtcd) -> AsyncIterator[tuple[OldEtcd, Misbehaver, Watcher]]:
    async with (
        Misbehaver(etcd.behave) as server,
        Client(server.endpoint) as client,
        client.keys.watch("/a", recursive=True) as watcher,
    ):
        yield etcd, server, watcher


@pytest.mark.parametrize("version", ["2.3.8", "3.0.17", "3.1.0"])
async def test_history_of_the_key_itself_is_read_apart_before_3_1(version: str) -> None:
    """The last says that it is newer than it is, and so shows what would be lost."""
    expected = [14, 17] if version == "3.1.0" else [13, 14, 16, 17, 19]
    async with watched_at(OldEtcd(version)) as (etcd, server, watcher):
        await etcd.happen("/a/first")
        assert await take(watcher, 1) == [11]
        etcd.accepts.clear()
        server.hang_up()
        await etcd.happen("/else", "/a", "/a/b", "/else", "/a", "/a/c", "/else", "/a", "/else")
        waiting = asyncio.create_task(take(watcher, len(expected)))
        await asyncio.sleep(0.1)
        etcd.accepts.set()
        assert await waiting == expected
        if version != "3.1.0":
            await etcd.happen("/a", "/a/d")
            assert await take(watcher, 2) == [21, 22]


async def test_a_quiet_key_of_an_old_server_goes_on() -> None:
    """And the version is asked for once."""
    async with watched_at(OldEtcd("2.3.8")) as (etcd, server, watcher):
        await etcd.happen("/a")
        assert await take(watcher, 1) == [11]
        for _ in range(3):
            etcd.accepts.clear()
            server.hang_up()
            await etcd.happen("/else", "/else")
            waiting = asyncio.create_task(watcher.next())
            await asyncio.sleep(0.1)
            etcd.accepts.set()
            await asyncio.sleep(1.0)
            await etcd.happen("/a")
            async with timeout(5):
                assert modified(await waiting) == etcd.index
        assert etcd.asked.count("/version") == 1


# --- many watches -----------------------------------------------------------------------------------------------------


class Openings:
    """How many registrations were under way at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.most = 0
        was = Failover.open

        async def watched(failover: Failover, *args: Any, **options: Any) -> Any:
            self.now += 1
            self.most = max(self.most, self.now)
            try:
                return await was(failover, *args, **options)
            finally:
                self.now -= 1

        monkeypatch.setattr(Failover, "open", watched)


@pytest.mark.nemesis
@pytest.mark.parametrize("kind", ["refused", "cut", "silent"])
async def test_two_hundred_watches_in_an_outage(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody tries but one; all are there again at once afterwards."""
    caplog.set_level(logging.INFO, "aioetcd2")
    number, lasts = 200, 6.0
    async with (
        EtcdServer() as server,
        FaultProxy(server.endpoint) as proxy,
        Client(proxy.endpoint, header_timeout=2, probe_interval=1) as client,
        Client(server.endpoint) as direct,
        AsyncExitStack() as stack,
    ):
        watchers = [client.keys.watch(f"/w/{each}") for each in range(number)]
        await asyncio.gather(*map(stack.enter_async_context, watchers))
        tasks = [asyncio.create_task(watcher.next()) for watcher in watchers]
        openings = Openings(monkeypatch)
        tries: collections.Counter[str] = collections.Counter()
        was = Transport._send

        async def counted(transport: Transport, endpoint: str, request: Request, *args: Any, **more: Any) -> Any:
            tries[request.target] += 1
            return await was(transport, endpoint, request, *args, **more)

        monkeypatch.setattr(Transport, "_send", counted)
        if kind == "silent":
            proxy.black_hole()
        elif kind == "refused":
            await proxy.refuse()
            proxy.cut(reset=True)
        else:
            await server.kill()
        began, used = time.monotonic(), time.process_time()
        await asyncio.sleep(lasts)
        used, lasted = time.process_time() - used, time.monotonic() - began
        assert sum(tries.values()) <= 10 * lasted, tries.most_common(5)
        assert len(warnings(caplog)) <= 1
        if kind == "cut":
            await server.start()
        proxy.latency = 0.02
        await proxy.resume()
        ended = time.monotonic()
        setting = (direct.keys.set(f"/w/{each}", "x") for each in range(number))
        written = [response.index for response in await asyncio.gather(*setting)]
        async with timeout(LONG):
            assert list(map(modified, await asyncio.gather(*tasks))) == written
        assert time.monotonic() - ended < 6  # one after the other they take 9 s and more
        assert openings.most <= 128
        assert len(warnings(caplog)) <= 1
        assert used < 0.3 * lasted, "of a core, with asyncio's debug mode on"


async def test_one_look_serves_all_watches_of_a_path_also_when_directories_come(
    server: EtcdServer, prefix: str
) -> None:
    """And the count that it began stays right: nothing has to be looked at again."""
    looks: list[str] = []

    async def sent(session: object, context: object, params: aiohttp.TraceRequestStartParams) -> None:
        if params.method == "GET" and "recursive" in params.url.query and "wait" not in params.url.query:
            looks.append(params.url.path)

    traces = aiohttp.TraceConfig()
    traces.on_request_start.append(sent)
    async with Client(server.endpoints) as writer, Client(server.endpoints, trace_configs=[traces]) as client:
        await asyncio.gather(*(writer.keys.set(f"{prefix}/{each}", "x") for each in range(50)))
        watchers = [client.keys.watch(prefix, recursive=True) for _ in range(50)]
        await asyncio.gather(*(watcher.__aenter__() for watcher in watchers))
        written = [(await writer.keys.set(f"{prefix}/a/{each}/b/c", "x")).index for each in range(5)]
        for watcher in watchers:
            assert await take(watcher, 5) == written
        await asyncio.sleep(1.0)
        tree = (await writer.keys.get(prefix, recursive=True)).node
        number = Subtree(tree, True).count
        for watcher in watchers:
            census = watcher._machine.position.census  # type: ignore[attr-defined]
            assert census is not None
            assert census.count == number
        assert len(looks) == 1, looks
        for watcher in watchers:
            await watcher.aclose()

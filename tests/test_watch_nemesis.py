"""Watches on a cluster whose members and connections fail: what came is compared with what happened, both ways.

Each test prints its seed; `AIOETCD2_SEED=... pytest -s tests/test_watch_nemesis.py` plays it again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from aioetcd2 import Client, ClusterError, EndpointSelection, EtcdError, EventIndexClearedError, Watcher
from aioetcd2.testing import EtcdCluster, EtcdServer

from .conftest import FAST_CLUSTER, until_led
from .faultproxy import FaultProxy
from .misbehaver import Misbehaver, answer, happened, key_event, wait

pytestmark = pytest.mark.nemesis

SLOW = 60.0
AHEAD = 300


@pytest.fixture
def dice() -> random.Random:
    seed = int(os.environ.get("AIOETCD2_SEED", random.randrange(1 << 32)))
    print(f"AIOETCD2_SEED={seed}")
    return random.Random(seed)


@asynccontextmanager
async def proxied(endpoints: tuple[str, ...]) -> AsyncIterator[list[FaultProxy]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(FaultProxy(endpoint)) for endpoint in endpoints]


def client_of(proxies: list[FaultProxy], *, header_timeout: float = 1.0, probe_interval: float = 0.5) -> Client:
    return Client(
        [proxy.endpoint for proxy in proxies],
        selection=EndpointSelection.PRIORITIZE_LEADER,
        header_timeout=header_timeout,
        probe_interval=probe_interval,
    )


class Log:
    """What was written, and what a watcher got."""

    def __init__(self) -> None:
        self.written: list[int] = []
        self.received: list[int] = []

    async def follow(self, watcher: Watcher, end: str) -> None:
        async for event in watcher:
            assert event.node is not None
            self.received.append(event.node.modified_index)
            if event.node.key == end:
                return

    def check(self) -> None:
        assert self.received == sorted(set(self.received)), "out of order, or twice"
        assert set(self.written) - set(self.received) == set(), "lost"
        assert set(self.received) - set(self.written) == set(), "never written"


async def write(client: Client, prefix: str, count: int, dice: random.Random, log: Log, *, rate: float) -> None:
    """Write at a rate, but never so far ahead of the watcher that a slow machine's would fall out of the window."""
    start = time.monotonic()
    for first in range(0, count, 20):
        numbers = range(first, min(first + 20, count))
        answers = await asyncio.gather(*(client.keys.set(f"{prefix}/{dice.randrange(50)}", str(n)) for n in numbers))
        log.written += [answer.node.modified_index for answer in answers if answer.node is not None]
        await asyncio.sleep(max(0.0, start + first / rate - time.monotonic()))
        await until(lambda: len(log.written) - len(log.received) < AHEAD, SLOW)
    end = await client.keys.set(f"{prefix}/end", "end")
    assert end.node is not None
    log.written.append(end.node.modified_index)


async def until(happened: Callable[[], bool | Awaitable[bool]], limit: float = 20.0) -> None:
    deadline = time.monotonic() + limit
    while True:
        outcome = happened()
        if outcome if isinstance(outcome, bool) else await outcome:
            return
        assert time.monotonic() < deadline, "it never happened"
        await asyncio.sleep(0.02)


async def test_cut_connections(server: EtcdServer, client: Client, prefix: str, dice: random.Random) -> None:
    log = Log()
    async with proxied(server.endpoints * 3) as proxies, client_of(proxies) as watching:
        async with watching.keys.watch(prefix, recursive=True) as watcher:
            following = asyncio.create_task(log.follow(watcher, f"{prefix}/end"))
            writing = asyncio.create_task(write(client, prefix, 5000, dice, log, rate=800))
            cuts = 0
            while not writing.done():
                await asyncio.sleep(dice.uniform(0.1, 0.3))
                cuts += sum(proxy.cut(reset=dice.random() < 0.5) for proxy in proxies)
            await writing
            await asyncio.wait_for(following, SLOW)
    assert cuts > 10
    log.check()


async def test_rolling_kills(cluster: EtcdCluster, prefix: str, dice: random.Random) -> None:
    log = Log()
    end = asyncio.Event()

    async def keep_writing(client: Client) -> None:
        number = 0
        while not end.is_set():
            number += 1
            with suppress(EtcdError):
                await client.keys.set(f"{prefix}/{dice.randrange(10)}", str(number))
            await asyncio.sleep(0.005)
        await until_led(client)
        await client.keys.set(f"{prefix}/end", "end")

    async with Client(cluster.endpoints, header_timeout=2.0) as writer, Client(cluster.endpoints) as witness_client:
        async with (
            Client(cluster.endpoints, header_timeout=1.0, probe_interval=0.5) as watching,
            watching.keys.watch(prefix, recursive=True) as watcher,
        ):
            following = asyncio.create_task(log.follow(watcher, f"{prefix}/end"))
            writing = asyncio.create_task(keep_writing(writer))
            for member in cluster.members:
                await asyncio.sleep(dice.uniform(0.3, 0.8))
                await member.kill()
                await asyncio.sleep(dice.uniform(0.3, 0.8))
                await member.start()
            end.set()
            await writing
            await asyncio.wait_for(following, SLOW)
        log.written = await history(witness_client, prefix, log.received[0])
    log.check()


async def history(client: Client, prefix: str, first: int) -> list[int]:
    """The server's own list of what happened below a prefix, fetched one by one."""
    indexes: list[int] = []
    since = first
    while True:
        result = await client.request(
            "GET",
            f"/v2/keys{prefix}",
            params={"wait": "true", "recursive": "true", "waitIndex": str(since)},
        )
        event = result.body.decode()
        index = int(event.split('"modifiedIndex":')[1].split(",")[0])
        indexes.append(index)
        if f'"key":"{prefix}/end"' in event:
            return indexes
        since = index + 1


@pytest.mark.parametrize("fault", ["pause", "black hole"])
async def test_silent_member_loses_its_watchers(cluster: EtcdCluster, prefix: str, fault: str) -> None:
    async with proxied(cluster.endpoints) as proxies, client_of(proxies) as watching:
        async with watching.keys.watch(prefix, recursive=True) as watcher:
            first = proxies[0].endpoint
            assert watching.endpoints[0] == first
            member = cluster.members[0]
            if fault == "pause":
                await member.pause()
            else:
                proxies[0].black_hole()
            start = time.monotonic()
            async with Client([each.endpoint for each in cluster.members[1:]], header_timeout=10) as writer:
                await until_led(writer)
                await writer.keys.set(f"{prefix}/a", "1")
            wrote = time.monotonic() - start
            event = await asyncio.wait_for(watcher.next(), SLOW)
            took = time.monotonic() - start
            assert event.node is not None
            assert event.node.value == "1"
            assert watching.endpoints[0] != first
            assert took < max(wrote, 1.0 + 0.5) + 1.0
            if fault == "pause":
                await member.resume()


async def test_member_without_quorum_keeps_its_watchers_while_no_other_is_healthy(
    cluster: EtcdCluster, prefix: str
) -> None:
    alone, *others = cluster.members
    async with client_of_members(cluster) as watching, watching.keys.watch(prefix) as watcher:
        assert watching.endpoints[0] == alone.endpoint
        for other in others:
            await other.kill()
        await asyncio.sleep(4)  # it says that it has no leader, and there is nobody better
        assert watching.endpoints[0] == alone.endpoint
        for other in others:
            await other.start()
        await until(lambda: succeeds(watching, prefix))
        event = await asyncio.wait_for(watcher.next(), SLOW)
        assert event.node is not None
        assert event.node.value == "there"


async def test_member_without_quorum_loses_its_watchers_to_a_healthy_one() -> None:
    """As one does that is cut off from the others, which can't be done to a real one without root."""
    ill = answer({"message": "During election"}, status=503, index=None, cluster=None)
    well = answer({"health": "true", "id": "1", "name": "m"}, index=None, cluster=None)
    event = happened(key_event("/k", 11), index=11)
    async with (
        Misbehaver(wait(), reads=ill) as alone,
        Misbehaver(event, wait(11), reads=well) as other,
        Client(
            [alone.endpoint, other.endpoint],
            selection=EndpointSelection.PRIORITIZE_LEADER,
            header_timeout=1.0,
            probe_interval=0.5,
        ) as watching,
        watching.keys.watch("/k") as watcher,
    ):
        assert watching.endpoints[0] == alone.endpoint
        response = await asyncio.wait_for(watcher.next(), 0.5 + 1.0)
        assert response.node is not None
        assert response.node.modified_index == 11
        assert other.waits[0].query["waitIndex"] == "11"
        assert watching.endpoints[0] == other.endpoint


def client_of_members(cluster: EtcdCluster) -> Client:
    return Client(
        cluster.endpoints, selection=EndpointSelection.PRIORITIZE_LEADER, header_timeout=1.0, probe_interval=0.5
    )


async def succeeds(client: Client, key: str) -> bool:
    try:
        await client.keys.set(key, "there")
    except ClusterError:
        return False
    return True


async def test_one_probe_an_endpoint_and_interval_and_none_without_a_watch() -> None:
    healthy = answer({"id": "1", "name": "m0"}, index=None, cluster=None)
    async with (
        Misbehaver(wait(), reads=healthy) as server,
        Client(server.endpoint, probe_interval=0.2, header_timeout=1.0) as client,
    ):

        def probes() -> int:
            return sum(seen.target == "/v2/members/leader" for seen in server.seen)

        await asyncio.sleep(0.5)
        assert probes() == 0
        async with AsyncExitStack() as stack:
            for number in range(20):
                await stack.enter_async_context(client.keys.watch(f"/k{number}"))
            before = probes()
            await asyncio.sleep(1.05)
            assert 3 <= probes() - before <= 6
        await asyncio.sleep(0.05)
        after = probes()
        await asyncio.sleep(0.5)
        assert probes() == after


async def test_many_expire_at_once(server: EtcdServer, client: Client, prefix: str) -> None:
    keys = [f"{prefix}/{number}" for number in range(400)]
    await asyncio.gather(*(client.keys.set(key, "x", ttl=1) for key in keys))
    async with FaultProxy(server.endpoint) as proxy, client_of([proxy]) as watching:
        gone: list[str] = []
        async with watching.keys.watch(prefix, recursive=True) as watcher:
            while len(gone) < len(keys):
                event = await asyncio.wait_for(watcher.next(), SLOW)
                assert event.action == "expire"
                assert event.node is not None
                gone.append(event.node.key)
                if len(gone) % 50 == 25:
                    proxy.cut()
        assert sorted(gone) == sorted(keys)


async def test_slow_consumer_misses_nothing_in_silence(server: EtcdServer, client: Client, prefix: str) -> None:
    count = 3000
    async with client.keys.watch(prefix, recursive=True) as watcher:
        for first in range(0, count, 100):
            await asyncio.gather(
                *(client.keys.set(f"{prefix}/{n % 50}", f"{n:05}{'x' * 2000}") for n in range(first, first + 100))
            )
        await client.keys.set(f"{prefix}/end", "end")
        got: list[int] = []
        lost = False
        while True:
            try:
                event = await asyncio.wait_for(watcher.next(), SLOW)
            except EventIndexClearedError as error:
                lost = True
                assert error.index >= max(got, default=0)
                break
            assert event.node is not None
            got.append(event.node.modified_index)
            if event.node.key.endswith("/end"):
                break
        assert got == sorted(set(got))
        assert lost or len(got) == count + 1
        await client.keys.set(f"{prefix}/after", "seen")
        event = await asyncio.wait_for(watcher.next(), SLOW)
        assert event.node is not None
        assert event.node.key == f"{prefix}/after"


async def test_cancelled_at_random_while_connections_are_cut(
    server: EtcdServer, client: Client, prefix: str, dice: random.Random
) -> None:
    log = Log()
    async with FaultProxy(server.endpoint) as proxy, client_of([proxy]) as watching:
        async with watching.keys.watch(prefix, recursive=True) as watcher:
            writing = asyncio.create_task(write(client, prefix, 1000, dice, log, rate=400))
            cancelled = 0
            while True:
                task = asyncio.create_task(watcher.next())
                done, _ = await asyncio.wait((task,), timeout=dice.uniform(0.0, 0.01))
                if not done:
                    task.cancel()
                    await asyncio.wait((task,))
                if dice.random() < 0.02:
                    proxy.cut(reset=dice.random() < 0.5)
                if task.cancelled():
                    cancelled += 1
                    continue
                node = task.result().node
                assert node is not None
                log.received.append(node.modified_index)
                if node.key == f"{prefix}/end":
                    break
            await writing
    assert cancelled > 10
    log.check()


async def test_flood_is_whole_or_told(server: EtcdServer, client: Client, prefix: str) -> None:
    async with (
        FaultProxy(server.endpoint) as proxy,
        client_of([proxy]) as watching,
        watching.keys.watch(prefix, recursive=True, resync=True) as watcher,
    ):
        proxy.latency = 0.05
        count = 4000
        written: set[int] = set()

        async def flood() -> None:
            for first in range(0, count, 400):
                numbers = range(first, first + 400)
                answers = await asyncio.gather(*(client.keys.set(f"{prefix}/{n % 7}", str(n)) for n in numbers))
                written.update(answer.node.modified_index for answer in answers if answer.node is not None)
            await client.keys.set(f"{prefix}/end", "end")

        flooding = asyncio.create_task(flood())
        got: list[int] = []
        gaps: list[tuple[int, int]] = []
        while True:
            event = await asyncio.wait_for(watcher.next(), SLOW)
            if event.action == "resync":
                gaps.append((max(got, default=0), event.index))
                if event.node is not None and any(node.key.endswith("/end") for node in event.node.nodes):
                    break
                continue
            assert event.node is not None
            got.append(event.node.modified_index)
            if event.node.key.endswith("/end"):
                break
        await flooding
        assert got == sorted(set(got))
        missing = written - set(got)
        assert all(any(start < index <= stop for start, stop in gaps) for index in missing)


async def test_outage_of_all_members(prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "aioetcd2")
    async with EtcdCluster(size=3, flags=FAST_CLUSTER) as cluster, client_of_members(cluster) as watching:
        async with AsyncExitStack() as stack:
            watchers = [await stack.enter_async_context(watching.keys.watch(f"{prefix}/{n}")) for n in range(20)]
            tasks = [asyncio.create_task(watcher.next()) for watcher in watchers]
            await asyncio.gather(*(member.kill() for member in cluster.members))  # or a watch goes on in between
            cpu = time.process_time()
            await asyncio.sleep(3)
            assert time.process_time() - cpu < 2.0
            await asyncio.gather(*(member.start() for member in cluster.members))
            for number in range(len(watchers)):
                await until(lambda number=number: succeeds(watching, f"{prefix}/{number}"))  # type: ignore[misc]
            events = await asyncio.wait_for(asyncio.gather(*tasks), SLOW)
            assert [event.node.key for event in events if event.node] == [f"{prefix}/{n}" for n in range(20)]
    assert len([record for record in caplog.records if "interrupted" in record.message]) == 1


async def test_a_thousand_watchers_and_calls_beside_them(server: EtcdServer, client: Client, prefix: str) -> None:
    async with AsyncExitStack() as stack:
        watchers = [client.keys.watch(f"{prefix}/{number}") for number in range(1000)]
        for first in range(0, 1000, 100):
            await asyncio.gather(*(stack.enter_async_context(watcher) for watcher in watchers[first : first + 100]))
        tasks = [asyncio.create_task(watcher.next()) for watcher in watchers]
        for first in range(0, 1000, 100):
            await asyncio.gather(*(client.keys.set(f"{prefix}/{n}", str(n)) for n in range(first, first + 100)))
        events = await asyncio.wait_for(asyncio.gather(*tasks), SLOW)
        assert [event.node.value for event in events if event.node] == list(map(str, range(1000)))
        await asyncio.gather(*(watcher.aclose() for watcher in watchers))

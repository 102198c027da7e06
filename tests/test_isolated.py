"""A member that is cut off from the others: reads and watches leave it, for it knows no better than before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from async_timeout import timeout

from aioetcd2 import Client, EndpointSelection

from .conftest import FAST_CLUSTER, node_of, until_led
from .isolation import IsolatedCluster, can_isolate

pytestmark = [
    pytest.mark.etcd,
    pytest.mark.skipif(not can_isolate(), reason="needs root, unshare and ip, to make a network"),
]

SOON = 2.0
BOUND = 1.0
"""Seconds of a header timeout, and of a probe interval."""

FINDS_OUT = 2.5
"""Seconds in which a member finds out itself that it has no leader."""

SLOW = 30.0


@pytest.fixture
async def isolated() -> AsyncIterator[IsolatedCluster]:
    async with IsolatedCluster(FAST_CLUSTER) as cluster:
        yield cluster


def client_of(cluster: IsolatedCluster) -> Client:
    """A client that begins with the member that can be cut off."""
    return Client(
        [member.endpoint for member in cluster.members],
        selection=EndpointSelection.PRIORITIZE_LEADER,
        header_timeout=BOUND,
        probe_interval=BOUND,
    )


async def test_reads_leave_it(isolated: IsolatedCluster) -> None:
    others = [member.endpoint for member in isolated.members[1:]]
    async with client_of(isolated) as client, Client(others, header_timeout=10) as writer:
        await client.keys.set("/k", "old")
        assert client.endpoints[0] == isolated.members[0].endpoint
        isolated.cut_off()
        cut = time.monotonic()
        await client.keys.get("/k")
        assert client.endpoints[0] == isolated.members[0].endpoint  # or there is nothing to leave
        await until_led(writer)
        await writer.keys.set("/k", "new")
        wrote = time.monotonic()
        async with timeout(SLOW):
            while node_of(await client.keys.get("/k")).value == "old":
                await asyncio.sleep(0.02)
        assert time.monotonic() < max(wrote, cut + FINDS_OUT + 2 * BOUND) + SOON
        assert client.endpoints[0] != isolated.members[0].endpoint


async def test_watches_leave_it(isolated: IsolatedCluster) -> None:
    others = [member.endpoint for member in isolated.members[1:]]
    async with client_of(isolated) as client, Client(others, header_timeout=10) as writer:
        async with client.keys.watch("/k") as watcher:
            assert client.endpoints[0] == isolated.members[0].endpoint
            isolated.cut_off()
            cut = time.monotonic()
            await until_led(writer)
            written = await writer.keys.set("/k", "new")
            wrote = time.monotonic()
            event = await asyncio.wait_for(watcher.next(), SLOW)
            assert event.index == written.index
            assert time.monotonic() < max(wrote, cut + FINDS_OUT + 2 * BOUND) + SOON


async def test_it_is_not_ready_until_it_is_back(isolated: IsolatedCluster) -> None:
    async with Client(isolated.members[0].endpoint, header_timeout=BOUND) as client:
        await asyncio.wait_for(client.wait_ready(), SLOW)
        isolated.cut_off()
        await asyncio.sleep(FINDS_OUT)
        waiting = asyncio.create_task(client.wait_ready())
        await asyncio.sleep(1.0)
        assert not waiting.done()
        isolated.join_again()
        await asyncio.wait_for(waiting, SLOW)
        await client.keys.get("/", quorum=True)

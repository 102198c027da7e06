"""Statistics of real members, and the shapes that differ."""

from __future__ import annotations

import pytest

from aioetcd2 import APIError, Client, EndpointSelection, SelfStats, StoreStats
from aioetcd2.testing import EtcdCluster

from .misbehaver import Misbehaver, answer


async def test_of_one_member(client: Client, prefix: str) -> None:
    stats = await client.stats.self()
    assert (stats.name, stats.state, stats.leader_info.leader) == ("m0", "StateLeader", stats.id)
    assert stats.start_time is not None
    assert stats.start_time.tzinfo is not None
    before = await client.stats.store()
    async with client.keys.watch(prefix):
        await client.keys.set(prefix, "x")
        after = await client.stats.store()
    assert after.sets_success == before.sets_success + 1
    assert after.watchers == before.watchers + 1
    leader = await client.stats.leader()
    assert (leader.leader, leader.followers) == (stats.id, {})


async def test_the_leader_is_found(cluster: EtcdCluster) -> None:
    async with Client(cluster.endpoints) as client:
        leader = await client.members.leader()
        for member in cluster.members:
            own = tuple(each.endpoint for each in cluster.members if each is not member)
            async with Client((member.endpoint, *own), selection=EndpointSelection.PRIORITIZE_LEADER) as each:
                stats = await each.stats.leader()
                assert stats.leader == leader.id
                assert len(stats.followers) == 2
                follower = next(iter(stats.followers.values()))
                assert follower.counts.success > 0
                assert follower.latency.maximum >= follower.latency.minimum


async def test_a_leader_out_of_reach() -> None:
    refused = answer({"message": "not current leader"}, status=403)
    leader = answer({"id": "1", "name": "a", "peerURLs": [], "clientURLs": ["not a url"]})
    async with Misbehaver(refused, leader) as server, Client(server.endpoint) as client:
        with pytest.raises(APIError, match="not current leader"):
            await client.stats.leader()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"name": "a"}, SelfStats("a")),
        ({"name": "a", "recvPkgRate": 1.5, "new": "field"}, SelfStats("a", recv_pkg_rate=1.5)),
        ({"name": "a", "leaderInfo": {"leader": "", "uptime": "0s"}}, None),
    ],
)
async def test_tolerant_of_shapes(body: dict[str, object], expected: SelfStats | None) -> None:
    async with Misbehaver(answer(body)) as server, Client(server.endpoint) as client:
        stats = await client.stats.self()
        assert expected is None or stats == expected
        assert stats.name == "a"


async def test_store_of_an_old_release() -> None:
    async with Misbehaver(answer({"getsSuccess": 1, "watchers": 2})) as server, Client(server.endpoint) as client:
        assert await client.stats.store() == StoreStats(gets_success=1, watchers=2)

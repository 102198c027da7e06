"""Members: of real clusters, and what releases differ in."""

from __future__ import annotations

import asyncio

import pytest

from aioetcd2 import (
    APIError,
    Client,
    ClusterError,
    EtcdError,
    Member,
    MemberConflictError,
    MemberNotFoundError,
    NoLeaderError,
    ServerError,
)
from aioetcd2.testing import EtcdCluster, EtcdServer

from .conftest import FAST_CLUSTER
from .misbehaver import Misbehaver, answer


async def added(client: Client, peer_url: str) -> Member:
    """Add a member as soon as the cluster takes one: its members must have been connected for 5 s."""
    for _ in range(100):
        try:
            return await client.members.add(peer_url)
        except ClusterError as error:
            if not isinstance(error.errors[0], ServerError) or "connected less than 5 s" not in str(error):
                raise
            await asyncio.sleep(0.2)
    raise AssertionError("the cluster never took a member")


async def test_whole_life_of_a_member(cluster: EtcdCluster) -> None:
    newcomer = EtcdServer("m3", flags=FAST_CLUSTER)
    async with Client(cluster.endpoints) as client:
        before = await client.members.list()
        assert sorted(member.name for member in before) == ["m0", "m1", "m2"]
        member = await added(client, newcomer.peer_url)
        assert (member.name, member.client_urls, member.peer_urls) == ("", (), (newcomer.peer_url,))
        await cluster.add(newcomer)
        assert sorted(m.name for m in await client.members.list()) == ["m0", "m1", "m2", "m3"]
        await client.sync()
        assert set(client.endpoints) == {member.endpoint for member in cluster.members}

        with pytest.raises(MemberConflictError):
            await client.members.update(member.id, cluster.members[0].peer_url)
        moved = newcomer.peer_url.replace("127.0.0.1", "localhost")
        await client.members.update(member.id, newcomer.peer_url, moved)
        assert {m.id: m.peer_urls for m in await client.members.list()}[member.id] == (newcomer.peer_url, moved)

        await client.members.remove(member.id)
        await client.members.remove(member.id)
        assert member.id not in {m.id for m in await client.members.list()}


async def test_leader_changes(cluster: EtcdCluster) -> None:
    async with Client(cluster.endpoints, header_timeout=2.0) as client:
        leader = await client.members.leader()
        dead = next(member for member in cluster.members if member.name == leader.name)
        await dead.kill()
        for _ in range(100):
            try:
                if (await client.members.leader()).id != leader.id:
                    break
            except ClusterError as error:
                if not any(isinstance(each, NoLeaderError) for each in error.errors):
                    raise
            await asyncio.sleep(0.1)
        assert (await client.members.leader()).id != leader.id
        assert len(await client.members.list()) == 3


async def test_unknown_member(client: Client) -> None:
    for refused in (client.members.remove("abcdef"), client.members.update("zzz", "http://127.0.0.1:1")):
        with pytest.raises(MemberNotFoundError, match="No such member"):
            await refused


async def test_bad_input(client: Client) -> None:
    for refused in (
        client.members.add(),
        client.members.update("abc"),
        client.members.remove(""),
        client.members.remove("../keys"),
        client.members.remove(".."),
    ):
        with pytest.raises(ValueError):
            await refused
    with pytest.raises(TypeError):
        await client.members.add(7)  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["http://127.0.0.1/path:1", "nonsense", "ftp://127.0.0.1:1"])
async def test_the_server_judges_peer_urls(client: Client, url: str) -> None:
    with pytest.raises(APIError) as caught:
        await client.members.add(url)
    assert caught.value.status == 400
    assert caught.value.message


async def test_what_is_sent() -> None:
    body = {"id": "abc", "name": "", "peerURLs": ["http://a:1"], "clientURLs": []}
    async with Misbehaver(answer(body, status=201)) as server, Client(server.endpoint) as client:
        assert await client.members.add("http://a:1") == Member("abc", "", ("http://a:1",), ())
        (seen,) = server.seen
        assert (seen.method, seen.target, seen.body) == ("POST", "/v2/members", b'{"peerURLs":["http://a:1"]}')
        assert seen.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("status", "message", "error"),
    [
        (404, "No such member: abc", MemberNotFoundError),
        (409, "etcdserver: peerURL exists", MemberConflictError),
        (409, "membership: peerURL exists", MemberConflictError),
        (410, "Member permanently removed: abc", MemberNotFoundError),
        (415, "Bad Content-Type text/plain, accept application/json", APIError),
    ],
)
async def test_refusals(status: int, message: str, error: type[EtcdError]) -> None:
    async with Misbehaver(answer({"message": message}, status=status)) as server, Client(server.endpoint) as client:
        with pytest.raises(error, match=message) as caught:
            await client.members.update("abc", "http://a:1")
        assert type(caught.value) is error


async def test_removed_before_is_no_error() -> None:
    async with (
        Misbehaver(answer({"message": "Member permanently removed: abc"}, status=410)) as server,
        Client(server.endpoint) as client,
    ):
        await client.members.remove("abc")
        assert len(server.seen) == 1


@pytest.mark.parametrize("body", [{"members": None}, {"members": []}])
async def test_no_members(body: dict[str, object]) -> None:
    async with Misbehaver(answer(body)) as server, Client(server.endpoint) as client:
        assert await client.members.list() == []

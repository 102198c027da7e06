"""An election: one leader, whom everybody knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from async_timeout import timeout

from aioetcd2 import Client, ClusterError, KeysAPI
from aioetcd2.recipes import Election, Leader, LeadershipLostError, LockLostError, Term
from aioetcd2.testing import EtcdServer

from .faultproxy import FaultProxy

TTL = 3.0


@pytest.fixture
def path(prefix: str) -> str:
    return f"{prefix}/election"


def candidate(client: Client, path: str, name: str) -> Election:
    return Election(client.keys, path, name=name, ttl=TTL)


async def until_candidates(election: Election, count: int) -> None:
    async with timeout(10):
        while len(await election.candidates()) != count:
            await asyncio.sleep(0.01)


async def lead(election: Election, terms: list[Term], leave: asyncio.Event) -> None:
    async with election.lead() as term:
        terms.append(term)
        await leave.wait()


async def test_one_leads_and_another_follows(client: Client, path: str) -> None:
    ann, bob = (candidate(client, path, name) for name in ("ann", "bob"))
    assert await ann.leader() is None
    assert await ann.candidates() == []
    async with ann.lead() as term:
        assert isinstance(term, Term)
        assert term.valid
        assert await bob.leader() == Leader("ann", term.token)
        terms: list[Term] = []
        leave = asyncio.Event()
        task = asyncio.create_task(lead(bob, terms, leave))
        await until_candidates(ann, 2)
        assert [each.name for each in await ann.candidates()] == ["ann", "bob"]
        assert not terms
    async with timeout(5):
        while not terms:
            await asyncio.sleep(0.01)
    assert terms[0].token > term.token
    leave.set()
    await task


async def test_leadership_is_lost(client: Client, path: str) -> None:
    with pytest.raises(LeadershipLostError) as caught:
        async with candidate(client, path, "ann").lead() as term:
            await client.keys.delete(term.key)
            await asyncio.sleep(10)
    assert isinstance(caught.value, LockLostError)
    with pytest.raises(LeadershipLostError):
        term.check()


async def test_every_change_in_order(client: Client, path: str) -> None:
    election = candidate(client, path, "ann")
    seen: list[Leader | None] = []
    expected: list[Leader | None] = [None]

    async def observe() -> None:
        async for leader in election.observe():
            seen.append(leader)

    task = asyncio.create_task(observe())
    async with timeout(5):
        while not seen:
            await asyncio.sleep(0.01)
    for name in ("ann", "bob", "ann"):
        async with candidate(client, path, name).lead() as term:
            expected.append(Leader(name, term.token))
            await client.keys.set(f"{path}/zzz/foreign", "no place")
        expected.append(None)
    with pytest.raises(LeadershipLostError):
        async with candidate(client, path, "eve").lead() as term:
            expected.append(Leader("eve", term.token))
            await client.keys.delete(path, recursive=True)
            await asyncio.sleep(10)
    expected.append(None)
    async with timeout(5):
        while len(seen) < len(expected):
            await asyncio.sleep(0.01)
    task.cancel()
    assert seen == expected


async def test_observing_begins_with_now(client: Client, path: str) -> None:
    election = candidate(client, path, "ann")
    async with election.lead() as term:
        async for leader in election.observe():
            assert leader == Leader("ann", term.token)
            break
    await asyncio.sleep(0)


async def test_observing_with_a_prefix(client: Client, path: str) -> None:
    election = Election(KeysAPI(client, prefix=f"/v2/keys{path}"), "/e", name="ann", ttl=TTL)
    changes = election.observe()
    assert await changes.__anext__() is None
    async with election.lead() as term:
        assert await asyncio.wait_for(changes.__anext__(), 2) == Leader("ann", term.token)
    assert await asyncio.wait_for(changes.__anext__(), 2) is None


async def test_observing_over_an_outage_with_lost_events(
    client: Client, server: EtcdServer, path: str, prefix: str
) -> None:
    async with FaultProxy(server.endpoints[0]) as proxy, Client([proxy.endpoint], header_timeout=1) as cut_off:
        changes = candidate(cut_off, path, "bystander").observe()
        async with candidate(client, path, "ann").lead():
            assert (leader := await changes.__anext__()) is not None
            following = asyncio.ensure_future(changes.__anext__())
            async with timeout(5):
                while not cut_off.counters.watches_open:
                    await asyncio.sleep(0.01)
            await proxy.refuse()
            proxy.cut()
        async with candidate(client, path, "bob").lead():
            pass
        async with candidate(client, path, "eve").lead() as term:
            for number in range(1100):
                await client.keys.set(f"{prefix}/other", str(number))
            await proxy.resume()
            assert await asyncio.wait_for(following, 10) == Leader("eve", term.token)
        assert leader.name == "ann"
        del changes


async def test_the_first_request_raises(path: str) -> None:
    async with Client(["http://127.0.0.1:1"]) as client:
        with pytest.raises(ClusterError):
            async for _ in candidate(client, path, "ann").observe():
                pass


async def test_names(client: Client) -> None:
    with pytest.raises(TypeError, match="name is text"):
        Election(client.keys, "/e", name=7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="name"):
        Election(client.keys, "/e")  # type: ignore[call-arg]


@pytest.fixture(autouse=True)
async def generators_end() -> AsyncIterator[None]:
    yield
    await asyncio.sleep(0)

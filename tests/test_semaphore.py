"""A semaphore: as many as its limit, first come, first served, without a request for each who leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from async_timeout import timeout

from aioetcd2 import Client, KeysAPI
from aioetcd2.recipes import Held, LockHeldError, LockLostError, Semaphore
from aioetcd2.testing import EtcdServer

from .faultproxy import FaultProxy

TTL = 3.0


@pytest.fixture
def path(prefix: str) -> str:
    return f"{prefix}/semaphore"


@pytest.fixture
def semaphore(client: Client, path: str) -> Semaphore:
    return Semaphore(client.keys, path, 2, ttl=TTL)


@pytest.fixture
async def proxy(server: EtcdServer) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(server.endpoints[0]) as proxy:
        yield proxy


async def waiter(semaphore: Semaphore, count: int) -> asyncio.Task[Held]:
    task = asyncio.create_task(semaphore.acquire())
    async with timeout(10):
        while len(await semaphore.waiting()) < count:
            await asyncio.sleep(0.01)
    return task


async def cancelled(*tasks: asyncio.Task[Held]) -> None:
    for task in tasks:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_as_many_as_its_limit(semaphore: Semaphore) -> None:
    one, two = await semaphore.acquire(), await semaphore.acquire()
    three = await waiter(semaphore, 1)
    four = await waiter(semaphore, 2)
    assert [holder.token for holder in await semaphore.holders()] == [one.token, two.token]
    assert len(await semaphore.waiting()) == 2
    await semaphore.release(two)  # any of them may go first
    third = await asyncio.wait_for(three, 2)
    assert third.token > two.token
    await asyncio.sleep(0.1)
    assert not four.done()
    await semaphore.release(one)
    await semaphore.release(await asyncio.wait_for(four, 2))
    await semaphore.release(third)
    assert await semaphore.holders() == []


async def test_never_more_than_its_limit(client: Client, path: str) -> None:
    semaphore = Semaphore(client.keys, path, 3, ttl=TTL)
    inside = most = 0

    async def work() -> None:
        nonlocal inside, most
        async with semaphore as held:
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.01)
            held.check()
            inside -= 1

    await asyncio.gather(*(work() for _ in range(20)))
    assert most == 3


async def test_those_who_wait_ask_nothing(client: Client, semaphore: Semaphore) -> None:
    held = [await semaphore.acquire(), await semaphore.acquire()]
    tasks = [await waiter(semaphore, count) for count in (1, 2, 3)]
    await asyncio.sleep(0.1)
    before = client.counters.calls
    await semaphore.release(held[0])
    held[0] = await asyncio.wait_for(tasks[0], 2)
    assert client.counters.calls - before <= 2  # the delete; and what the holder's watch may ask when it begins
    await cancelled(*tasks[1:])
    for each in held:
        await semaphore.release(each)


async def test_who_waits_behind_another_that_leaves(semaphore: Semaphore) -> None:
    held = [await semaphore.acquire(), await semaphore.acquire()]
    three, four = await waiter(semaphore, 1), await waiter(semaphore, 2)
    await cancelled(three)
    await asyncio.sleep(0.1)
    assert not four.done()
    await semaphore.release(held[1])
    await semaphore.release(await asyncio.wait_for(four, 2))
    await semaphore.release(held[0])


async def test_without_waiting(client: Client, semaphore: Semaphore, path: str) -> None:
    impatient = Semaphore(client.keys, path, 2, ttl=TTL, wait=False)
    async with semaphore, impatient:
        pass
    one, two = await semaphore.acquire(), await semaphore.acquire()
    with pytest.raises(LockHeldError):
        await impatient.acquire()
    await semaphore.release(one)
    await semaphore.release(two)


async def test_a_waiter_whose_place_is_deleted(client: Client, semaphore: Semaphore) -> None:
    held = [await semaphore.acquire(), await semaphore.acquire()]
    task = await waiter(semaphore, 1)
    await client.keys.delete(f"{held[0].key.rpartition('/')[0]}", recursive=True)
    await asyncio.wait_for(held[0].lost.wait(), 2)
    assert (await asyncio.wait_for(task, 2)).token > held[1].token  # with a new place, in a directory made anew
    await client.keys.get((await task).key, quorum=True)  # it is there: the place that was deleted is not held
    await semaphore.release(await task)
    for each in held:
        await semaphore.release(each)


async def test_lost(client: Client, semaphore: Semaphore) -> None:
    with pytest.raises(LockLostError):
        async with semaphore as held:
            await client.keys.delete(held.key)
            await asyncio.sleep(10)


async def test_events_that_are_lost(client: Client, proxy: FaultProxy, path: str, prefix: str) -> None:
    semaphore = Semaphore(client.keys, path, 2, ttl=30)
    one, two = await semaphore.acquire(), await semaphore.acquire()
    async with Client([proxy.endpoint], header_timeout=1) as cut_off:
        task = asyncio.create_task(Semaphore(cut_off.keys, path, 2, ttl=30).acquire())
        async with timeout(5):
            while not cut_off.counters.watches_open:
                await asyncio.sleep(0.01)
        await proxy.refuse()
        proxy.cut()
        await semaphore.release(one)
        for number in range(1100):
            await client.keys.set(f"{prefix}/other", str(number))
        await proxy.resume()
        await semaphore.release(await asyncio.wait_for(task, 10))
    await semaphore.release(two)


async def test_keys_with_a_prefix(client: Client, path: str) -> None:
    semaphore = Semaphore(KeysAPI(client, prefix=f"/v2/keys{path}"), "/s", 1, ttl=TTL)
    async with semaphore:
        task = await waiter(semaphore, 1)
    await semaphore.release(await asyncio.wait_for(task, 2))


async def test_a_hidden_directory(client: Client, path: str) -> None:
    semaphore = Semaphore(client.keys, f"{path}/_hidden/s", 1, ttl=TTL)
    async with semaphore:
        task = await waiter(semaphore, 1)
    await semaphore.release(await asyncio.wait_for(task, 2))


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one(client: Client, limit: int) -> None:
    with pytest.raises(ValueError, match=f"limit is at least 1, not {limit}"):
        Semaphore(client.keys, "/s", limit)


@pytest.mark.parametrize("limit", [1.5, "2", True, None])
def test_a_limit_that_is_no_int(client: Client, limit: object) -> None:
    with pytest.raises(TypeError, match="limit is an int"):
        Semaphore(client.keys, "/s", limit)  # type: ignore[arg-type]

"""A queue: what was put is done once, in order, and not lost by whatever befalls workers, network and cluster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest
from async_timeout import timeout

from aioetcd2 import (
    Client,
    ClientClosedError,
    ClusterError,
    ConnectError,
    KeyNotFoundError,
    KeysAPI,
    Node,
    NotDirError,
    UnauthorizedError,
    V2DisabledError,
)
from aioetcd2.recipes import Change, Item, LockLostError, Queue
from aioetcd2.recipes._places import Place
from aioetcd2.testing import EtcdServer

from .conftest import node_of
from .faultproxy import FaultProxy
from .test_lock import behind, until

TTL = 3.0
BELIEF = 2.5


@pytest.fixture
def path(prefix: str) -> str:
    return f"{prefix}/queue"


@pytest.fixture
def queue(client: Client, path: str) -> Queue:
    return Queue(client.keys, path, ttl=TTL)


@pytest.fixture
async def proxy(server: EtcdServer) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(server.endpoints[0]) as proxy:
        yield proxy


async def files(client: Client, key: str) -> list[str]:
    with suppress(KeyNotFoundError):
        return [node.key for node in node_of(await client.keys.get(key, recursive=True, quorum=True)).leaves()]
    return []


async def one(queue: Queue) -> Item:
    """Do one item, and return it."""
    async with timeout(10), queue.take() as item:
        return item


async def work(queue: Queue, done: list[str]) -> None:
    while True:
        async with queue.take() as item:
            await asyncio.sleep(0)
            done.append(item.value)


async def cancelled(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with pytest.raises(asyncio.CancelledError):
            await task


class Failed(Exception):
    """Work that went wrong."""


async def fail(queue: Queue) -> Item:
    """Begin with an item, and fail."""
    had: list[Item] = []

    async def worker() -> None:
        async with timeout(10), queue.take() as item:
            had.append(item)
            raise Failed

    with pytest.raises(Failed):
        await worker()
    return had[0]


# --- what it does -----------------------------------------------------------------------------------------------------


async def test_put_and_take(client: Client, queue: Queue, path: str) -> None:
    assert await queue.size() == 0
    name = await queue.put("a value")
    assert await queue.size() == 1
    async with queue.take() as item:
        assert (item.value, item.name, item.attempt) == ("a value", name, 1)
        assert item.valid
        item.check()
        assert BELIEF - 1 < item.remaining() <= BELIEF
        claim = node_of(await client.keys.get(item.key))
        assert item.key == f"{path}/claims/{name}"
        assert item.token == claim.created_index
        assert await queue.size() == 1
        assert "1 items in hand" in repr(queue)
    assert item.remaining() == 0
    assert not item.lost.is_set()
    with pytest.raises(LockLostError, match="released"):
        item.check()
    assert await queue.size() == 0
    assert await files(client, path) == []


@pytest.mark.parametrize("value", ["", "é\0\r\n\u2028😀", '{"value": "v", "attempts": 7}', "x" * 100_000])
async def test_any_text_is_a_value(queue: Queue, value: str) -> None:
    await queue.put(value)
    item = await one(queue)
    assert (item.value, item.attempt) == (value, 1)


async def test_what_was_put_by_hand(client: Client, queue: Queue, path: str) -> None:
    await client.keys.set(f"{path}/items/by-hand", "just text")
    await client.keys.set(f"{path}/items/directory/file", "no item")
    assert await queue.size() == 1
    await fail(queue)
    item = await one(queue)
    assert (item.name, item.value, item.attempt) == ("by-hand", "just text", 2)
    assert await files(client, path) == [f"{path}/items/directory/file"]


async def test_the_oldest_first(queue: Queue) -> None:
    names = [await queue.put(str(number)) for number in range(5)]
    async with queue:
        early = [(await one(queue)).name for _ in range(3)]
        names += [await queue.put("late")]
        assert early + [(await one(queue)).name for _ in range(3)] == names


async def test_what_failed_is_next_again(client: Client, queue: Queue, path: str) -> None:
    first, second = [await queue.put(value) for value in ("first", "second")]
    async with queue:
        for attempt in (1, 2, 3):
            item = await fail(queue)
            assert (item.name, item.attempt) == (first, attempt)
            assert await files(client, f"{path}/claims") == []
        assert (await one(queue)).attempt == 4
        assert (await one(queue)).name == second


async def test_a_worker_that_is_cancelled_leaves_the_item(client: Client, queue: Queue, path: str) -> None:
    name = await queue.put("v")
    with pytest.raises(asyncio.TimeoutError):
        async with timeout(0.3), queue.take():
            await asyncio.sleep(10)
    assert await files(client, path) == [f"{path}/items/{name}"]
    assert (await one(queue)).attempt == 2


async def test_each_is_done_once_and_in_order(client: Client, queue: Queue, path: str) -> None:
    """Workers of one queue don't get in each other's way: an item costs four requests, and nothing is listed."""
    for number in range(60):
        await queue.put(str(number))
    done: list[str] = []
    async with queue:
        before = client.counters.calls
        workers = [asyncio.create_task(work(queue, done)) for _ in range(16)]
        await until(lambda: len(done) == 60)
        while await files(client, path):
            await asyncio.sleep(0.01)
            before += 1
        await cancelled(*workers)
        assert client.counters.calls - before <= 60 * 4 + 6  # a list; a watch; what is counted between two lines
    assert sorted(map(int, done)) == list(range(60))
    assert all(abs(int(value) - place) < 32 for place, value in enumerate(done))


async def test_several_processes_do_each_once(server: EtcdServer, client: Client, queue: Queue, path: str) -> None:
    async with Client(server.endpoints) as other:
        queues = [queue, Queue(other.keys, path, ttl=TTL), Queue(other.keys, path, ttl=TTL)]
        done: list[str] = []
        workers = [asyncio.create_task(work(each, done)) for each in queues for _ in range(8)]
        for number in range(100):
            await queue.put(str(number))
        await until(lambda: len(done) >= 100)
        await asyncio.sleep(0.1)
        await cancelled(*workers)
        assert sorted(map(int, done)) == list(range(100))
        assert await files(client, path) == []


async def test_who_waits_sends_nothing(client: Client, queue: Queue) -> None:
    done: list[str] = []
    workers = [asyncio.create_task(work(queue, done)) for _ in range(16)]
    await until(lambda: client.counters.watches_open)
    await asyncio.sleep(0.2)
    before = client.counters
    await asyncio.sleep(0.5)
    assert client.counters.calls == before.calls
    await queue.put("v")
    await until(lambda: done and client.counters.calls - before.calls >= 1 + 4)
    await asyncio.sleep(0.1)
    assert client.counters.calls - before.calls == 1 + 4, "one has woken"
    assert client.counters.watches_open == 1
    await cancelled(*workers)


async def test_the_copy_is_there_while_it_is_needed(client: Client, queue: Queue) -> None:
    await queue.put("1")
    await queue.put("2")
    assert client.counters.watches_open == 0
    async with queue.take():
        assert client.counters.watches_open == 1
    assert client.counters.watches_open == 0
    async with queue:
        await queue.put("3")
        assert client.counters.watches_open == 0
        before = client.counters.calls
        await one(queue)
        assert client.counters.watches_open == 1
        middle = client.counters.calls
        await one(queue)
        assert client.counters.watches_open == 1
        assert client.counters.calls - middle == 4
        assert middle - before > 4
    assert client.counters.watches_open == 0


async def test_a_worker_that_waits_in_vain(client: Client, queue: Queue) -> None:
    with pytest.raises(asyncio.TimeoutError):
        async with timeout(0.2), queue.take():
            pytest.fail("there is nothing to take")
    assert client.counters.watches_open == 0
    await queue.put("v")
    await one(queue)


async def test_a_worker_is_cancelled_at_any_moment(client: Client, proxy: FaultProxy, queue: Queue, path: str) -> None:
    name = await queue.put("v")
    async with behind(proxy) as slow:
        await slow.keys.get("/", quorum=True)
        proxy.latency = 0.03
        remote = Queue(slow.keys, path, ttl=TTL)
        for step in range(20):
            with suppress(asyncio.TimeoutError):
                async with timeout(step * 0.025), remote.take():
                    await asyncio.sleep(10)
            assert await files(client, path) == [f"{path}/items/{name}"]
            assert slow.counters.watches_open == 0
    assert (await one(queue)).value == "v"


async def test_keys_with_a_prefix(client: Client, path: str) -> None:
    queue = Queue(KeysAPI(client, prefix=f"/v2/keys{path}"), "q", ttl=TTL)
    name = await queue.put("v")
    assert await files(client, path) == [f"{path}/q/items/{name}"]
    with pytest.raises(LockLostError):
        async with queue.take() as item:
            await client.keys.delete(f"{path}/q/claims/{name}")
            await asyncio.sleep(10)
    assert item.name == name
    assert (await one(queue)).attempt == 2
    assert await files(client, path) == []


# --- losing it --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["deleted", "all deleted", "written", "made anew"])
async def test_a_claim_that_is_taken_away(client: Client, queue: Queue, path: str, how: str) -> None:
    name = await queue.put("v")
    began = 0.0
    with pytest.raises(LockLostError, match="deleted, or written by another") as caught:
        async with queue.take() as item:
            began = time.monotonic()
            if how == "deleted":
                await client.keys.delete(item.key)
            elif how == "all deleted":
                await client.keys.delete(f"{path}/claims", recursive=True)
            elif how == "written":
                await client.keys.update(item.key, "mine")
            else:
                await client.keys.set(item.key, "mine")
            await asyncio.sleep(10)
    assert time.monotonic() - began < 1
    assert caught.value.token == item.token
    left = set(await files(client, path))
    assert left == {f"{path}/items/{name}"} | (set() if "deleted" in how else {item.key})
    with suppress(KeyNotFoundError):
        await client.keys.delete(f"{path}/claims", recursive=True)
    assert (await one(queue)).attempt == 2


async def test_events_that_are_lost(client: Client, proxy: FaultProxy, path: str, prefix: str) -> None:
    """What was claimed, freed, put and done meanwhile is known afterwards, and a claim that is there is no loss."""
    async with behind(proxy) as cut_off:
        here, there = Queue(client.keys, path, ttl=30), Queue(cut_off.keys, path, ttl=30)
        for value in ("kept", "done", "freed"):
            await here.put(value)
        async with there, here, there.take() as kept:
            assert kept.value == "kept"
            await until(lambda: cut_off.counters.watches_open)
            await proxy.refuse()
            proxy.cut()
            assert (await one(here)).value == "done"
            assert (await fail(here)).value == "freed"
            for number in range(1100):
                await client.keys.set(f"{prefix}/other", str(number))
            await here.put("new")
            await proxy.resume()
            assert [(await one(there)).value for _ in range(2)] == ["freed", "new"]
            assert kept.valid
    assert await files(client, path) == []


async def test_the_deadline(client: Client, proxy: FaultProxy, path: str) -> None:
    async with behind(proxy) as cut_off:
        queue = Queue(cut_off.keys, path, ttl=TTL)
        name = await queue.put("v")
        with pytest.raises(LockLostError, match="not kept alive in time"):
            async with queue.take() as item:
                other = asyncio.create_task(one(Queue(client.keys, path, ttl=TTL)))
                proxy.black_hole()
                began = time.monotonic()
                try:
                    await asyncio.sleep(10)
                finally:
                    ended = time.monotonic()
                    assert not other.done()
        assert BELIEF - 0.6 < ended - began < BELIEF + 0.2
        assert item.lost.is_set()
        again = await other
        assert (again.name, again.attempt) == (name, 2)
        assert again.token > item.token


async def test_a_worker_that_dies(queue: Queue, client: Client, path: str) -> None:
    await queue.put("v")
    with pytest.raises(LockLostError):
        async with queue.take() as item:
            other = asyncio.create_task(one(Queue(client.keys, path, ttl=TTL)))
            began = time.monotonic()
            item._place._tasks[0].cancel()
            await asyncio.sleep(10)
    assert (await other).attempt == 2
    assert TTL * 2 / 3 - 0.5 < time.monotonic() - began < TTL + 0.6 + 0.5


async def test_a_body_that_swallows_its_cancellation(client: Client, queue: Queue) -> None:
    await queue.put("v")
    with pytest.raises(LockLostError):
        async with queue.take() as item:
            with pytest.raises(asyncio.CancelledError, match="not held any more"):
                await client.keys.delete(item.key)
                await asyncio.sleep(10)
    await asyncio.sleep(0.01)
    assert (await one(queue)).attempt == 2


async def test_an_error_of_the_body_wins(client: Client, queue: Queue) -> None:
    await queue.put("v")
    with pytest.raises(Failed):
        async with queue.take() as item:
            with pytest.raises(asyncio.CancelledError):
                await client.keys.delete(item.key)
                await asyncio.sleep(10)
            raise Failed
    assert (await one(queue)).attempt == 2


async def test_an_item_that_was_done_by_another(client: Client, queue: Queue) -> None:
    name = await queue.put("v")
    with pytest.raises(LockLostError, match="item was deleted by another"):
        async with queue.take():
            await client.keys.delete(f"{queue._path}/items/{name}")


async def test_an_item_that_was_begun_by_another_is_not_deleted_under_them(client: Client, queue: Queue) -> None:
    """Where the belief in the claim is wrong, as where the members' clocks differ, the item itself tells."""
    name = await queue.put("v")
    with pytest.raises(LockLostError, match="item was written by another"):
        async with queue.take():
            key = f"{queue._path}/items/{name}"
            node = node_of(await client.keys.get(key))
            await client.keys.set(key, (node.value or "").replace(":1", ":2"), prev_index=node.modified_index)
    assert (await one(queue)).attempt == 3


async def test_done_while_the_cluster_is_away(client: Client, proxy: FaultProxy, path: str) -> None:
    async with behind(proxy) as cut_off:
        queue = Queue(cut_off.keys, path, ttl=TTL)
        await queue.put("v")

        async def worker() -> None:
            async with queue.take():
                await proxy.refuse()
                proxy.cut()

        task = asyncio.create_task(worker())
        await until(lambda: cut_off.counters.calls > 5)
        await asyncio.sleep(0.5)
        assert not task.done()
        await proxy.resume()
        await asyncio.wait_for(task, 2)
        assert await files(client, path) == []


async def test_done_but_the_cluster_stays_away(client: Client, proxy: FaultProxy, path: str) -> None:
    async with behind(proxy) as cut_off:
        queue = Queue(cut_off.keys, path, ttl=TTL)
        name = await queue.put("v")
        with pytest.raises(LockLostError, match="not kept alive in time"):
            async with queue.take():
                await proxy.refuse()
                proxy.cut()
        assert f"{path}/items/{name}" in await files(client, path)


async def test_an_end_whose_answer_is_lost(client: Client, proxy: FaultProxy, path: str) -> None:
    async with behind(proxy) as cut_off:
        queue = Queue(cut_off.keys, path, ttl=TTL)
        await queue.put("v")

        async def worker() -> None:
            async with queue.take():
                proxy.losing = True

        task = asyncio.create_task(worker())
        async with timeout(5):
            while not proxy.losing or await queue_items(client, path):
                await asyncio.sleep(0.01)
        proxy.losing = False
        await asyncio.wait_for(task, 3)
        assert await files(client, path) == []


async def queue_items(client: Client, path: str) -> list[str]:
    return await files(client, f"{path}/items")


# --- what the copy does not tell --------------------------------------------------------------------------------------


async def test_a_stale_list_revives_nothing(client: Client, queue: Queue, path: str) -> None:
    name = await queue.put("old")
    async with queue:
        await one(queue)
        index = (await client.keys.get("/")).index
        node = Node(f"{path}/items/{name}", '{"value":"old"}', created_index=1, modified_index=index)
        queue._backlog.take(Change(node.key, None, node, index))
        await queue.put("new")
        assert (await one(queue)).value == "new"
        assert await files(client, path) == []


async def test_a_copy_that_is_behind_counts_right(client: Client, queue: Queue, path: str) -> None:
    name = await queue.put("v")
    async with queue:
        await fail(queue)
        await until(lambda: '"attempts":1' in (queue._backlog.items[name].value or ""))
        node = queue._backlog.items[name]
        queue._backlog.items[name] = Node(node.key, '{"value":"v"}', created_index=node.created_index, modified_index=3)
        assert (await one(queue)).attempt == 2


async def test_a_claim_that_ends_before_it_is_known(
    client: Client, queue: Queue, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event that deletes it may come before the answer of the request that made it."""
    name = await queue.put("v")
    real: Callable[[Place], Awaitable[None]] = Place.take
    deleted: list[int] = []

    async def take(place: Place) -> None:
        await real(place)
        if not deleted:
            deleted.append((await client.keys.delete(place.key)).modified_index)
            await until(lambda: queue._backlog._index >= deleted[0])

    monkeypatch.setattr(Place, "take", take)
    async with queue.take() as item:
        assert item.valid
        assert item.name == name
        assert await files(client, f"{path}/claims") == [item.key]
    assert deleted[0] < item.token


# --- putting ----------------------------------------------------------------------------------------------------------


async def test_a_put_whose_answer_is_lost(client: Client, proxy: FaultProxy, path: str) -> None:
    async with behind(proxy) as cut_off:
        await cut_off.keys.get("/", quorum=True)
        proxy.losing = True
        task = asyncio.create_task(Queue(cut_off.keys, path, ttl=TTL).put("v"))
        async with timeout(5):
            while not await files(client, path):
                await asyncio.sleep(0.01)
        await asyncio.sleep(1.2)
        assert not task.done()
        proxy.losing = False
        name = await asyncio.wait_for(task, 5)
        assert await files(client, path) == [f"{path}/items/{name}"]


async def test_a_put_that_never_arrived(client: Client, proxy: FaultProxy, path: str) -> None:
    """Its fate is open; the next try makes the one item."""
    async with behind(proxy) as cut_off:
        await cut_off.keys.get("/", quorum=True)
        proxy.black_hole()
        task = asyncio.create_task(Queue(cut_off.keys, path, ttl=TTL).put("v"))
        await asyncio.sleep(1.2)
        assert not task.done()
        proxy.cut()
        await proxy.resume()
        name = await asyncio.wait_for(task, 5)
        assert await files(client, path) == [f"{path}/items/{name}"]


async def test_a_put_whose_fate_stays_open(proxy: FaultProxy, path: str) -> None:
    async with behind(proxy) as cut_off:
        await cut_off.keys.get("/", quorum=True)
        proxy.black_hole()
        began = time.monotonic()
        with pytest.raises(ClusterError) as caught:
            await Queue(cut_off.keys, path, ttl=TTL).put("v")
        assert TTL < time.monotonic() - began < TTL + 1.5
        assert caught.value.maybe_applied


async def test_a_put_that_certainly_failed_raises_at_once(client: Client, proxy: FaultProxy, path: str) -> None:
    async with behind(proxy) as cut_off:
        await proxy.refuse()
        began = time.monotonic()
        with pytest.raises(ClusterError) as caught:
            await Queue(cut_off.keys, path, ttl=TTL).put("v")
        assert time.monotonic() - began < 1
        assert not caught.value.maybe_applied
        await proxy.resume()
        assert await files(client, path) == []


async def test_a_put_that_is_cancelled_waits_for_its_answer(client: Client, proxy: FaultProxy, path: str) -> None:
    async with behind(proxy) as cut_off:
        await cut_off.keys.get("/", quorum=True)
        proxy.latency = 0.1
        task = asyncio.create_task(Queue(cut_off.keys, path).put("v"))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(await files(client, path)) == 1


# --- outages, and what is refused -------------------------------------------------------------------------------------


async def test_workers_wait_out_an_outage(proxy: FaultProxy, path: str, lines: Callable[[], list[str]]) -> None:
    async with behind(proxy) as cut_off:
        queue = Queue(cut_off.keys, path, ttl=TTL)
        done: list[str] = []
        workers = [asyncio.create_task(work(queue, done)) for _ in range(4)]
        await queue.put("first")
        await until(lambda: done and not queue._ours)
        await proxy.refuse()
        proxy.cut()
        for index in range(1, 5):
            node = Node(f"{path}/items/{index}", "v", created_index=index, modified_index=index)
            queue._backlog.take(Change(node.key, None, node, index))
        await asyncio.sleep(0.7)
        assert len(done) == 1
        await proxy.resume()
        await queue.put("new")
        await until(lambda: done == ["first", "new"])
        await cancelled(*workers)
    assert sum(line.startswith("queue ") and "trying again" in line for line in lines()) == 1


async def test_a_claim_that_could_not_be_made_is_tried_again(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    name = await queue.put("v")
    real: Callable[[Place], Awaitable[None]] = Place.take
    failed: list[str] = []

    async def take(place: Place) -> None:
        if not failed:
            failed.append(place.key)
            raise ClusterError("PUT", [ConnectError("http://a:1", "refused")])
        await real(place)

    monkeypatch.setattr(Place, "take", take)
    assert (await one(queue)).name == name
    assert failed


async def test_a_server_that_is_killed() -> None:
    async with EtcdServer() as server, Client(server.endpoints, header_timeout=1) as client:
        queue = Queue(client.keys, "/q", ttl=10)
        done: list[str] = []
        workers = [asyncio.create_task(work(queue, done)) for _ in range(4)]
        for number in range(20):
            await queue.put(str(number))
            if number == 10:
                await server.kill()
                await server.start()
        await until(lambda: len(done) >= 20, 20)
        await cancelled(*workers)
        assert sorted(map(int, done)) == list(range(20))
        assert await queue.size() == 0
        async with timeout(12):  # the claim of an item that is done is tried to be deleted once, and ends with its TTL
            while await files(client, "/q"):
                await asyncio.sleep(0.05)


async def test_the_first_request_raises(proxy: FaultProxy, path: str) -> None:
    async with behind(proxy) as cut_off:
        await proxy.refuse()
        queue = Queue(cut_off.keys, path)
        results = await asyncio.gather(*(one(queue) for _ in range(3)), return_exceptions=True)
        assert [type(result) for result in results] == [ClusterError] * 3
        await proxy.resume()
        await queue.put("v")
        await one(queue)


async def test_a_path_that_is_a_file(client: Client, queue: Queue, path: str) -> None:
    await client.keys.set(path, "a file")
    for call in (one(queue), queue.put("v"), queue.size()):
        with pytest.raises(NotDirError):
            await call


async def test_a_directory_that_is_a_file(client: Client, queue: Queue, path: str) -> None:
    await client.keys.set(f"{path}/items", "a file")
    for call in (queue.put("v"), queue.size()):
        with pytest.raises(NotDirError):
            await call
    await client.keys.delete(f"{path}/items")
    await client.keys.set(f"{path}/claims", "a file")
    await queue.put("v")
    with pytest.raises(NotDirError):
        await one(queue)


async def test_v2_is_off() -> None:
    async with EtcdServer(v2=False) as server, Client(server.endpoints) as client:
        queue = Queue(client.keys, "/q")
        for call in (one(queue), queue.put("v"), queue.size()):
            with pytest.raises(V2DisabledError):
                await call


async def test_no_permission() -> None:
    async with EtcdServer() as server, Client(server.endpoints) as anyone:
        await anyone.auth.users.add("root", "r")
        await anyone.auth.enable()
        async with Client(server.endpoints, username="root", password="r") as root:
            queue = Queue(anyone.keys, "/q", ttl=TTL)
            waiting = asyncio.create_task(work(queue, []))
            await until(lambda: anyone.counters.watches_open)
            await root.auth.roles.remove("guest")
            await Queue(root.keys, "/q").put("v")
            with pytest.raises(UnauthorizedError):
                await asyncio.wait_for(waiting, 5)
            for call in (one(queue), queue.put("v"), queue.size()):
                with pytest.raises(UnauthorizedError):
                    await call


async def test_a_closed_client(server: EtcdServer, path: str) -> None:
    client = Client(server.endpoints)
    queue = Queue(client.keys, path)
    waiting = asyncio.create_task(work(queue, []))
    await until(lambda: client.counters.watches_open)
    await client.close()
    with pytest.raises(ClientClosedError):
        await asyncio.wait_for(waiting, 5)
    for call in (one(queue), queue.put("v"), queue.size()):
        with pytest.raises(ClientClosedError):
            await call


async def test_a_client_that_is_closed_under_a_worker(server: EtcdServer, client: Client, queue: Queue) -> None:
    other = Client(server.endpoints)
    await queue.put("v")
    with pytest.raises(LockLostError):
        async with Queue(other.keys, queue._path, ttl=TTL).take():
            await other.close()
            await asyncio.sleep(10)
    assert (await one(queue)).attempt == 2


async def test_wrong_arguments(client: Client, queue: Queue) -> None:
    before = client.counters.calls
    with pytest.raises(TypeError, match="a path is text, not bytes"):
        Queue(client.keys, b"/q")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="ttl is a number"):
        Queue(client.keys, "/q", ttl="30")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 3 seconds"):
        Queue(client.keys, "/q", ttl=2.9)
    with pytest.raises(TypeError, match="a value is text, not int"):
        await queue.put(7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="value can't be written as UTF-8"):
        await queue.put("\ud800")
    assert client.counters.calls == before

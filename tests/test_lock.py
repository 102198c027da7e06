"""A lock: who has it, how long he may believe that, and how he learns that he has it no more."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from async_timeout import timeout

from aioetcd2 import (
    Client,
    ClientClosedError,
    ClusterError,
    KeyNotFoundError,
    KeysAPI,
    NotDirError,
    Permission,
    UnauthorizedError,
    V2DisabledError,
)
from aioetcd2.recipes import Held, Holder, Lock, LockHeldError, LockLostError, _places
from aioetcd2.recipes._clock import now
from aioetcd2.testing import EtcdServer

from .conftest import node_of
from .faultproxy import FaultProxy

TTL = 3.0
BELIEF = 2.5


@pytest.fixture
def path(prefix: str) -> str:
    return f"{prefix}/lock"


@pytest.fixture
def lock(client: Client, path: str) -> Lock:
    return Lock(client.keys, path, ttl=TTL)


@pytest.fixture
async def proxy(server: EtcdServer) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(server.endpoints[0]) as proxy:
        yield proxy


@asynccontextmanager
async def behind(proxy: FaultProxy) -> AsyncIterator[Client]:
    async with Client([proxy.endpoint], header_timeout=1) as client:
        yield client


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    async with timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def places(client: Client, path: str) -> list[str]:
    try:
        return [node.key for node in (await client.keys.get(path, quorum=True)).nodes]
    except KeyNotFoundError:
        return []


async def waiter(lock: Lock, count: int) -> asyncio.Task[Held]:
    """A task that waits for a lock, as the last of so many."""
    task = asyncio.create_task(lock.acquire())
    async with timeout(10):
        while len(await lock.waiting()) < count:
            await asyncio.sleep(0.01)
    return task


async def cancelled(*tasks: asyncio.Task[Held]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with pytest.raises(asyncio.CancelledError):
            await task


# --- who has it -------------------------------------------------------------------------------------------------------


async def test_a_block(client: Client, lock: Lock, path: str) -> None:
    async with lock as held:
        node = node_of(await client.keys.get(held.key))
        assert held.key.startswith(f"{path}/")
        assert held.token == node.created_index
        assert held.valid
        assert held.reason is None
        assert BELIEF - 1 < held.remaining() <= BELIEF
        held.check()
        assert "left" in repr(held)
    assert held.remaining() == 0
    assert not held.lost.is_set()
    assert "released" in repr(held)
    with pytest.raises(LockLostError, match="released"):
        held.check()
    assert await places(client, path) == []


async def test_first_come_first_served(lock: Lock) -> None:
    async with lock as held:
        tasks = [await waiter(lock, count) for count in (1, 2, 3)]
    tokens = [held.token]
    for task in tasks:
        held = await task
        tokens.append(held.token)
        assert not any(other.done() for other in tasks[len(tokens) - 1 :])
        await lock.release(held)
    assert tokens == sorted(set(tokens))


async def test_a_waiter_that_leaves_lets_nobody_in(lock: Lock) -> None:
    async with lock:
        one, two, three = [await waiter(lock, count) for count in (1, 2, 3)]
        await cancelled(two)
        await asyncio.sleep(0.1)
        assert not three.done()
        await cancelled(one)
        await asyncio.sleep(0.1)
        assert not three.done()
        assert len(await lock.waiting()) == 1
    await lock.release(await three)


async def test_who_holds_it_and_who_waits(client: Client, path: str) -> None:
    ann, bob = (Lock(client.keys, path, ttl=TTL, name=name) for name in ("änn", "bob"))
    assert await ann.holder() is None
    assert await ann.waiting() == []
    async with ann as held:
        task = await waiter(bob, 1)
        holder = await bob.holder()
        assert holder is not None
        assert (holder.name, holder.token) == (held.name, held.token) == ("änn", held.token)
        assert holder.since is not None
        assert abs(holder.since.timestamp() - time.time()) < 10
        assert [each.name for each in await ann.waiting()] == ["bob"]
        await cancelled(task)


async def test_a_stranger_in_the_path(client: Client, lock: Lock, path: str) -> None:
    index = node_of(await client.keys.set(f"{path}/stranger", "by hand")).created_index
    await client.keys.set(f"{path}/directory/key", "v")
    assert await lock.holder() == Holder("by hand", index, None)
    task = await waiter(lock, 1)
    await client.keys.delete(f"{path}/stranger")
    await lock.release(await task)


async def test_without_waiting(client: Client, lock: Lock, path: str) -> None:
    impatient = Lock(client.keys, path, ttl=TTL, wait=False)
    async with lock as held:
        with pytest.raises(LockHeldError, match=str(held.token)) as caught:
            await impatient.acquire()
        assert caught.value.holder is not None
        assert caught.value.holder.token == held.token
        assert await places(client, path) == [held.key]
    async with impatient:
        pass


async def test_keys_with_a_prefix(client: Client, path: str) -> None:
    keys = KeysAPI(client, prefix=f"/v2/keys{path}")
    lock = Lock(keys, "/l", ttl=TTL)
    async with lock as held:
        task = await waiter(lock, 1)
        assert held.key.startswith("/l/")
        assert len(await places(client, f"{path}/l")) == 2
    held = await task
    await keys.delete(held.key)
    await asyncio.wait_for(held.lost.wait(), 2)


async def test_not_reentrant(lock: Lock) -> None:
    async with lock:
        with pytest.raises(RuntimeError, match="would wait for itself"):
            async with lock:
                pass


async def test_entered_and_left_by_two_tasks(client: Client, lock: Lock, path: str) -> None:
    async with AsyncExitStack() as stack:
        await asyncio.create_task(stack.enter_async_context(lock))
        assert len(await places(client, path)) == 1
    assert await places(client, path) == []


async def test_a_stale_list_is_read_again(server: EtcdServer, path: str) -> None:
    async with Client(server.endpoints) as client:
        real, quorums = client.keys.get, []

        class Stale(KeysAPI):
            async def get(self, key: str, **options: bool | None) -> object:  # type: ignore[override]
                quorums.append(options.get("quorum"))
                if not options.get("quorum"):
                    raise KeyNotFoundError(100, "Key not found", key, 1)
                return await real(key, quorum=True)

        async with Lock(Stale(client), path, ttl=TTL) as held:
            assert held.valid
        assert quorums == [False, True]


# --- what it costs ----------------------------------------------------------------------------------------------------


async def test_a_release_wakes_one(client: Client, lock: Lock) -> None:
    async with lock:
        tasks = [await waiter(lock, count) for count in range(1, 21)]
        async with timeout(5):
            while client.counters.watches_open < 21:
                await asyncio.sleep(0.01)
        before = client.counters
    held = await tasks[0]
    after = client.counters
    assert after.events - before.events == 1
    assert after.calls - before.calls <= 2 + 2  # a delete and a list; and what a watch may ask when it begins
    await cancelled(*tasks[1:])
    await lock.release(held)


async def test_three_requests_for_each_ttl(client: Client, lock: Lock) -> None:
    async with lock as held:
        await asyncio.sleep(0.2)
        before = client.counters.calls
        await asyncio.sleep(TTL)
        assert client.counters.calls - before <= 3 + 1
        assert held.remaining() > BELIEF - TTL / 3 - 0.5


async def test_unreleased(lock: Lock) -> None:
    held = await lock.acquire()
    task = await waiter(lock, 1)
    began = time.monotonic()
    held._place._tasks[0].cancel()
    await lock.release(await task)
    assert TTL * 2 / 3 - 0.5 < time.monotonic() - began < TTL + 0.6 + 0.5
    assert held.lost.is_set()


# --- losing it --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["deleted", "directory deleted", "written", "made anew"])
async def test_somebody_else_takes_it_away(client: Client, lock: Lock, path: str, how: str) -> None:
    began = 0.0
    with pytest.raises(LockLostError, match="deleted, or written by another") as caught:
        async with lock as held:
            began = time.monotonic()
            if how == "deleted":
                await client.keys.delete(held.key)
            elif how == "directory deleted":
                await client.keys.delete(path, recursive=True)
            elif how == "written":
                await client.keys.update(held.key, "mine")
            else:
                await client.keys.set(held.key, "mine")
            await asyncio.sleep(10)
    assert time.monotonic() - began < 1
    assert caught.value.token == held.token
    assert held.lost.is_set()
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    task = asyncio.current_task()
    assert task is not None
    await asyncio.sleep(0)  # nothing of the cancellation is left
    left = await places(client, path)
    assert left == ([] if "deleted" in how else [held.key])


async def test_events_that_are_lost_are_no_loss(client: Client, proxy: FaultProxy, path: str, prefix: str) -> None:
    async with behind(proxy) as cut_off:
        lock = Lock(cut_off.keys, path, ttl=30)
        held = await lock.acquire()
        await until(lambda: cut_off.counters.watches_open)
        await proxy.refuse()
        proxy.cut()
        for number in range(1100):
            await client.keys.set(f"{prefix}/other", str(number))
        await proxy.resume()
        async with timeout(10):
            while not proxy.open:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        assert held.valid
        await client.keys.delete(held.key)
        await asyncio.wait_for(held.lost.wait(), 2)
        await lock.release(held)


async def test_lost_while_nobody_listened(client: Client, proxy: FaultProxy, path: str, prefix: str) -> None:
    async with behind(proxy) as cut_off:
        held = await Lock(cut_off.keys, path, ttl=30).acquire()
        await until(lambda: cut_off.counters.watches_open)
        await proxy.refuse()
        proxy.cut()
        await client.keys.delete(held.key)
        for number in range(1100):
            await client.keys.set(f"{prefix}/other", str(number))
        await proxy.resume()
        await asyncio.wait_for(held.lost.wait(), 10)


async def test_the_deadline(client: Client, proxy: FaultProxy, path: str) -> None:
    async with behind(proxy) as cut_off:
        with pytest.raises(LockLostError, match=r"(?s)not kept alive in time: .*header timeout") as caught:
            async with Lock(cut_off.keys, path, ttl=TTL) as held:
                proxy.black_hole()
                began = time.monotonic()
                try:
                    await asyncio.sleep(10)
                finally:
                    ended = time.monotonic()
        assert BELIEF - 0.6 < ended - began < BELIEF + 0.4
        assert time.monotonic() - ended < 0.5, "after a loss by deadline nothing is awaited"
        assert caught.value.reason == held.reason
        assert await places(client, path) == [held.key], "it expires, after the belief in it has ended"


async def test_a_process_that_stood_still(lock: Lock) -> None:
    with pytest.raises(LockLostError, match="stood still"):
        async with lock as held:
            time.sleep(BELIEF + 0.1)
            assert not held.lost.is_set()
            assert not held.valid
            assert held.remaining() == 0
            with pytest.raises(LockLostError, match="stood still"):
                held.check()


async def test_a_keep_alive_that_comes_too_late_brings_nothing_back(lock: Lock) -> None:
    held = await lock.acquire()
    task = held._place._tasks[0]
    await asyncio.sleep(0.1)
    time.sleep(BELIEF)  # what was to be sent meanwhile is due, and so is the end of belief
    await asyncio.wait([task], timeout=2)
    assert held.lost.is_set()
    assert not held.valid


async def test_a_suspension_that_no_timer_has_seen(lock: Lock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is kept alive after it, but there was a time in which nobody knew."""
    suspended = 0.0

    def clock() -> float:
        return now() + suspended

    held = await lock.acquire()
    monkeypatch.setattr(_places, "now", clock)
    monkeypatch.setattr(held._place.lease, "_clock", clock)
    assert held.remaining() > 0
    suspended = BELIEF + 0.1
    assert not held.valid
    await asyncio.wait_for(held.lost.wait(), TTL / 3 + 1)
    assert not held.valid
    assert held._place.lease.remaining() > 0, "it was kept alive"
    await lock.release(held)


async def test_the_client_is_closed(server: EtcdServer, path: str) -> None:
    client = Client(server.endpoints)
    with pytest.raises(LockLostError, match="client is closed"):
        async with Lock(client.keys, path, ttl=TTL):
            await client.close()
            await asyncio.sleep(10)


async def test_a_cluster_that_was_rebuilt(prefix: str) -> None:
    async with EtcdServer() as server, Client(server.endpoints) as client:
        with pytest.raises(LockLostError, match=r"its key|the cluster is another one"):
            async with Lock(client.keys, "/lock", ttl=TTL):
                await server.wipe()
                await asyncio.sleep(10)


# --- how a block ends -------------------------------------------------------------------------------------------------


async def lose(client: Client, held: Held) -> None:
    await client.keys.delete(held.key)
    await held.lost.wait()


async def test_a_body_that_swallows_the_cancellation(client: Client, lock: Lock) -> None:
    with pytest.raises(LockLostError):
        async with lock as held:
            with pytest.raises(asyncio.CancelledError, match="not held any more"):
                await lose(client, held)
                await asyncio.sleep(10)
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.01)


async def test_an_error_of_the_body_wins(client: Client, lock: Lock) -> None:
    with pytest.raises(KeyError):
        async with lock as held:
            try:
                await lose(client, held)
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                raise KeyError from None
    await asyncio.sleep(0.01)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="before Python 3.11 a task does not count its cancellations")
async def test_a_cancellation_from_outside_wins(client: Client, lock: Lock) -> None:
    async def body() -> None:
        async with lock as held:
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().call_soon(held._place.end, "lost")
            asyncio.get_running_loop().call_soon(task.cancel)
            await asyncio.sleep(10)

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(body())


async def test_a_timeout_of_the_caller_wins(client: Client, lock: Lock, path: str) -> None:
    with pytest.raises(asyncio.TimeoutError):
        async with timeout(0.3):
            async with lock:
                await asyncio.sleep(10)
    assert await places(client, path) == []


async def test_a_timeout_within_the_body(client: Client, lock: Lock) -> None:
    async with lock:
        with pytest.raises(asyncio.TimeoutError):
            async with timeout(0.05):
                await asyncio.sleep(10)
    with pytest.raises(LockLostError):
        async with lock as held:
            async with timeout(10):
                await lose(client, held)
                await asyncio.sleep(10)


async def test_without_a_cancellation(client: Client, path: str) -> None:
    with pytest.raises(LockLostError):
        async with Lock(client.keys, path, ttl=TTL, cancel=False) as held:
            await lose(client, held)
            await asyncio.sleep(0.05)
            with pytest.raises(LockLostError):
                held.check()


async def test_a_holder_that_is_no_block_is_not_cancelled(client: Client, lock: Lock) -> None:
    held = await lock.acquire()
    await lose(client, held)
    await asyncio.sleep(0.05)
    await lock.release(held)
    await lock.release(held)


async def test_released_while_the_cluster_is_away(client: Client, proxy: FaultProxy, path: str) -> None:
    async with behind(proxy) as cut_off:
        lock = Lock(cut_off.keys, path, ttl=TTL)
        held = await lock.acquire()
        await proxy.refuse()
        proxy.cut()
        task = asyncio.create_task(lock.release(held))
        await asyncio.sleep(0.3)
        assert not task.done()
        await proxy.resume()
        await asyncio.wait_for(task, 2)
        assert await places(client, path) == []


async def test_a_release_that_is_cancelled_tries_once(client: Client, proxy: FaultProxy, path: str) -> None:
    async with behind(proxy) as cut_off:
        lock = Lock(cut_off.keys, path, ttl=TTL)
        held = await lock.acquire()
        proxy.black_hole()
        task = asyncio.create_task(lock.release(held))
        await asyncio.sleep(0.1)
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert 0.2 < time.monotonic() - began < TTL / 6 + 0.3


# --- waiting ----------------------------------------------------------------------------------------------------------


async def test_a_place_that_is_gone_is_taken_anew(
    client: Client, lock: Lock, path: str, lines: Callable[[], list[str]]
) -> None:
    async with lock as held:
        task = await waiter(lock, 1)
        (own,) = set(await places(client, path)) - {held.key}
        await client.keys.delete(own)
        async with timeout(5):
            while not (new := set(await places(client, path)) - {held.key}):
                await asyncio.sleep(0.01)
        assert new != {own}
        assert not task.done()
    assert (await task).token > held.token
    await lock.release(await task)
    warnings = [line for line in lines() if "lost its place" in line]
    assert len(warnings) == 1


async def test_an_outage_is_waited_out(
    client: Client, proxy: FaultProxy, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "aioetcd2")
    async with behind(proxy) as cut_off:
        lock, other = Lock(cut_off.keys, path, ttl=4), Lock(client.keys, path, ttl=TTL)
        held = await other.acquire()
        task = await waiter(lock, 1)
        await proxy.refuse()
        proxy.cut()
        await other.release(held)
        await asyncio.sleep(2)
        assert not task.done()
        await proxy.resume()
        held = await asyncio.wait_for(task, 5)
        await lock.release(held)
    assert ["trying again" in record.getMessage() for record in caplog.records].count(True) == 1


async def test_the_first_request_raises(path: str, proxy: FaultProxy) -> None:
    async with behind(proxy) as cut_off:
        await proxy.refuse()
        with pytest.raises(ClusterError):
            await Lock(cut_off.keys, path).acquire()
        await proxy.resume()


async def test_a_create_that_is_cancelled_leaves_nothing(client: Client, proxy: FaultProxy, path: str) -> None:
    async with behind(proxy) as cut_off:
        await cut_off.keys.get("/", quorum=True)
        proxy.latency = 0.1
        for steps in (0.05, 0.15, 0.25, 0.35):
            task = asyncio.create_task(Lock(cut_off.keys, path).acquire())
            await asyncio.sleep(steps)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await places(client, path) == []


async def test_a_create_whose_answer_is_lost(client: Client, proxy: FaultProxy, path: str) -> None:
    async with behind(proxy) as cut_off:
        await cut_off.keys.get("/", quorum=True)
        proxy.losing = True
        task = asyncio.create_task(Lock(cut_off.keys, path, ttl=TTL).acquire())
        async with timeout(5):
            while not await places(client, path):
                await asyncio.sleep(0.01)
        proxy.losing = False
        held = await asyncio.wait_for(task, 5)
        assert await places(client, path) == [held.key]
        await held._place.leave()


# --- what is refused --------------------------------------------------------------------------------------------------


async def test_a_path_that_is_a_file(client: Client, lock: Lock, path: str) -> None:
    await client.keys.set(path, "a file")
    with pytest.raises(NotDirError):
        await lock.acquire()
    with pytest.raises(NotDirError):
        await lock.holder()


async def test_v2_is_off() -> None:
    async with EtcdServer(v2=False) as server, Client(server.endpoints) as client:
        with pytest.raises(V2DisabledError):
            await Lock(client.keys, "/lock").acquire()


async def test_a_closed_client(server: EtcdServer, path: str) -> None:
    async with Client(server.endpoints) as client:
        lock = Lock(client.keys, path)
    with pytest.raises(ClientClosedError):
        await lock.acquire()


async def test_a_client_that_is_closed_under_a_waiter(server: EtcdServer, client: Client, path: str) -> None:
    async with Lock(client.keys, path):
        other = Client(server.endpoints)
        task = await waiter(Lock(other.keys, path, ttl=TTL), 1)
        await other.close()
        with pytest.raises(ClientClosedError):
            await asyncio.wait_for(task, 5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ttl": 2.9}, "at least 3 seconds, not 2.9"),
        ({"name": "\ud800"}, "name can't be written as UTF-8"),
    ],
)
async def test_wrong_values(client: Client, options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Lock(client.keys, "/lock", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "options", "words"),
    [
        (b"/lock", {}, "a path is text, not bytes"),
        ("/lock", {"ttl": "15"}, "ttl is a number of seconds, not str"),
        ("/lock", {"name": 7}, "name is text, not int"),
    ],
)
async def test_wrong_types(client: Client, path: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        Lock(client.keys, path, **options)  # type: ignore[arg-type]


async def test_a_path_that_is_no_key(client: Client) -> None:
    before = client.counters.calls
    with pytest.raises(ValueError, match="key"):
        await Lock(client.keys, "/locks/../other").acquire()
    assert client.counters.calls == before


@pytest.fixture
async def guarded() -> AsyncIterator[EtcdServer]:
    """An etcd with auth on: root, and bob, who may do anything below /bob."""
    async with EtcdServer() as server, Client(server.endpoints) as anyone:
        await anyone.auth.users.add("root", "r")
        await anyone.auth.users.add("bob", "b")
        await anyone.auth.roles.add("bobs")
        await anyone.auth.roles.grant("bobs", "/bob/*", "/bob", permission=Permission.READ_WRITE)
        await anyone.auth.users.grant("bob", "bobs")
        await anyone.auth.enable()
        yield server


async def test_no_permission(guarded: EtcdServer) -> None:
    async with (
        Client(guarded.endpoints, username="bob", password="b") as bob,
        Client(guarded.endpoints, username="root", password="r") as root,
    ):
        await root.auth.roles.remove("guest")
        with pytest.raises(UnauthorizedError):
            await Lock(bob.keys, "/ann/lock").acquire()
        lock = Lock(bob.keys, "/bob/lock", ttl=9)  # etcd hashes the password for each request
        held = await lock.acquire()
        task = await waiter(lock, 1)
        await root.auth.roles.revoke("bobs", "/bob/*", "/bob", permission=Permission.READ_WRITE)
        with pytest.raises(UnauthorizedError):
            await asyncio.wait_for(task, 9)
        await asyncio.wait_for(held.lost.wait(), 9)
        assert held.reason is not None
        assert "permission" in held.reason or "authentication" in held.reason


async def test_slashes_fold(client: Client, path: str) -> None:
    async with Lock(client.keys, f"{path.strip('/')}//a/", ttl=TTL) as held:
        assert held.key.startswith(f"{path}/a/")

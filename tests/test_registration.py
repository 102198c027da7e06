"""A registration with a real etcd: what it promises, whatever others, the network and the cluster do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from async_timeout import timeout

from aioetcd2 import (
    Client,
    ClientClosedError,
    ClusterError,
    KeyNotFoundError,
    NotFileError,
    Response,
    UnauthorizedError,
    Watcher,
)
from aioetcd2.recipes import Registration
from aioetcd2.testing import EtcdServer

from .conftest import node_of
from .faultproxy import FaultProxy
from .lossy_keys import Clock
from .misbehaver import Misbehaver, answer
from .shared_keys import SharedKeys

TTL = 3
PERIOD = 1.6
"""Seconds within which a refresh comes, by a TTL of 3, on a slow machine too."""


@pytest.fixture
def key(prefix: str) -> str:
    return f"{prefix}/services/a"


@pytest.fixture
async def other(server: EtcdServer) -> AsyncIterator[Client]:
    """Another process."""
    async with Client(server.endpoints) as client:
        yield client


@pytest.fixture
async def watcher(other: Client, key: str) -> AsyncIterator[Watcher]:
    async with other.keys.watch(key) as watcher:
        yield watcher


@pytest.fixture
async def proxy(server: EtcdServer) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(server.endpoint) as proxy:
        yield proxy


@pytest.fixture
async def through(proxy: FaultProxy) -> AsyncIterator[Client]:
    """A client whose network is hurt."""
    async with Client(proxy.endpoint, header_timeout=0.3) as client:
        yield client


async def value_of(client: Client, key: str) -> str | None:
    try:
        return (await client.keys.get(key, quorum=True)).value
    except KeyNotFoundError:
        return None


async def until(condition: Callable[[], bool], seconds: float = 10) -> float:
    """Wait for it; the seconds that it took."""
    began = time.monotonic()
    async with timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
    return time.monotonic() - began


async def until_ready(registration: Registration, seconds: float = 10) -> None:
    async with timeout(seconds):
        await registration.ready()


def warnings_of(lines: Callable[[], list[str]]) -> list[str]:
    return [line for line in lines() if line.startswith("registration ") and "succeeded" not in line]


# --- while the block runs ---------------------------------------------------------------------------------------------


async def test_the_key_is_there_while_the_block_runs(client: Client, other: Client, key: str) -> None:
    registration = Registration(client.keys, key, "10.0.0.1:80", ttl=60)
    assert repr(registration) == f"<Registration {key}: not registered>"
    async with registration as entered:
        assert entered is registration
        node = node_of(await other.keys.get(key))
        assert (node.value, node.ttl) == ("10.0.0.1:80", 60)
        assert registration.registered
        await registration.ready()
        assert repr(registration) == f"<Registration {key}: registered>"
    assert repr(registration) == f"<Registration {key}: not registered>"
    assert await value_of(other, key) is None


@pytest.mark.slow
async def test_it_outlives_its_ttl_without_an_event(client: Client, other: Client, key: str, watcher: Watcher) -> None:
    async with Registration(client.keys, key, "a", ttl=TTL):
        created = await watcher.next()
        await asyncio.sleep(TTL + 1)
        node = node_of(await other.keys.get(key))
        assert node.created_index == created.created_index
        assert node.modified_index > created.modified_index
        before = asyncio.ensure_future(watcher.next())
    assert (await before).action == "compareAndDelete"


async def test_a_leftover_is_taken_over_without_a_moment_in_between(
    client: Client, other: Client, key: str, watcher: Watcher
) -> None:
    await other.keys.set(key, "left", ttl=60)
    async with Registration(client.keys, key, "a", ttl=TTL):
        pass
    events = [await watcher.next() for _ in range(3)]
    assert [event.action for event in events] == ["set", "compareAndSwap", "compareAndDelete"]


async def test_another_period(client: Client, other: Client, key: str) -> None:
    async with Registration(client.keys, key, "a", ttl=60, refresh=0.1):
        first = node_of(await other.keys.get(key)).modified_index
        began = time.monotonic()
        while (last := node_of(await other.keys.get(key)).modified_index) < first + 5:
            await asyncio.sleep(0.01)
        seconds = time.monotonic() - began
    assert last - first <= seconds / 0.09 + 1
    assert seconds < 5  # at a third of the TTL it would be 80


async def test_an_error_of_the_block_goes_on(client: Client, other: Client, key: str) -> None:
    with pytest.raises(ZeroDivisionError):
        async with Registration(client.keys, key, "a"):
            raise ZeroDivisionError
    assert await value_of(other, key) is None


async def test_one_object_one_block_at_a_time(client: Client, other: Client, key: str) -> None:
    registration = Registration(client.keys, key, "a")
    for _ in range(2):
        async with registration:
            with pytest.raises(RuntimeError, match="entered already"):
                await registration.__aenter__()
            assert registration.registered
        with pytest.raises(RuntimeError, match="not running"):
            await registration.ready()
        with pytest.raises(RuntimeError, match="not running"):
            await registration.update("b")
    assert await value_of(other, key) is None


async def test_many_take_no_tasks(client: Client, other: Client, prefix: str) -> None:
    before = asyncio.all_tasks()
    async with AsyncExitStack() as stack:
        for number in range(100):
            await stack.enter_async_context(Registration(client.keys, f"{prefix}/{number:03}", "a", ttl=600))
        assert len(asyncio.all_tasks() - before) < 3  # there may be one whose turn it is
        assert len((await other.keys.get(prefix)).nodes) == 100
    assert (await other.keys.get(prefix)).nodes == ()


async def test_keys_are_any_text(client: Client, other: Client, prefix: str) -> None:
    async with Registration(client.keys, f"{prefix.strip('/')}//ä b/", "ö=1&c") as registration:
        assert registration.key == f"{prefix}/ä b"
        assert await value_of(other, f"{prefix}/ä b") == "ö=1&c"
        await registration.update("")
        assert await value_of(other, f"{prefix}/ä b") == ""


# --- gone, and overwritten --------------------------------------------------------------------------------------------


async def test_made_again_where_it_is_gone(client: Client, other: Client, key: str, watcher: Watcher) -> None:
    async with Registration(client.keys, key, "a", ttl=TTL, refresh=0.1) as registration:
        await other.keys.delete(key)
        events = [await watcher.next() for _ in range(3)]
        assert [event.action for event in events] == ["create", "delete", "create"]
        await until(lambda: registration.registered)


@pytest.mark.parametrize("value", ["theirs", "ours"])
async def test_theirs_until_it_is_gone(
    client: Client, other: Client, key: str, value: str, lines: Callable[[], list[str]]
) -> None:
    async with Registration(client.keys, key, "ours", ttl=TTL) as registration:
        async with Registration(other.keys, key, value, ttl=TTL) as successor:
            assert await until(lambda: not registration.registered) < PERIOD
            await asyncio.sleep(PERIOD)
            assert successor.registered
            assert await value_of(other, key) == value
            assert client.counters.watches_open == 1
        await until_ready(registration, 1)
        assert await value_of(other, key) == "ours"
        await until(lambda: client.counters.watches_open == 0)
    assert warnings_of(lines) == [f"registration {key}: another has written it; it is made again when it is gone"]
    assert await value_of(other, key) is None


@pytest.mark.parametrize("noticed", [False, True])
@pytest.mark.parametrize("value", ["theirs", "ours"])
async def test_an_old_process_does_not_remove_the_key_of_its_successor(
    client: Client, other: Client, key: str, value: str, noticed: bool
) -> None:
    async with AsyncExitStack() as later:
        async with Registration(client.keys, key, "ours", ttl=60, refresh=0.3 if noticed else None) as registration:
            successor = await later.enter_async_context(Registration(other.keys, key, value, ttl=60))
            if noticed:
                await until(lambda: not registration.registered)
        assert await value_of(other, key) == value
        assert successor.registered
        await successor.update("still there")
        assert await value_of(other, key) == "still there"
    assert await value_of(other, key) is None


async def test_a_directory_in_its_place_is_another_s(client: Client, other: Client, key: str) -> None:
    async with Registration(client.keys, key, "a", ttl=TTL, refresh=0.1) as registration:
        await other.keys.mkdir(key, prev_exist=None)
        await until(lambda: not registration.registered)
        await other.keys.delete(key, dir=True)
        await until_ready(registration, 1)


# --- update -----------------------------------------------------------------------------------------------------------


async def test_update_is_a_compare_and_set(client: Client, other: Client, key: str, watcher: Watcher) -> None:
    async with Registration(client.keys, key, "up", ttl=60) as registration:
        created = await watcher.next()
        await registration.update("draining")
        assert await value_of(other, key) == "draining"
        event = await watcher.next()
        assert (event.action, event.value, event.created_index) == ("compareAndSwap", "draining", created.created_index)
        assert node_of(event).ttl == 60
        assert registration.value == "draining"


async def test_of_many_updates_the_last_one_counts(client: Client, other: Client, key: str) -> None:
    async with Registration(client.keys, key, "0", ttl=60) as registration:
        await asyncio.gather(*(registration.update(str(number)) for number in range(1, 50)))
        assert await value_of(other, key) == "49"
        assert registration.registered


async def test_update_does_not_overwrite_a_successor(client: Client, other: Client, key: str) -> None:
    async with Registration(client.keys, key, "a", ttl=60) as registration:
        async with Registration(other.keys, key, "theirs", ttl=60):
            updating = asyncio.ensure_future(registration.update("b"))
            await until(lambda: not registration.registered)
            assert await value_of(other, key) == "theirs"
            assert not updating.done()
        async with timeout(1):
            await updating
        assert await value_of(other, key) == "b"


async def test_a_cancelled_update_counts_all_the_same(client: Client, other: Client, key: str) -> None:
    async with Registration(client.keys, key, "a", ttl=60) as registration:
        updating = asyncio.ensure_future(registration.update("b"))
        await asyncio.sleep(0)
        updating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await updating
        await until_ready(registration, 1)
        assert await value_of(other, key) == "b"


# --- entering ---------------------------------------------------------------------------------------------------------


async def test_entering_without_a_cluster_raises(lines: Callable[[], list[str]]) -> None:
    async with Client("http://127.0.0.1:1") as client:
        with pytest.raises(ClusterError):
            await Registration(client.keys, "/k", "a").__aenter__()
    assert warnings_of(lines) == []


async def test_entering_a_directory_raises(client: Client, other: Client, key: str) -> None:
    await other.keys.set(f"{key}/below", "x")
    with pytest.raises(NotFileError, match="a directory"):
        await Registration(client.keys, key, "a").__aenter__()
    assert await value_of(other, f"{key}/below") == "x"


async def test_entering_where_it_is_refused_raises() -> None:
    refusal = answer({"errorCode": 110, "message": "The request requires user authentication", "index": 0}, status=401)
    async with Misbehaver(refusal) as misbehaver, Client(misbehaver.endpoint) as client:
        with pytest.raises(UnauthorizedError):
            await Registration(client.keys, "/k", "a").__aenter__()
        assert len(misbehaver.seen) == 1


async def test_no_write_is_without_a_condition(client: Client, prefix: str) -> None:
    seen: list[tuple[str, dict[str, Any]]] = []

    class Recorded:
        def __getattr__(self, name: str) -> Any:
            real = getattr(client.keys, name)

            def call(*args: Any, **options: Any) -> Any:
                seen.append((name, options))
                return self if name == "within" else real(*args, **options)

            return call

    keys: Any = Recorded()
    for _ in range(2):
        async with Registration(keys, f"{prefix}/a", "a", ttl=TTL, refresh=0.1) as registration:
            await registration.update("b")
            await asyncio.sleep(0.2)
            await client.keys.delete(f"{prefix}/a")
            await asyncio.sleep(0.2)
        await client.keys.set(f"{prefix}/a", "left")
    writes = [(name, options) for name, options in seen if name not in ("within", "get", "watch", "create")]
    assert {name for name, _ in writes} == {"set", "refresh", "delete"}
    assert all(options.get("prev_index") for _, options in writes)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"key": 5}, TypeError, "a key is text, not int"),
        ({"key": "/"}, ValueError, "the root is a directory"),
        ({"value": b"x"}, TypeError, "a value is text, not bytes"),
        ({"value": "\ud800"}, ValueError, "UTF-8"),
        ({"ttl": 2.9}, ValueError, "at least 3"),
        ({"ttl": "60"}, TypeError, "ttl is a number of seconds, not str"),
        ({"refresh": 0}, ValueError, "above 0 and at most half of the TTL, which is 60 s, not 0"),
        ({"refresh": -1}, ValueError, "above 0"),
        ({"refresh": 30.5}, ValueError, "at most half"),
        ({"refresh": float("nan")}, ValueError, "at most half"),
        ({"refresh": True}, TypeError, "refresh is a number of seconds, not bool"),
    ],
)
def test_what_is_wrong_is_said_at_once(options: dict[str, Any], error: type[Exception], words: str) -> None:
    keys: Any = None
    with pytest.raises(error, match=words):
        Registration(keys, **{"key": "/k", "value": "a", "ttl": 60, **options})


async def test_a_bad_update_changes_nothing(client: Client, other: Client, key: str) -> None:
    async with Registration(client.keys, key, "a") as registration:
        value: Any = 5
        with pytest.raises(TypeError, match="a value is text, not int"):
            await registration.update(value)
        assert registration.value == "a"


# --- cancelled --------------------------------------------------------------------------------------------------------

STEPS = [0.0, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.006, 0.008, 0.012, 0.02]


@pytest.mark.parametrize("left", [None, "theirs"])
async def test_a_cancellation_while_it_enters_leaves_nothing(
    client: Client, other: Client, key: str, left: str | None
) -> None:
    for seconds in STEPS:
        if left is not None:
            await other.keys.set(key, left)
        task = asyncio.ensure_future(Registration(client.keys, key, "a").__aenter__())
        await asyncio.sleep(seconds)
        if task.cancel():
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await value_of(other, key) in (None, left)
        else:
            await task.result().__aexit__(None, None, None)
            assert await value_of(other, key) is None


async def test_what_is_on_its_way_is_awaited_before_a_cancellation_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = SharedKeys(Clock())
    arrived, applied = asyncio.Event(), asyncio.Event()
    create = store.create

    async def slow(key: str, value: str, *, ttl: float) -> Response:
        """The server carries it out, be the client there or not."""
        arrived.set()
        carried_out = asyncio.ensure_future(carry_out(key, value, ttl))
        return await asyncio.shield(carried_out)

    async def carry_out(key: str, value: str, ttl: float) -> Response:
        await applied.wait()
        return await create(key, value, ttl=ttl)

    monkeypatch.setattr(store, "create", slow)
    task = asyncio.ensure_future(Registration(store.keys, "/k", "a", ttl=60).__aenter__())
    await arrived.wait()
    task.cancel()
    await asyncio.sleep(0.05)
    applied.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.01)
    assert store.nodes == {}


async def test_a_cancellation_while_it_leaves_leaves_nothing(client: Client, other: Client, key: str) -> None:
    for seconds in STEPS:
        registration = await Registration(client.keys, key, "a", ttl=60, refresh=0.01).__aenter__()
        await asyncio.sleep(0.02)
        task = asyncio.ensure_future(registration.__aexit__(None, None, None))
        await asyncio.sleep(seconds)
        task.cancel()
        await asyncio.wait([task])
        assert await value_of(other, key) is None


async def test_a_cancelled_block_leaves_nothing(client: Client, other: Client, key: str) -> None:
    async def block() -> None:
        async with Registration(client.keys, key, "a", ttl=60, refresh=0.005):
            await asyncio.Event().wait()

    for seconds in STEPS:
        task = asyncio.ensure_future(block())
        await asyncio.sleep(0.03 + seconds)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await value_of(other, key) is None


async def test_a_cancellation_while_nothing_answers_takes_no_long(through: Client, proxy: FaultProxy, key: str) -> None:
    registration = await Registration(through.keys, key, "a", ttl=TTL).__aenter__()
    proxy.black_hole()
    task = asyncio.ensure_future(registration.__aexit__(None, None, None))
    await asyncio.sleep(0.1)
    task.cancel()
    began = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began < 1


def test_a_loop_that_ends_leaves_nothing(server: EtcdServer, prefix: str) -> None:
    async def main() -> None:
        async def block(client: Client, number: int) -> None:
            async with Registration(client.keys, f"{prefix}/{number}", "a", ttl=60, refresh=0.01):
                entered.append(number)
                await asyncio.Event().wait()

        async def blocks() -> None:
            async with Client(server.endpoints) as client:
                await asyncio.gather(*(block(client, number) for number in range(5)), return_exceptions=True)

        asyncio.ensure_future(blocks()).add_done_callback(ended.append)
        await until(lambda: len(entered) == 5)

    async def left() -> Response:
        async with Client(server.endpoints) as client:
            return await client.keys.get(prefix)

    entered: list[int] = []
    ended: list[asyncio.Future[None]] = []
    asyncio.run(main())
    assert ended[0].cancelled()
    assert asyncio.run(left()).nodes == ()


# --- outages ----------------------------------------------------------------------------------------------------------


async def test_an_outage_shorter_than_the_ttl(
    through: Client, proxy: FaultProxy, other: Client, key: str, lines: Callable[[], list[str]]
) -> None:
    async with AsyncExitStack() as stack:
        all_of_them = [
            await stack.enter_async_context(Registration(through.keys, f"{key}/{number}", "a", ttl=TTL, refresh=0.2))
            for number in range(20)
        ]
        first = node_of(await other.keys.get(f"{key}/0"))
        await proxy.refuse()
        proxy.cut(reset=True)
        await asyncio.sleep(1)
        assert all(registration.registered for registration in all_of_them)
        await proxy.resume()
        await asyncio.sleep(1)
        assert all(registration.registered for registration in all_of_them)
        assert node_of(await other.keys.get(f"{key}/0")).created_index == first.created_index
    assert len(warnings_of(lines)) == 1
    assert len([line for line in lines() if "succeeded again" in line]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("silent", [False, True])
async def test_an_outage_longer_than_the_ttl(
    through: Client, proxy: FaultProxy, other: Client, key: str, silent: bool, lines: Callable[[], list[str]]
) -> None:
    async with Registration(through.keys, key, "a", ttl=TTL) as registration:
        if silent:
            proxy.black_hole()
        else:
            await proxy.refuse()
            proxy.cut()
        await until(lambda: not registration.registered, TTL)
        await asyncio.sleep(TTL / 2)
        assert await value_of(other, key) is None
        assert len(warnings_of(lines)) == 1
        if silent:
            proxy.cut()
        await proxy.resume()
        await until_ready(registration, 2)
        assert await value_of(other, key) == "a"
    assert await value_of(other, key) is None


async def test_an_outage_at_the_end(through: Client, proxy: FaultProxy, other: Client, key: str) -> None:
    registration = await Registration(through.keys, key, "a", ttl=60).__aenter__()
    await proxy.refuse()
    proxy.cut()
    leaving = asyncio.ensure_future(registration.__aexit__(None, None, None))
    await asyncio.sleep(0.5)
    assert not leaving.done()
    await proxy.resume()
    await leaving
    assert await value_of(other, key) is None


@pytest.mark.parametrize("value", ["ours", "theirs"])
async def test_answers_that_are_lost_before_the_end(
    through: Client, proxy: FaultProxy, other: Client, key: str, value: str
) -> None:
    async with Registration(through.keys, key, "ours", ttl=60, refresh=0.1):
        before = node_of(await other.keys.get(key))
        proxy.losing = True
        while node_of(await other.keys.get(key)).modified_index == before.modified_index:
            await asyncio.sleep(0.05)  # a refresh is carried out, and its answer lost
        if value == "theirs":
            now = node_of(await other.keys.get(key))
            await other.keys.set(key, "ours", prev_index=now.modified_index)
        proxy.losing = False
        proxy.cut()
    assert await value_of(other, key) == (None if value == "ours" else "ours")


@pytest.mark.slow
async def test_answers_that_are_lost_meanwhile(
    through: Client, proxy: FaultProxy, other: Client, key: str, watcher: Watcher, lines: Callable[[], list[str]]
) -> None:
    async with Registration(through.keys, key, "a", ttl=TTL, refresh=0.2) as registration:
        created = await watcher.next()
        proxy.losing = True
        await asyncio.sleep(1)
        proxy.losing = False
        proxy.cut()
        await asyncio.sleep(2)
        assert registration.registered
        assert node_of(await other.keys.get(key)).created_index == created.created_index
    assert (await watcher.next()).action == "compareAndDelete"
    assert not [line for line in lines() if "another has written" in line]


async def test_a_client_that_is_closed(server: EtcdServer, other: Client, key: str) -> None:
    client = Client(server.endpoints)
    async with Registration(client.keys, key, "a", ttl=TTL) as registration:
        await client.close()
        await until(lambda: not registration.registered, PERIOD)
        with pytest.raises(ClientClosedError):
            await registration.ready()
        with pytest.raises(ClientClosedError):
            await registration.update("b")
    await other.keys.delete(key)


async def test_a_client_that_is_closed_while_another_has_the_key(server: EtcdServer, other: Client, key: str) -> None:
    client = Client(server.endpoints)
    async with Registration(client.keys, key, "a", ttl=TTL) as registration:
        await other.keys.set(key, "theirs")
        await until(lambda: client.counters.watches_open == 1)
        await client.close()
        with pytest.raises(ClientClosedError):
            await until_ready(registration, 1)
    assert await value_of(other, key) == "theirs"


# --- what becomes of a cluster ----------------------------------------------------------------------------------------


@pytest.fixture
async def particular() -> AsyncIterator[EtcdServer]:
    async with EtcdServer() as server:
        yield server


@pytest.mark.slow
async def test_a_cluster_that_is_rebuilt(particular: EtcdServer, lines: Callable[[], list[str]]) -> None:
    async with Client(particular.endpoints) as client:
        async with Registration(client.keys, "/services/a", "a", ttl=TTL) as registration:
            await particular.wipe()
            await until_ready(registration)
            async with timeout(10):
                while await value_of(client, "/services/a") != "a":
                    await asyncio.sleep(0.05)
        assert await value_of(client, "/services/a") is None
    assert len(warnings_of(lines)) <= 1


@pytest.mark.slow
async def test_a_cluster_that_serves_no_v2_for_a_while(particular: EtcdServer, lines: Callable[[], list[str]]) -> None:
    async with Client(particular.endpoints) as client:
        async with Registration(client.keys, "/services/a", "a", ttl=TTL) as registration:
            for particular._v2 in (False, True):
                await particular.stop()
                await particular.start()
                if not particular._v2:
                    await asyncio.sleep(TTL + 1)
                    assert not registration.registered
            await until_ready(registration)
            assert await value_of(client, "/services/a") == "a"
    assert len([line for line in warnings_of(lines) if "does not serve the v2 API" in line]) == 1


@pytest.mark.slow
async def test_a_cluster_that_refuses_for_a_while(particular: EtcdServer, lines: Callable[[], list[str]]) -> None:
    async with (
        Client(particular.endpoints) as client,
        Client(particular.endpoints, username="root", password="secret") as root,
    ):
        async with Registration(client.keys, "/services/a", "a", ttl=TTL) as registration:
            await root.auth.users.add("root", "secret")
            await root.auth.enable()
            await root.auth.roles.remove("guest")
            await asyncio.sleep(TTL + 1)
            assert not registration.registered
            await root.auth.disable()
            await until_ready(registration)
    assert len(warnings_of(lines)) == 1
    assert "110" in warnings_of(lines)[0]

"""The search for other endpoints when all have failed: a discoverer may do what it likes, and harms nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

import pytest

from aioetcd2 import Client, ClientClosedError, ClusterError, DiscoveryError
from aioetcd2._net.one_for_all import OneForAll
from aioetcd2._net.rediscovery import APART, Rediscovery

from .loops import A, B, C, Clock, Script, call, failover, finds_anew, ok, unsent
from .misbehaver import Misbehaver, answer, key_event

DEAD = "http://127.0.0.1:1"
SOON = 1.0


class Finder:
    """Finds what it was told, one thing after the other; counts how often it was asked."""

    def __init__(self, *found: Iterable[str] | BaseException) -> None:
        self.found = list(found)
        self.asked = 0

    async def __call__(self) -> Iterable[str]:
        self.asked += 1
        await asyncio.sleep(0)
        found = self.found.pop(0) if len(self.found) > 1 else self.found[0]
        if isinstance(found, BaseException):
            raise found
        return found

    async def discover(self, domain: str) -> list[str]:
        return list(await self())


class Hangs(Finder):
    """Finds what it was told at first, and then hangs."""

    async def __call__(self) -> Iterable[str]:
        if self.asked:
            self.asked += 1
            await asyncio.Event().wait()
        return await super().__call__()


def rediscovery(find: Callable[[], Awaitable[Iterable[str]]], clock: Clock) -> Rediscovery:
    loop, _ = failover(Script(a=unsent), A)
    return finds_anew(loop, find, clock)


async def test_many_calls_that_fail_at_once_search_once() -> None:
    finder = Finder([A, B])
    script = Script(a=unsent, b=ok())
    loop, pool = failover(script, A)
    finds_anew(loop, finder)
    await asyncio.gather(*(call(loop) for _ in range(50)))
    assert finder.asked == 1
    assert pool.pinned == B


async def test_at_most_one_search_a_second() -> None:
    clock, finder = Clock(), Finder([A])
    search = rediscovery(finder, clock)
    for _ in range(100):
        await search.search()
        clock.now += APART / 10
    assert finder.asked == 10


async def test_one_search_for_each_call_though_it_finds_ever_new_ones() -> None:
    finder = Finder([B], [C], ["http://d:2379"])
    clock = Clock()
    script = Script(a=unsent, b=unsent, c=unsent, d=unsent)
    loop, _ = failover(script, A)

    async def find() -> Iterable[str]:
        clock.now += 10
        return await finder()

    finds_anew(loop, find, clock)
    with pytest.raises(ClusterError) as caught:
        await call(loop)
    assert [each.endpoint for each in caught.value.errors] == [A, B]
    assert finder.asked == 1


async def test_nothing_is_kept_of_ever_new_endpoints() -> None:
    found = [[f"http://127.0.0.1:{port}"] for port in range(1, 40)]
    async with await Client.from_srv("example.com", discoverer=Finder(*found)) as client:
        search = client._failover.rediscovery
        assert search is not None
        for _ in found:
            search._ended_at = 0.0
            with pytest.raises(ClusterError):
                await client.keys.get("/k")
        assert len(client._transport._routes._known) <= 2
        assert len(client._reporter.failing) <= 2


async def test_one_that_hangs_is_left_in_time() -> None:
    finder = Hangs([DEAD])
    began = asyncio.get_running_loop().time()
    async with await Client.from_srv("example.com", discoverer=finder, header_timeout=0.1) as client:
        calls = [asyncio.ensure_future(client.keys.get("/k")) for _ in range(20)]
        with pytest.raises(ClusterError, match=DEAD):
            await calls[0]
        await asyncio.wait(calls)
        assert all(isinstance(each.exception(), ClusterError) for each in calls)
    assert finder.asked == 2
    assert asyncio.get_running_loop().time() - began < 0.1 + SOON


async def test_one_that_hangs_at_first_is_no_client() -> None:
    hanging = Hangs([DEAD])
    hanging.asked = 1
    with pytest.raises(DiscoveryError, match=r"no etcd found for 'example\.com' within 0\.05 s"):
        await Client.from_srv("example.com", discoverer=hanging, header_timeout=0.05)


@pytest.mark.parametrize("ends", ["close", "cancel"])
async def test_who_waits_for_one_that_hangs_can_leave(ends: str) -> None:
    finder = Hangs([DEAD])
    async with await Client.from_srv("example.com", discoverer=finder, header_timeout=60) as client:
        waiting = asyncio.create_task(client.keys.get("/k"))
        while finder.asked < 2:
            await asyncio.sleep(0.005)
        began = asyncio.get_running_loop().time()
        if ends == "close":
            await client.close()
            with pytest.raises(ClientClosedError):
                await waiting
        else:
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert asyncio.get_running_loop().time() - began < SOON


@pytest.mark.parametrize(
    "found", [DiscoveryError("none"), OSError("broken"), asyncio.CancelledError(), ["no endpoint?"], [7], 7], ids=repr
)
async def test_whatever_it_raises_or_returns_the_call_says_what_failed(found: object) -> None:
    async with await Client.from_srv("example.com", discoverer=Finder([DEAD], found)) as client:  # type: ignore[arg-type]
        with pytest.raises(ClusterError, match=DEAD):
            await client.keys.get("/k")
        assert client.endpoints == (DEAD,)
    assert not asyncio.current_task().cancelled()  # type: ignore[union-attr]


async def test_failed_searches_are_told_once_until_one_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "aioetcd2")
    clock = Clock()
    search = rediscovery(Finder(OSError("x"), OSError("x"), [B], OSError("y")), clock)
    for _ in range(5):
        await search.search()
        clock.now += APART
    assert [record.getMessage() for record in caplog.records] == [
        "every endpoint has failed, and so has the search for others: x",
        f"every endpoint has failed; found {B}",
        "every endpoint has failed, and so has the search for others: y",
    ]


async def test_watches_in_an_outage_search_at_most_once_a_second() -> None:
    async with Misbehaver(answer(key_event(), index=5)) as server:
        finder = Finder([server.endpoint])
        async with await Client.from_srv("example.com", discoverer=finder) as client:
            await client.keys.get("/k")
            client._pool.give([DEAD])
            watchers = [asyncio.ensure_future(client.keys.watch(f"/{each}").next()) for each in range(20)]
            await asyncio.sleep(0.5)
            assert finder.asked == 2  # the first, and one
            for each in watchers:
                each.cancel()
            await asyncio.wait(watchers)


# --- work for all -----------------------------------------------------------------------------------------------------


class Work:
    """Work that ends when it is told to."""

    def __init__(self) -> None:
        self.begun = 0
        self.end = asyncio.Event()

    async def __call__(self) -> str:
        self.begun += 1
        await self.end.wait()
        return "done"


async def test_work_is_done_once_for_all() -> None:
    work, shared = Work(), OneForAll()
    waiting = [asyncio.ensure_future(shared.do("it", work)) for _ in range(3)]
    other = asyncio.ensure_future(shared.do("other", work))
    await asyncio.sleep(0)
    work.end.set()
    assert await asyncio.gather(*waiting, other) == ["done"] * 4
    assert work.begun == 2
    assert await shared.do("it", work) == "done"
    assert work.begun == 3


async def test_work_goes_on_until_the_last_has_left() -> None:
    work, shared = Work(), OneForAll()
    first, second = (asyncio.ensure_future(shared.do("it", work)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait((first,))
    (task,) = (each.task for each in shared._under_way.values())
    assert not task.done()
    second.cancel()
    await asyncio.wait((second,))
    assert not shared._under_way
    await asyncio.wait((task,))
    assert task.cancelled()


async def test_who_waits_when_all_is_closed_hears_of_that() -> None:
    work, shared = Work(), OneForAll()
    waiting = asyncio.ensure_future(shared.do("it", work))
    await asyncio.sleep(0)
    await shared.close()
    with pytest.raises(ClientClosedError):
        await waiting


async def test_what_is_forgotten_goes_on_for_those_who_wait() -> None:
    work, shared = Work(), OneForAll()
    before = asyncio.ensure_future(shared.do("it", work))
    await asyncio.sleep(0)
    shared.forget()
    after = asyncio.ensure_future(shared.do("it", work))
    await asyncio.sleep(0.01)
    assert work.begun == 2
    before.cancel()
    await asyncio.wait((before,))
    work.end.set()
    assert await after == "done"


async def test_an_error_is_raised_for_all() -> None:
    async def fail() -> None:
        raise OSError("broken")

    shared = OneForAll()
    results = await asyncio.gather(*(shared.do("it", fail) for _ in range(2)), return_exceptions=True)
    assert [str(each) for each in results] == ["broken", "broken"]

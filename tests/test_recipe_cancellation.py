"""Every recipe, cancelled at each of its steps: no key, no task and no watch is left behind."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import pytest

from aioetcd2 import Client, EndpointSelection, KeyNotFoundError, KeysAPI, LockHeldError
from aioetcd2.recipes import Election, Held, Lock, Semaphore
from aioetcd2.testing import EtcdServer

from .faultproxy import FaultProxy
from .steps import BEFORE_3_11, BOTH, CANCELLED, Counted, at_every_step, cancelled_at, make_task, own_tasks, until

pytestmark = pytest.mark.slow

Recipe = Callable[[KeysAPI, str], Awaitable[object]]

TTL = 30.0
"""Nothing that is left behind goes away by itself."""

LATE = 0.02
"""Seconds by which a write is delayed."""


@pytest.fixture(autouse=True)
async def steps_are_counted() -> None:
    asyncio.get_running_loop().set_task_factory(make_task)


async def at_work() -> str:
    """Be at it for so long that the watch of what is held has begun."""
    await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    return "done"


async def lock(keys: KeysAPI, path: str) -> str:
    async with Lock(keys, path, ttl=TTL) as held:
        held.check()
        return await at_work()


async def lock_without_a_block(keys: KeysAPI, path: str) -> str:
    lock = Lock(keys, path, ttl=TTL)
    held = await lock.acquire()
    try:
        return await at_work()
    finally:
        await lock.release(held)


async def lock_at_once(keys: KeysAPI, path: str) -> str:
    try:
        async with Lock(keys, path, ttl=TTL, wait=False):
            return await at_work()
    except LockHeldError:
        return "done"


async def semaphore(keys: KeysAPI, path: str) -> str:
    async with Semaphore(keys, path, 1, ttl=TTL) as held:
        held.check()
        return await at_work()


async def lead(keys: KeysAPI, path: str) -> str:
    async with Election(keys, path, name="me", ttl=TTL).lead() as term:
        term.check()
        return await at_work()


async def observe(keys: KeysAPI, path: str) -> str:
    """See the other one lead, and then no one."""
    async for leader in Election(keys, path, name="bystander", ttl=TTL).observe():
        if leader is None:
            return "done"
    raise AssertionError("it has an end")


RECIPES: dict[str, Recipe] = {
    "lock": lock,
    "acquire": lock_without_a_block,
    "lock-at-once": lock_at_once,
    "semaphore": semaphore,
    "lead": lead,
}

numbers = itertools.count()


class Scene:
    """A client whose calls are cancelled, and a witness.

    Args:
        client: The client, at whose calls this is about.
        witness: Another one.
        proxy: Between the first and the server; `None` = nothing is.
        observing: Whether the calls take no place.
    """

    def __init__(self, client: Client, witness: Client, proxy: FaultProxy | None, observing: bool) -> None:
        self.client = client
        self.witness = witness
        self.proxy = proxy
        self.observing = observing

    async def places(self, path: str) -> int:
        """How many keys there are below a path."""
        try:
            found = await self.witness.keys.get(path, quorum=True)
        except KeyNotFoundError:
            return 0
        assert found.node is not None
        return len(found.node.nodes)

    async def watches(self) -> int:
        """How many the server has open."""
        return (await self.witness.stats.store()).watchers

    async def attempt(
        self, recipe: Recipe, path: str, at: int, waking: bool, *, beside: bool, later: float = 0.0
    ) -> bool:
        """Cancel it at a step, and see what is left; whether it got there.

        Args:
            beside: Another one is first, and leaves once this one has had time to wait for that.
            later: Seconds from that step on.
        """
        watches = await self.watches()
        other = Lock(self.witness.keys, path, ttl=TTL)
        held = await other.acquire() if beside else None
        leaving = asyncio.create_task(self._leave(other, held, path))
        outcome, reached = await cancelled_at(at, waking, lambda: recipe(self.client.keys, path), later=later)
        left = [task for task in asyncio.all_tasks() if isinstance(task.get_coro(), Counted)]
        assert self.observing or not left, f"tasks are left behind by a cancellation at step {at}: {left}"
        leaving.cancel()
        await asyncio.wait([leaving])
        if held is not None:
            await other.release(held)
        assert outcome in (CANCELLED, "done"), outcome
        if self.proxy is not None:
            await asyncio.sleep(2 * LATE)
        assert not await self.places(path), f"a key is left behind by a cancellation at step {at}"
        await until(lambda: not own_tasks(), 2.0)
        for _ in range(10):  # the server may not know yet
            if await self.watches() <= watches:
                break
            await asyncio.sleep(0.2)
        else:
            raise AssertionError(f"a watch is left behind by a cancellation at step {at}")
        assert self.proxy is None or self.proxy.open <= MOST_KEPT
        return reached

    async def _leave(self, other: Lock, held: Held | None, path: str) -> None:
        while held is not None and await self.places(path) < 2 and not self.observing:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
        if held is not None:
            await other.release(held)


MOST_KEPT = 3
"""Connections that a client keeps for its next calls: a keep-alive, a watch's count of keys, and a list meet."""


def overtaking(proxy: FaultProxy, request: bytes) -> None:
    """Have what comes after a write overtake it, on another connection."""
    proxy.latency = LATE if request.startswith(b"PUT ") else 0.001


@asynccontextmanager
async def scene(server: EtcdServer, delayed: bool, *, observing: bool = False) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(FaultProxy(server.endpoint)) if delayed else None
        endpoint = server.endpoint
        if proxy is not None:
            proxy.told = partial(overtaking, proxy)
            endpoint = proxy.endpoint
        client = await stack.enter_async_context(Client(endpoint, selection=EndpointSelection.PRIORITIZE_LEADER))
        witness = await stack.enter_async_context(Client(server.endpoint))
        yield Scene(client, witness, proxy, observing)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("delayed", [False, True], ids=["", "delayed"])
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside-another"])
@pytest.mark.parametrize("name", RECIPES)
async def test_recipe(name: str, beside: bool, delayed: bool, server: EtcdServer, prefix: str) -> None:
    async with scene(server, delayed) as stage:

        async def attempt(later: float, at: int, waking: bool) -> bool:
            path = f"{prefix}/{next(numbers)}"
            return await stage.attempt(RECIPES[name], path, at, waking, beside=beside, later=later)

        await at_every_step(partial(attempt, 0.0), manners=(False,) if BEFORE_3_11 else BOTH)
        if delayed:
            await at_every_step(partial(attempt, LATE / 4), manners=(False,))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("delayed", [False, True], ids=["", "delayed"])
async def test_observe(delayed: bool, server: EtcdServer, prefix: str) -> None:
    async with scene(server, delayed, observing=True) as stage:

        async def attempt(at: int, waking: bool) -> bool:
            return await stage.attempt(observe, f"{prefix}/{next(numbers)}", at, waking, beside=True)

        await at_every_step(attempt, manners=(False,) if BEFORE_3_11 else BOTH)

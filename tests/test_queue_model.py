"""Random steps of workers, strangers and servers on a queue, beside a model of it: what is there, in which order."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
from collections import Counter
from collections.abc import Awaitable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import pytest
from async_timeout import timeout
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from aioetcd2 import Client, KeyNotFoundError
from aioetcd2.recipes import Item, LockLostError, Queue
from aioetcd2.testing import EtcdServer

from .faultproxy import FaultProxy

T = TypeVar("T")

EXAMPLES = int(os.environ.get("AIOETCD2_EXAMPLES", "0"))
"""How many random runs; 0 = a few, and always the same."""

STEPS = settings(
    max_examples=EXAMPLES or 5,
    phases=tuple(Phase) if EXAMPLES else (Phase.generate,),  # to make a failure smaller takes minutes
    stateful_step_count=20,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)

AWHILE = 30.0
HISTORY = 1000
WHICH = st.integers(0, 1)
NUMBER = st.integers(0, 9)

_paths = itertools.count()


class Failed(Exception):
    """Work that went wrong."""


class Worker:
    """Somebody at work on an item until it is told how that ends."""

    def __init__(self, queue: Queue) -> None:
        self.item: Item | None = None
        self.begun = asyncio.Event()
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._work(queue))

    async def _work(self, queue: Queue) -> None:
        async with queue.take() as self.item:
            self.begun.set()
            await self.end


class QueueMachine(RuleBasedStateMachine):
    """Two processes with a queue, of which one has a bad network.

    Args:
        server: The real server; it is used by nobody else meanwhile.
        complaints: Gets what the event loop has to complain of.
    """

    def __init__(self, server: EtcdServer, complaints: list[Any]) -> None:
        super().__init__()
        self.server = server
        self.loop = asyncio.new_event_loop()
        self.loop.set_debug(False)
        self.loop.set_exception_handler(lambda loop, context: complaints.append(context))
        self.path = f"/queue-{next(_paths)}"
        self.order: list[str] = []
        self.attempts: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.dead: set[str] = set()
        self.workers: list[Worker] = []
        self.floods = 0
        self.run(self.begin())

    async def begin(self) -> None:
        self.proxy = await FaultProxy(self.server.endpoint).__aenter__()
        self.clients = [Client(endpoint, header_timeout=3) for endpoint in (self.proxy.endpoint, self.server.endpoint)]
        self.keys = self.clients[1].keys
        self.queues = [Queue(client.keys, self.path) for client in self.clients]
        for queue in self.queues:
            await queue.__aenter__()

    def run(self, work: Awaitable[T]) -> T:
        async def bounded() -> T:
            async with timeout(AWHILE):
                return await work

        return self.loop.run_until_complete(bounded())

    def free(self) -> list[str]:
        busy = {worker.item.name for worker in self.workers if worker.item is not None}
        return [name for name in self.order if name not in busy and name not in self.dead]

    # --- what a process does -----------------------------------------------------------------------------------------

    @rule(which=WHICH)
    def put(self, which: int) -> None:
        name = self.run(self.queues[which].put(str(len(self.order))))
        self.order.append(name)

    @rule(which=WHICH)
    def begin_with_one(self, which: int) -> None:
        """It gets the oldest that nobody is at, or waits."""
        self.run(self.take(self.queues[which]))

    @precondition(lambda self: self.workers)
    @rule(number=NUMBER, well=st.booleans())
    def end_with_one(self, number: int, well: bool) -> None:
        worker = self.workers.pop(number % len(self.workers))
        self.run(self.finish(worker, well))

    async def take(self, queue: Queue) -> None:
        follows = queue._follower is not None
        if follows:
            await self.in_step(queue)  # first: it would pick by what it knew before
        worker = Worker(queue)
        if not follows:
            await asyncio.wait([worker.task], timeout=0.2)
        expected = self.free()
        if not expected:
            await asyncio.wait([worker.task], timeout=0.05)
            assert worker.item is None
            worker.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await worker.task
            return
        await worker.begun.wait()
        item = worker.item
        assert item is not None
        assert item.name in expected[: max(1, int(queue._backlog._spread * 2))]
        assert item.valid
        assert item.attempt > self.attempts[item.name]
        self.attempts[item.name] = item.attempt
        self.workers.append(worker)

    async def finish(self, worker: Worker, well: bool) -> None:
        item = worker.item
        assert item is not None
        if well:
            worker.end.set_result(None)
            await worker.task
            self.order.remove(item.name)
            self.done[item.name] += 1
        else:
            worker.end.set_exception(Failed())
            with pytest.raises(Failed):
                await worker.task

    async def in_step(self, queue: Queue) -> None:
        """Wait until what has happened is known there."""
        index = (await self.keys.set(f"{self.path}/mark", "")).modified_index
        while queue._backlog._index < index:
            await asyncio.sleep(0.002)

    # --- what befalls it ---------------------------------------------------------------------------------------------

    @precondition(lambda self: self.free())
    @rule()
    def somebody_dies(self) -> None:
        """And leaves a claim."""
        name = self.free()[0]
        self.run(self.keys.create(f"{self.path}/claims/{name}", "of the dead"))
        self.dead.add(name)

    @precondition(lambda self: self.free())
    @rule()
    def somebody_dies_and_the_claim_expires(self) -> None:
        async def pass_by() -> None:
            await self.keys.create(f"{self.path}/claims/{self.free()[0]}", "of the dead", ttl=1)
            await asyncio.sleep(1.7)

        self.run(pass_by())

    @precondition(lambda self: self.dead)
    @rule()
    def the_dead_are_buried(self) -> None:
        self.run(self.bury())

    async def bury(self) -> None:
        for name in self.dead:
            with suppress(KeyNotFoundError):
                await self.keys.delete(f"{self.path}/claims/{name}")
        self.dead.clear()

    @precondition(lambda self: self.workers)
    @rule(number=NUMBER)
    def a_claim_is_deleted(self, number: int) -> None:
        worker = self.workers.pop(number % len(self.workers))
        assert worker.item is not None
        self.run(self.lose(worker.item.key, [worker]))

    @rule()
    def all_claims_are_deleted(self) -> None:
        workers, self.workers = self.workers, []
        self.dead.clear()
        self.run(self.lose(f"{self.path}/claims", workers))

    async def lose(self, key: str, workers: list[Worker]) -> None:
        with suppress(KeyNotFoundError):
            await self.keys.delete(key, recursive=True)
        for worker in workers:
            with pytest.raises(LockLostError):
                await worker.task

    @rule()
    def the_server_is_killed(self) -> None:
        async def kill() -> None:
            await self.server.kill()
            await self.server.start()

        self.run(kill())

    @precondition(lambda self: self.floods < 1)
    @rule(well=st.booleans(), number=NUMBER)
    def events_are_lost(self, well: bool, number: int) -> None:
        """One process sees nothing of what the other one does, nor of the events later."""
        self.floods += 1

        async def flood() -> None:
            await self.proxy.refuse()
            self.proxy.cut()
            self.order.append(await self.queues[1].put("put meanwhile"))
            count = len(self.workers)
            await self.take(self.queues[1])
            if len(self.workers) > count:
                await self.finish(self.workers.pop(), well)
            if self.dead and number % 2:
                await self.bury()
            for first in range(0, HISTORY + 100, 50):
                await asyncio.gather(*(self.keys.set("/flood", str(first + each)) for each in range(50)))
            await self.proxy.resume()

        self.run(flood())

    def teardown(self) -> None:
        self.run(self.drain())
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    async def drain(self) -> None:
        """Everything is done now, each once."""
        for worker in self.workers:
            await self.finish(worker, True)
        self.workers.clear()
        await self.bury()
        for number in range(len(self.order)):
            await self.take(self.queues[number % 2])
            await self.finish(self.workers.pop(), True)
        assert set(self.done.values()) <= {1}
        assert await self.queues[0].size() == 0
        for queue in self.queues:
            await queue.__aexit__(None, None, None)
        with suppress(KeyNotFoundError):
            assert not (await self.keys.get(f"{self.path}/claims", quorum=True)).nodes
        for client in self.clients:
            await client.close()
        await self.proxy.__aexit__(None, None, None)
        assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.etcd
@pytest.mark.slow
@pytest.mark.timeout(600 + 20 * EXAMPLES)
def test_random_steps() -> None:
    server = EtcdServer()
    complaints: list[Any] = []
    asyncio.run(server.__aenter__())
    try:
        machine: Any = partial(QueueMachine, server, complaints)
        run_state_machine_as_test(machine, settings=STEPS)
    finally:
        asyncio.run(server.__aexit__(None, None, None))
    gc.collect()
    assert not complaints

"""Random steps of a real etcd, its network and its process: a tree is what the cluster has, and its changes add up."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import pytest
from async_timeout import timeout
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from aioetcd2 import APIError, Client, ClusterError, KeyNotFoundError, KeysAPI, Node
from aioetcd2.recipes import Change, Tree
from aioetcd2.testing import EtcdServer

from .faultproxy import FaultProxy
from .test_tree import ready

T = TypeVar("T")

EXAMPLES = int(os.environ.get("AIOETCD2_EXAMPLES", "0"))
"""How many random runs; 0 = a few, and always the same."""

STEPS = settings(
    max_examples=EXAMPLES or 5,
    phases=tuple(Phase) if EXAMPLES else (Phase.generate,),  # to make a failure smaller takes minutes
    stateful_step_count=40,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)

AWHILE = 30.0
"""Seconds after which something hangs, also on a machine that is very busy."""

HISTORY = 1000
MOST_READERS = 4

NAMES = st.sampled_from(["a", "b", "a-b", "_hidden", "0", "é 😀", "?#%2F"])
KEYS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
VALUES = st.sampled_from(["", "v", "w", "w" * 3000])
TTLS = st.sampled_from([None, None, 1000])

_roots = itertools.count()


class Reader:
    """Reads the changes of a tree, and applies them to what it began with."""

    def __init__(self, tree: Tree, from_now: bool) -> None:
        self.content: dict[str, Node] = dict(tree) if from_now else {}
        self.changes: AsyncIterator[Change] = tree.changes(from_now=from_now)
        self.index = 0

    async def read_until(self, key: str, value: str) -> None:
        while (node := self.content.get(key)) is None or node.value != value:
            self.apply(await self.changes.__anext__())

    def read_on(self) -> None:
        """Read what else came with that."""
        for change in ready(self.changes):
            self.apply(change)

    def apply(self, change: Change) -> None:
        assert self.content.get(change.key) == change.before, f"{change} where there was {self.content.get(change.key)}"
        assert change.before is not None or change.after is not None
        assert change.index >= self.index
        self.index = change.index
        if change.after is None:
            del self.content[change.key]
        else:
            assert change.after.key == change.key
            self.content[change.key] = change.after


class TreeMachine(RuleBasedStateMachine):
    """Random steps under a tree.

    Args:
        server: A real server, of which nobody else knows.
        complaints: Gets what the event loop has to complain of.
    """

    def __init__(self, server: EtcdServer, complaints: list[Any]) -> None:
        super().__init__()
        self.server = server
        self.loop = asyncio.new_event_loop()
        self.loop.set_debug(False)
        self.loop.set_exception_handler(lambda loop, context: complaints.append(context))
        self.away = False
        self.steps = 0
        self.readers: list[Reader] = []

    def run(self, work: Awaitable[T]) -> T:
        async def bounded() -> T:
            async with timeout(AWHILE):
                return await work

        return self.loop.run_until_complete(bounded())

    @initialize(
        there=st.lists(KEYS, max_size=4),
        name=st.sampled_from(["tree", "_tree", "tr ée", "deep/er"]),
        confined=st.booleans(),
    )
    def begin(self, there: list[str], name: str, confined: bool) -> None:
        self.root = f"/{name}-{next(_roots)}"
        self.run(self._begin(there, confined))

    async def _begin(self, there: list[str], confined: bool) -> None:
        self.writer = Client(self.server.endpoints)
        self.keys = self.writer.keys
        for key in there:
            with suppress(APIError):
                await self.keys.set(f"{self.root}/{key}", "at first")
        self.proxy = FaultProxy(self.server.endpoint)
        await self.proxy.__aenter__()
        self.client = Client(self.proxy.endpoint, probe_interval=0.5)
        keys = KeysAPI(self.client, f"/v2/keys{self.root}") if confined else self.client.keys
        self.tree = Tree(keys, "/" if confined else self.root, limit=100_000)
        await self.tree.__aenter__()

    def attempt(self, call: Awaitable[object]) -> None:
        """A step that the server may refuse."""

        async def bold() -> None:
            with suppress(APIError):
                await call

        self.run(bold())

    # --- what happens to keys

    @rule(key=KEYS, value=VALUES, ttl=TTLS)
    def set(self, key: str, value: str, ttl: int | None) -> None:
        self.attempt(self.keys.set(f"{self.root}/{key}", value, ttl=ttl))

    @rule(key=KEYS, value=VALUES)
    def update(self, key: str, value: str) -> None:
        self.attempt(self.keys.update(f"{self.root}/{key}", value))

    @rule(key=KEYS)
    def refresh(self, key: str) -> None:
        self.attempt(self.keys.refresh(f"{self.root}/{key}", 1000))

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        self.attempt(self.keys.delete(f"{self.root}/{key}"))

    @rule(key=KEYS | st.just(""))
    def delete_all_below(self, key: str) -> None:
        self.attempt(self.keys.delete(f"{self.root}/{key}", recursive=True))

    @rule(key=KEYS, more=KEYS)
    def directory_in_the_place_of_a_file(self, key: str, more: str) -> None:
        self.attempt(self.keys.mkdir(f"{self.root}/{key}", prev_exist=None))
        self.attempt(self.keys.set(f"{self.root}/{key}/{more}", "in it"))

    @rule(key=KEYS)
    def file_in_the_place_of_a_directory(self, key: str) -> None:
        self.attempt(self.keys.delete(f"{self.root}/{key}", recursive=True))
        self.attempt(self.keys.set(f"{self.root}/{key}", "a file again"))

    @rule(key=KEYS, more=KEYS, file=st.booleans())
    def expire(self, key: str, more: str, file: bool) -> None:
        """A file, or a directory with what is in it."""
        key = f"{self.root}/{key}"
        self.attempt(self.keys.delete(key, recursive=True))
        if file:
            self.attempt(self.keys.set(key, "mortal", ttl=1))
        else:
            self.attempt(self.keys.mkdir(key, ttl=1))
            self.attempt(self.keys.set(f"{key}/{more}", "mortal"))
        self.run(self._gone(key))

    async def _gone(self, key: str) -> None:
        with suppress(APIError):
            while (node := (await self.keys.get(key)).node) is not None and node.expiration is not None:
                await asyncio.sleep(0.05)

    # --- what happens between the tree and the cluster

    @precondition(lambda self: not self.away)
    @rule()
    def cut(self) -> None:
        self.run(self._nothing())
        self.proxy.cut()

    @precondition(lambda self: not self.away)
    @rule()
    def go_away(self) -> None:
        """The tree hears nothing from now on."""
        self.away = True
        self.run(self.proxy.refuse())
        self.proxy.cut()
        self.run(self._nothing())

    async def _nothing(self) -> None:
        await asyncio.sleep(0.01)

    @precondition(lambda self: self.away)
    @rule()
    def lose_events(self) -> None:
        """So many keys elsewhere are written that the server forgets what the tree has missed."""
        self.run(self._flood())
        self.come_back()

    async def _flood(self) -> None:
        for start in range(0, HISTORY + 100, 100):
            await asyncio.gather(*(self.keys.set(f"/flood/{start + each}", "x") for each in range(100)))

    @precondition(lambda self: self.away)
    @rule()
    def come_back(self) -> None:
        self.away = False
        self.run(self.proxy.resume())

    @rule()
    def kill_the_server(self) -> None:
        self.run(self._restart())

    async def _restart(self) -> None:
        await self.server.kill()
        await self.server.start()
        while True:
            with suppress(ClusterError):
                await self.keys.get("/", quorum=True)
                return

    # --- what must hold

    @precondition(lambda self: len(self.readers) < MOST_READERS)
    @rule(from_now=st.booleans())
    def read_changes(self, from_now: bool) -> None:
        self.readers.append(Reader(self.tree, from_now))

    @precondition(lambda self: not self.away)
    @rule()
    def check(self) -> None:
        self.run(self._check())

    async def _check(self) -> None:
        """Once it has the next write, it has everything."""
        marker = f"{self.root}/marker"
        self.steps += 1
        with suppress(APIError):
            await self.keys.delete(self.root)  # a file
        written = await self.keys.set(marker, str(self.steps))
        await self.tree.reach(written.index)
        assert self.tree.index >= written.index
        assert self.tree.value(marker) == str(self.steps)
        now = await self.keys.get(self.root, recursive=True, quorum=True)
        assert facts(self.tree) == {node.key: (node.value, node.created_index) for node in now.leaves()}
        assert list(self.tree) == sorted(self.tree)
        assert {(node.ttl, node.expiration) for node in self.tree.values()} == {(None, None)}
        for reader in self.readers:
            await reader.read_until(marker, str(self.steps))
            reader.read_on()
            assert reader.content == dict(self.tree)

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                if self.away:
                    self.come_back()
                self.check()
        finally:
            self.run(self._end())
            assert not asyncio.all_tasks(self.loop)
            self.loop.close()

    async def _end(self) -> None:
        await self.tree.__aexit__(None, None, None)
        with suppress(KeyNotFoundError):
            await self.keys.delete(self.root, recursive=True)
        await self.client.close()
        await self.proxy.__aexit__(None, None, None)
        await self.writer.close()


def facts(tree: Tree) -> dict[str, tuple[str | None, int]]:
    return {key: (node.value, node.created_index) for key, node in tree.items()}


@pytest.mark.etcd
@pytest.mark.timeout(600 + 10 * EXAMPLES)
async def test_random_steps() -> None:
    complaints: list[Any] = []
    async with EtcdServer() as server:
        machine: Any = partial(TreeMachine, server, complaints)
        await asyncio.to_thread(run_state_machine_as_test, machine, settings=STEPS)
    gc.collect()
    assert not complaints

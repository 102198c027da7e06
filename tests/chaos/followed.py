"""Who writes keys whose past may change, and who watches them: what was heard is compared with what is true."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass

from async_timeout import timeout

from aioetcd2 import (
    APIError,
    Client,
    ClusterMismatchError,
    EtcdError,
    EventIndexClearedError,
    KeyNotFoundError,
    Node,
    Response,
    Watcher,
)

from .truth import END, KEYS, LATE, REMOVALS, STUCK, UNANSWERED, WINDOW, Life, World


class Writer:
    """The only one who writes a key; each write has a condition, so that it is sent once."""

    def __init__(self, client: Client, world: World, key: str, dice: random.Random) -> None:
        self._keys = client.keys
        self._world = world
        self._key = key
        self._dice = dice
        self._number = 0
        self._node: Node | None = None
        self._sure = False

    async def run(self, over: asyncio.Event) -> None:
        while not over.is_set():
            await asyncio.sleep(self._dice.uniform(0.02, 0.15))
            await self._world.may_write.wait()
            await self.write()

    async def finish(self) -> None:
        async with timeout(STUCK):
            while self._node is None or not self._sure or not (self._node.value or "").endswith(END):
                await self.write(END)
                await asyncio.sleep(0.02)

    def forget(self) -> None:
        """What was there is of another past."""
        self._sure = False

    async def write(self, suffix: str = "") -> None:
        world = self._world
        world.writing += 1
        try:
            await self._write(suffix)
        except ClusterMismatchError:
            self._sure = False  # whoever made it another cluster says when that is to be forgotten
        except UNANSWERED:
            self._sure = False
        finally:
            world.writing -= 1

    async def _write(self, suffix: str) -> None:
        if not self._sure:
            try:
                self._node = (await self._keys.get(self._key, quorum=True)).node
            except KeyNotFoundError:
                self._node = None
            self._sure = True
        world, node = self._world, self._node
        self._number += 1
        value = f"{world.life}.{self._key}.{self._number}{suffix}"
        removes = node is not None and not suffix and self._dice.random() < 0.15
        what = f"-{node.value}" if removes and node is not None else value
        self._sure = False
        try:
            if node is None:
                response = await self._keys.create(self._key, value)
            elif removes:
                response = await self._keys.delete(self._key, prev_index=node.modified_index)
            else:
                response = await self._keys.set(self._key, value, prev_index=node.modified_index)
        except APIError:
            return  # a write that was lost came late
        except UNANSWERED as error:
            if error.maybe_applied:
                world.lives[-1].lost.add(what)
            raise
        assert response.node is not None
        world.acknowledge(response.node.modified_index, self._key, what)
        self._node = None if removes else response.node
        self._sure = True


@dataclass
class Came:
    """An event, when it came, and since when nothing hurt then."""

    event: Response
    at: float
    well_since: float


@dataclass
class Told:
    """Events were lost up to an index, in this life at the latest."""

    life: int
    index: int
    resync: bool = False
    node: Node | None = None


class Follower:
    """One watch: patient, or one that comes only now and then; with or without resync."""

    def __init__(self, number: int, client: Client, world: World, path: str, *, resync: bool, patient: bool) -> None:
        self._number = number
        self._client = client
        self._world = world
        self._path = path
        self._resync = resync
        self._patient = patient
        self._dice = random.Random(f"follower {number}")
        self._scope = [key for key in KEYS if key == path or key.startswith(f"{path}/")]
        self._ended: set[str] = set()
        self._heard: list[Came | Told] = []
        self._life = self._may_reach = world.life
        self._at = 0
        self.registered = asyncio.Event()

    def __str__(self) -> str:
        return f"watch {self._number} of {self._path} at index {self._at} of life {self._life}"

    async def run(self) -> None:
        watcher = self._client.keys.watch(self._path, recursive=self._path not in KEYS, resync=self._resync)
        while True:
            try:
                await watcher.__aenter__()
                break
            except UNANSWERED:
                await asyncio.sleep(0.1)
                watcher = self._client.keys.watch(self._path, recursive=self._path not in KEYS, resync=self._resync)
        self._at = watcher.index or 0
        self._life = self._may_reach = self._world.life
        self.registered.set()
        try:
            while self._ended != set(self._scope):
                await self._next(watcher)
        finally:
            await watcher.aclose()

    async def _next(self, watcher: Watcher) -> None:
        waits = self._patient or self._world.is_written  # or a backlog would look as if the watch were stuck
        if not waits:
            await asyncio.sleep(self._dice.uniform(0.0, 0.3))
        try:
            async with timeout(None if waits else self._dice.uniform(0.01, 0.5)):
                response = await watcher.next()
        except asyncio.TimeoutError:
            return
        except ClusterMismatchError:
            await asyncio.sleep(0.05)  # it is forgotten by whoever made it another cluster
        except EventIndexClearedError as error:
            self._heard.append(Told(self._world.life, error.index))
            await self._look()
        else:
            if response.action == "resync":
                self._heard.append(Told(self._world.life, response.index, resync=True, node=response.node))
                self._note_ends(response.node)
            else:
                self._heard.append(Came(response, time.monotonic(), self._world.well_since))
                self._note_ends(response.node)

    async def _look(self) -> None:
        """Read again, as the error says."""
        while True:
            try:
                node = (await self._client.keys.get(self._path, recursive=True, quorum=True)).node
            except KeyNotFoundError:
                node = None
            except EtcdError:
                await asyncio.sleep(0.1)
                continue
            self._note_ends(node)
            return

    def _note_ends(self, node: Node | None) -> None:
        for each in _nodes(node):
            if (each.value or "").endswith(END):
                self._ended.add(each.key)

    # --- afterwards ---------------------------------------------------------------------------------------------------

    def judge(self) -> None:
        """Compare what was heard with what is true, which a writer may hear of later than a watch."""
        for each in self._heard:
            if isinstance(each, Told):
                self._world.told["resync" if each.resync else "error"] += 1
                self._at, self._may_reach = each.index, each.life
                if each.resync:
                    self._check(each)
            else:
                self._take(each)

    def _check(self, told: Told) -> None:
        """Compare the node of a resync with what was there; it may have been taken late, in the next life already."""
        there = {each.key: each.value or "" for each in _nodes(told.node) if not each.dir}
        lives = self._world.lives[self._life : told.life + 1]
        if not any(self._agrees(life, there, told.index) for life in lives):
            true = [life.there(told.index) for life in lives]
            self._world.problems.append(f"{self}: resync has {there}, and no life had that: {true}")

    def _agrees(self, life: Life, there: dict[str, str], index: int) -> bool:
        true = {key: value for key, value in life.there(index).items() if key in self._scope}
        return all(
            there.get(key) == true.get(key) or self._may_be(life, there.get(key), true.get(key))
            for key in {*there, *true}
        )

    @staticmethod
    def _may_be(life: Life, there: str | None, true: str | None) -> bool:
        return there in life.lost or f"-{there}" in life.lost or f"-{true}" in life.lost or true in life.lost

    def _take(self, came: Came) -> None:
        node, before = came.event.node, came.event.prev_node
        assert node is not None
        what = f"-{before.value if before else ''}" if came.event.action in REMOVALS else node.value or ""
        index, world = node.modified_index, self._world
        life = self._life_of(index, node.key, what)
        world.delivered += 1
        if life is None:
            world.problems.append(f"{self}: {what} at {index} never happened")
            return
        if life != self._life and life > self._may_reach:
            world.problems.append(f"{self}: event {index} is of life {life}, and nothing was said")
        elif index <= self._at:
            world.problems.append(f"{self}: event {index} is out of order, or came twice")
        else:
            self._find_lost(life, index)
        late = world.lateness(life, index, came.at, came.well_since)
        if late is not None and self._patient:
            world.delay.add(late)
            if late > LATE:
                world.problems.append(f"{self}: event {index} of life {life} came {late:.1f} s late")
        self._life, self._at = life, index

    def _life_of(self, index: int, key: str, what: str) -> int | None:
        """In which life it happened, from this one on."""
        for number, life in enumerate(self._world.lives[self._life :], self._life):
            if life.written.get(index) == (key, what) or (index not in life.written and what in life.lost):
                return number
        return None

    def _find_lost(self, number: int, index: int) -> None:
        life = self._world.lives[number]
        missed = {at: life.written[at] for at in sorted(life.written) if self._at < at < index}
        for key in self._scope:
            lost = [(at, what) for at, (where, what) in missed.items() if where == key]
            if not lost or self._left_no_trace(life, key, lost, index):
                continue
            self._world.problems.append(f"{self}: {lost} of {key} are lost, and nothing was said")

    def _left_no_trace(self, life: Life, key: str, lost: list[tuple[int, str]], index: int) -> bool:
        """Whether a key came and went again within a gap of more than the window, which no client can tell."""
        return index - self._at > WINDOW and key not in life.there(self._at) and lost[-1][1].startswith("-")


def _nodes(node: Node | None) -> list[Node]:
    return [] if node is None else [node, *node.leaves()]

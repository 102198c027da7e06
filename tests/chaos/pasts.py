"""Watches on a cluster whose past changes: wiped, restored, its members replaced, its index far ahead.

    python -m tests.chaos.pasts --seconds 60 --seed 1 --seeds 20

What every watch gave is compared with what happened, both ways: nothing is lost, doubled, invented or out of order, but
where the one error said so, or a `resync` event, which agrees with what was there. Nothing of a store's next life comes
before that. An event is never late by more than `LATE` once the cluster is well.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from async_timeout import timeout

from aioetcd2 import (
    APIError,
    Client,
    ClusterError,
    ClusterMismatchError,
    EtcdError,
    EventIndexClearedError,
    InvalidResponseError,
    KeyNotFoundError,
    Node,
    Response,
    Watcher,
)
from aioetcd2.testing import EtcdCluster

from ..faultproxy import FaultProxy
from .gauges import Durations
from .nemesis import FAST_ELECTIONS, HEADER_TIMEOUT, PROBE_INTERVAL

ROOT = "/past"
KEYS = tuple(f"{ROOT}/{name}" for name in ("a", "b", "c/d", "c/e", "f/g/h", "i"))
END = "end"
REMOVALS = ("delete", "compareAndDelete", "expire")
UNANSWERED = (ClusterError, InvalidResponseError)

WINDOW = 1000
"""How many events etcd keeps."""

BEYOND = WINDOW + 100

SETTLED = 2.5
"""Seconds without writes after the past has changed: what is past the cursor by then looks newer to any client."""

LATE = HEADER_TIMEOUT + 2 * PROBE_INTERVAL + 3.0
"""Seconds until an event has come: a dead connection is noticed within the first two, an outage ends within three."""

STUCK = 60.0


@dataclass
class Life:
    """What happened in one life of the store.

    Attributes:
        written: What happened at each index: a key, and a value, or `-` and the value that went.
        lost: Writes that nobody knows the outcome of.
    """

    written: dict[int, tuple[str, str]] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)

    def until(self, index: int) -> Life:
        """The same, where it was cut off behind an index."""
        return Life({at: what for at, what in self.written.items() if at <= index}, set(self.lost))

    def there(self, index: int) -> dict[str, str]:
        """What was there at an index, as far as it is known."""
        found: dict[str, str] = {}
        for _, (key, value) in sorted(item for item in self.written.items() if item[0] <= index):
            if value.startswith("-"):
                found.pop(key, None)
            else:
                found[key] = value
        return found


class World:
    """What is true.

    Attributes:
        lives: What happened in each life of the store.
        problems: What was wrong.
        told: How many watches said that events were lost.
        delay: How late events were.
        is_written: Whether the writers have finished.
    """

    def __init__(self) -> None:
        self.lives = [Life()]
        self.problems: list[str] = []
        self.told: Counter[str] = Counter()
        self.delivered = 0
        self.delay = Durations()
        self.writing = 0
        self.is_written = False
        self.may_write = asyncio.Event()
        self.may_write.set()
        self._hurt = False
        self._well_since = 0.0
        self._acknowledged: dict[tuple[int, int], float] = {}

    @property
    def life(self) -> int:
        return len(self.lives) - 1

    @contextmanager
    def hurt(self) -> Iterator[None]:
        """What happens here may make events late."""
        self._hurt = True
        try:
            yield
        finally:
            self._well_since = time.monotonic()
            self._hurt = False

    def acknowledge(self, index: int, key: str, what: str) -> None:
        self.lives[-1].written[index] = key, what
        self._acknowledged[self.life, index] = time.monotonic()

    @property
    def well_since(self) -> float:
        """Since when nothing hurts; infinite while something does."""
        return math.inf if self._hurt else self._well_since

    def lateness(self, life: int, index: int, came: float, well_since: float) -> float | None:
        """How late an event came; `None` where nobody can say."""
        acknowledged = self._acknowledged.get((life, index))
        if acknowledged is None or well_since > came:
            return None
        return max(0.0, came - max(acknowledged, well_since))

    @asynccontextmanager
    async def silence(self) -> AsyncIterator[None]:
        """Nobody writes meanwhile."""
        self.may_write.clear()
        while self.writing:
            await asyncio.sleep(0.01)
        try:
            yield
        finally:
            self.may_write.set()


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


class Nemesis:
    """Changes the past, cuts off and stops members, one at a time."""

    def __init__(
        self,
        cluster: EtcdCluster,
        proxies: Sequence[FaultProxy],
        clients: Sequence[Client],
        world: World,
        folder: Path,
    ) -> None:
        self._cluster = cluster
        self._proxies = proxies
        self._clients = clients
        self._world = world
        self._tokens = 0
        self._folder = folder
        self._backup: tuple[int, int] | None = None  # at which index of which life
        self.writers: list[Writer] = []
        self.struck: Counter[str] = Counter()
        self.faults: list[Callable[[random.Random], Awaitable[None]]] = [
            *(self.wipe, self.wipe_to_another_cluster, self.back_up, self.replace_a_member),
            *(self.jump_while_cut_off, self.stop_a_member, self.kill_a_member, self.restore, self.cut, self.black_hole),
        ]

    async def run(self, dice: random.Random, over: asyncio.Event) -> None:
        while True:
            for fault in dice.sample(self.faults, len(self.faults)):
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(over.wait(), dice.uniform(0.3, 1.5))
                if over.is_set():
                    return
                self.struck[fault.__name__.replace("_", " ")] += 1
                with self._world.hurt():
                    await fault(dice)

    # --- the past -----------------------------------------------------------------------------------------------------

    async def wipe(self, dice: random.Random) -> None:
        """The same flags, and so the same cluster ID, with nothing in it."""
        async with self._world.silence():
            await self._end_all()
            for member in self._cluster.members:
                shutil.rmtree(member._folder / "data")
                member._join(self._cluster.members)
            self._backup = None
            await self._begin_life(Life())

    async def wipe_to_another_cluster(self, dice: random.Random) -> None:
        async with self._world.silence():
            await self._end_all()
            self._tokens += 1
            for member in self._cluster.members:
                shutil.rmtree(member._folder / "data")
                member._join(self._cluster.members)
                flags = [each for each in member._flags if "token" not in each]
                member._flags[:] = [*flags, f"--initial-cluster-token=t{self._tokens}"]
            self._backup = None
            await self._begin_life(Life(), another_cluster=True)

    async def back_up(self, dice: random.Random) -> None:
        async with self._world.silence():
            index = (await self._read(self._clients[0])).index
            await self._end_all()
            for member in self._cluster.members:
                shutil.rmtree(self._folder / member.name, ignore_errors=True)
                shutil.copytree(member._folder / "data", self._folder / member.name)
            self._backup = index, self._world.life
            await self._start_all()

    async def restore(self, dice: random.Random) -> None:
        """All members go back to what they were, and so does the index."""
        if self._backup is None or self._backup[1] != self._world.life:
            return
        index, life = self._backup
        async with self._world.silence():
            await self._end_all()
            for member in self._cluster.members:
                shutil.rmtree(member._folder / "data")
                shutil.copytree(self._folder / member.name, member._folder / "data")
            self._backup = None
            await self._begin_life(self._world.lives[life].until(index))

    async def replace_a_member(self, dice: random.Random) -> None:
        member = dice.choice(self._cluster.members)
        others = [each for each in self._cluster.members if each is not member]
        async with Client([each.endpoint for each in others], header_timeout=10.0) as admin:
            await asyncio.sleep(1.0)
            (old,) = [each.id for each in await admin.members.list() if each.name == member.name]
            await self._until_done(lambda: admin.members.remove(old))
            await member.kill()
            shutil.rmtree(member._folder / "data")
            await self._until_done(lambda: admin.members.add(member.peer_url))
            member._join(self._cluster.members, state="existing")
            await member.start()
        self._backup = None  # of other members

    @staticmethod
    async def _until_done(call: Callable[[], Awaitable[object]]) -> None:
        async with timeout(STUCK):
            while True:
                try:
                    await call()
                    return
                except APIError as error:
                    if "exists" in str(error):  # it was carried out, and its answer lost
                        return
                    await asyncio.sleep(0.2)
                except EtcdError:
                    await asyncio.sleep(0.2)

    async def _begin_life(self, life: Life, *, another_cluster: bool = False) -> None:
        self._world.lives.append(life)
        await self._start_all()
        if another_cluster:
            for client in self._clients:
                client.forget_cluster()
        for writer in self.writers:
            writer.forget()
        await asyncio.sleep(SETTLED)

    async def _end_all(self) -> None:
        for member in self._cluster.members:
            await member.kill()

    async def _start_all(self) -> None:
        for member in self._cluster.members:
            member._spawn()
        for member in self._cluster.members:
            await member._ready()

    @staticmethod
    async def _read(client: Client) -> Response:
        async with timeout(STUCK):
            while True:
                try:
                    return await client.keys.get("/", quorum=True)
                except EtcdError:
                    await asyncio.sleep(0.1)

    # --- members and connections ------------------------------------------------------------------------------------

    async def jump_while_cut_off(self, dice: random.Random) -> None:
        for proxy in self._proxies:
            await proxy.refuse()
            proxy.cut(reset=dice.random() < 0.5)
        await self._write_elsewhere(self._cluster.endpoints)
        for proxy in self._proxies:
            await proxy.resume()

    async def stop_a_member(self, dice: random.Random) -> None:
        member = dice.choice(self._cluster.members)
        await member.pause()
        await self._write_elsewhere([each.endpoint for each in self._cluster.members if each is not member])
        await member.resume()

    async def kill_a_member(self, dice: random.Random) -> None:
        member = dice.choice(self._cluster.members)
        await member.kill()
        await self._write_elsewhere([each.endpoint for each in self._cluster.members if each is not member])
        await member.start()

    async def cut(self, dice: random.Random) -> None:
        for proxy in self._proxies:
            proxy.cut(reset=dice.random() < 0.5)

    async def black_hole(self, dice: random.Random) -> None:
        proxy = dice.choice(self._proxies)
        proxy.black_hole()
        await asyncio.sleep(dice.uniform(0.5, 2.5))
        proxy.cut()
        await proxy.resume()

    async def _write_elsewhere(self, endpoints: Sequence[str]) -> None:
        async def write(client: Client, number: int) -> None:
            with suppress(EtcdError):
                await client.keys.set(f"/else/{number % 50}", str(number))

        async with Client(endpoints, header_timeout=5.0) as client:
            for first in range(0, BEYOND, 100):
                await asyncio.gather(*(write(client, first + each) for each in range(100)))


async def play(
    seconds: float, seed: object, *, watchers: int = 40, faults: Sequence[str] = (), least: int = 1
) -> tuple[World, Nemesis]:
    """Let it go on for some time, and until so many faults have struck at least; what is true, and what was wrong."""
    dice = random.Random(f"{seed}")
    world = World()
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(EtcdCluster(size=3, flags=[*FAST_ELECTIONS, "--snapshot-count=1000"]))
        proxies = [await stack.enter_async_context(FaultProxy(each)) for each in cluster.endpoints]
        endpoints = [proxy.endpoint for proxy in proxies]
        clients = [
            await stack.enter_async_context(
                Client(endpoints, header_timeout=HEADER_TIMEOUT, probe_interval=PROBE_INTERVAL)
            )
            for _ in range(5)
        ]
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="backup-")))
        nemesis = Nemesis(cluster, proxies, clients, world, folder)
        if faults:
            nemesis.faults = [each for each in nemesis.faults if each.__name__ in faults]
        nemesis.writers = [Writer(clients[0], world, key, random.Random(f"{seed} {key}")) for key in KEYS]
        for writer in nemesis.writers:
            await writer.write()
        followers = [
            Follower(
                number,
                clients[1 + number % 4],
                world,
                dice.choice((ROOT, f"{ROOT}/c", f"{ROOT}/f", *KEYS)),
                resync=dice.random() < 0.5,
                patient=dice.random() < 0.7,
            )
            for number in range(watchers)
        ]
        following = [asyncio.create_task(each.run()) for each in followers]
        over = asyncio.Event()
        try:
            await asyncio.wait_for(asyncio.gather(*(each.registered.wait() for each in followers)), STUCK)
            writing = [asyncio.create_task(each.run(over)) for each in nemesis.writers]
            striking = asyncio.create_task(nemesis.run(dice, over))
            await asyncio.wait((striking, *following), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            while sum(nemesis.struck.values()) < least and not striking.done():
                await asyncio.sleep(0.1)
            over.set()
            await striking
            await asyncio.gather(*writing)
            await asyncio.gather(*(each.finish() for each in nemesis.writers))
            world.is_written = True
            await asyncio.wait(following, timeout=STUCK)
            for each, task in zip(followers, following, strict=True):
                if not task.done():
                    world.problems.append(f"stuck: {each}")
        finally:
            for task in following:
                task.cancel()
            for outcome in await asyncio.gather(*following, return_exceptions=True):
                if isinstance(outcome, Exception):
                    world.problems.append(repr(outcome))
    for follower in followers:
        follower.judge()
    return world, nemesis


def main() -> int:
    """Run from the command line; 1 = something was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.pasts", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1, help="how many, one after the other")
    parser.add_argument("--watchers", type=int, default=40)
    options = parser.parse_args()
    wrong = 0
    for seed in range(options.seed, options.seed + options.seeds):
        world, nemesis = asyncio.run(play(options.seconds, seed, watchers=options.watchers))
        struck = ", ".join(f"{name} {number}" for name, number in sorted(nemesis.struck.items()))
        written = sum(len(life.written) for life in world.lives)
        told = ", ".join(f"{name} {number}" for name, number in sorted(world.told.items()))
        print(f"seed {seed}: {len(world.lives)} lives, {written} writes, {world.delivered} events, told: {told}")
        print(f"  {struck}; late: {world.delay}", flush=True)
        for problem in world.problems[:20]:
            print(f"  PROBLEM {problem}", flush=True)
        wrong += bool(world.problems)
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())

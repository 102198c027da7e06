"""Watches on a cluster whose past changes: wiped, restored, its members replaced, its index far ahead.

    python -m tests.chaos.pasts --seconds 60 --seed 1 --seeds 20

What every watch gave is compared with what happened, both ways: nothing is lost, doubled, invented or out of order, but
where the one error said so, or a `resync` event, which agrees with what was there. Nothing of a store's next life comes
before that. An event is never late by more than `LATE` once the cluster is well. With even seeds there is
an nginx before each member, which holds headers back and ends quiet waits.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from async_timeout import timeout

from aioetcd2 import (
    APIError,
    Client,
    EtcdError,
    Response,
)
from aioetcd2.testing import EtcdCluster

from ..faultproxy import FaultProxy
from .followed import Follower, Writer
from .fronts import Nginx, find_nginx
from .nemesis import FAST_ELECTIONS, HEADER_TIMEOUT, PROBE_INTERVAL
from .truth import BEYOND, KEYS, ROOT, SETTLED, STUCK, Life, World


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
    seconds: float, seed: object, *, watchers: int = 40, faults: Sequence[str] = (), least: int = 1, nginx: bool = False
) -> tuple[World, Nemesis]:
    """Let it go on for some time, and until so many faults have struck at least; what is true, and what was wrong."""
    dice = random.Random(f"{seed}")
    world = World()
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(EtcdCluster(size=3, flags=[*FAST_ELECTIONS, "--snapshot-count=1000"]))
        fronts: Sequence[str] = cluster.endpoints
        if nginx:
            fronts = [(await stack.enter_async_context(Nginx(each))).endpoint for each in fronts]
        proxies = [await stack.enter_async_context(FaultProxy(each)) for each in fronts]
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
    if find_nginx() is None:
        print("there is no nginx on this machine: all seeds without it", flush=True)
    for seed in range(options.seed, options.seed + options.seeds):
        nginx = seed % 2 == 0 and find_nginx() is not None
        world, nemesis = asyncio.run(play(options.seconds, seed, watchers=options.watchers, nginx=nginx))
        struck = ", ".join(f"{name} {number}" for name, number in sorted(nemesis.struck.items()))
        written = sum(len(life.written) for life in world.lives)
        told = ", ".join(f"{name} {number}" for name, number in sorted(world.told.items()))
        front = ", nginx" if nginx else ""
        print(f"seed {seed}{front}: {len(world.lives)} lives, {written} writes, {world.delivered} events, told: {told}")
        print(f"  {struck}; late: {world.delay}", flush=True)
        for problem in world.problems[:20]:
            print(f"  PROBLEM {problem}", flush=True)
        wrong += bool(world.problems)
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())

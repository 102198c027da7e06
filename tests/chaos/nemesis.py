"""A cluster behind proxies, and what befalls both: faults of members, and beside them faults of connections."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING

from async_timeout import timeout

from aioetcd2 import Client, EndpointSelection
from aioetcd2.testing import EtcdCluster

from ..faultproxy import FaultProxy

if TYPE_CHECKING:
    from typing_extensions import Self

FAST_ELECTIONS = ("--heartbeat-interval=50", "--election-timeout=500")

HEADER_TIMEOUT = 1.0
PROBE_INTERVAL = 0.5

Fault = Callable[[random.Random], Awaitable[None]]


class Stage:
    """Three members, with a proxy before each.

    Attributes:
        cluster: The members.
        proxies: The proxies, in the same order, once or several times over.
    """

    def __init__(self, cluster: EtcdCluster, proxies: Sequence[FaultProxy]) -> None:
        self.cluster = cluster
        self.proxies = tuple(proxies)

    @classmethod
    @asynccontextmanager
    async def built(cls) -> AsyncIterator[Self]:
        """Start everything; at the end nothing is left."""
        async with AsyncExitStack() as stack:
            cluster = await stack.enter_async_context(EtcdCluster(size=3, flags=FAST_ELECTIONS))
            yield cls(cluster, [await stack.enter_async_context(FaultProxy(each)) for each in cluster.endpoints])

    @asynccontextmanager
    async def clients(
        self, count: int, header_timeout: float = HEADER_TIMEOUT, *, repeat_writes: bool = False
    ) -> AsyncIterator[list[Client]]:
        """Clients with little patience, which begin at one member each in turn."""
        endpoints = [proxy.endpoint for proxy in self.proxies]
        async with AsyncExitStack() as stack:
            clients = []
            for first in (number % len(endpoints) for number in range(count)):
                client = Client(
                    endpoints[first:] + endpoints[:first],
                    selection=EndpointSelection.PRIORITIZE_LEADER,  # keeps the order, which a seed would not otherwise
                    header_timeout=header_timeout,
                    probe_interval=PROBE_INTERVAL,
                    repeat_writes=repeat_writes,
                )
                clients.append(await stack.enter_async_context(client))
            yield clients


class Nemesis:
    """Faults while it is entered; at its end all is well again.

    Each fault has its turn before the first comes again. A fault and what follows it are told by the seed, the moments
    at which they come only as far as the machine keeps time.

    Args:
        stage: What to hurt.
        seed: The order of the faults, where they strike, and how long they last.
        rest: Seconds from one fault to the next, at most.

    Attributes:
        struck: How many faults of each kind there have been.
    """

    def __init__(self, stage: Stage, seed: object, *, rest: float = 1.0) -> None:
        self._stage = stage
        self._seed = seed
        self._rest = rest
        self._over = asyncio.Event()
        self._accepting = asyncio.Lock()  # both rolls may want to open the same proxy
        self._rolls: list[asyncio.Task[None]] = []
        self.struck: Counter[str] = Counter()

    def rolls(self) -> dict[str, list[Fault]]:
        """Faults, those of one roll one after the other, those of several at the same time."""
        return {
            "members": [self.kill, self.kill, self.pause, self.pause, self.kill_all, self.pause_most],
            "connections": [self.cut, self.reset, self.lose, self.delay, self.black_hole, self.refuse],
        }

    async def __aenter__(self) -> Self:
        for name, faults in self.rolls().items():
            dice = random.Random(f"{self._seed} {name}")  # one each, or it would depend on who comes first
            self._rolls.append(asyncio.create_task(self._roll(faults, dice), name=f"nemesis of {name}"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        await asyncio.wait(self._rolls)
        for roll in self._rolls:
            roll.result()

    async def _roll(self, faults: list[Fault], dice: random.Random) -> None:
        while True:
            for fault in dice.sample(faults, len(faults)):
                await self._last(dice.uniform(0.2, 1.0) * self._rest)
                if self._over.is_set():
                    return
                self.struck[fault.__name__.replace("_", " ")] += 1
                await fault(dice)

    async def _last(self, seconds: float) -> None:
        """Let some time pass, less where the end comes first."""
        with suppress(asyncio.TimeoutError):
            async with timeout(seconds):
                await self._over.wait()

    async def kill(self, dice: random.Random) -> None:
        """A power cut; while the member is down its address refuses connections."""
        await self._restart([dice.choice(range(3))], dice.uniform(0.2, 1.5))

    async def kill_all(self, dice: random.Random) -> None:
        """A power cut of the whole cluster."""
        await self._restart(range(3), dice.uniform(0.0, 0.5))

    async def _restart(self, numbers: Sequence[int], seconds: float) -> None:
        members = [self._stage.cluster.members[number] for number in numbers]
        proxies = [proxy for number in numbers for proxy in self._stage.proxies[number::3]]
        await asyncio.gather(*(member.kill() for member in members))
        await asyncio.gather(*(proxy.refuse() for proxy in proxies))
        await self._last(seconds)
        await asyncio.gather(*(member.start() for member in members))
        await asyncio.gather(*map(self._accept, proxies))

    async def pause(self, dice: random.Random) -> None:
        """A member that answers no one, and then goes on with what it was told meanwhile."""
        await self._freeze(dice.sample(range(3), 1), dice.uniform(0.5, 3.0))

    async def pause_most(self, dice: random.Random) -> None:
        """A member without a quorum, until the others go on."""
        await self._freeze(dice.sample(range(3), 2), dice.uniform(0.5, 2.0))

    async def _freeze(self, numbers: Sequence[int], seconds: float) -> None:
        members = [self._stage.cluster.members[number] for number in numbers]
        for member in members:
            await member.pause()
        await self._last(seconds)
        for member in members:
            await member.resume()

    async def cut(self, dice: random.Random) -> None:
        """Close all connections to a member, by FIN."""
        self._proxy(dice).cut()

    async def reset(self, dice: random.Random) -> None:
        """Close all connections to a member, by RST."""
        self._proxy(dice).cut(reset=True)

    async def lose(self, dice: random.Random) -> None:
        """Pass requests on, and lose the answers."""
        proxy = self._proxy(dice)
        proxy.losing = True
        await self._last(dice.uniform(0.05, 0.5))
        proxy.cut(reset=dice.random() < 0.5)
        proxy.losing = False

    async def delay(self, dice: random.Random) -> None:
        """Be slow, and at the end close the connections with what is still under way."""
        proxy = self._proxy(dice)
        proxy.latency = dice.uniform(0.01, 0.3)
        await self._last(dice.uniform(0.5, 1.5))
        if dice.random() < 0.5:
            proxy.cut(reset=dice.random() < 0.5)
        proxy.latency = 0.0

    async def black_hole(self, dice: random.Random) -> None:
        """Keep connections open, and pass nothing until the end."""
        proxy = self._proxy(dice)
        proxy.black_hole()
        await self._last(dice.uniform(0.5, 2.0))
        await self._accept(proxy)

    async def refuse(self, dice: random.Random) -> None:
        """Refuse connections, and close those that are open."""
        proxy = self._proxy(dice)
        await proxy.refuse()
        proxy.cut()
        await self._last(dice.uniform(0.2, 1.0))
        await self._accept(proxy)

    def _proxy(self, dice: random.Random) -> FaultProxy:
        return dice.choice(self._stage.proxies)

    async def _accept(self, proxy: FaultProxy) -> None:
        async with self._accepting:
            await proxy.resume()

"""`python -m tests.chaos.locks`: five processes want one lock of a cluster that is being hurt, and so are they.

Or a semaphore that has room for one, or the leadership of an election: see `--recipe`.

Each reaches the three members through proxies of its own, so that it can be cut off from all of them. What it holds it
tells, and what it does carries its token, to a register that refuses older ones. `turns.py` judges all that.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from async_timeout import timeout

from aioetcd2 import Client, EtcdError, KeyNotFoundError
from aioetcd2.testing import EtcdCluster, etcd_version, find_etcd

from ..faultproxy import FaultProxy
from .contender import Options, now
from .fence import Register
from .gauges import Durations
from .nemesis import FAST_ELECTIONS, Fault, Nemesis, Stage
from .turns import NEVER, Act, Removal, Tenure, judge

if TYPE_CHECKING:
    from typing_extensions import Self

CONTENDERS = 5
RECIPES = ("lock", "semaphore", "election")
"""What excludes: a lock, a semaphore with room for one, the leadership of an election."""
PATH = "/locks/one"
TTL = 3.0
LATE = 5.0
"""Seconds beyond the TTL within which somebody has the lock once nothing hurts."""
STUCK = 60.0


@dataclass
class Books:
    """What has happened.

    Attributes:
        tenures: Who held it, by token.
        removals: When a foreign hand deleted everything.
        said: What the processes told, by kind.
        takeovers: Seconds from the SIGKILL of a holder to the next.
        killed_at: When a holder that has no successor yet was killed.
        between: Who has checked and not yet acted, for one who waits for that.
        back_after: Seconds from the last fault until somebody had it.
        problems: What went wrong beside the lock.
    """

    tenures: dict[int, Tenure] = field(default_factory=dict)
    removals: list[Removal] = field(default_factory=list)
    said: Counter[str] = field(default_factory=Counter)
    takeovers: Durations = field(default_factory=Durations)
    killed_at: float | None = None
    between: asyncio.Future[Contender] | None = None
    back_after: float = 0.0
    problems: list[str] = field(default_factory=list)

    def tenure(self, token: int, who: str) -> Tenure:
        """That of this token."""
        return self.tenures.setdefault(token, Tenure(token, who))


class Contender:
    """One process that wants the lock.

    Args:
        options: What it is told.
        proxies: Its ways to the members.
        books: Where what it says is taken down.

    Attributes:
        token: What it holds; `None` = nothing.
        got_at: When it got the lock last.
    """

    def __init__(self, options: Options, proxies: Sequence[FaultProxy], books: Books) -> None:
        self.options = options
        self.proxies = tuple(proxies)
        self.token: int | None = None
        self.got_at = 0.0
        self._books = books
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._starts = 0

    async def start(self) -> None:
        """Start it, or start it again."""
        self._starts += 1
        self.options.seed = f"{self.options.seed.partition('#')[0]}#{self._starts}"
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.chaos.contender",
            self.options.dump(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if name != "PYTHONASYNCIODEBUG"},
        )
        assert self._process.stdout is not None
        self._reading = asyncio.create_task(self._read(self._process.stdout), name=self.options.who)

    async def kill(self) -> None:
        """End it as a power cut does."""
        self.send(signal.SIGKILL)
        await self._over(-signal.SIGKILL)

    async def end(self) -> None:
        """Ask it to end, and to leave nothing behind."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with timeout(STUCK):
                await self._over(0)
        except asyncio.TimeoutError:
            self._books.problems.append(f"{self.options.who} does not end")
            await self.kill()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def _over(self, code: int) -> None:
        process, reading = self._process, self._reading
        if process is None or reading is None:
            return
        ended = await process.wait()
        await reading
        self.token = None
        if ended != code:
            self._books.problems.append(f"{self.options.who} ended with {ended}")
        self._process = None

    async def _read(self, lines: asyncio.StreamReader) -> None:
        while line := await lines.readline():
            what, *more = json.loads(line)
            if what == "seen":
                token, valid, before, after = more
                self._books.tenure(token, self.options.who).see(valid, before, after)
                continue
            self._books.said[what] += 1
            if what == "held":
                self._got(*more)
            elif what in ("left", "lost"):
                self.token = None
            elif what == "between" and self._books.between is not None and not self._books.between.done():
                self._books.between.set_result(self)

    def _got(self, token: int, at: float) -> None:
        self.token, self.got_at = token, at
        self._books.tenure(token, self.options.who).held += 1
        if self._books.killed_at is not None:
            self._books.takeovers.add(at - self._books.killed_at)
            self._books.killed_at = None


class Arena(Stage):
    """A cluster, and contenders with a proxy each before each member.

    Attributes:
        contenders: The processes.
        hand: A client of the cluster without proxies, which knows nothing of locks.
        books: What has happened.
    """

    def __init__(self, cluster: EtcdCluster, contenders: Sequence[Contender], hand: Client, books: Books) -> None:
        super().__init__(cluster, [proxy for contender in contenders for proxy in contender.proxies])
        self.contenders = tuple(contenders)
        self.hand = hand
        self.books = books

    def holder(self) -> Contender | None:
        """Who holds it, as far as one hears."""
        return max(self.contenders, key=lambda each: each.token or 0) if any(self._tokens()) else None

    def _tokens(self) -> list[int | None]:
        return [each.token for each in self.contenders]


class LockNemesis(Nemesis):
    """Hurts the contenders, too, and deletes what they rely on.

    Args:
        stage: What to hurt.
        seed: The order of the faults, where they strike, and how long they last.
        only: The names of the faults there are to be; none = all.

    Attributes:
        made_again: The keys of places that may have been made once more, for nobody.
    """

    def __init__(self, stage: Arena, seed: object, *, only: Sequence[str] = ()) -> None:
        super().__init__(stage, seed)
        self._arena = stage
        self._only = only
        self._repeating: set[asyncio.Task[None]] = set()
        self._repeats = random.Random(f"{seed} repeats")
        self.made_again: set[str] = set()
        self._removals: list[Removal] = []
        self._seen: list[tuple[int, float]] = []

    def rolls(self) -> dict[str, list[Fault]]:
        """Those of members, of connections, and of contenders."""
        rolls = super().rolls()
        rolls["members"] += [self.remove, self.remove]
        rolls["contenders"] = [
            self.freeze,
            self.freeze_holder,
            self.freeze_between,
            self.kill_contender,
            self.kill_holder,
            self.cut_off,
            self.cut_holder_off,
        ]
        if self._only:
            rolls = {name: [each for each in faults if each.__name__ in self._only] for name, faults in rolls.items()}
        return {name: faults for name, faults in rolls.items() if faults}

    async def __aenter__(self) -> Self:
        for proxy in self._stage.proxies:
            proxy.told = self._told
        self._watching = asyncio.create_task(self._watch(), name="nemesis: watch")
        return await super().__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await super().__aexit__(kind, error, trace)
            for proxy in self._stage.proxies:
                proxy.told = None
            await asyncio.gather(*self._repeating)
        finally:
            self._watching.cancel()
            await asyncio.wait([self._watching])
            if not self._watching.cancelled():
                self._arena.books.problems.append(f"no watch of what is removed: {self._watching.exception()!r}")

    # --- contenders --------------------------------------------------------------------------------------------------

    async def freeze(self, dice: random.Random) -> None:
        """Stop any of them, for long or not."""
        await self._freeze_one(dice.choice(self._arena.contenders), dice.uniform(0.3, TTL + 2.0))

    async def freeze_holder(self, dice: random.Random) -> None:
        """Stop who holds the lock, for long or not."""
        await self._freeze_one(await self._holder(), dice.uniform(0.3, TTL + 2.0))

    async def freeze_between(self, dice: random.Random) -> None:
        """Stop one that has checked and not yet acted, until another has the lock, and acts."""
        self._arena.books.between = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._arena.books.between], timeout=20.0)
        if self._arena.books.between.done():
            contender = self._arena.books.between.result()
            contender.send(signal.SIGSTOP)
            with suppress(asyncio.TimeoutError):
                async with timeout(STUCK / 2):
                    while max(self._arena.books.tenures) <= (contender.token or 0):
                        await asyncio.sleep(0.05)
                    await asyncio.sleep(1.0)
            contender.send(signal.SIGCONT)
        self._arena.books.between = None

    async def _freeze_one(self, contender: Contender, seconds: float) -> None:
        contender.send(signal.SIGSTOP)
        await asyncio.sleep(seconds)  # to its end, or a control might find nothing
        contender.send(signal.SIGCONT)

    async def kill_contender(self, dice: random.Random) -> None:
        """A power cut of any of them."""
        await self._kill_one(dice.choice(self._arena.contenders), dice)

    async def kill_holder(self, dice: random.Random) -> None:
        """A power cut of who holds the lock."""
        contender = await self._holder()
        self._arena.books.killed_at = now()
        await self._kill_one(contender, dice)

    async def _kill_one(self, contender: Contender, dice: random.Random) -> None:
        await contender.kill()
        await self._last(dice.uniform(0.0, 1.0))
        await contender.start()

    async def cut_off(self, dice: random.Random) -> None:
        """Let nothing pass between any of them and the cluster."""
        await self._cut_one_off(dice.choice(self._arena.contenders), dice.uniform(0.3, TTL + 2.0), dice)

    async def cut_holder_off(self, dice: random.Random) -> None:
        """Let nothing pass between who holds the lock and the cluster, for longer than it may believe."""
        await self._cut_one_off(await self._holder(), TTL + 2.0, dice)

    async def _cut_one_off(self, contender: Contender, seconds: float, dice: random.Random) -> None:
        silent = dice.random() < 0.5
        for proxy in contender.proxies:
            if silent:
                proxy.black_hole()
            else:
                await proxy.refuse()
                proxy.cut(reset=dice.random() < 0.5)
        await asyncio.sleep(seconds)
        for proxy in contender.proxies:
            await self._accept(proxy)

    async def _holder(self) -> Contender:
        """Who holds the lock, once there is somebody; any, if it takes long."""
        for _ in range(500):
            if (holder := self._arena.holder()) is not None:
                return holder
            await asyncio.sleep(0.01)
        return self._arena.contenders[0]

    # --- what they rely on -------------------------------------------------------------------------------------------

    async def remove(self, dice: random.Random) -> None:
        """Delete all places."""
        sent = now()
        try:
            response = await self._arena.hand.keys.delete(PATH, recursive=True)
        except KeyNotFoundError:
            pass
        except EtcdError:
            self._removals.append(Removal(0, sent, sent))
        else:
            self._removals.append(Removal(response.index, sent, now()))

    async def _watch(self) -> None:
        async with self._arena.hand.keys.watch(PATH, recursive=True, resync=True) as watcher:
            while True:
                event = await watcher.next()
                if event.action == "resync":
                    self._arena.books.problems.append("nobody knows what was removed meanwhile")
                elif event.action == "delete" and event.node is not None and event.node.key == PATH:
                    self._seen.append((event.node.modified_index, now()))

    def removals(self) -> list[Removal]:
        """All of them; one whose answer was lost may have happened, which the watch knows."""
        known = {removal.event for removal in self._removals}
        lost = [removal.sent for removal in self._removals if not removal.event]
        late = [Removal(index, min(lost), seen) for index, seen in self._seen if index not in known and lost]
        return [removal for removal in self._removals if removal.event] + late

    def _told(self, request: bytes) -> None:
        """Send some of the refreshes once more, much later, and some of the requests that make a place."""
        is_create = b"prevExist=false" in request
        if not (request.startswith(b"PUT ") and (is_create or b"refresh=true" in request)):
            return
        if self._repeats.random() < (0.05 if is_create else 0.3):
            if is_create:
                self.made_again.add(urlsplit(request.split(maxsplit=2)[1]).path.decode().removeprefix("/v2/keys"))
            task = asyncio.create_task(self._repeat(request), name="nemesis: repeat")
            self._repeating.add(task)
            task.add_done_callback(self._repeating.discard)

    async def _repeat(self, request: bytes) -> None:
        await self._last(self._repeats.uniform(0.5, 2 * TTL))
        where = urlsplit(self._repeats.choice(self._stage.cluster.endpoints))
        with suppress(OSError, asyncio.TimeoutError):
            async with timeout(2.0):
                reader, writer = await asyncio.open_connection(where.hostname, where.port)
                with closing(writer):
                    writer.write(request)
                    if await reader.readline():
                        self.struck["repeat"] += 1

    def _proxy(self, dice: random.Random) -> FaultProxy:
        holder = self._arena.holder()
        return dice.choice(self._stage.proxies if holder is None or dice.random() < 0.5 else holder.proxies)


# --- a run ------------------------------------------------------------------------------------------------------------


@dataclass
class Report:
    """What a run has shown.

    Attributes:
        recipe: What they wanted.
        seed: What it was made of.
        seconds: How long it was hurt.
        books: What has happened.
        acts: What the register was told.
        removals: When a foreign hand deleted everything.
        struck: How many faults there were of each kind.
    """

    recipe: str
    seed: object
    seconds: float
    books: Books
    acts: Sequence[Act]
    removals: Sequence[Removal]
    struck: Counter[str]

    @property
    def violations(self) -> list[str]:
        """What the lock had promised, and did not keep."""
        return judge(self.books.tenures.values(), self.acts, self.removals, TTL)

    @property
    def refused(self) -> int:
        """How many acts came too late."""
        return sum(not act.accepted for act in self.acts)

    @property
    def excused(self) -> int:
        """How many were valid beside a successor because a foreign hand had deleted their place."""
        return len(judge(self.books.tenures.values(), [], [], TTL)) - len(
            judge(self.books.tenures.values(), [], self.removals, TTL)
        )

    def __str__(self) -> str:
        said = self.books.said
        etcd = ".".join(map(str, etcd_version(find_etcd())))
        struck = ", ".join(f"{name} {count}" for name, count in sorted(self.struck.items()))
        takeovers = self.books.takeovers
        lines = [
            f"{self.recipe}: seed {self.seed}, {self.seconds:g} s, etcd {etcd}, ttl {TTL:g} s",
            f"faults: {struck}",
            f"held {said['held']} times; left {said['left']}, lost {said['lost']}, stalled {said['stalls']}; "
            f"{said['failed']} first requests failed",
            f"acts: {len(self.acts)}, of which {self.refused} came too late and were refused",
            f"removed {len(self.removals)} times, whereupon {self.excused} were valid beside a successor for a moment",
            f"had again {self.books.back_after:.1f} s after the last fault; after the SIGKILL of a holder p50 "
            f"{takeovers.quantile(0.5):.1f} s, longest {takeovers.quantile(1.0):.1f} s, while other things failed, too",
        ]
        return "\n".join([*lines, *(f"PROBLEM {each}" for each in [*self.violations, *self.books.problems][:20])])


@asynccontextmanager
async def built(recipe: str, seed: object, *, believing: bool, fencing: bool) -> AsyncIterator[tuple[Arena, Register]]:
    """Start everything; at the end nothing is left."""
    books = Books()
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="locks-"))
        cluster = await stack.enter_async_context(EtcdCluster(size=3, flags=FAST_ELECTIONS))
        hand = await stack.enter_async_context(Client(cluster.endpoints, header_timeout=10.0, probe_interval=0.5))
        register = await stack.enter_async_context(Register(f"{folder}/register", fencing=fencing))
        contenders = []
        for number in range(CONTENDERS):
            proxies = [await stack.enter_async_context(FaultProxy(each)) for each in cluster.endpoints]
            first = number % len(proxies)
            options = Options(
                who=f"contender {number}",
                seed=f"{seed} {number}",
                endpoints=[proxy.endpoint for proxy in proxies[first:] + proxies[:first]],
                recipe=recipe,
                path=PATH,
                ttl=TTL,
                register=register.path,
                believing=believing,
                patient=number % 2 == 0,
            )
            contenders.append(Contender(options, proxies, books))
            stack.push_async_callback(contenders[-1].kill)
        yield Arena(cluster, contenders, hand, books), register


async def play(
    seconds: float,
    seed: object,
    *,
    recipe: str = "lock",
    believing: bool = True,
    fencing: bool = True,
    only: Sequence[str] = (),
) -> Report:
    """Let them contend while all that is hurt, and after all of it for a while more.

    Args:
        seconds: How long it is hurt, at least.
        seed: Of all choices.
        recipe: What they want: one of `RECIPES`.
        believing: `False` = contenders whose belief never ends.
        fencing: `False` = a register that accepts everyone.
        only: The names of the faults there are to be, each at least once; none = all.
    """
    async with built(recipe, seed, believing=believing, fencing=fencing) as (arena, register):
        books = arena.books
        await asyncio.gather(*(each.start() for each in arena.contenders))
        await everyone_has_it(arena, 0.0)
        async with LockNemesis(arena, seed, only=only) as nemesis:
            await asyncio.sleep(seconds)
            while any(not nemesis.struck[name.replace("_", " ")] for name in only):
                await asyncio.sleep(0.05)
        if not only:
            await recovery(arena, now())
        await asyncio.gather(*(each.end() for each in arena.contenders))
        left = await arena.hand.keys.get(PATH, quorum=True)
        behind = [node.key for node in left.nodes if node.key not in nemesis.made_again]
        if behind:
            books.problems.append(f"left behind: {behind}")
    return Report(recipe, seed, seconds, books, register.acts, nemesis.removals(), nemesis.struck)


async def everyone_has_it(arena: Arena, after: float) -> None:
    """Wait until each of them has got the lock since then."""
    try:
        async with timeout(STUCK):
            while waiting := [each.options.who for each in arena.contenders if each.got_at <= after]:
                await asyncio.sleep(0.05)
    except asyncio.TimeoutError:
        arena.books.problems.append(f"without the lock for {STUCK:g} s: {waiting}")


async def recovery(arena: Arena, healed: float) -> None:
    """See that each of them gets the lock since all is well, the first one soon."""
    await everyone_has_it(arena, healed)
    books = arena.books
    books.back_after = (
        min((each.since for each in books.tenures.values() if each.since > healed), default=NEVER) - healed
    )
    if books.back_after > TTL + LATE:
        books.problems.append(f"nobody had it for {books.back_after:.1f} s after the last fault")


def main() -> int:
    """Run from the command line; 1 = something was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.locks", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--recipe", choices=RECIPES, default="lock")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--only", nargs="*", default=(), help="the names of the faults there are to be")
    parser.add_argument("--without-belief", action="store_true", help="break the lock: what it believes never ends")
    parser.add_argument("--without-fencing", action="store_true", help="break the register: it accepts older tokens")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    believing, fencing = not options.without_belief, not options.without_fencing
    report = asyncio.run(
        play(
            options.seconds,
            options.seed,
            recipe=options.recipe,
            believing=believing,
            fencing=fencing,
            only=options.only,
        )
    )
    print(report)
    return 1 if report.violations or report.books.problems else 0


if __name__ == "__main__":
    sys.exit(main())

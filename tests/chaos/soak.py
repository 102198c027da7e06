"""`python -m tests.chaos.soak`: mixed load, many watchers and rolling faults, for as long as one likes.

Shown at the end as Markdown: lost, repeated and invented events, stuck calls, memory, descriptors.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from aioetcd2 import APIError, Client

from .gauges import Gauges, Held
from .nemesis import HEADER_TIMEOUT, Nemesis, Stage
from .recorder import STUCK
from .summary import Report
from .watched import UNANSWERED, Book, Follower, Writer

KEYS_A_FOLDER = 4
WATCHERS_A_KEY = 4
"""Those of the key alone; the folder has one for each of its keys."""

LOADERS = 4

CROWD = 20
"""How many watchers begin at the same moment."""


def calls_of(client: Client, folder: str, dice: random.Random) -> list[tuple[str, Callable[[], Awaitable[object]]]]:
    """All sorts of calls on keys that no one watches. What they make has a TTL, so that the store does not grow."""
    keys = client.keys
    key, value = f"{folder}/{dice.randrange(20)}", "x" * dice.randrange(200)
    return [
        ("get", lambda: keys.get(key)),
        ("get", lambda: keys.get(key, quorum=True)),
        ("get", lambda: keys.get(folder, recursive=True, sort=True)),
        ("set", lambda: keys.set(key, value)),
        ("set", lambda: keys.set(key, value, ttl=2)),
        ("update", lambda: keys.update(key, value)),
        ("refresh", lambda: keys.refresh(key, 2)),
        ("create", lambda: keys.create(key, value, ttl=2)),
        ("create_in_order", lambda: keys.create_in_order(f"{folder}/queue", value, ttl=2)),
        ("mkdir", lambda: keys.mkdir(f"{folder}/folder-{key[-1]}", ttl=2)),
        ("delete", lambda: keys.delete(key)),
        ("members", client.members.list),
        ("stats", client.stats.self),
        ("version", client.version),
    ]


async def load(client: Client, book: Book, folder: str, dice: random.Random, over: asyncio.Event) -> None:
    """Make calls until the end."""
    while not over.is_set():
        await book.go.wait()
        name, call = dice.choice(calls_of(client, folder, dice))
        with suppress(APIError, *UNANSWERED):
            await book.call(name, call())
        await asyncio.sleep(dice.uniform(0.05, 0.15))


async def soak(
    seconds: float, seed: int, *, watchers: int = 200, rate: float = 60.0, header_timeout: float = HEADER_TIMEOUT
) -> Report:
    """Hurt a cluster while it is used, and account for every event.

    Args:
        seconds: How long.
        seed: Of the faults and the calls.
        watchers: How many.
        rate: Writes a second to what is watched, altogether; about half as many go elsewhere.
        header_timeout: That of the clients; if healthy members miss it now and then, watches turn to long polls.
    """
    book, gauges = Book(), Gauges()
    before = Held.now()
    async with Stage.built() as stage, stage.clients(4, header_timeout) as clients:
        version = await clients[0].version()
        nemesis = Nemesis(stage, seed, rest=2.0)
        start = time.monotonic()
        await _soak(clients, book, gauges, nemesis, seconds, seed, watchers, rate)
        took = time.monotonic() - start
    return Report(seed, took, watchers, version.server, book, gauges, nemesis.struck, await left_since(before))


async def left_since(before: Held) -> Held:
    """What is there that was not there before; what is just closing has a moment for it."""
    for _ in range(100):
        now = Held.now()
        left = Held(0, max(0, now.descriptors - before.descriptors), max(0, now.tasks - before.tasks))
        if not any(left):
            break
        await asyncio.sleep(0.02)
    return left


async def _soak(
    clients: list[Client],
    book: Book,
    gauges: Gauges,
    nemesis: Nemesis,
    seconds: float,
    seed: int,
    watchers: int,
    rate: float,
) -> None:
    writing, loading, *watching = clients
    over = asyncio.Event()
    count = max(KEYS_A_FOLDER, watchers // (WATCHERS_A_KEY + 1))
    names = [f"/soak/{number // KEYS_A_FOLDER}/{number}" for number in range(count)]
    writers = [Writer(writing.keys, book, name, random.Random(f"{seed} {name}")) for name in names]
    followers = []
    for number in range(watchers):
        recursive = number // count % (WATCHERS_A_KEY + 1) == WATCHERS_A_KEY
        path = names[number % count]
        path = path.rpartition("/")[0] if recursive else path
        ledgers = [ledger for name, ledger in book.ledgers.items() if f"{name}/".startswith(f"{path}/")]
        dice = random.Random(f"{seed} watcher {number}")
        followers.append(
            Follower(watching[number % len(watching)].keys, book, path, ledgers, dice, recursive=recursive)
        )
    tasks = Tasks()
    try:
        following: list[asyncio.Task[None]] = []
        for first in range(0, watchers, CROWD):
            crowd = followers[first : first + CROWD]
            following += [tasks.start(follower.run()) for follower in crowd]
            await asyncio.wait_for(asyncio.gather(*(follower.registered.wait() for follower in crowd)), STUCK)
        pacing, gauging = tasks.start(book.pace()), tasks.start(gauges.read())
        working = [tasks.start(writer.run(count / rate, over)) for writer in writers]
        for number in range(LOADERS):
            dice = random.Random(f"{seed} load {number}")
            working.append(tasks.start(load(loading, book, f"/soak/load/{number}", dice, over)))
        async with nemesis:
            watched = {*working, *following, pacing, gauging}
            await asyncio.wait(watched, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            over.set()
        gauging.cancel()
        await asyncio.wait(working, timeout=2 * STUCK)
        await asyncio.gather(*(writer.finish() for writer in writers))
        await asyncio.wait(following, timeout=STUCK)
        for follower, task in zip(followers, following, strict=True):
            if not task.done():
                book.problems.append(f"stuck: {follower}")
        for writer in writers:
            writer.close()
    finally:
        book.problems += await tasks.end()


class Tasks:
    """Tasks that all end together; what one of them died of is not forgotten."""

    def __init__(self) -> None:
        self._all: list[asyncio.Task[None]] = []

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start one more."""
        self._all.append(asyncio.create_task(work))
        return self._all[-1]

    async def end(self) -> list[str]:
        """Cancel those that go on; what the others died of."""
        for task in self._all:
            task.cancel()
        results = await asyncio.gather(*self._all, return_exceptions=True)
        return [repr(error) for error in results if isinstance(error, Exception)]


def main() -> int:
    """Run from the command line; 1 = something was wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--watchers", type=int, default=200)
    parser.add_argument("--rate", type=float, default=60.0, help="writes a second to watched keys")
    parser.add_argument("--header-timeout", type=float, default=HEADER_TIMEOUT, help="of the clients, in seconds")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a connection takes three: client, proxy, proxy
    print(f"seed {options.seed}", file=sys.stderr, flush=True)
    report = asyncio.run(
        soak(
            options.seconds,
            options.seed,
            watchers=options.watchers,
            rate=options.rate,
            header_timeout=options.header_timeout,
        )
    )
    print(report)
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())

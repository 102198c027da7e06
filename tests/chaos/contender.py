"""One of the processes that want a lock, get it, act with it, and tell all about it on their standard output.

It ends when its standard input does. Its one argument is `Options` in JSON.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import sys
import threading
import time
from contextlib import AbstractAsyncContextManager, closing
from dataclasses import asdict, dataclass

from aioetcd2 import Client, EndpointSelection, EtcdError, LockLostError
from aioetcd2.recipes import Election, Held, Lock, Semaphore, _lease

from .fence import Access

BETWEEN = 0.25
"""Seconds between a check and its act, now and then."""


@dataclass
class Options:
    """What a contender is to do.

    Attributes:
        who: Its name.
        seed: Of its choices.
        endpoints: Where it reaches the cluster.
        recipe: What is to exclude the others: "lock", "semaphore" (with room for one) or "election".
        path: Of that.
        ttl: Of that, in seconds.
        register: The socket of what the lock protects.
        believing: `False` = it holds on to what it has until it hears of its loss, as a naive lock does.
        patient: With the time-outs that a client has by default; otherwise with those of a second and less.
    """

    who: str
    seed: str
    endpoints: list[str]
    recipe: str
    path: str
    ttl: float
    register: str
    believing: bool
    patient: bool

    def dump(self) -> str:
        """As the argument."""
        return json.dumps(asdict(self))


def now() -> float:
    """Seconds, the same for all processes of this machine."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def tell(what: str, *more: object) -> None:
    """A line, as a whole: what has been told is not lost with this process."""
    os.write(1, json.dumps([what, *more]).encode() + b"\n")


def look(held: Held) -> bool:
    """Whether it is valid; tell that, and between which moments it was so."""
    before = now()
    valid = held.valid
    tell("seen", held.token, valid, before, now())
    return valid


class Witness:
    """Looks at what is held from a thread of its own, whatever the event loop does."""

    def __init__(self) -> None:
        self._held: Held | None = None
        threading.Thread(target=self._look, daemon=True).start()

    def look_at(self, held: Held) -> None:
        """From now on, until the next one is held."""
        self._held = held

    def _look(self) -> None:
        last: Held | None = None
        over = False
        while True:
            time.sleep(0.01)
            held = self._held
            if held is not last:
                last, over = held, False
            if held is not None and (not over or held.valid):
                over = not look(held)


async def act(held: Held, access: Access, dice: random.Random, ttl: float) -> None:
    """Count the register up for some time. The block loses the lock meanwhile, or does not."""
    value = await access.act(held.token)
    end = now() + (dice.uniform(0.05, 0.6) if dice.random() < 0.8 else dice.uniform(1.0, 2.0 * ttl))
    stalls = dice.random() < 0.02
    while value is not None and now() < end:
        await asyncio.sleep(dice.uniform(0.0, 0.03))
        before = now()
        held.check()
        tell("seen", held.token, True, before, now())
        lot = dice.random()
        if lot < 0.05:  # where a garbage collection, or a page that is read from a disk, would hurt most
            tell("between")
            time.sleep(BETWEEN)
            look(held)  # only to tell
        elif lot < 0.3:
            time.sleep(dice.uniform(0.0, 0.02))
        value = await access.act(held.token, value)
        if stalls:
            tell("stalls")
            stalls = False
            time.sleep(ttl + 0.5)


def exclusive(client: Client, options: Options) -> AbstractAsyncContextManager[Held]:
    """What holds for a block what is wanted."""
    if options.recipe == "election":
        return Election(client.keys, options.path, ttl=options.ttl, name=options.who).lead()
    if options.recipe == "semaphore":
        return Semaphore(client.keys, options.path, 1, ttl=options.ttl, name=options.who)
    return Lock(client.keys, options.path, ttl=options.ttl, name=options.who)


async def contend(options: Options, dice: random.Random) -> None:
    """Want the lock again and again."""
    witness = Witness()
    async with Client(
        options.endpoints,
        selection=EndpointSelection.PRIORITIZE_LEADER,
        header_timeout=5.0 if options.patient else 1.0,
        probe_interval=5.0 if options.patient else 0.5,
    ) as client:
        lock = exclusive(client, options)
        with closing(await Access.to(options.register)) as access:
            while True:
                try:
                    async with lock as held:
                        tell("held", held.token, now())
                        witness.look_at(held)
                        await act(held, access, dice, options.ttl)
                    tell("left")
                    look(held)
                except LockLostError as error:
                    tell("lost", error.reason)
                    look(held)
                except EtcdError as error:
                    tell("failed", str(error))
                    await asyncio.sleep(dice.uniform(0.1, 0.3))
                await asyncio.sleep(dice.uniform(0.0, 0.1))


async def main(options: Options) -> None:
    """Contend until nobody wants that any more."""
    contending = asyncio.ensure_future(contend(options, random.Random(options.seed)))
    asyncio.get_running_loop().add_reader(0, contending.cancel)
    try:
        await contending
    except asyncio.CancelledError:
        tell("ended")


if __name__ == "__main__":
    logging.getLogger("aioetcd2").addHandler(logging.NullHandler())
    given = Options(**json.loads(sys.argv[1]))
    if not given.believing:
        _lease.Lease.remaining = lambda self: 3600.0  # type: ignore[method-assign]  # the control: belief without an end
    asyncio.run(main(given))

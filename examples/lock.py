"""Lock what must not happen twice at a time, and fence what a late writer could spoil.

python examples/lock.py
"""

from __future__ import annotations

import asyncio

from aioetcd2 import Client
from aioetcd2.recipes import Held, Lock, LockHeldError, LockLostError
from aioetcd2.testing import EtcdServer

PATH = "/locks/ledger"


class Ledger:
    """What the lock is for: it refuses a token that is older than one it has seen."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.newest = 0

    async def write(self, line: str, token: int) -> None:
        """Add a line."""
        if token < self.newest:
            raise RuntimeError(f"{line!r} comes too late: its token is {token}, and {self.newest} was here")
        self.newest = token
        self.lines.append(line)
        await asyncio.sleep(0.01)


async def book(client: Client, ledger: Ledger, name: str) -> None:
    async with Lock(client.keys, PATH, name=name, ttl=15) as held:
        for step in ("takes", "gives"):
            held.check()  # right before each act
            await ledger.write(f"{name} {step}", held.token)


async def lose(client: Client, ledger: Ledger) -> Held:
    """Hold the lock until somebody takes it away; the block is cancelled then."""
    async with Lock(client.keys, PATH, name="dave") as held:
        await client.keys.delete(held.key)  # an operator, say; or the cluster was out of reach for too long
        await asyncio.sleep(60)
    return held


async def main() -> None:
    async with EtcdServer() as server, Client(server.endpoints) as client:
        ledger = Ledger()
        await asyncio.gather(*(book(client, ledger, name) for name in ("alice", "bob", "carol")))
        print(*ledger.lines, sep=", ")

        lock = Lock(client.keys, PATH, name="erin")
        async with lock as held:
            holder = await lock.holder()
            print("held by", holder.name if holder else "nobody")
            print(f"{held.remaining():.0f} s are left without a word of the cluster")
            try:
                async with Lock(client.keys, PATH, wait=False):
                    pass
            except LockHeldError as error:
                print("refused:", error)

        try:
            await lose(client, ledger)
        except LockLostError as error:
            print("lost:", error.reason)
            async with lock as held:
                await ledger.write("erin takes", held.token)
            try:
                await ledger.write("dave takes", error.token)
            except RuntimeError as refusal:
                print("fenced:", refusal)


if __name__ == "__main__":
    asyncio.run(main())

"""Let three at a time do what a database bears three times at a time, in whatever process.

python examples/semaphore.py
"""

from __future__ import annotations

import asyncio

from aioetcd2 import Client
from aioetcd2.recipes import LockHeldError, LockLostError, Semaphore
from aioetcd2.testing import EtcdServer

PATH = "/semaphores/reports"
LIMIT = 3


class Database:
    """What the semaphore is for: it counts who is at it."""

    def __init__(self) -> None:
        self.busy = 0
        self.most = 0

    async def report(self, seconds: float) -> None:
        """Be busy."""
        self.busy += 1
        self.most = max(self.most, self.busy)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.busy -= 1


async def report(client: Client, database: Database, name: str, seconds: float = 0.05) -> str:
    """Make a report when there is room; begin again where the share was lost before it was done."""
    while True:
        try:
            async with Semaphore(client.keys, PATH, LIMIT, name=name, ttl=15):
                await database.report(seconds)
                return name
        except LockLostError as error:
            print(f"{name} begins again: {error.reason}")


async def main() -> None:
    async with EtcdServer() as server, Client(server.endpoints) as client:
        database = Database()
        done = await asyncio.gather(*(report(client, database, f"report {number}") for number in range(10)))
        print(f"{len(done)} reports, at most {database.most} at a time")

        alice, bob, carol = (Semaphore(client.keys, PATH, LIMIT, name=name) for name in ("alice", "bob", "carol"))
        async with alice, bob, carol:
            print("held by", ", ".join(holder.name for holder in await alice.holders()))
            try:
                async with Semaphore(client.keys, PATH, LIMIT, wait=False):
                    pass
            except LockHeldError:
                print("no room; try again later")

        long = asyncio.create_task(report(client, database, "report 10", 1.0))
        while not (holders := await alice.holders()):  # noqa: ASYNC110 - it is others that come
            await asyncio.sleep(0.01)
        (node,) = [node for node in (await client.keys.get(PATH)).nodes if node.created_index == holders[0].token]
        await client.keys.delete(node.key)  # an operator, say; or the cluster was out of reach for too long
        print(await long, "is done")


if __name__ == "__main__":
    asyncio.run(main())

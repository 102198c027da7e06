"""Configuration that changes while the program runs: read from memory, applied as it changes, kept through an outage.

python examples/tree.py
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aioetcd2 import Client, TreeBehindError
from aioetcd2.recipes import Tree
from aioetcd2.testing import EtcdServer

CONFIG = "/config/web"


@dataclass(frozen=True)
class Limits:
    """The part of the configuration that is worth parsing once."""

    requests: int
    seconds: float


def limits_of(tree: Tree) -> Limits:
    """Whoever writes a key may write nonsense: fall back on what is known to work."""
    try:
        return Limits(int(tree.value(f"{CONFIG}/limits/requests", "100")), 60.0)
    except ValueError:
        return Limits(100, 60.0)


class Service:
    """Serves requests by what the configuration says at that moment."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.limits = limits_of(tree)

    def handle(self, name: str) -> str:
        """One request: a look-up in memory, no await, never an error because etcd is away."""
        colour = self.tree.value(f"{CONFIG}/colour", "grey")
        return f"{name} sees {colour}, at most {self.limits.requests} requests"

    async def follow(self) -> None:
        """Apply what changes; runs as long as the service does."""
        while True:
            try:
                async for change in self.tree.changes():
                    if change.key.startswith(f"{CONFIG}/limits/"):
                        self.limits = limits_of(self.tree)
            except TreeBehindError:  # more changes than anyone wants to apply: begin with what there is now
                continue
            return


async def main() -> None:
    async with EtcdServer() as etcd, Client(etcd.endpoints) as client:
        await client.keys.set(f"{CONFIG}/colour", "blue")

        async with Tree(client.keys, "/config") as tree:
            service = Service(tree)
            following = asyncio.create_task(service.follow())
            print("at first      ", service.handle("ann"))

            await client.keys.set(f"{CONFIG}/limits/requests", "7")
            written = await client.keys.set(f"{CONFIG}/colour", "red")
            await tree.reach(written.index)
            await asyncio.sleep(0.1)
            print("changed       ", service.handle("bob"))

            await etcd.kill()
            await asyncio.sleep(1)
            print("in an outage  ", service.handle("cid"), f"({tree.age:.0f} s old)")

            await etcd.start()
            written = await client.keys.delete("/config/web", recursive=True)
            await tree.reach(written.index)
            await asyncio.sleep(0.1)
            print("all is gone   ", service.handle("dan"))
        await following


if __name__ == "__main__":
    asyncio.run(main())

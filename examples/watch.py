"""Keep a table of the services that are alive, by a watch that misses nothing.

python examples/watch.py
"""

from __future__ import annotations

import asyncio

from aioetcd2 import Client, Node, Response
from aioetcd2.testing import EtcdServer

DIRECTORY = "/services"


def table_of(node: Node | None) -> dict[str, str]:
    return {} if node is None else {leaf.key: leaf.value or "" for leaf in node.leaves()}


def apply(event: Response, table: dict[str, str]) -> None:
    if event.action == "resync":  # some events were lost to us: this is how things stand now
        table.clear()
        table.update(table_of(event.node))
    elif event.deleted:
        for key in [key for key in table if f"{key}/".startswith(f"{event.key}/")]:  # a directory and all in it
            del table[key]
    elif event.node is not None and not event.node.dir:
        table[event.key] = event.value


async def run_services(client: Client) -> None:
    """What others do meanwhile."""
    await client.keys.set(f"{DIRECTORY}/web", "10.0.0.3:80")
    await client.keys.delete(f"{DIRECTORY}/db")
    await client.keys.set(f"{DIRECTORY}/mail", "10.0.0.4:25", ttl=1)  # says that it is alive once, and never again


async def main() -> None:
    async with EtcdServer() as server, Client(server.endpoints) as client:
        await client.keys.set(f"{DIRECTORY}/web", "10.0.0.1:80")
        await client.keys.set(f"{DIRECTORY}/db", "10.0.0.2:5432")

        now = await client.keys.get(DIRECTORY, recursive=True)
        table = table_of(now.node)
        print(f"{'at first':<8}", table)

        services = asyncio.create_task(run_services(client))
        async with client.keys.watch(DIRECTORY, recursive=True, after_index=now.index, resync=True) as watcher:
            async for event in watcher:
                apply(event, table)
                print(f"{event.action:<8}", table)
                if event.action == "expire":
                    break
        await services


if __name__ == "__main__":
    asyncio.run(main())

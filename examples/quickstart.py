"""Set a key and read it, watch a prefix, and see a compare-and-set refused.

python examples/quickstart.py                         # starts an etcd of its own
python examples/quickstart.py http://127.0.0.1:2379   # or uses yours, at one endpoint or several
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

from aioetcd2 import Client, CompareFailedError, EtcdError, Response
from aioetcd2.testing import EtcdServer


async def set_and_get(client: Client) -> None:
    response = await client.keys.set("/foo", "bar")
    print("Set /foo to bar")
    print(f"  action          {response.action}")
    print(f"  key             {response.key}")
    print(f"  value           {response.value}")
    print(f"  created index   {response.created_index}")
    print(f"  modified index  {response.modified_index}")
    print(f"  etcd index      {response.index}, raft index {response.raft_index}, raft term {response.raft_term}")
    print(f"  cluster         {response.cluster_id}")

    response = await client.keys.get("/foo")
    print(f"\nGet /foo\n  {response.value}")


async def compare_and_set(client: Client) -> None:
    print("\nSet /foo to baz, but only if it is qux")
    try:
        await client.keys.set("/foo", "baz", prev_value="qux")
    except CompareFailedError as error:
        print(f"  refused: {error}")


async def write_services(client: Client) -> None:
    await client.keys.set("/quickstart/web", "10.0.0.1:80", ttl=60)
    await client.keys.set("/quickstart/db", "10.0.0.2:5432")
    await client.keys.set("/quickstart/db", "10.0.0.3:5432")
    await client.keys.delete("/quickstart", recursive=True)


def describe(event: Response) -> str:
    return f"{event.action:<8}{event.key}" + ("" if event.deleted else f" = {event.value}")


async def watch(client: Client) -> None:
    print("\nWatch /quickstart")
    async with client.keys.watch("/quickstart", recursive=True) as watcher:  # registered: no write is missed from here
        writing = asyncio.create_task(write_services(client))
        async for event in watcher:
            print(f"  {describe(event)}")
            if event.action == "delete":
                break
        await writing


async def tour(endpoints: Sequence[str]) -> None:
    async with Client(endpoints) as client:
        await set_and_get(client)
        try:
            await compare_and_set(client)
            await watch(client)
        finally:
            await client.keys.delete("/foo")
        print("\nDone; /foo and /quickstart are deleted again")


async def main(endpoints: Sequence[str]) -> None:
    if endpoints:
        await tour(endpoints)
        return
    async with EtcdServer() as server:
        print(f"Started an etcd at {server.endpoint}\n")
        await tour(server.endpoints)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A tour of aioetcd2.")
    parser.add_argument("endpoints", nargs="*", metavar="endpoint", help="none: start an etcd for the tour")
    try:
        asyncio.run(main(parser.parse_args().endpoints))
    except EtcdError as error:
        sys.exit(f"quickstart: {error}")

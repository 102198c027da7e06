"""Look after a cluster: list its members, lose the leader, add a member and remove one.

python examples/members.py
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aioetcd2 import Client, ClusterError
from aioetcd2.testing import EtcdCluster, EtcdServer


async def show(client: Client, what: str) -> None:
    print(what)
    leader = await leader_of(client)
    for member in sorted(await client.members.list(), key=lambda member: member.name):
        mark = "  leads" if member.name == leader else ""
        print(f"  {member.name:<4}{member.client_urls[0]}{mark}")


async def leader_of(client: Client, *, other_than: str = "") -> str:
    """The name of the leader, as soon as there is one."""
    while True:
        with suppress(ClusterError):  # during an election there is none
            leader = await client.members.leader()
            if leader.name != other_than:
                return leader.name
        await asyncio.sleep(0.1)


async def main() -> None:
    flags = ["--strict-reconfig-check=false"]  # or etcd lets members know each other for 5 s before it takes another
    async with EtcdCluster(size=3, flags=flags) as cluster, Client(cluster.endpoints) as client:
        await show(client, "Three members")

        leader = await leader_of(client)
        lost = next(member for member in cluster.members if member.name == leader)
        await lost.kill()
        await leader_of(client, other_than=leader)
        print(f"{leader} was killed, and another leads now")
        await lost.start()

        newcomer = EtcdServer("m3")
        added = await client.members.add(newcomer.peer_url)  # first tell the cluster, then start it
        await cluster.add(newcomer)
        await show(client, f"m3 was added as {added.id}")

        await client.members.remove(added.id)
        await client.sync()
        print(f"m3 was removed; {len(client.endpoints)} endpoints after sync()")


if __name__ == "__main__":
    asyncio.run(main())

"""Find the cluster by the name of a domain, and find it again when it has moved.

In real life that is a DNS SRV record, and `await Client.from_srv("example.com")` with `pip install "aioetcd2[srv]"`.
Any object that has `discover()` will do as well; this one stands in for the name server.

python examples/srv.py
"""

from __future__ import annotations

import asyncio

from aioetcd2 import Client, Discoverer
from aioetcd2.testing import EtcdCluster


class NameServer:
    """Knows the endpoints of each domain, the best first."""

    def __init__(self) -> None:
        self.records: dict[str, list[str]] = {}

    async def discover(self, domain: str) -> list[str]:
        """What a client asks first, and again when every endpoint has failed."""
        print(f"  someone asks for {domain}")
        return self.records[domain]


async def main() -> None:
    names = NameServer()
    discoverer: Discoverer = names

    async with EtcdCluster(size=3) as cluster:
        first, *others = cluster.members
        names.records["example.com"] = [first.endpoint]

        print("Connect to example.com")
        async with await Client.from_srv("example.com", discoverer=discoverer) as client:
            await client.keys.set("/where", "at the first")
            print(f"  found {', '.join(client.endpoints)}")

            print("The first member dies, and the records change")
            await first.kill()
            names.records["example.com"] = [member.endpoint for member in others]

            where = await client.keys.get("/where")
            print(f"  found {', '.join(client.endpoints)}")
            print(f"  /where is still {where.value!r}")


if __name__ == "__main__":
    asyncio.run(main())

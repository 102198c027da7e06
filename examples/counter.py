"""Count together: ten tasks raise one counter by compare-and-set, and no increment is lost.

python examples/counter.py
"""

from __future__ import annotations

import asyncio
import random

from aioetcd2 import Client, CompareFailedError
from aioetcd2.testing import EtcdServer

COUNTER = "/counter"
TASKS = 10
EACH = 10


async def increment(client: Client) -> int:
    """Raise the counter by one; how many tries it took."""
    tries = 0
    while True:
        tries += 1
        now = await client.keys.get(COUNTER)
        try:
            await client.keys.set(COUNTER, str(int(now.value) + 1), prev_index=now.modified_index)
        except CompareFailedError:  # another task was faster: look again, a little later
            await asyncio.sleep(random.uniform(0.0, 0.02))
        else:
            return tries


async def count(client: Client) -> int:
    return sum([await increment(client) for _ in range(EACH)])


async def main() -> None:
    async with EtcdServer() as server, Client(server.endpoints) as client:
        await client.keys.create(COUNTER, "0")
        tries = await asyncio.gather(*(count(client) for _ in range(TASKS)))
        end = await client.keys.get(COUNTER)
        print(f"{TASKS} tasks raised the counter {EACH} times each: it is {end.value}")
        print(f"{sum(tries)} tries, {sum(tries) - TASKS * EACH} of them refused because another task was faster")


if __name__ == "__main__":
    asyncio.run(main())

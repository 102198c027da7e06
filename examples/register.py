"""Register a service for as long as it lives: through an outage, and when its key is taken away.

python examples/register.py
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aioetcd2 import (
    Client,
    ClusterError,
    CompareFailedError,
    EtcdError,
    KeyNotFoundError,
    KeysAPI,
    NodeExistsError,
    Watcher,
)
from aioetcd2.testing import EtcdServer

KEY = "/services/web/10.0.0.1:80"
TTL = 3


async def renewed(keys: KeysAPI, key: str, value: str, index: int) -> int:
    """Have the key live for another TTL, and return its index; 0 is that of a key that was never made."""
    try:
        if index:
            return (await keys.refresh(key, TTL, prev_index=index)).modified_index
        return (await keys.create(key, value, ttl=TTL)).modified_index
    except KeyNotFoundError:  # it has expired, or somebody took it away
        return (await keys.create(key, value, ttl=TTL)).modified_index
    except (CompareFailedError, NodeExistsError):  # an earlier one was applied although it raised; or it is another's
        now = await keys.get(key, quorum=True)
        if now.value != value:
            raise
        return (await keys.refresh(key, TTL, prev_index=now.modified_index)).modified_index


async def stay_registered(client: Client, key: str, value: str) -> None:
    """Until this task is cancelled; then the key goes at once, instead of at the end of its TTL."""
    index = 0
    try:
        while True:
            with suppress(ClusterError):  # no endpoint answered; the next time, perhaps
                index = await renewed(client.keys.within(TTL / 3), key, value, index)
            await asyncio.sleep(TTL / 3)
    finally:
        if index:
            with suppress(EtcdError):
                await client.keys.delete(key, prev_index=index)  # not that of another who came after us


async def show(watcher: Watcher) -> None:
    async for event in watcher:
        print(f"{event.action:<17} {event.key}")
        if event.action == "compareAndDelete":
            break


async def main() -> None:
    async with (
        EtcdServer() as etcd,
        Client(etcd.endpoints) as client,
        client.keys.watch("/services", recursive=True) as watcher,
    ):
        showing = asyncio.create_task(show(watcher))
        service = asyncio.create_task(stay_registered(client, KEY, "process 17 at host a"))
        await asyncio.sleep(1)

        await etcd.kill()
        await asyncio.sleep(1)
        await etcd.start()
        await asyncio.sleep(TTL)
        print(f"after an outage   {(await client.keys.get(KEY)).key}")

        await client.keys.delete(KEY)
        await asyncio.sleep(TTL)

        service.cancel()
        await showing


if __name__ == "__main__":
    asyncio.run(main())

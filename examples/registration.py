"""A service in a registry for as long as it lives, with its health: through an outage, and when its key is taken away.

python examples/registration.py
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from aioetcd2 import Client, Watcher
from aioetcd2.recipes import Registration
from aioetcd2.testing import EtcdServer

KEY = "/services/web/a"


def card(healthy: bool) -> str:
    """What the registry says of this service."""
    return json.dumps({"address": "10.0.0.1:80", "healthy": healthy})


async def report(registration: Registration, check: Callable[[], Awaitable[bool]]) -> None:
    """Have the registry say how the service is. While the cluster is away this waits; the service does not."""
    while True:
        value = card(await check())
        if value != registration.value:
            await registration.update(value)
        await asyncio.sleep(0.1)


async def serve(client: Client, check: Callable[[], Awaitable[bool]], stop: asyncio.Event) -> None:
    """The service. Its key goes as it goes, and within the TTL where it dies."""
    async with Registration(client.keys, KEY, card(True), ttl=60, refresh=0.5) as registration:  # leave `refresh` out
        reporting = asyncio.create_task(report(registration, check))
        try:
            await stop.wait()
        finally:
            reporting.cancel()


async def show(watcher: Watcher) -> None:
    """A client of the service: here it would change its table."""
    async for event in watcher:
        print(f"{event.action:<17} {event.prev_value if event.deleted else event.value}")


async def main() -> None:
    disk_is_full = False

    async def check() -> bool:
        return not disk_is_full

    async with (
        EtcdServer() as etcd,
        Client(etcd.endpoints) as client,
        client.keys.watch("/services", recursive=True) as watcher,
    ):
        showing = asyncio.create_task(show(watcher))
        stop = asyncio.Event()
        service = asyncio.create_task(serve(client, check, stop))
        await asyncio.sleep(0.5)
        disk_is_full = True
        await asyncio.sleep(0.5)

        await etcd.kill()
        await asyncio.sleep(0.5)
        disk_is_full = False
        await etcd.start()
        await asyncio.sleep(2.5)
        print(f"after an outage   {(await client.keys.get(KEY, quorum=True)).value}")

        await client.keys.delete(KEY)  # by an operator, say
        await asyncio.sleep(1)

        stop.set()
        await service
        await asyncio.sleep(0.2)
        showing.cancel()


if __name__ == "__main__":
    asyncio.run(main())

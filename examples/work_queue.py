"""A pool of workers on a queue: through an error, a worker that dies, and an item that nobody can do.

python examples/work_queue.py

(Not queue.py: Python would take that for its own module `queue`, in each program of this folder.)
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aioetcd2 import Client
from aioetcd2.recipes import Item, LockLostError, Queue
from aioetcd2.testing import EtcdServer

PATH = "/queues/mail"
MOST_ATTEMPTS = 3


class Mail:
    """What the work is done on: it is at least once, so doing it again must be harmless."""

    def __init__(self) -> None:
        self.sent: dict[str, str] = {}
        self.dead: list[str] = []

    async def send(self, item: Item) -> None:
        """Send a mail once, whoever is told to do it again."""
        if not item.value.endswith("example.com"):
            raise ValueError(f"attempt {item.attempt}: {item.value} is no address")
        await asyncio.sleep(0.01)
        self.sent.setdefault(item.name, item.value)


async def worker(queue: Queue, mail: Mail) -> None:
    """Until it is cancelled."""
    while True:
        try:
            async with queue.take() as item:
                if item.attempt > MOST_ATTEMPTS:
                    mail.dead.append(item.value)  # the block ends well: the item is gone
                else:
                    await mail.send(item)
        except LockLostError as error:
            print(f"to be done again: {error.reason}")
        except ValueError as error:
            print(error)


async def die_at_work(client: Client, queue: Queue) -> None:
    """A worker whose process is killed: all that is left of it is a claim, which expires."""
    async with queue.take() as item:
        await client.keys.set(item.key, "of a process that is no more", ttl=1)
        await asyncio.sleep(60)


async def main() -> None:
    mail = Mail()
    async with EtcdServer() as server, Client(server.endpoints) as client, Queue(client.keys, PATH) as queue:
        for name in ("ann@example.com", "bob at home", *(f"user{number}@example.com" for number in range(50))):
            await queue.put(name)
        print(f"{await queue.size()} to be sent")

        with suppress(LockLostError):
            await die_at_work(client, queue)
        workers = [asyncio.create_task(worker(queue, mail)) for _ in range(8)]
        while await queue.size():
            await asyncio.sleep(0.1)
        for each in workers:
            each.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        print(f"{len(mail.sent)} were sent, and put aside: {', '.join(mail.dead)}")


if __name__ == "__main__":
    asyncio.run(main())

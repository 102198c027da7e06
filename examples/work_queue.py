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

    def __init__(self, expected: int) -> None:
        self.sent: dict[str, str] = {}
        self.dead: dict[str, str] = {}
        self.is_over = asyncio.Event()
        self._expected = expected

    async def send(self, item: Item) -> None:
        """Send a mail, once, whoever is told to do it again."""
        if not item.value.endswith("example.com"):
            raise ValueError(f"attempt {item.attempt}: {item.value} is no address")
        await asyncio.sleep(0.01)
        self._note(self.sent, item)

    def put_aside(self, item: Item) -> None:
        """Keep what can't be sent for somebody to look at."""
        self._note(self.dead, item)

    def _note(self, where: dict[str, str], item: Item) -> None:
        where[item.name] = item.value
        if len(self.sent) + len(self.dead) == self._expected:
            self.is_over.set()


async def worker(queue: Queue, mail: Mail) -> None:
    """Until it is cancelled."""
    while True:
        try:
            async with queue.take() as item:
                if item.attempt > MOST_ATTEMPTS:
                    mail.put_aside(item)  # the block ends well: the item is gone
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
    names = ["ann@example.com", "bob at home", *(f"user{number}@example.com" for number in range(50))]
    mail = Mail(len(names))
    async with EtcdServer() as server, Client(server.endpoints) as client, Queue(client.keys, PATH) as queue:
        for name in names:
            await queue.put(name)
        print(f"{await queue.size()} to be sent")

        with suppress(LockLostError):
            await die_at_work(client, queue)
        workers = [asyncio.create_task(worker(queue, mail)) for _ in range(8)]
        await mail.is_over.wait()
        for each in workers:
            each.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        print(f"{len(mail.sent)} were sent, and put aside: {', '.join(mail.dead.values())}")


if __name__ == "__main__":
    asyncio.run(main())

"""A leader loop: of three candidates one does the work, and another goes on where it stops.

python examples/election.py
"""

from __future__ import annotations

import asyncio

from aioetcd2 import Client
from aioetcd2.recipes import Election, LeadershipLostError
from aioetcd2.testing import EtcdServer

PATH = "/leaders/scheduler"


async def candidate(client: Client, name: str, stop: asyncio.Event) -> None:
    """Be ready to lead until it is time to stop; one candidate of a process of yours."""
    election = Election(client.keys, PATH, name=name, ttl=15)
    while not stop.is_set():
        try:
            async with election.lead() as term:
                while not stop.is_set():
                    term.check()  # right before each act that only the leader may do
                    await asyncio.sleep(0.01)
        except LeadershipLostError as error:
            print(f"{name} leads no more: {error.reason}")


async def announce(client: Client, changed: asyncio.Queue[str]) -> None:
    """Tell everyone who leads: a proxy would send its requests there."""
    async for leader in Election(client.keys, PATH, name="a bystander").observe():
        changed.put_nowait(leader.name if leader else "nobody")


async def main() -> None:
    async with EtcdServer() as server, Client(server.endpoints) as client:
        changed: asyncio.Queue[str] = asyncio.Queue()
        stops = {name: asyncio.Event() for name in ("first", "second", "third")}
        tasks = [asyncio.create_task(announce(client, changed))]
        print("leads at first:", await changed.get())
        election = Election(client.keys, PATH, name="a bystander")
        for number, (name, stop) in enumerate(stops.items(), 1):
            tasks.append(asyncio.create_task(candidate(client, name, stop)))
            while len(await election.candidates()) < number:  # noqa: ASYNC110 - it is others that come
                await asyncio.sleep(0.01)
        print("then:", await changed.get())
        stops["first"].set()
        print("after it has stopped:", await changed.get())
        print(", then ".join(each.name for each in await election.candidates()))

        (leader, *_) = await election.candidates()
        for node in (await client.keys.get(PATH)).nodes:
            if node.created_index == leader.token:
                await client.keys.delete(node.key)  # by an operator, say
        print("after its key was taken away:", await changed.get())
        while len(await election.candidates()) < 2:  # noqa: ASYNC110 - it is others that come
            await asyncio.sleep(0.01)
        print(", then ".join(each.name for each in await election.candidates()))
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


if __name__ == "__main__":
    asyncio.run(main())

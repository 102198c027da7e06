"""How many calls are under way at once, and that the others wait in order."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from async_timeout import timeout

from aioetcd2 import Client, ClientClosedError, ClusterError, ConnectError
from aioetcd2.testing import EtcdServer

from .misbehaver import Exchange, Misbehaver, answer, hang, key_event, wait

FINE = answer(key_event())
WAITING = wait()


class Busy:
    """Answers after a while, and knows how many were there at once."""

    def __init__(self, seconds: float) -> None:
        self.now = self.most = 0
        self._seconds = seconds

    async def __call__(self, exchange: Exchange) -> bool | None:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(self._seconds)
        self.now -= 1
        return await FINE(exchange)


async def until(condition: Callable[[], bool]) -> None:
    async with timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("number", [0, -1, 2.5, "3", True])
def test_a_number_of_connections_is_a_positive_int(number: Any) -> None:
    with pytest.raises(ValueError, match="max_connections is an int of at least 1"):
        Client("http://127.0.0.1:1", max_connections=number)


async def test_calls_wait_their_turn_in_order_and_waiting_is_no_part_of_the_header_timeout() -> None:
    busy = Busy(0.05)
    async with Misbehaver(busy) as server:
        async with Client(server.endpoint, max_connections=2, header_timeout=0.15) as client:
            await asyncio.gather(*(client.keys.get(f"/{i:02}") for i in range(12)))
            assert server.connections == 2
    assert busy.most == 2
    arrived = [seen.target for seen in server.seen]
    assert all(abs(place - int(target[-2:])) <= 1 for place, target in enumerate(arrived)), arrived


@pytest.mark.parametrize(
    ("options", "most"), [({}, 256), ({"username": "u", "password": "p"}, 16), ({"max_connections": 3}, 3)]
)
def test_as_many_as_servers_are_known_to_bear(options: Any, most: int) -> None:
    assert Client("http://127.0.0.1:1", **options)._transport._turns.allowed == most


async def test_watches_are_not_counted_and_probes_wait_for_nobody() -> None:
    async def behave(exchange: Exchange) -> bool | None:
        if "wait" in exchange.seen.query:
            return await WAITING(exchange)
        return await (hang if "stuck" in exchange.seen.target else FINE)(exchange)

    async with Misbehaver(behave) as server, Client(server.endpoint, max_connections=1, probe_interval=0.05) as client:
        async with client.keys.watch("/a"), client.keys.watch("/b"):
            calls = [asyncio.ensure_future(client.keys.get("/k/stuck")) for _ in range(2)]
            await until(lambda: sum("leader" in seen.target for seen in server.seen) >= 3)
            assert sum("/k/stuck" in seen.target for seen in server.seen) == 1
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)


async def test_cancelled_while_waiting_nothing_is_left() -> None:
    async with Misbehaver(hang) as server, Client(server.endpoint, max_connections=1) as client:
        calls = [asyncio.ensure_future(client.keys.get("/k")) for _ in range(5)]
        await until(lambda: len(server.seen) == 1)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        server.behaviours[:] = [FINE]
        await client.keys.get("/k")
        assert not client._transport._turns._taken


async def test_closing_ends_who_waits() -> None:
    async with Misbehaver(hang) as server, Client(server.endpoint, max_connections=1) as client:
        calls = [asyncio.ensure_future(client.keys.get("/k")) for _ in range(5)]
        await until(lambda: len(server.seen) == 1)
        await client.close()
        assert {type(each) for each in await asyncio.gather(*calls, return_exceptions=True)} == {ClientClosedError}


async def test_with_credentials_time_outs_halve_them_and_quick_answers_bring_them_back() -> None:
    async with Misbehaver(hang) as server:
        client = Client(server.endpoint, username="u", password="p", header_timeout=1.0)
        async with client:
            turns = client._transport._turns
            await asyncio.gather(*(client.keys.get("/k") for _ in range(16)), return_exceptions=True)
            assert turns.allowed == 8, "those that time out together say it once"
            server.behaviours[:] = [FINE]
            await asyncio.gather(*(client.keys.get("/k") for _ in range(30)))
            assert turns.allowed > 16


@contextmanager
def few_descriptors(number: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + number, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.etcd
@pytest.mark.slow
async def test_calls_wait_where_this_process_has_no_descriptor_left(server: EtcdServer) -> None:
    async with Client(server.endpoints) as client:
        await client.keys.set("/few", "v")
        with few_descriptors(20):
            found = await asyncio.gather(*(client.keys.get("/few") for _ in range(300)))
        assert len(found) == 300
        assert client._pool.cools_at(server.endpoints[0]) == 0.0


async def test_the_last_one_says_that_there_is_no_descriptor_left() -> None:
    async with Misbehaver(FINE) as server, Client(server.endpoint) as client:
        with few_descriptors(0), pytest.raises(ClusterError, match="Too many open files") as caught:
            await client.keys.set("/k", "v")
        assert isinstance(caught.value.errors[0], ConnectError)
        assert caught.value.errors[0].ours
        assert not caught.value.maybe_applied
        assert client._pool.cools_at(server.endpoint) == 0.0


PROGRAM = """
import asyncio, resource, sys
from aioetcd2 import Client
resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))
async def main():
    async with Client(sys.argv[1:], header_timeout=30) as client:  # a busy machine is not what is tried here
        await client.keys.set("/many", "v")
        print(len(await asyncio.gather(*(client.keys.get("/many") for _ in range(2000)))))
asyncio.run(main())
"""


@pytest.mark.slow
async def test_two_thousand_gets_at_once_with_512_descriptors(server: EtcdServer) -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", PROGRAM, *server.endpoints],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "2000", done.stderr

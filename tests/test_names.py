"""A name that moves, and one with several addresses of which some are dead."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver

from aioetcd2 import Client, ClusterError, ConnectError

from .misbehaver import Misbehaver, answer, key_event


class Names(AbstractResolver):
    """Says what it is told to, and counts how often it was asked."""

    def __init__(self, *found: str) -> None:
        self.found = list(found)
        self.asked = 0

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[Any]:
        self.asked += 1
        await asyncio.sleep(0.01)
        return [
            {"hostname": host, "host": each, "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}
            for each in self.found
        ]

    async def close(self) -> None:
        pass


@contextlib.asynccontextmanager
async def client_at(names: Names, port: str, *, own: bool, **options: Any) -> AsyncIterator[Client]:
    connector = aiohttp.TCPConnector(resolver=names) if own else None
    async with Client(f"http://etcd.test:{port}", connector=connector, **options) as client:
        client._transport._routes._resolver._make = lambda: names
        yield client
    if connector is not None:
        await connector.close()


@pytest.mark.parametrize("own", [False, True], ids=["ours", "theirs"])
async def test_name_is_looked_up_anew_after_a_failure(own: bool) -> None:
    async with Misbehaver(answer(key_event())) as server:
        port = server.endpoint.rpartition(":")[2]
        names = Names("127.0.0.9")
        async with client_at(names, port, own=own) as client:
            with pytest.raises(ClusterError) as caught:
                await client.keys.get("/k")
            assert isinstance(caught.value.errors[0], ConnectError)
            names.found = ["127.0.0.1"]
            await client.keys.get("/k")
            assert names.asked == 2


@pytest.mark.parametrize("own", [False, True], ids=["ours", "theirs"])
async def test_names_are_remembered_and_many_look_up_once(own: bool) -> None:
    async with Misbehaver(answer(key_event())) as server:
        names = Names("127.0.0.1")
        async with client_at(names, server.endpoint.rpartition(":")[2], own=own) as client:
            await asyncio.gather(*(client.keys.get("/k") for _ in range(20)))
            server.hang_up()
            await asyncio.sleep(0.01)
            await client.keys.get("/k")
        assert names.asked == 1


@pytest.mark.slow
@pytest.mark.parametrize("own", [False, True], ids=["ours", "theirs"])
@pytest.mark.parametrize("black_hole", [False, True], ids=["refused", "black hole"])
async def test_another_address_is_connected_to_at_once(own: bool, black_hole: bool) -> None:
    async with Misbehaver(answer(key_event())) as server:
        port = int(server.endpoint.rpartition(":")[2])
        with contextlib.ExitStack() as stack:
            if black_hole:  # a listener whose backlog is full: the kernel drops what comes
                listening = stack.enter_context(socket.socket())
                listening.bind(("127.0.0.9", port))
                listening.listen(0)
                for _ in range(2):
                    waiting = stack.enter_context(socket.socket())
                    waiting.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        waiting.connect(("127.0.0.9", port))
            names = Names("127.0.0.9", "127.0.0.1")
            async with client_at(names, str(port), own=own, header_timeout=5) as client:
                for _ in range(3):
                    start = time.monotonic()
                    await client.keys.set("/k", "v")
                    assert time.monotonic() - start < 1
                    server.hang_up()
                    await asyncio.sleep(0.01)


@pytest.mark.parametrize("own", [False, True], ids=["ours", "theirs"])
async def test_names_are_forgotten_in_time(own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Misbehaver(answer(key_event())) as server:
        names = Names("127.0.0.1")
        now = 1000.0
        monkeypatch.setattr("aiohttp.connector.monotonic", lambda: now)
        async with client_at(names, server.endpoint.rpartition(":")[2], own=own) as client:
            for looked_up, later in ((1, 9.0), (1, 2.0), (2, 0.0)):
                await client.keys.get("/k")
                assert names.asked == looked_up
                server.hang_up()
                await asyncio.sleep(0.01)
                now += later


@pytest.mark.parametrize("own", [False, True], ids=["ours", "theirs"])
async def test_look_up_that_one_gave_up_goes_on_for_others(own: bool) -> None:
    async with Misbehaver(answer(key_event())) as server:
        names = Names("127.0.0.1")
        async with client_at(names, server.endpoint.rpartition(":")[2], own=own) as client:
            first, second = (asyncio.ensure_future(client.keys.get("/k")) for _ in range(2))
            while not names.asked:
                await asyncio.sleep(0)
            first.cancel()
            await second
            assert first.cancelled()
            assert names.asked == 1

"""The clients of the comparison, each written as its users write it; they run in a worker process (worker.py)."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from aioetcd2 import Client

OURS = "aioetcd2"
BEFORE = "aioetcd2 before"
"""Another checkout of this library, which runs its own worker (`--before`)."""

BARE = "bare aiohttp"
GO = "Go"


@dataclass(frozen=True)
class Opened:
    """A client at work: calls that return an awaitable, or that block.

    Attributes:
        get: Reads a key, or lists a directory.
        set: Writes a key.
        tree: Lists a directory with all below it.
        close: Ends the client.
        client: The client itself.
    """

    get: Callable[[str], Any]
    set: Callable[[str, str], Any]
    tree: Callable[[str], Any]
    close: Callable[[], Any]
    client: Any = None


@dataclass(frozen=True)
class Contender:
    """A client of the comparison.

    Attributes:
        open: Makes the client for some endpoints, with a limit in seconds for each request.
        needs: The packages that it is made of, or run with.
        blocking: Its calls block, so that each has a thread.
        fails_over: It goes on to another endpoint when one fails.
    """

    open: Callable[[Sequence[str], float], Opened]
    needs: tuple[str, ...] = ()
    blocking: bool = False
    fails_over: bool = False

    @property
    def missing(self) -> list[str]:
        """What it needs and is not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


def open_ours(endpoints: Sequence[str], timeout: float) -> Opened:
    client = Client(endpoints, header_timeout=timeout)
    keys = client.keys
    return Opened(keys.get, keys.set, lambda key: keys.get(key, recursive=True), client.close, client)


def open_bare(endpoints: Sequence[str], timeout: float) -> Opened:
    session = aiohttp.ClientSession()
    base = f"{endpoints[0]}/v2/keys"

    async def get(key: str) -> object:
        async with session.get(base + key) as response:
            return json.loads(await response.read())

    async def set(key: str, value: str) -> object:
        async with session.put(base + key, data={"value": value}) as response:
            return json.loads(await response.read())

    return Opened(get, set, lambda key: get(f"{key}?recursive=true"), session.close)


def hosts(endpoints: Sequence[str]) -> tuple[tuple[str, int], ...]:
    return tuple((str(urlsplit(endpoint).hostname), int(urlsplit(endpoint).port or 0)) for endpoint in endpoints)


def where(endpoints: Sequence[str]) -> dict[str, Any]:
    """The options by which python-etcd and its relatives are told of their endpoints."""
    several = hosts(endpoints)
    if len(several) > 1:
        return {"host": several, "allow_reconnect": True}
    return {"host": several[0][0], "port": several[0][1]}


def open_aio_etcd(endpoints: Sequence[str], timeout: float) -> Opened:
    client = importlib.import_module("aio_etcd").Client(**where(endpoints))
    return Opened(client.get, client.set, lambda key: client.read(key, recursive=True), lambda: None)


def open_python_etcd(endpoints: Sequence[str], timeout: float) -> Opened:
    options = {"read_timeout": timeout, "per_host_pool_size": 128}
    client = importlib.import_module("etcd").Client(**where(endpoints), **options)
    return Opened(client.get, client.set, lambda key: client.read(key, recursive=True), lambda: None)


def open_k3etcd(endpoints: Sequence[str], timeout: float) -> Opened:
    client = importlib.import_module("k3etcd").Client(**where(endpoints), read_timeout=timeout)
    return Opened(client.get, client.set, lambda key: client.read(key, recursive=True), lambda: None)


CONTENDERS = {
    OURS: Contender(open_ours, fails_over=True),
    f"{OURS}, uvloop": Contender(open_ours, ("uvloop",)),
    BARE: Contender(open_bare),
    f"{BARE}, uvloop": Contender(open_bare, ("uvloop",)),
    "aio_etcd": Contender(open_aio_etcd, ("aio_etcd",), fails_over=True),
    "python-etcd": Contender(open_python_etcd, ("etcd",), blocking=True, fails_over=True),
    "k3etcd": Contender(open_k3etcd, ("k3etcd",), blocking=True, fails_over=True),
}
"""By name; Go's is a program of its own, go/main.go, which does what worker.py does."""

FAILING_OVER = [*(name for name, contender in CONTENDERS.items() if contender.fails_over), GO]


def new_loop(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the event loop on which a contender runs."""
    if "uvloop" in name:
        make: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
        return make
    return asyncio.new_event_loop

"""A real etcd for every test that wants one, and a check after each test that it left nothing behind."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from async_timeout import timeout
from hypothesis import given, settings
from hypothesis import strategies as st

from aioetcd2 import Client, ClusterError, Node, Response
from aioetcd2.testing import EtcdCluster, EtcdServer, etcd_version, find_etcd

os.environ["PYTHONASYNCIODEBUG"] = "1"


STARTS_ETCD = {"server", "cluster", "etcd_release", "etcd", "guarded", "secure", "particular", "listening_on_socket"}
"""Fixtures that need a real etcd, here and in modules; `client` and others rest on them."""


def node_of(response: Response) -> Node:
    assert response.node is not None
    return response.node


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a real etcd, so that the fast tests can be told from it."""
    for item in items:
        fixtures: list[str] = getattr(item, "fixturenames", [])
        if not STARTS_ETCD.isdisjoint(fixtures) or item.get_closest_marker("nemesis") is not None:
            item.add_marker(pytest.mark.etcd)


@settings(database=None, derandomize=True, max_examples=1)
@given(st.none())
def first_example(_: None) -> None:
    """Do nothing: at its first example Hypothesis makes the PRNG it manages, and asks the collector who holds that."""


def pytest_collection_finish() -> None:
    """Keep what is loaded by now out of every later collection: there is one after each test.

    The collector no longer names a frozen object as the holder of another. From Python 3.14 on Hypothesis would take
    its own PRNG for one that nobody holds, and warn.
    """
    first_example()
    gc.collect()
    gc.freeze()


FAST_CLUSTER = ("--heartbeat-interval=50", "--election-timeout=500")


async def until_led(client: Client) -> None:
    """Wait until there is a leader that answers: a write that went to a frozen one is lost, and raises."""
    async with timeout(60):
        while True:
            with suppress(ClusterError):
                await client.keys.get("/", quorum=True)
                return


def open_sockets() -> set[str]:
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(entry)
        except OSError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


def child_processes() -> set[int]:
    found: set[int] = set()
    for children in Path("/proc/self/task").glob("*/children"):
        with suppress(FileNotFoundError):  # the thread has ended meanwhile
            found.update(map(int, children.read_text().split()))
    return found


@pytest.fixture(scope="module", autouse=True)
def little_to_collect() -> Iterator[None]:
    """Keep out of later collections what a module leaves: or each test would take longer than the one before it."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
async def nothing_left_behind() -> AsyncIterator[None]:
    """Fail a test that leaves a task, a socket or a process."""
    sockets, children = open_sockets(), child_processes()
    yield
    gc.collect()
    for _ in range(50):
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        left = open_sockets() - sockets
        if not tasks and not left:
            break
        await asyncio.sleep(0.01)
    assert not tasks, f"tasks left behind: {tasks}"
    assert not left, f"sockets left behind: {left}"
    assert not child_processes() - children, "processes left behind"


@pytest.fixture(scope="session")
def etcd_release() -> tuple[int, int, int]:
    return etcd_version(find_etcd())


@pytest.fixture(scope="session")
def server() -> Iterator[EtcdServer]:
    """One etcd for the whole run; tests keep apart by the `prefix` fixture, and leave it running."""
    server = EtcdServer()
    asyncio.run(server.__aenter__())
    yield server
    asyncio.run(server.__aexit__(None, None, None))


@pytest.fixture
async def cluster() -> AsyncIterator[EtcdCluster]:
    """Three members of its own for one test, which may break them; elections take about a second."""
    async with EtcdCluster(size=3, flags=FAST_CLUSTER) as cluster:
        yield cluster


@pytest.fixture
async def client(server: EtcdServer) -> AsyncIterator[Client]:
    async with Client(server.endpoints) as client:
        yield client


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The log lines of the library so far."""
    caplog.set_level(logging.INFO, "aioetcd2")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.fixture
def prefix() -> str:
    """A part of the store that no other test uses."""
    return f"/test-{uuid.uuid4().hex[:12]}"

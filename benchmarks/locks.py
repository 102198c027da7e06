"""What a lock costs: a hand-over, a herd of waiters, a lock that is held, and how soon a dead holder is followed."""

from __future__ import annotations

import asyncio
import importlib.util
import random
import shutil
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from aioetcd2 import Client
from aioetcd2.recipes import Lock
from aioetcd2.testing import EtcdServer

from .harness import Figures, Settings, rotated
from .report import Aim, Column, Section, Table, compared

OURS = "aioetcd2, etcd"
KAZOO = "kazoo, ZooKeeper"
TTL = 3.0
HAND_OVERS = 100
WAITERS = 1000
HERD_HAND_OVERS = 50
LONG = 600.0
"""A TTL whose keep-alives don't come between the requests that are counted."""

ZOOKEEPER = Path("/usr/share/java/zookeeper.jar")

HOLDER = """
import asyncio, sys
from aioetcd2 import Client
from aioetcd2.recipes import Lock

async def main():
    async with Client(sys.argv[1]) as client, Lock(client.keys, sys.argv[2], ttl=float(sys.argv[3])):
        print("held", flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


def percentile(values: list[float], share: float) -> float:
    """The value below which so many are."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


async def hand_overs(server: EtcdServer) -> Figures:
    """Two clients hand a lock to each other: from the call of one's release to the end of the other's acquire."""
    async with Client(server.endpoint) as one, Client(server.endpoint) as two:
        locks = [Lock(client.keys, "/bench/hand-over") for client in (one, two)]
        took = []
        held = await locks[0].acquire()
        for number in range(HAND_OVERS):
            task = asyncio.create_task(locks[(number + 1) % 2].acquire())
            while not await locks[number % 2].waiting():
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.02)  # until the one who waits watches
            began = time.perf_counter()
            release = asyncio.create_task(locks[number % 2].release(held))
            held = await task
            took.append(time.perf_counter() - began)
            await release
        await locks[HAND_OVERS % 2].release(held)
    return {"p50": statistics.median(took), "p99": percentile(took, 0.99)}


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


async def zookeeper(folder: Path) -> tuple[asyncio.subprocess.Process, str]:
    """A ZooKeeper of its own, in memory of this machine's disk, as Debian's package has it."""
    port = free_port()
    config = folder / "zoo.cfg"
    config.write_text(f"tickTime=1000\ndataDir={folder}/data\nclientPort={port}\nadmin.enableServer=false\n")
    jars = ":".join(map(str, ZOOKEEPER.parent.glob("*.jar")))
    process = await asyncio.create_subprocess_exec(
        *("java", "-cp", jars, "org.apache.zookeeper.server.quorum.QuorumPeerMain", str(config)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    for _ in range(300):
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process, f"127.0.0.1:{port}"
        await asyncio.sleep(0.1)
    raise RuntimeError("ZooKeeper does not listen")


def kazoo_hand_overs(hosts: str) -> Figures:
    """The same with kazoo, which has threads."""
    clients = [importlib.import_module("kazoo.client").KazooClient(hosts=hosts) for _ in range(2)]
    for client in clients:
        client.start()
    locks = [client.Lock("/bench-hand-over", "bench") for client in clients]
    took = []
    locks[0].acquire()
    for number in range(HAND_OVERS):
        here, there = locks[number % 2], locks[(number + 1) % 2]
        acquired: list[float] = []

        def acquire(lock: Any = there, acquired: list[float] = acquired) -> None:
            lock.acquire()
            acquired.append(time.perf_counter())

        thread = threading.Thread(target=acquire)
        thread.start()
        while len(here.contenders()) < 2:
            time.sleep(0.005)
        time.sleep(0.02)
        began = time.perf_counter()
        here.release()
        thread.join()
        took.append(acquired[0] - began)
    locks[HAND_OVERS % 2].release()
    for client in clients:
        client.stop()
        client.close()
    return {"p50": statistics.median(took), "p99": percentile(took, 0.99)}


async def herd(server: EtcdServer) -> Figures:
    """Many wait; what all of them ask and hear while the lock is handed on again and again."""
    async with Client(server.endpoint, max_connections=64) as client:
        lock = Lock(client.keys, "/bench/herd", ttl=LONG)
        first = await lock.acquire()
        order: asyncio.Queue[Callable[[], None]] = asyncio.Queue()

        async def wait() -> None:
            async with lock:
                leave = asyncio.Event()
                order.put_nowait(leave.set)
                await leave.wait()

        tasks = [asyncio.create_task(wait()) for _ in range(WAITERS)]
        while client.counters.watches_open < WAITERS + 1:
            await asyncio.sleep(0.1)
        await asyncio.sleep(2)  # until what the watches ask as they begin has been answered
        before = client.counters
        await lock.release(first)
        for _ in range(HERD_HAND_OVERS):
            (await order.get())()
        leave = await order.get()
        after = client.counters
        for task in tasks:
            task.cancel()
        leave()
        await asyncio.wait(tasks)
    count = HERD_HAND_OVERS + 1
    return {"requests": (after.calls - before.calls) / count, "events": (after.events - before.events) / count}


async def held(server: EtcdServer) -> Figures:
    """A lock that is held, and that nobody else wants."""
    async with Client(server.endpoint) as client, Lock(client.keys, "/bench/held", ttl=TTL):
        await asyncio.sleep(1)
        before = client.counters
        await asyncio.sleep(4 * TTL)
        after = client.counters
    return {"requests": (after.calls - before.calls) / 4, "watches": after.watches_open}


async def takeover(server: EtcdServer) -> Figures:
    """A process that holds the lock is killed; how long it takes until the next one has it."""
    path = "/bench/takeover"
    holder = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLDER, server.endpoint, path, str(TTL)), stdout=asyncio.subprocess.PIPE
    )
    assert holder.stdout is not None
    await holder.stdout.readline()
    async with Client(server.endpoint) as client:
        lock = Lock(client.keys, path, ttl=TTL)
        task = asyncio.create_task(lock.acquire())
        await asyncio.sleep(1 + random.uniform(0, TTL / 3))
        holder.kill()
        began = time.monotonic()
        await holder.wait()
        next_one = await task
        seconds = time.monotonic() - began
        await lock.release(next_one)
    return {"seconds": seconds}


async def measure(settings: Settings) -> Section:
    peers = [OURS]
    if importlib.util.find_spec("kazoo") and ZOOKEEPER.exists() and shutil.which("java"):
        peers.append(KAZOO)
    passed: dict[str, list[Figures]] = {name: [] for name in peers}
    with tempfile.TemporaryDirectory() as folder:
        keeper = await zookeeper(Path(folder)) if KAZOO in peers else None
        async with EtcdServer() as server:
            for number in range(settings.rounds):
                for name in rotated(peers, number):
                    if name == OURS:
                        passed[name].append(await hand_overs(server))
                    elif keeper is not None:
                        passed[name].append(await asyncio.to_thread(kazoo_hand_overs, keeper[1]))
            if keeper is not None:
                keeper[0].kill()
                await keeper[0].wait()
            crowd = await herd(server)
            quiet = await held(server)
            killed = [(await takeover(server))["seconds"] for _ in range(settings.rounds)]
    text = f"""\
One member on loopback. A hand-over is from the call of `release()` to the end of another client's `acquire()`,
{HAND_OVERS} in each round, between two clients of one process. In the herd {WAITERS:,} tasks of one client wait while
the lock is handed on {HERD_HAND_OVERS} times: requests and events of all of them together, for each hand-over. What
died was a process, by SIGKILL, {settings.rounds} times at a random moment between two keep-alives; TTL {TTL:g} s."""
    rows = [
        ("herd: requests for each hand-over", f"{crowd['requests']:.2f}"),
        ("herd: events for each hand-over", f"{crowd['events']:.2f}"),
        (f"held: requests in {TTL:g} s", f"{quiet['requests']:.2f}"),
        ("held: open watches", f"{quiet['watches']:.0f}"),
        ("takeover after SIGKILL, median", f"{statistics.median(killed):.2f} s"),
        ("takeover after SIGKILL, at worst", f"{max(killed):.2f} s"),
    ]
    tables = [
        compared(
            "**Hand-over**",
            passed,
            Column("p50 ms", "p50", 1000),
            Column("p50 ms, at worst", "p50", 1000, take=max),
            Column("p99 ms", "p99", 1000),
        ),
        Table("**A herd, a lock that is held, a holder that died**", ("", "measured"), rows),
    ]
    p50 = statistics.median(figures["p50"] for figures in passed[OURS]) * 1000
    aims = [
        Aim("lock: hand-over, p50", p50, 5, "ms"),
        Aim("lock: requests for each hand-over in a herd", crowd["requests"], 2),
        Aim("lock: events for each hand-over in a herd", crowd["events"], 1),
        Aim("lock: requests in a TTL for a lock that is held", quiet["requests"], 3.3),
        Aim("lock: takeover after SIGKILL, at worst", max(killed), TTL + 0.6, "s"),
    ]
    return Section("locks", "Locks", text, tables, aims)

"""A process that stood still, or its event loop, loses no answer that had come; and what is given up is freed."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aioetcd2 import Client, ClusterError
from aioetcd2.testing import EtcdServer

from .conftest import open_sockets
from .faultproxy import FaultProxy
from .misbehaver import Misbehaver, hang
from .test_tls import Authority

BODY = b'{"action":"get","node":{"key":"/k","value":"v","modifiedIndex":7,"createdIndex":7}}'
HEAD = b"HTTP/1.1 200 OK\r\nX-Etcd-Cluster-Id: c\r\nX-Etcd-Index: 7\r\nContent-Length: %d\r\n\r\n" % len(BODY)


@contextmanager
def threaded(after: float) -> Iterator[str]:
    """A server of its own thread that answers one request, in two pieces, whatever the event loop does."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                time.sleep(after)
                connection.sendall(HEAD)
                time.sleep(0.02)
                connection.sendall(BODY)
                connection.recv(65536)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join()


async def test_answer_that_came_while_the_loop_stood_still_is_taken() -> None:
    with threaded(0.05) as endpoint:
        async with Client(endpoint, header_timeout=0.2) as client:
            call = asyncio.ensure_future(client.keys.get("/k"))
            await asyncio.sleep(0.03)
            time.sleep(0.4)
            assert (await call).index == 7


STOPPED = """
import asyncio, sys
from aioetcd2 import Client

async def main():
    async with Client(sys.argv[1], header_timeout=2.0) as client:
        calls = (client.keys.get("/") for _ in range(30))
        await asyncio.gather(*calls, return_exceptions=True)  # all are connected
        calls = [client.keys.get("/") if each % 2 else client.keys.set(f"/stopped/{each}", "v") for each in range(30)]
        tasks = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(0.5)
        print("sent", flush=True)
        await asyncio.sleep(0.2)  # it is stopped in here
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        print(sum(isinstance(each, Exception) for each in outcomes), flush=True)

asyncio.run(main())
"""


@pytest.mark.slow
async def test_a_process_that_was_stopped_loses_no_answer_that_came_meanwhile(server: EtcdServer) -> None:
    async with FaultProxy(server.endpoint) as slow:
        slow.latency = 0.5
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", STOPPED, slow.endpoint, stdout=asyncio.subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"sent\n"
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(4.0)  # two header timeouts
            process.send_signal(signal.SIGCONT)
            assert await asyncio.wait_for(process.stdout.readline(), 10) == b"0\n"
            assert await asyncio.wait_for(process.wait(), 10) == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def test_what_did_not_come_is_given_up_all_the_same() -> None:
    async with Misbehaver(hang) as server, Client(server.endpoint, header_timeout=0.1) as client:
        call = asyncio.ensure_future(client.keys.get("/k"))
        await asyncio.sleep(0.05)
        time.sleep(0.2)
        start = time.monotonic()
        with pytest.raises(ClusterError):
            await call
        assert time.monotonic() - start < 1


@pytest.mark.etcd
@pytest.mark.slow
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_what_is_given_up_is_freed(tls: bool, tmp_path: Path) -> None:
    """Fifteen sets of 9 MB at a frozen member: nothing of them stays in this process."""
    authority = Authority(tmp_path)
    trusting = authority.context() if tls else None
    async with EtcdServer(tls=authority.tls if tls else None) as server:
        async with Client(server.endpoints, ssl=trusting) as warm:
            await warm.keys.set("/warm", "v" * 9_000_000)
        gc.collect()
        sockets = open_sockets()
        tracemalloc.start()
        client = Client(server.endpoints, ssl=trusting, header_timeout=1)
        await asyncio.gather(*(client.keys.set("/small", "v") for _ in range(18)))  # connected, past the handshake
        await server.pause()
        try:
            value = "v" * 9_000_000
            calls = [client.keys.set(f"/{i}", value) for i in range(15)] + [client.keys.get("/k") for _ in range(3)]
            done = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(each) for each in done} == {ClusterError}
            del calls, done, value
            for _ in range(20):
                await asyncio.sleep(0.1)
                if open_sockets() <= sockets:
                    break
            assert open_sockets() <= sockets, "before the client is closed"
            await client.close()
            gc.collect()
            assert tracemalloc.get_traced_memory()[0] < 5 << 20
        finally:
            tracemalloc.stop()
            await server.resume()

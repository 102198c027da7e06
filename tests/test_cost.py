"""What a call costs, counted and not timed: the same on a slow machine and on a fast one.

Two things are counted. **Steps**: how often code of this package is entered, and how often it calls anything written
in C, for one call on a connection that is open already. **What stays**: objects and memory that are there after a
thousand calls more.

A step more is a tenth of a microsecond or so: too little to be seen in a time, and how a client gets slow, all the
same. The limits are the most that was counted on Python 3.10 to 3.13, and a tenth more. Where a change needs more on
purpose, run

    python -m pytest tests/test_cost.py -s -k steps

on each Python, which prints the counts; take the greatest, add a tenth, and say in the commit what it buys. Where a
change makes do with less, lower the limit in the same way.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import aioetcd2
from aioetcd2 import Client, KeysAPI
from aioetcd2.testing import EtcdServer

from .misbehaver import Misbehaver, answer, key_event

PACKAGE = str(Path(aioetcd2.__file__).parent)

LIMITS = {"get": (30, 24), "set": (50, 39)}
"""Entries into functions of this package, and calls from there into C."""

ROUND = 1000
"""Calls after which what stays is counted anew."""

CALLS: dict[str, Callable[[KeysAPI], Awaitable[object]]] = {
    "get": lambda keys: keys.get("/k"),
    "set": lambda keys: keys.set("/k", "v"),
}


class Steps:
    """Counts, between `with` and its end, what the code of this package does.

    A coroutine counts once, however often it is resumed: that depends on how the network cuts the answer.
    """

    def __init__(self) -> None:
        self._frames: set[FrameType] = set()  # held, so that no two have the same identity
        self.into_c = 0

    @property
    def entered(self) -> int:
        return len(self._frames)

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return
        if event == "call":
            self._frames.add(frame)
        elif event == "c_call":
            self.into_c += 1

    def __enter__(self) -> Steps:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)


@pytest.mark.parametrize("name", CALLS)
async def test_steps_of_a_call(name: str) -> None:
    counts = []
    async with Misbehaver(answer(key_event())) as server, Client(server.endpoint) as client:
        for _ in range(5):
            await CALLS[name](client.keys)
        for _ in range(5):
            with Steps() as steps:
                await CALLS[name](client.keys)
            counts.append((steps.entered, steps.into_c))
    entered, into_c = min(counts)
    print(f"\n{name}: {entered} entered, {into_c} into C on Python {sys.version_info.major}.{sys.version_info.minor}")
    assert entered <= LIMITS[name][0], f"functions entered: {counts}"
    assert into_c <= LIMITS[name][1], f"calls into C: {counts}"


@pytest.mark.parametrize("name", CALLS)
async def test_nothing_stays_of_a_call(name: str, server: EtcdServer, prefix: str) -> None:
    call = CALLS[name]
    left: list[tuple[int, int]] = []
    async with Client(server.endpoints) as client:
        keys = KeysAPI(client, f"/v2/keys{prefix}")
        await keys.set("/k", "v")
        tracemalloc.start()
        try:
            for _ in range(5):  # some caches fill at first, a leak goes on
                for _ in range(ROUND // 10):
                    await asyncio.gather(*(call(keys) for _ in range(10)))
                gc.collect()
                left.append((len(gc.get_objects()), tracemalloc.get_traced_memory()[0]))
        finally:
            tracemalloc.stop()
    objects = min(after[0] - before[0] for before, after in pairwise(left))
    memory = min(after[1] - before[1] for before, after in pairwise(left))
    assert objects < ROUND / 50, f"{objects} objects are left of {ROUND} calls: {left}"
    assert memory < ROUND * 8, f"{memory} bytes are left of {ROUND} calls: {left}"


FAULTS = """
import asyncio, resource, sys
from aioetcd2 import Client

async def main():
    async with Client(sys.argv[1]) as client:
        for number in range(300):
            if number == 100:
                before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            await client.keys.get("/")
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other C libraries have other limits")
def test_no_read_has_memory_mapped_for_it(server: EtcdServer) -> None:
    command = (sys.executable, "-c", FAULTS, server.endpoint)
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(128 * 1024)}  # or it rises by luck, with what was freed
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert int(run.stdout) < 100, "page faults of 200 calls"

"""No two hold a lock at one moment, and nothing is done out of turn, whatever befalls the cluster and the holders.

The judge of that is tried first, and two locks that are broken on purpose are caught. The run prints its seed;
`AIOETCD2_SEED=... pytest -s tests/test_locks_nemesis.py` plays it again, `AIOETCD2_LOCK_SECONDS` says for how long a
lock is hurt, 20 by default, and `python -m tests.chaos.locks` does so by itself.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys

import pytest

from aioetcd2 import Client
from aioetcd2.recipes import Lock
from aioetcd2.testing import EtcdCluster

from .chaos.contender import now
from .chaos.locks import RECIPES, play
from .chaos.turns import Act, Removal, Tenure, judge, judge_acts

TTL = 3.0


@pytest.fixture
def seed() -> int:
    seed = int(os.environ.get("AIOETCD2_SEED", random.randrange(1 << 32)))
    print(f"AIOETCD2_SEED={seed}")
    return seed


# --- the judge -------------------------------------------------------------------------------------------------------


def tenure(token: int, *looks: tuple[bool, float, float], held: int = 1) -> Tenure:
    found = Tenure(token, f"process {token}", held=held)
    for look in looks:
        found.see(*look)
    return found


def valid(token: int, since: float, until: float) -> Tenure:
    """Seen to be valid at both ends."""
    return tenure(token, (True, since, since), (True, until, until))


REMOVAL = Removal(7, 2.4, 2.5)

GOOD: dict[str, list[Tenure]] = {
    "nothing": [],
    "one after the other": [valid(5, 1, 2), valid(9, 2.001, 3)],
    "never seen valid": [valid(5, 1, 2), tenure(9, (False, 1.5, 1.6)), valid(12, 3, 4)],
    "seen once, nobody knows whether before or after": [tenure(5, (True, 1, 6)), valid(9, 2, 3)],
    "both seen once, at some moment of the same": [tenure(5, (True, 1, 6)), tenure(9, (True, 2, 4))],
    "over, seen before": [tenure(5, (True, 1, 1), (True, 2, 3), (False, 3, 4)), valid(9, 5, 6)],
    "deleted by a foreign hand": [valid(5, 1, 4), valid(9, 2.5, 3)],
}

BAD: dict[str, tuple[list[Tenure], str]] = {
    "one within the other": ([valid(5, 1, 4), valid(9, 2, 3)], "one moment"),
    "at one end": ([valid(5, 1, 2), valid(9, 2, 3)], "one moment"),
    "seen once, within another": ([valid(5, 1, 4), tenure(9, (True, 2, 2.3))], "one moment"),
    "with one between": ([valid(5, 1, 8), tenure(6), valid(9, 7, 9)], "one moment"),
    "the older one later": ([valid(5, 3, 4), valid(9, 1, 2)], "after a later token"),
    "valid again": ([tenure(5, (True, 1, 1), (False, 2, 2), (True, 3, 3))], "valid again"),
    "two with one token": ([tenure(5, (True, 1, 2), held=2)], "2 times"),
    "before it was deleted": ([valid(5, 1, 4), valid(9, 1.9, 3)], "one moment"),
    "both were deleted": ([valid(5, 1, 4), valid(6, 2.5, 3)], "one moment"),
    "both came after that": ([valid(8, 1, 4), valid(9, 2.5, 3)], "one moment"),
    "deleted long ago": ([valid(5, 1, 5.6), valid(9, 2.5, 3)], "one moment"),
}


@pytest.mark.parametrize("name", GOOD)
def test_good(name: str) -> None:
    assert judge(GOOD[name], [], [REMOVAL], TTL) == []


@pytest.mark.parametrize("name", BAD)
def test_bad(name: str) -> None:
    tenures, problem = BAD[name]
    (found,) = judge(tenures, [], [REMOVAL], TTL)
    assert problem in found


def test_only_a_deletion_is_an_excuse() -> None:
    assert judge(GOOD["deleted by a foreign hand"], [], [], TTL)


def read(token: int, before: int, accepted: bool = True) -> Act:
    return Act(token, None, before, accepted)


def write(token: int, before: int, accepted: bool = True, *, based: int | None = None) -> Act:
    return Act(token, before if based is None else based, before, accepted)


@pytest.mark.parametrize(
    ("acts", "problem"),
    [
        ([read(5, 0), write(5, 0), read(9, 1), write(5, 1, False), write(9, 1)], None),
        ([read(5, 0), read(9, 0), write(5, 0)], "out of turn"),
        ([read(5, 0), write(5, 0), write(5, 1, based=0)], "lost update"),
        ([read(5, 0), write(5, 0, False)], "refused"),
    ],
)
def test_acts(acts: list[Act], problem: str | None) -> None:
    found = judge_acts(acts)
    assert bool(found) is (problem is not None), found
    assert judge([], acts, [], TTL) == found
    assert problem is None or problem in found[0]


# --- the runs --------------------------------------------------------------------------------------------------------

WORST = ("freeze_between",)
"""What a lock must bear above all: its holder can't hear that it is lost."""


@pytest.mark.timeout(900)
@pytest.mark.nemesis
@pytest.mark.parametrize("recipe", RECIPES)
async def test_one_at_a_time_whatever_is_hurt(recipe: str, seed: int) -> None:
    seconds = float(os.environ.get("AIOETCD2_LOCK_SECONDS", "20")) if recipe == "lock" else 20.0
    report = await play(seconds, seed, recipe=recipe)
    print(report)
    assert not report.violations, str(report)
    assert not report.books.problems, str(report)
    assert report.books.said["held"] > 10 + seconds / 20  # each has it once before and once after
    assert report.struck


@pytest.mark.timeout(300)
@pytest.mark.nemesis
async def test_a_lock_that_believes_for_ever_is_caught(seed: int) -> None:
    report = await play(0.0, seed, believing=False, only=WORST)
    print(report)
    assert any("two valid at one moment" in each for each in report.violations), str(report)


@pytest.mark.timeout(300)
@pytest.mark.nemesis
async def test_a_register_that_accepts_older_tokens_is_caught(seed: int) -> None:
    """A check alone is too early, always: the act comes after it."""
    report = await play(0.0, seed, fencing=False, only=WORST)
    print(report)
    assert any("out of turn" in each for each in report.violations), str(report)
    assert not any("valid" in each for each in report.violations), str(report)


# --- a holder that dies, and nothing else ----------------------------------------------------------------------------

HOLD_FOR_EVER = """
import asyncio, sys
from aioetcd2 import Client
from aioetcd2.recipes import Lock

async def main():
    async with Client(sys.argv[2:]) as client, Lock(client.keys, sys.argv[1], ttl=3):
        print("held", flush=True)
        await asyncio.sleep(3600)

asyncio.run(main())
"""


async def takeover(client: Client, path: str, after: float) -> float:
    """Kill a process that has held a lock for some seconds; how long after that the next one has it."""
    lock = Lock(client.keys, path, ttl=TTL)
    arguments = ("-c", HOLD_FOR_EVER, path, *client.endpoints)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONASYNCIODEBUG"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, env=environment
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"held\n"
        waiting = asyncio.create_task(lock.acquire())
        await asyncio.sleep(after)
        assert not waiting.done()
    finally:
        killed = now()
        process.kill()
        await process.wait()
    held = await waiting
    took = now() - killed
    await lock.release(held)
    return took


async def lateness() -> float:
    """By how much this machine is late at the most, until this is cancelled."""
    late = 0.0
    try:
        while True:
            due = now() + 0.01
            await asyncio.sleep(0.01)
            late = max(late, now() - due)
    except asyncio.CancelledError:
        return late


@pytest.mark.nemesis
async def test_the_place_of_a_dead_holder_is_free_after_its_ttl() -> None:
    async with EtcdCluster(size=3) as cluster, Client(cluster.endpoints) as client:
        measuring = asyncio.create_task(lateness())
        took = await asyncio.gather(*(takeover(client, f"/locks/{each}", 1.0 + each / 4) for each in range(6)))
        measuring.cancel()
        late = await measuring
    print([f"{each:.2f}" for each in took], f"late by {late:.2f}")
    assert sorted(took)[len(took) // 2] > TTL / 2  # they had to wait for the end of the TTL
    assert max(took) < TTL + 0.6 + late

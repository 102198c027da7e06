"""No two hold a lock at one moment, and nothing is done out of turn, whatever befalls the cluster and the holders.

The judge of that is tried first, and two locks that are broken on purpose are caught. The run prints its seed;
`AIOETCD2_SEED=... pytest -s tests/test_locks_nemesis.py` plays it again, `AIOETCD2_LOCK_SECONDS` says for how long,
20 by default, and `python -m tests.chaos.locks` does so by itself.
"""

from __future__ import annotations

import os
import random

import pytest

from .chaos.locks import play
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
async def test_one_at_a_time_whatever_is_hurt(seed: int) -> None:
    seconds = float(os.environ.get("AIOETCD2_LOCK_SECONDS", "20"))
    report = await play(seconds, seed)
    print(report)
    assert not report.violations, str(report)
    assert not report.books.problems, str(report)
    assert report.books.said["held"] > 10 + seconds / 10
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

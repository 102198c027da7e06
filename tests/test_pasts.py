"""Watches on a cluster whose past changes; `python -m tests.chaos.pasts` plays it for longer, and with more seeds."""

from __future__ import annotations

import pytest

from aioetcd2 import Client, Node, Response
from aioetcd2._v2.identity import Identity

from .chaos import pasts
from .chaos.followed import Came, Follower, Told
from .chaos.fronts import find_nginx
from .chaos.pasts import play
from .chaos.truth import Life, World
from .test_watch_model import no_rule_b, no_rule_c


@pytest.mark.nemesis
@pytest.mark.parametrize(("seed", "nginx"), [(1, False), (2, True), (3, False)])
async def test_nothing_is_lost_whatever_becomes_of_the_past(seed: int, nginx: bool) -> None:
    if nginx and find_nginx() is None:
        pytest.skip("there is no nginx on this machine")
    world, nemesis = await play(8.0, seed, least=3, nginx=nginx)
    print(nemesis.struck, world.told, world.delay)
    assert not world.problems
    assert world.delivered > 200
    assert sum(nemesis.struck.values()) >= 3


@pytest.mark.nemesis
async def test_a_client_that_believes_in_one_past_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: no index below the cursor is doubted, and no other life is a gap."""
    no_rule_b(monkeypatch)
    no_rule_c(monkeypatch)
    monkeypatch.setattr(Identity, "doubts", lambda *_: False)
    monkeypatch.setattr(pasts, "STUCK", 10.0)
    world, _ = await play(6.0, 1, watchers=10, faults=["wipe"])
    assert world.problems


# --- the judge --------------------------------------------------------------------------------------------------------

A, B, C = (10, "0.a"), (12, "0.b"), (14, "0.c")
NEXT = (11, "1.a")


def came(index: int, value: str, *, well: bool = True, at: float = 1.0) -> Came:
    node = Node("/past/a", value, modified_index=index, created_index=index)
    return Came(Response("set", node), at, 0.0 if well else 2.0)


def judged(*heard: Came | Told, written: tuple[tuple[int, str], ...] = (A, B, C)) -> list[str]:
    world = World()
    world.lives = [Life({at: ("/past/a", what) for at, what in written}), Life({NEXT[0]: ("/past/a", NEXT[1])})]
    world._acknowledged = {(0, at): 0.5 for at, _ in written}
    follower = Follower(1, Client("http://127.0.0.1:1"), world, "/past/a", resync=True, patient=True)
    follower._life = follower._may_reach = 0
    follower._heard = list(heard)
    follower.judge()
    return world.problems


RESYNC = Node("/past/a", "0.b", modified_index=12)


@pytest.mark.parametrize(
    ("heard", "problem"),
    [
        ([came(*A), came(*B), came(*C)], None),
        ([came(*A), came(*C)], "lost"),
        ([came(*A), Told(0, 12), came(*C)], None),
        ([came(*A), Told(0, 12, True, RESYNC), came(*C)], None),
        ([came(*A), Told(0, 14, True, RESYNC)], "resync has"),
        ([came(*B), came(*A)], "out of order"),
        ([came(*A), came(*A)], "came twice"),
        ([came(*A), came(13, "0.x")], "never happened"),
        ([came(*A), came(*NEXT)], "nothing was said"),
        ([came(*A), Told(1, 5), came(*NEXT)], None),
        ([came(*A), Told(1, 12), Told(1, 5), came(*NEXT)], None),
        ([came(*A), came(*B, at=60.0)], "late"),
        ([came(*A), came(*B, at=1.5, well=False)], None),  # something hurt just then
    ],
)
def test_what_the_judge_says(heard: list[Came | Told], problem: str | None) -> None:
    found = judged(*heard)
    assert bool(found) is (problem is not None), found
    assert problem is None or any(problem in each for each in found)


@pytest.mark.parametrize(("last", "lost"), [("-0.b", False), ("0.c", True)])
def test_what_came_and_went_within_a_long_gap_left_no_trace(last: str, lost: bool) -> None:
    written = ((10, "-0.x"), (12, "0.b"), (14, last), (2000, "0.d"))
    assert bool(judged(Told(0, 10), came(2000, "0.d"), written=written)) is lost

"""The accounts of a soak are checked, and a short one is made; `python -m tests.chaos.soak` makes a long one."""

from __future__ import annotations

import os
import random

import pytest

from .chaos.gauges import Durations
from .chaos.ledger import Event, Ledger
from .chaos.soak import soak

A, B, C = Event(1, "a"), Event(2, "b"), Event(3, "c")


@pytest.fixture
def problems() -> list[str]:
    return []


@pytest.fixture
def ledger(problems: list[str]) -> Ledger:
    ledger = Ledger("/k", problems.append)
    ledger.join()
    ledger.join()
    return ledger


def see(ledger: Ledger, *events: Event, watchers: tuple[int, ...] = (0, 1)) -> None:
    for watcher in watchers:
        for event in events:
            ledger.see(watcher, event)


def test_all_is_well(ledger: Ledger, problems: list[str]) -> None:
    ledger.acknowledge(A)
    see(ledger, A)
    ledger.settle()
    see(ledger, B, watchers=(1,))
    ledger.acknowledge(B)
    assert ledger.oldest_unseen == B.modified
    ledger.acknowledge(C)
    see(ledger, C, watchers=(1,))
    see(ledger, B, C, watchers=(0,))
    ledger.close(C)
    assert not problems


@pytest.mark.parametrize("seen", [(), (B,)])
def test_a_lost_write_may_be_seen(ledger: Ledger, problems: list[str], seen: tuple[Event, ...]) -> None:
    ledger.acknowledge(A)
    ledger.lose("b")
    ledger.acknowledge(C)
    see(ledger, A, *seen, C)
    ledger.close(C)
    assert not problems
    assert ledger.unacknowledged == len(seen)


def test_lost_by_one(ledger: Ledger, problems: list[str]) -> None:
    for event in (A, B, C):
        ledger.acknowledge(event)
    see(ledger, A, B, C, watchers=(0,))
    see(ledger, A, C, watchers=(1,))
    ledger.close(C)
    assert len(problems) == 1


def test_lost_by_the_first(ledger: Ledger, problems: list[str]) -> None:
    for event in (A, B, C):
        ledger.acknowledge(event)
    see(ledger, A, C, watchers=(0,))
    see(ledger, A, B, C, watchers=(1,))
    ledger.close(C)
    assert problems


def test_lost_by_all(ledger: Ledger, problems: list[str]) -> None:
    for event in (A, B, C):
        ledger.acknowledge(event)
    see(ledger, A, C)
    ledger.settle()
    assert problems == [f"/k: no watcher got {B}"]


def test_lost_at_the_end(ledger: Ledger, problems: list[str]) -> None:
    ledger.acknowledge(A)
    ledger.acknowledge(B)
    see(ledger, A)
    ledger.settle()
    assert not problems
    assert ledger.oldest_unseen == B.modified
    ledger.close(B)
    assert problems


def test_late_by_one(ledger: Ledger, problems: list[str]) -> None:
    ledger.acknowledge(A)
    see(ledger, A, watchers=(0,))
    ledger.close(A)
    assert len(problems) == 1


@pytest.mark.parametrize("events", [(A, A), (B, A), (A, C)], ids=["twice", "out of order", "never written"])
def test_too_much(ledger: Ledger, problems: list[str], events: tuple[Event, ...]) -> None:
    ledger.acknowledge(A)
    ledger.acknowledge(B)
    see(ledger, *events)
    ledger.settle()
    assert problems


def test_a_lost_write_that_is_applied_twice(ledger: Ledger, problems: list[str]) -> None:
    ledger.lose("b")
    see(ledger, B, Event(4, "b"))
    ledger.settle()
    assert len(problems) == 1


def test_an_acknowledged_write_that_is_applied_twice(ledger: Ledger, problems: list[str]) -> None:
    ledger.acknowledge(B)
    see(ledger, A._replace(what="b"), B)
    ledger.settle()
    assert len(problems) == 1


def test_quantiles() -> None:
    durations = Durations()
    assert durations.quantile(0.5) == 0.0
    for number in range(1, 101):
        durations.add(number / 100)
    assert (durations.quantile(0.5), durations.quantile(0.99), durations.quantile(1.0)) == (0.5, 0.99, 1.0)


@pytest.mark.timeout(300)
@pytest.mark.nemesis
async def test_short_soak() -> None:
    seed = int(os.environ.get("AIOETCD2_SEED", random.randrange(1 << 32)))
    print(f"AIOETCD2_SEED={seed}")
    report = await soak(8.0, seed, watchers=10, rate=40.0)
    print(report)
    assert not report.problems, str(report)
    assert report.book.delivered > 50

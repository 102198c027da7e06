"""A clock that stands still, in the place of the modules that a test would have to wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest


class Timer:
    """What is to be called later."""

    def __init__(self, due: float, what: Callable[[], object]) -> None:
        self.due = due
        self.what = what
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Clock:
    """Takes the place of `asyncio`, its loop, and `time`: sleeping ends when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sleeps: list[float] = []
        self.timers: list[Timer] = []
        self._turns = asyncio.Semaphore(0)

    def monotonic(self) -> float:
        return self.now

    time = monotonic

    def get_running_loop(self) -> Clock:
        return self

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().create_future()

    def call_later(self, delay: float, what: Callable[..., object], *args: object) -> Timer:
        return self.call_at(self.now + delay, what, *args)

    def call_at(self, due: float, what: Callable[..., object], *args: object) -> Timer:
        self.timers.append(Timer(due, lambda: what(*args)))
        return self.timers[-1]

    async def sleep(self, delay: float) -> None:
        self.sleeps.append(round(delay, 6))
        await self._turns.acquire()
        self.now += delay

    async def wake(self) -> None:
        """End the sleep that has lasted longest."""
        self._turns.release()
        await idle()

    def go_on(self, seconds: float) -> None:
        """Let time pass, and call what is due."""
        self.now += seconds
        for timer in [each for each in self.timers if each.due <= self.now]:
            self.timers.remove(timer)
            if not timer.cancelled:
                timer.what()

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)


class Dice:
    """Takes the place of `random`: what is drawn is said before."""

    def __init__(self, *drawn: float) -> None:
        self.drawn = list(drawn)
        self.asked: list[tuple[float, float]] = []

    def uniform(self, low: float, high: float) -> float:
        self.asked.append((low, high))
        return self.drawn.pop(0) if len(self.drawn) > 1 else self.drawn[0]


async def idle() -> None:
    """Let all go as far as it can."""
    for _ in range(40):
        await asyncio.sleep(0)


def stop_clocks(monkeypatch: pytest.MonkeyPatch, *modules: Any) -> Clock:
    """Have modules go by a clock that stands still."""
    clock = Clock()
    for module in modules:
        for name in ("asyncio", "time"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, clock)
    return clock

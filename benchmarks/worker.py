"""A contender in a process of its own: does one order after another, each a line of JSON, and prints the figures.

`python -m benchmarks.worker NAME`. The process stays alive, so that rounds interleave and starting it costs no call.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from . import fans, watchers
from .contenders import CONTENDERS, OURS, Opened, new_loop
from .memory import peak, resident

Figures = dict[str, Any]

RECEIVED_WITHIN = 10.0
"""Seconds that watchers have to get their events."""


async def drive_tasks(call: Callable[[], Awaitable[object]], tasks: int, end: float) -> list[float]:
    """Call in a number of tasks until the end, once at least, and give the seconds that each call took."""
    took: list[float] = []

    async def repeat() -> None:
        now = time.perf_counter()
        while True:
            start = now
            await call()
            now = time.perf_counter()
            took.append(now - start)
            if now >= end:
                break

    await asyncio.gather(*(repeat() for _ in range(tasks)))
    return took


def drive_threads(call: Callable[[], object], tasks: int, end: float) -> list[float]:
    """The same in threads."""
    took: list[float] = []

    def repeat() -> None:
        now = time.perf_counter()
        while True:
            start = now
            call()
            now = time.perf_counter()
            took.append(now - start)
            if now >= end:
                break

    threads = [threading.Thread(target=repeat) for _ in range(tasks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took


class LogLines(logging.Handler):
    """Counts what the library logs, at INFO and above."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.listening = False
        self._counted: Counter[str] = Counter()

    def listen(self) -> None:
        """Begin to count."""
        logging.disable(logging.NOTSET)
        logger = logging.getLogger("aioetcd2")
        logger.setLevel(logging.INFO)
        logger.addHandler(self)
        self.listening = True

    def emit(self, record: logging.LogRecord) -> None:
        """Count a line."""
        self._counted[record.levelname] += 1

    def taken(self) -> Figures:
        """How many there were of each level, and of all; then none."""
        counted, self._counted = self._counted, Counter()
        return {"WARNING": 0, "INFO": 0, **counted, "lines": counted.total()}


class Worker:
    """A contender that takes orders.

    Args:
        name: Whose.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.contender = CONTENDERS[name]
        self.opened: Opened | None = None
        self.held: list[Any] = []
        self.lines = LogLines()

    async def work(self) -> None:
        """Take orders until there are no more."""
        try:
            while line := await asyncio.to_thread(sys.stdin.readline):
                order: Figures = json.loads(line)
                do = getattr(self, order.pop("do"))
                print(json.dumps(await do(**order)), flush=True)
        finally:
            await self.close()

    async def close(self) -> None:
        """End the client."""
        if self.opened is not None and (closing := self.opened.close()) is not None:
            await closing

    async def open(self, endpoints: list[str], timeout: float = 5.0) -> Figures:
        """Begin anew with a client of these endpoints."""
        await self.close()
        self.opened = self.contender.open(endpoints, timeout)
        return {}

    def call(self, what: str, key: str, value: str = "") -> Callable[[], Any]:
        """One call without arguments: get, set or tree."""
        assert self.opened is not None
        if what == "set":
            write = self.opened.set
            return lambda: write(key, value)
        read = self.opened.get if what == "get" else self.opened.tree
        return lambda: read(key)

    async def once(self, call: Callable[[], Any]) -> object:
        """Await a call, or let it block a thread."""
        return await (asyncio.to_thread(call) if self.contender.blocking else call())

    async def rate(self, what: str, key: str, tasks: int, seconds: float, value: str = "") -> Figures:
        """Call for some seconds in a number of tasks: calls a second, seconds a call, CPU seconds a call."""
        call = self.call(what, key, value)
        await self.once(call)
        start, cpu = time.perf_counter(), time.process_time()
        if self.contender.blocking:
            took = await asyncio.to_thread(drive_threads, call, tasks, start + seconds)
        else:
            took = await drive_tasks(call, tasks, start + seconds)
        cpu, end = time.process_time() - cpu, time.perf_counter()
        took.sort()
        return {
            "rate": len(took) / (end - start),
            "p50": took[len(took) // 2],
            "p99": took[int(len(took) * 0.99)],
            "cpu": cpu / len(took),
        }

    async def tree(self, warm: str, key: str) -> Figures:
        """List a whole subtree, once: the seconds, and how much the most memory that this process had grew by it."""
        await self.once(self.call("get", warm))
        before, start = peak(), time.perf_counter()
        answer = await self.once(self.call("tree", key))
        took = time.perf_counter() - start
        grown = peak() - before
        del answer
        return {"seconds": took, "peak": grown}

    async def listed(self, warm: str, key: str, seconds: float) -> Figures:
        """List a whole subtree, and keep it."""
        assert self.opened is not None
        await self.opened.get(warm)
        from . import copies  # which an earlier library can't have

        return await copies.listed(self.opened.client, key)

    async def copied(self, warm: str, key: str, seconds: float) -> Figures:
        """Keep a live copy of a whole subtree, and read it for some seconds."""
        assert self.opened is not None
        await self.opened.get(warm)
        from . import copies

        return await copies.copied(self.opened.client, key, seconds)

    async def answers(self, key: str, seconds: float) -> Figures:
        """Read one key over and over for some seconds, whatever happens: when each good answer came, and the errors."""
        times: list[float] = []
        errors: list[str] = []
        end = time.time() + seconds
        call = self.call("get", key)

        def note(error: Exception | None) -> None:
            if error is None:
                times.append(time.time())
            else:
                errors.append(f"{type(error).__name__}: {error}"[:200])

        def repeat() -> None:
            while time.time() < end:
                try:
                    call()
                    note(None)
                except Exception as error:
                    note(error)
                    time.sleep(0.001)

        async def repeat_async() -> None:
            while True:
                try:
                    await call()
                    note(None)
                except Exception as error:
                    note(error)
                    await asyncio.sleep(0.001)

        if self.contender.blocking:
            await asyncio.to_thread(repeat)
        else:
            task = asyncio.ensure_future(repeat_async())
            await asyncio.wait((task,), timeout=seconds)
            task.cancel()
            await asyncio.wait((task,), timeout=1)
        return {"times": times, "errors": errors}

    async def many(self, key: str, calls: int, steps: int) -> Figures:
        """Make many calls, one in ten a write: the memory of this process before, at each step, and at the end."""
        memory = [resident()]
        for step in range(steps):
            left: Iterator[int] = iter(range(calls * step // steps, calls * (step + 1) // steps))

            async def repeat(left: Iterator[int] = left) -> None:
                for number in left:
                    await (self.call("get", key) if number % 10 else self.call("set", key, str(number)))()

            await asyncio.gather(*(repeat() for _ in range(16)))
            memory.append(resident())
        return {"memory": memory}

    async def hold(self, keys: list[str], recursive: bool = False) -> Figures:
        """Open a watcher of each key and keep them."""
        assert self.opened is not None
        before = resident()
        for first in range(0, len(keys), 250):
            some = [self.opened.client.keys.watch(key, recursive=recursive) for key in keys[first : first + 250]]
            await asyncio.gather(*(watcher.__aenter__() for watcher in some))
            self.held += (asyncio.ensure_future(watcher.next()) for watcher in some)
        return {"memory": (resident() - before) / max(1, len(keys))}

    async def register(self, keys: list[str], ttl: float) -> Figures:
        """Register all of these keys at once, and keep them: the seconds, bytes of memory each, and tasks more."""
        from aioetcd2.recipes import Registration  # which an earlier library does not have

        assert self.opened is not None
        self.held = [Registration(self.opened.client.keys, key, key, ttl=ttl) for key in keys]
        before, tasks, start = resident(), len(asyncio.all_tasks()), time.perf_counter()
        await asyncio.gather(*(registration.__aenter__() for registration in self.held))
        took = time.perf_counter() - start
        many = [len(asyncio.all_tasks())]
        for _ in range(20):
            await asyncio.sleep(0.01)
            many.append(len(asyncio.all_tasks()))
        return {"entered": took, "memory": (resident() - before) / max(1, len(keys)), "tasks": min(many) - tasks}

    async def refresh(self, key: str, ttl: float, rate: float, seconds: float) -> Figures:
        """Refresh one key for some seconds, so many times a second, by calls alone."""
        assert self.opened is not None
        keys, end = self.opened.client.keys, time.perf_counter() + seconds
        index = (await keys.set(key, key, ttl=ttl)).modified_index
        count, due = 0, time.perf_counter()
        while (due := due + 1 / rate) < end:
            await asyncio.sleep(due - time.perf_counter())
            index = (await keys.refresh(key, ttl, prev_index=index)).modified_index
            count += 1
        return {"count": count}

    async def leave(self) -> Figures:
        """Leave them: how many were still registered, and the seconds until all keys were gone."""
        there, start = sum(registration.registered for registration in self.held), time.perf_counter()
        await asyncio.gather(*(registration.__aexit__(None, None, None) for registration in self.held))
        return {"there": there, "left": time.perf_counter() - start}

    async def received(self, values: list[str]) -> Figures:
        """How many of the watchers that are kept have got the value that each should get first."""
        await asyncio.wait(self.held, timeout=RECEIVED_WITHIN)
        got = [task.result().node.value if task.done() and not task.exception() else None for task in self.held]
        return {"right": sum(value == wanted for value, wanted in zip(got, values, strict=True))}

    async def logged(self) -> Figures:
        """How many lines the library has logged since this was asked last, by level; they count from the first time."""
        if not self.lines.listening:
            self.lines.listen()
        return self.lines.taken()

    async def watch(self, how: str, endpoint: str, prefix: str, limit: float) -> Figures:
        """Watch a busy prefix until the last event has come, or nothing more does."""
        return await watchers.watch(watchers.WATCHERS[how], endpoint, prefix, limit)

    async def fan_out(self, endpoint: str, prefix: str, count: int) -> Figures:
        """Register many watchers at once."""
        fan_out = fans.ours if self.name == OURS else fans.bare
        return await fan_out(endpoint, prefix, count)


def main() -> None:
    """Be the contender that is named."""
    logging.disable(logging.CRITICAL)
    name = sys.argv[1]
    loop = new_loop(name)()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(Worker(name).work())
    finally:
        loop.close()


if __name__ == "__main__":
    main()

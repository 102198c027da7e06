"""Many tasks read and write the same few keys while the cluster is hurt; what each key went through is checked."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from dataclasses import dataclass, field

from aioetcd2 import KeysAPI

from .checker import Call, Kind, Operation, State, Verdict, check
from .nemesis import Nemesis, Stage
from .recorder import Perform, Recorder, perform

WORKERS = 6
KEYS_AT_ONCE = 3
CALLS_A_KEY = 40
"""Short histories keep the search short: after so many calls a key is given up for another."""


@dataclass
class Report:
    """What a run has found.

    Attributes:
        seed: What it was made of.
        seconds: How long the faults went on.
        calls: How many calls went how.
        struck: How many faults there were of each kind.
        keys: How many keys were checked.
        explored: How many configurations the longest search has looked at.
        undecided: How many searches were given up.
        violations: The keys whose history can't be explained, with it.
    """

    seed: int
    seconds: float = 0.0
    calls: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)
    keys: int = 0
    explored: int = 0
    undecided: int = 0
    violations: list[str] = field(default_factory=list)

    @property
    def answered(self) -> int:
        """How many calls were answered by the server, whatever it said."""
        return sum(count for how, count in self.calls.items() if not how.endswith(("unknown", "not carried out")))

    def add(self, key: str, history: list[Operation], verdict: Verdict) -> None:
        """Take in what came out about a key."""
        self.keys += 1
        self.explored = max(self.explored, verdict.explored)
        if verdict.linearizable is None:
            self.undecided += 1
        elif not verdict.linearizable:
            self.violations.append(explain(key, history, verdict))

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed}, {self.seconds:.0f} s, {sum(self.calls.values())} calls on {self.keys} keys",
            "calls: " + ", ".join(f"{name} {count}" for name, count in sorted(self.calls.items())),
            "faults: " + ", ".join(f"{name} {count}" for name, count in sorted(self.struck.items())),
            f"longest search: {self.explored} configurations; given up: {self.undecided}",
            f"not linearizable: {len(self.violations)}",
        ]
        return "\n".join(lines + self.violations)


def explain(key: str, history: list[Operation], verdict: Verdict) -> str:
    """A history that is not linearizable, for people; an arrow marks what found no place."""
    lines = [f"{key} is not linearizable:"]
    for operation in sorted(history, key=lambda operation: operation.start):
        mark = "->" if operation in verdict.stuck else "  "
        lines.append(f"{mark} {operation}")
    return "\n".join(lines)


class Shelf:
    """The keys in use. A key that has had its calls is given up for a new one, and checked.

    Args:
        recorder: Makes the calls.
        report: What is found goes there.
    """

    def __init__(self, recorder: Recorder, report: Report) -> None:
        self._recorder = recorder
        self._report = report
        self._names = (f"/linearizable/{number}" for number in itertools.count())
        self._keys = [next(self._names) for _ in range(KEYS_AT_ONCE)]
        self._begun: Counter[str] = Counter()
        self._running: Counter[str] = Counter()
        self._known: dict[str, State] = {}
        self._values = itertools.count()

    async def use(self, keys: KeysAPI, dice: random.Random) -> None:
        """Make one call on one of the keys."""
        place = dice.randrange(KEYS_AT_ONCE)
        key = self._keys[place]
        self._begun[key] += 1
        if self._begun[key] == CALLS_A_KEY:
            self._keys[place] = next(self._names)
        self._running[key] += 1
        call = self._next_call(key, dice)
        patience = dice.choice((0.0, 0.01, 0.1, 0.5)) if dice.random() < 0.03 else None
        seen = await self._recorder.call(keys, key, call, patience=patience)
        if seen is not None:
            self._known[key] = seen
        self._running[key] -= 1
        if key not in self._keys and not self._running[key]:
            await self._give_up(keys, key)

    def _next_call(self, key: str, dice: random.Random) -> Call:
        """What to ask for: mostly what goes well if no one is faster."""
        value, index = self._known.get(key, State(None, None))
        if dice.random() < 0.3:
            return Call(Kind.GET)
        if dice.random() < 0.3:
            return Call(dice.choice((Kind.SET, Kind.UPDATE)), f"v{next(self._values)}")
        if value is None or dice.random() < 0.1:
            return Call(Kind.CREATE, f"v{next(self._values)}")
        condition = dice.choice(("value", "index", "none"))
        prev_value = value if condition == "value" else None
        prev_index = index if condition == "index" else None
        if condition == "none" or dice.random() < 0.2:
            return Call(Kind.DELETE, None, prev_value, prev_index)
        return Call(Kind.SWAP, f"v{next(self._values)}", prev_value, prev_index)

    async def _give_up(self, keys: KeysAPI, key: str) -> None:
        """Look at a key for the last time, so that a write that was lost shows, and check its history."""
        await self._recorder.call(keys, key, Call(Kind.GET))
        history = self._recorder.histories.pop(key)
        for table in (self._begun, self._running, self._known):
            table.pop(key, None)
        self._report.add(key, history, await asyncio.to_thread(check, history))

    async def clear(self, keys: KeysAPI) -> None:
        """Give up all keys."""
        for key in list(self._recorder.histories):
            await self._give_up(keys, key)


async def run(seconds: float, seed: int, *, perform: Perform = perform, repeat_writes: bool = False) -> Report:
    """Hurt a cluster, and check what its clients saw.

    Args:
        seconds: How long.
        seed: Of the faults and the calls.
        perform: How calls are made.
        repeat_writes: Whether the clients repeat plain writes, which is not linearizable.
    """
    report = Report(seed)
    recorder = Recorder(perform)
    shelf = Shelf(recorder, report)
    start = time.monotonic()

    async def work(keys: KeysAPI, dice: random.Random) -> None:
        while time.monotonic() - start < seconds:
            await shelf.use(keys, dice)
            await asyncio.sleep(dice.uniform(0.0, 0.02))

    async with Stage.built() as stage, stage.clients(3, repeat_writes=repeat_writes) as clients:
        async with Nemesis(stage, seed) as nemesis:
            await asyncio.gather(
                *(work(clients[n % len(clients)].keys, random.Random(f"{seed} worker {n}")) for n in range(WORKERS))
            )
        report.seconds = time.monotonic() - start
        await shelf.clear(clients[0].keys)
    report.calls, report.struck = recorder.outcomes, nemesis.struck
    return report

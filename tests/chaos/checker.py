"""Whether a history of calls on one key is linearizable: the search of Wing and Gong, with Lowe's memory.

A history is linearizable if every call can be given one moment between its start and its end, such that the calls,
carried out one after the other in the order of these moments, give the answers that were seen. The history of a whole
store is linearizable exactly if that of each key is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple

NEVER = sys.maxsize
"""The end of a call whose answer was lost: it may take effect at any later moment, or not at all."""

LIMIT = 500_000
"""How many configurations are searched before the search is given up."""


class Kind(str, Enum):
    """What a call asks for."""

    GET = "get"
    SET = "set"
    UPDATE = "update"
    CREATE = "create"
    SWAP = "swap"
    DELETE = "delete"


class Outcome(str, Enum):
    """What a call was answered."""

    DONE = "done"
    ABSENT = "absent"
    EXISTS = "exists"
    DIFFERS = "differs"
    UNKNOWN = "unknown"


class State(NamedTuple):
    """What a key holds, `None` = it is absent, and the index at which it was last changed, `None` = not known."""

    value: str | None
    modified: int | None

    def __str__(self) -> str:
        return f"{self.value or 'absent'}@{'?' if self.modified is None else self.modified}"


NEW = State(None, 0)
"""The state of a key that has never been written."""


@dataclass(frozen=True)
class Call:
    """What is asked of a key; a swap and a delete may have conditions.

    Attributes:
        kind: What is asked for.
        value: The new value.
        prev_value: Only if this is the value.
        prev_index: Only if this is the index of the last change.
    """

    kind: Kind
    value: str | None = None
    prev_value: str | None = None
    prev_index: int | None = None

    def __str__(self) -> str:
        words = [self.kind.value, self.value]
        words += ["if", self.prev_value] if self.prev_value is not None else []
        words += ["if", f"@{self.prev_index}"] if self.prev_index is not None else []
        return " ".join(word for word in words if word is not None)


@dataclass(frozen=True)
class Operation:
    """A call as it went. Times are whole numbers of any clock that never shows the same twice.

    Attributes:
        call: What was asked for.
        start: When it was asked for.
        end: When the answer was there; `NEVER` if it was lost.
        outcome: What the answer was.
        after: The key after a call that was done: what a get read, what a write made.
        before: The key before a write that was done, where the server said so.
    """

    call: Call
    start: int
    end: int
    outcome: Outcome
    after: State | None = None
    before: State | None = None

    def __str__(self) -> str:
        states = [f"{name} {state}" for name, state in (("before", self.before), ("after", self.after)) if state]
        end = "..." if self.end == NEVER else self.end
        return ", ".join([f"{self.start}-{end} {self.call}: {self.outcome.value}", *states])

    @property
    def reads(self) -> bool:
        """Whether it leaves the key as it is: a get, and a write that was refused."""
        return self.call.kind is Kind.GET or self.outcome not in (Outcome.DONE, Outcome.UNKNOWN)


class Verdict(NamedTuple):
    """What became of a search.

    Attributes:
        linearizable: `None` = the search was given up.
        explored: How many configurations were looked at.
        stuck: The calls that had no place after the longest order that was found.
    """

    linearizable: bool | None
    explored: int
    stuck: tuple[Operation, ...] = ()


def step(operation: Operation, state: State) -> State | None:
    """The state after an operation, `None` = it can't have gone like this in that state."""
    call, outcome = operation.call, operation.outcome
    if outcome is Outcome.ABSENT:
        return state if state.value is None else None
    if outcome is Outcome.EXISTS:
        return state if state.value is not None else None
    if outcome is Outcome.DIFFERS:
        return state if state.value is not None and _may_fail(call, state) else None
    if call.kind is Kind.GET:
        return operation.after if operation.after is not None and _may_be(state, operation.after) else None
    if not _may_hold(call, state):
        return None
    if operation.before is not None and not _may_be(state, operation.before):
        return None
    if operation.after is None:
        return State(call.value, None)
    if (
        state.modified is not None
        and operation.after.modified is not None
        and operation.after.modified <= state.modified
    ):
        return None
    return operation.after


def _may_be(state: State, seen: State) -> bool:
    return state.value == seen.value and (None in (state.modified, seen.modified) or state.modified == seen.modified)


def _may_hold(call: Call, state: State) -> bool:
    """Whether a write's conditions may hold; of an index that is not known, any may be right."""
    if call.kind is Kind.SET:
        return True
    if call.kind is Kind.CREATE:
        return state.value is None
    if state.value is None:
        return False
    return call.prev_value in (None, state.value) and (
        call.prev_index is None or state.modified in (None, call.prev_index)
    )


def _may_fail(call: Call, state: State) -> bool:
    by_value = call.prev_value is not None and call.prev_value != state.value
    by_index = call.prev_index is not None and (state.modified is None or call.prev_index != state.modified)
    return by_value or by_index


def check(operations: Iterable[Operation], *, start: State = NEW, limit: int = LIMIT) -> Verdict:
    """Look for an order of the operations on one key that explains all that was seen.

    A configuration is the set of the operations that have had their moment, as the bits of a number, and the state they
    led to. Whatever way led there, what follows is the same, so that none is looked at twice.

    Args:
        operations: The history of the key, in any order.
        start: What the key held before.
        limit: How many configurations to look at.
    """
    history = sorted(
        _unnamed(operations), key=lambda operation: (operation.outcome is Outcome.UNKNOWN, operation.start)
    )
    required = sum(1 << n for n, operation in enumerate(history) if operation.outcome is not Outcome.UNKNOWN)
    pending = [(0, start)]
    known = set(pending)
    explored, longest = 0, 0
    while pending:
        done, state = pending.pop()
        if done & required == required:
            return Verdict(True, explored)
        if explored == limit:
            return Verdict(None, explored)
        explored += 1
        if (done & required).bit_count() > (longest & required).bit_count():
            longest = done
        for configuration in _following(history, done, state):
            if configuration not in known:
                known.add(configuration)
                pending.append(configuration)
    stuck = (each for n, each in enumerate(history) if required & ~longest & 1 << n)
    return Verdict(False, explored, tuple(stuck))


def _unnamed(operations: Iterable[Operation]) -> list[Operation]:
    """The operations, with one name for all values that were lost and that no one speaks of: they are all alike."""
    history = list(operations)
    spoken_of = {state.value for each in history for state in (each.before, each.after) if state is not None}
    spoken_of.update(each.call.prev_value for each in history)
    return [
        replace(each, call=replace(each.call, value="?"))
        if each.outcome is Outcome.UNKNOWN and each.call.value is not None and each.call.value not in spoken_of
        else each
        for each in history
    ]


def _following(history: list[Operation], done: int, state: State) -> list[tuple[int, State]]:
    """The configurations that one more operation leads to, the most likely last.

    What only reads, and can have its moment now, need not be tried later: it stands in no one's way. So only writes
    make the search branch; and of several lost ones that ask for the same, the first stands for all.
    """
    waiting = [(n, operation) for n, operation in enumerate(history) if not done & 1 << n]
    horizon = min(operation.end for _, operation in waiting)
    following: list[tuple[int, State]] = []
    lost: set[Call] = set()
    for n, operation in waiting:  # the lost ones come last
        if operation.start > horizon or operation.call in lost:
            continue
        after = step(operation, state)
        if after == state and operation.reads:
            return [(done | 1 << n, state)]
        if operation.outcome is Outcome.UNKNOWN:
            lost.add(operation.call)
        if after is not None:
            following.append((done | 1 << n, after))
    return following[::-1]

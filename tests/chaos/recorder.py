"""Makes calls, and writes down how they went."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable

from async_timeout import timeout

from aioetcd2 import (
    ClusterError,
    CompareFailedError,
    InvalidResponseError,
    KeyNotFoundError,
    KeysAPI,
    Node,
    NodeExistsError,
    Response,
)

from .checker import NEVER, Call, Kind, Operation, Outcome, State

STUCK = 60.0
"""Seconds after which a call without an answer is a fault of the client: it should have given up long ago."""

Perform = Callable[[KeysAPI, str, Call], Awaitable[Response]]


async def perform(keys: KeysAPI, key: str, call: Call) -> Response:
    """Make a call as a user does."""
    if call.kind is Kind.GET:
        return await keys.get(key, quorum=True)
    if call.kind is Kind.DELETE:
        return await keys.delete(key, prev_value=call.prev_value, prev_index=call.prev_index)
    assert call.value is not None
    if call.kind is Kind.SET:
        return await keys.set(key, call.value)
    if call.kind is Kind.UPDATE:
        return await keys.update(key, call.value)
    if call.kind is Kind.CREATE:
        return await keys.create(key, call.value)
    return await keys.set(key, call.value, prev_value=call.prev_value, prev_index=call.prev_index)


async def perform_again(keys: KeysAPI, key: str, call: Call) -> Response:
    """Make a call as no client should: send it once more where its answer was lost, and believe the second answer."""
    while True:
        try:
            return await perform(keys, key, call)
        except (ClusterError, InvalidResponseError) as error:
            if not error.maybe_applied:
                raise


class Recorder:
    """The histories of some keys.

    Args:
        perform: How calls are made.

    Attributes:
        histories: What happened to each key so far, but for what certainly changed nothing and saw nothing.
        outcomes: How many calls went how.
    """

    def __init__(self, perform: Perform = perform) -> None:
        self._perform = perform
        self._clock = itertools.count(1)
        self.histories: dict[str, list[Operation]] = {}
        self.outcomes: Counter[str] = Counter()

    async def call(self, keys: KeysAPI, key: str, call: Call, *, patience: float | None = None) -> State | None:
        """Make a call, and write down how it went.

        Args:
            keys: Whose call it is.
            key: The key.
            call: What to ask for.
            patience: Seconds after which the caller cancels it; `None` = it waits for the answer.

        Returns:
            What the key held at some moment meanwhile, `None` = that did not come out.

        Raises:
            AssertionError: The call is stuck.
        """
        history = self.histories.setdefault(key, [])
        start = next(self._clock)
        outcome, end, after, before = Outcome.DONE, NEVER, None, None
        try:
            async with timeout(STUCK if patience is None else patience):
                response = await self._perform(keys, key, call)
        except KeyNotFoundError:
            outcome = Outcome.ABSENT
        except NodeExistsError:
            outcome = Outcome.EXISTS
        except CompareFailedError:
            outcome = Outcome.DIFFERS
        except (ClusterError, InvalidResponseError) as error:
            if not error.maybe_applied:
                self._count(call, "not carried out")
                return None
            outcome = Outcome.UNKNOWN
        except asyncio.TimeoutError:
            assert patience is not None, f"{call} of {key} is stuck: no answer and no error within {STUCK:.0f} s"
            outcome = Outcome.UNKNOWN
        else:
            after, before = _state(response.node), _state(response.prev_node)
            if before is None and call.kind is Kind.SET:
                before = State(None, None)
        if outcome is not Outcome.UNKNOWN:
            end = next(self._clock)
        self._count(call, outcome.value)
        if outcome is not Outcome.UNKNOWN or call.kind is not Kind.GET:
            history.append(Operation(call, start, end, outcome, after, before))
        return State(None, None) if outcome is Outcome.ABSENT else after

    def _count(self, call: Call, how: str) -> None:
        self.outcomes[f"{call.kind.value} {how}"] += 1


def _state(node: Node | None) -> State | None:
    return None if node is None else State(node.value, node.modified_index)

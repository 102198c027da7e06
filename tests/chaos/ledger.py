"""What has happened to one key, as its only writer and all its watchers tell it; they have to agree.

There is no bystander to ask, since all members are hurt. But the writer knows of each of its writes whether it was
acknowledged, and at which index, or refused, or lost; and as each writes something unique, and none is repeated, every
event can be told to be one of them:

- all watchers get the same events in the same order, with indexes that go up;
- each acknowledged write is among them once, with its index;
- whatever else is among them is a write that was lost on the way, at most once.

What all watchers have had is compared and then forgotten, so that an account may go on for hours.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple


class Event(NamedTuple):
    """What happened at an index: the value that was written, or `-` and the value that was removed."""

    modified: int
    what: str


class Ledger:
    """The account of one key.

    Args:
        key: The key.
        complain: Told of every contradiction.

    Attributes:
        acknowledged: How many writes were.
        lost_writes: How many writes were lost on the way.
        unacknowledged: How many events were of lost writes, or needed none.
        last: The last event of all.
    """

    def __init__(self, key: str, complain: Callable[[str], None]) -> None:
        self.key = key
        self._complain = complain
        self._possible: set[str] = set()
        self._acknowledged: dict[int, str] = {}
        self._events: deque[Event] = deque()
        self._dropped = 0
        self._positions: dict[int, int] = {}
        self._watchers = 0
        self.acknowledged = 0
        self.lost_writes = 0
        self.unacknowledged = 0
        self.last = Event(0, "")

    def join(self) -> int:
        """A watcher's number; all join before the first write."""
        number = self._watchers
        self._watchers += 1
        self._positions[number] = 0
        return number

    def acknowledge(self, event: Event) -> None:
        """A write was answered."""
        self.acknowledged += 1
        self._acknowledged[event.modified] = event.what

    def lose(self, what: str) -> None:
        """The answer to a write was lost: it may be seen from now on."""
        self.lost_writes += 1
        self._possible.add(what)

    def allow(self, what: str) -> None:
        """Something may happen without a write: a key that expires."""
        self._possible.add(what)

    def see(self, watcher: int, event: Event) -> None:
        """A watcher has had an event."""
        position = self._positions.get(watcher)
        if position is None:
            return  # it went astray before; one complaint is enough
        place = position - self._dropped
        if place < len(self._events):
            if event != self._events[place]:
                self._complain(f"{self.key}: watcher {watcher} got {event}, another {self._events[place]} in its place")
                del self._positions[watcher]
                return
        elif event.modified <= self.last.modified:
            self._complain(f"{self.key}: watcher {watcher} got {event} after {self.last}")
            del self._positions[watcher]
            return
        else:
            self._events.append(event)
            self.last = event
        self._positions[watcher] = position + 1

    @property
    def oldest_unseen(self) -> int | None:
        """The index of the first event that some watcher has not had yet, as far as it is known."""
        if not self._positions:
            return None
        place = min(self._positions.values()) - self._dropped
        if place < len(self._events):
            return self._events[place].modified
        return min((index for index in self._acknowledged if index > self.last.modified), default=None)

    def settle(self) -> None:
        """Compare what was written with what all watchers have had. No write may be under way meanwhile."""
        self._settle(min(self._positions.values(), default=0))

    def _settle(self, end: int) -> None:
        reached = 0
        while self._dropped < end:
            event = self._events.popleft()
            self._dropped += 1
            reached = event.modified
            if self._acknowledged.get(event.modified) == event.what:
                del self._acknowledged[event.modified]
            elif event.what in self._possible:
                self._possible.remove(event.what)
                self.unacknowledged += 1
            else:
                self._complain(f"{self.key}: {event} was never written, was refused, or came before")
        for index in [index for index in self._acknowledged if index <= reached]:
            self._complain(f"{self.key}: no watcher got {Event(index, self._acknowledged.pop(index))}")

    def close(self, final: Event) -> None:
        """Settle what is left, when every watcher should have had everything.

        Args:
            final: What the cluster says the key holds, and since when.
        """
        end = self._dropped + len(self._events)
        for watcher, position in self._positions.items():
            if position < end:
                self._complain(f"{self.key}: watcher {watcher} never got {end - position} events that another got")
        self._settle(end)
        for index, what in self._acknowledged.items():
            self._complain(f"{self.key}: no watcher got {Event(index, what)}")
        if final != self.last:
            self._complain(f"{self.key}: the cluster holds {final}, but the last event was {self.last}")

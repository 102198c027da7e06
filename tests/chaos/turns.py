"""Who held a lock when, and what was done with it: is any of that against what the lock promises?

Moments are of one clock that all processes of this machine share, so that those of two holders can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

NEVER = float("inf")


@dataclass
class Tenure:
    """When one holder was certainly valid.

    It looks at the clock, asks `valid`, and looks at the clock again. `since` is the earliest second look, `until` the
    latest first one: from a moment no later than `since` to one no earlier than `until` it was valid.

    Attributes:
        token: Its token.
        who: Which process.
        since: Where `until` is earlier, it was seen valid at one moment between the two.
        until: See there.
        over: When it had been seen not to be valid.
        held: How many holders there were with this token.
    """

    token: int
    who: str
    since: float = NEVER
    until: float = -NEVER
    over: float = NEVER
    held: int = 0

    def see(self, valid: bool, before: float, after: float) -> None:
        """Take down what it was at a moment between these."""
        if valid:
            self.since = min(self.since, after)
            self.until = max(self.until, before)
        else:
            self.over = min(self.over, after)


class Removal(NamedTuple):
    """A foreign hand has deleted the directory of the lock.

    Attributes:
        event: Its index: all places that are older were deleted by it.
        sent: When that was asked for.
        done: When it had been done for certain.
    """

    event: int
    sent: float
    done: float


class Act(NamedTuple):
    """What a holder did, in the order in which the register was told.

    Attributes:
        token: The holder's.
        based: The value which the holder had read before it wrote; `None` = this is a read.
        before: The value that was there.
        accepted: Whether the register did it.
    """

    token: int
    based: int | None
    before: int
    accepted: bool


def excused(one: Tenure, other: Tenure, removals: Iterable[Removal], ttl: float) -> bool:
    """Whether a foreign hand had deleted the place of one before another got its own.

    Its holder hears of that after a moment; cut off from the cluster, when its belief ends.
    """
    for removal in removals:
        between = one.token < removal.event < other.token
        if between and other.since >= removal.sent and one.until <= removal.done + ttl:
            return True
    return False


def judge(tenures: Iterable[Tenure], acts: Sequence[Act], removals: Sequence[Removal], ttl: float) -> list[str]:
    """What is wrong.

    Args:
        tenures: All holders.
        acts: What they did.
        removals: The only excuse for two that are valid at one moment.
        ttl: The longest that the older one of those may believe.
    """
    found = []
    in_order = sorted(tenures, key=lambda each: each.token)
    for number, later in enumerate(in_order):
        if later.held > 1:
            found.append(f"token {later.token} was held {later.held} times")
        if later.until > later.over:
            found.append(f"valid again: {later}")
        for earlier in in_order[:number]:
            if earlier.until < later.since or excused(earlier, later, removals, ttl):
                continue
            kind = "valid after a later token" if earlier.since > later.until else "two valid at one moment"
            found.append(f"{kind}, for {earlier.until - later.since:.3f} s: {earlier}, {later}")
    return found + judge_acts(acts)


def judge_acts(acts: Iterable[Act]) -> list[str]:
    """What is wrong with what the register did."""
    found, newest = [], 0
    for act in acts:
        if not act.accepted:
            if act.token >= newest:
                found.append(f"refused, though no later token had been there: {act}")
            continue
        if act.token < newest:
            found.append(f"out of turn, after token {newest}: {act}")
        elif act.based not in (None, act.before):
            found.append(f"a lost update: {act}")
        newest = max(newest, act.token)
    return found

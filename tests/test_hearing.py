"""What the events of a stream say of it."""

from __future__ import annotations

import pytest

from aioetcd2 import Node, Response
from aioetcd2._v2.hearing import SERVER_BUFFER, Hearing
from aioetcd2._watching.steps import Heard, Patience, Registered


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """Nothing here opens anything, so there is nothing to look for."""


def heard(index: int, last: int, events: int, *, since: int | None = None, ends: bool = False) -> Hearing:
    hearing = Hearing(Registered(index, since, ends=ends))
    hearing.hear(Heard([Response("set", Node("/a", "v", modified_index=last))] * events))
    return hearing


@pytest.mark.parametrize(
    ("index", "last", "events", "ends", "crowd"),
    [
        (10, 1000, 400, False, True),
        (10, 1000, 330, False, True),
        (10, 1000, 329, False, False),  # fewer than one in three is ours
        (10, 200, 100, False, True),
        (10, 200, 99, False, False),  # no more than the server buffers
        (10, 1000, 400, True, False),  # a long poll
        (10, 11, 400, False, True),
        (10, 10, 400, False, False),  # history only
        (10, 9, 400, False, False),
    ],
)
def test_a_crowd(index: int, last: int, events: int, ends: bool, crowd: bool) -> None:
    assert heard(index, last, events, ends=ends).is_crowd is crowd


@pytest.mark.parametrize(
    ("last", "since", "ends", "history"),
    [
        (10, 5, False, True),
        (6, 5, False, True),
        (11, 5, False, False),  # behind the registration
        (0, 5, False, False),  # a lying server names no index
        (10, None, False, False),  # from now on, whatever it says
        (10, 5, True, False),  # a long poll ends anyway
    ],
)
def test_history(last: int, since: int | None, ends: bool, history: bool) -> None:
    assert heard(10, last, 1, since=since, ends=ends).is_history is history


def test_how_to_listen() -> None:
    hearing = Hearing(Registered(10))
    many = [Response("set", Node("/a", "v", modified_index=11))] * SERVER_BUFFER
    patience = [hearing.todo.patience]
    for what in (Heard([], halfway=True), Heard(many, halfway=True)):
        hearing.hear(what)
        patience.append(hearing.todo.patience)
    assert patience == [Patience.ENDLESS, Patience.HALFWAY, Patience.HUSHED]

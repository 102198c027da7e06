"""What is to be done of a queue, by the changes of a copy that is always a little behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import cast

import pytest
from async_timeout import timeout

from aioetcd2 import Node
from aioetcd2.recipes import Change
from aioetcd2.recipes._backlog import MOST, Backlog
from aioetcd2.recipes._places import Place

MEMORY = 0.05


class Told:
    """Stands in for a place: what it was told of its key."""

    def __init__(self, token: int) -> None:
        self.token = token
        self.nodes: list[Node | None] = []

    def seen(self, node: Node | None) -> None:
        self.nodes.append(node)


class Copied:
    """A backlog, and the changes of its copy."""

    def __init__(self, memory: float = 60.0) -> None:
        self.ours: dict[str, Place | None] = {}
        self.backlog = Backlog("/q", self.ours, memory)
        self.index = 0

    def put(self, *names: str, created: int | None = None) -> None:
        for name in names:
            self.change("items", name, created)

    def claim(self, name: str) -> Node:
        return self.change("claims", name)

    def change(self, directory: str, name: str, created: int | None = None) -> Node:
        self.index += 1
        node = Node(f"/app/q/{directory}/{name}", "v", created_index=created or self.index, modified_index=self.index)
        self.backlog.take(Change(node.key, None, node, self.index))
        return node

    def end(self, directory: str, name: str, index: int | None = None) -> None:
        self.index += 1
        self.backlog.take(Change(f"/app/q/{directory}/{name}", None, None, index or self.index))

    async def pick(self, count: int = 1) -> str:
        async with timeout(1):
            return "".join([await self.backlog.pick() for _ in range(count)])

    async def empty(self) -> None:
        with pytest.raises(asyncio.TimeoutError):
            async with timeout(0.01):
                pytest.fail(await self.backlog.pick())


@pytest.fixture
def copied() -> Copied:
    return Copied()


async def test_the_oldest_first(copied: Copied) -> None:
    copied.put("b", "a")
    copied.put("d", created=7)
    copied.put("c", created=6)
    assert await copied.pick(4) == "bacd"
    await copied.empty()


async def test_what_is_at_work_is_picked_by_nobody_else(copied: Copied) -> None:
    copied.put("a", "b")
    assert await copied.pick() == "a"
    copied.put("a", created=1)  # its attempts are counted
    assert await copied.pick() == "b"
    await copied.empty()
    copied.backlog.put_back("b")
    copied.backlog.put_back("a")
    assert await copied.pick(2) == "ab"


async def test_what_is_claimed_is_free_once_the_claim_has_ended(copied: Copied) -> None:
    copied.put("a", "b")
    copied.claim("a")
    assert await copied.pick() == "b"
    await copied.empty()
    copied.end("claims", "a")
    assert await copied.pick() == "a"


async def test_what_is_gone_is_not_picked(copied: Copied) -> None:
    copied.put("a", "b")
    copied.end("items", "a")
    assert await copied.pick() == "b"
    copied.end("items", "b")
    copied.backlog.put_back("b")
    await copied.empty()


async def test_what_was_done_is_not_begun_again_before_that_is_told(copied: Copied) -> None:
    copied.put("a")
    await copied.pick()
    copied.backlog.put_back("a", done=True)
    copied.claim("a")
    copied.put("a", created=1)
    copied.end("claims", "a")
    await copied.empty()
    copied.end("items", "a")
    copied.put("a")  # put again by hand
    assert await copied.pick() == "a"


async def test_another_was_faster(copied: Copied) -> None:
    """It is not tried again before the claim is told, and has ended."""
    copied.put("a", "b")
    await copied.pick()
    copied.backlog.lost("a")
    assert await copied.pick() == "b"
    copied.claim("a")
    await copied.empty()
    copied.end("claims", "a")
    assert await copied.pick() == "a"
    copied.backlog.end(ValueError("over"))


async def test_another_was_faster_which_is_forgotten_but_not_its_claim() -> None:
    copied = Copied(MEMORY)
    copied.put("a", "b")
    await copied.pick(2)
    copied.backlog.lost("a")
    copied.claim("a")
    copied.claim("b")
    copied.backlog.lost("b")
    await asyncio.sleep(MEMORY * 2)
    await copied.empty()


async def test_a_claim_that_came_and_went_while_events_were_lost() -> None:
    copied = Copied(MEMORY)
    copied.put("a")
    await copied.pick()
    copied.backlog.lost("a")
    await copied.empty()
    async with timeout(1):
        assert await copied.backlog.pick() == "a"


async def test_a_place_is_told_what_becomes_of_its_key(copied: Copied) -> None:
    copied.put("a")
    await copied.pick()
    copied.claim("a")
    place = Told(token=4)
    copied.backlog.claimed("a", cast("Place", place))
    copied.end("claims", "a")
    assert place.nodes == [], "that was another's, which was there before"
    own = copied.claim("a")
    assert own.created_index == place.token
    assert place.nodes == []
    copied.end("claims", "a")
    assert place.nodes == [None]


async def test_a_place_is_told_what_had_become_of_its_key_already(copied: Copied) -> None:
    copied.put("a")
    await copied.pick()
    own = copied.claim("a")
    place = Told(token=own.created_index)
    copied.backlog.claimed("a", cast("Place", place))
    assert place.nodes == [own]
    copied.end("claims", "a")
    late = Told(token=own.created_index)
    copied.backlog.claimed("a", cast("Place", late))
    assert late.nodes == [None]


async def test_each_item_wakes_one(copied: Copied) -> None:
    tasks = [asyncio.create_task(copied.backlog.pick()) for _ in range(3)]
    await asyncio.sleep(0)
    copied.put("a", "b")
    assert len(copied.backlog._waiting) == 1
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [task.done() for task in tasks] == [True, True, False]
    assert [task.result() for task in tasks[:2]] == ["a", "b"]
    tasks[2].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[2]


async def test_who_is_cancelled_as_it_wakes_wakes_another(copied: Copied) -> None:
    one, two = (asyncio.create_task(copied.backlog.pick()) for _ in range(2))
    await asyncio.sleep(0)
    copied.put("a")
    one.cancel()
    async with timeout(1):
        assert await two == "a"
    assert one.cancelled()


async def test_who_waits_is_told_of_the_end(copied: Copied) -> None:
    copied.put("a", "b")
    await copied.pick(2)
    copied.backlog.lost("a")
    task = asyncio.create_task(copied.backlog.pick())
    await asyncio.sleep(0)
    copied.backlog.end(ValueError("over"))
    for wait in (task, copied.backlog.pick()):
        with pytest.raises(ValueError, match="over"):
            await wait
    assert not copied.backlog._others, "no timer is left"


async def test_who_gets_in_each_others_way_spreads(copied: Copied) -> None:
    copied.put(*(f"{number:03}" for number in range(200)))
    seen: Counter[str] = Counter()
    for _ in range(7):
        copied.backlog.spread(apart=True)
    for _ in range(1000):
        name = await copied.pick()
        seen[name] += 1
        copied.backlog.put_back(name)
    assert MOST * 0.9 < len(seen) <= MOST
    assert max(seen) < f"{MOST:03}"
    for _ in range(60):
        copied.backlog.spread(apart=False)
    assert await copied.pick() == "000"


async def test_strangers_are_ignored(copied: Copied) -> None:
    copied.change("other", "a")
    copied.change("items/deep", "b")
    copied.change("claims/deep", "c")
    copied.put("c")
    assert await copied.pick() == "c"

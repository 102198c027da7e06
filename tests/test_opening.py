"""The opening of a stream: one that ends late takes nothing away from the next."""

from __future__ import annotations

import asyncio

from async_timeout import timeout

from aioetcd2._net.exchange import OpenStream
from aioetcd2._watching.opening import Opening


async def ends_late() -> OpenStream:
    try:
        await asyncio.Event().wait()
    finally:
        for _ in range(5):
            await asyncio.sleep(0)
    raise AssertionError


async def never() -> bool:
    raise AssertionError


async def test_an_opening_that_ends_late_leaves_the_next_to_be_called_off() -> None:
    opening = Opening()
    first = asyncio.ensure_future(opening.wait_for(ends_late(), None, never))
    for _ in range(3):
        await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    second = asyncio.ensure_future(opening.wait_for(ends_late(), None, never))
    await asyncio.wait((first,))
    assert first.cancelled()
    opening.call_off()
    await asyncio.wait((second,), timeout=2)
    assert second.done()
    assert second.result() is None
    assert opening.task is None


async def test_an_opening_that_is_held_back_is_called_off() -> None:
    asked: list[bool] = []

    async def is_held_back() -> bool:
        asked.append(len(asked) == 2)
        return asked[-1]

    opening = Opening()
    async with timeout(2):
        assert await opening.wait_for(ends_late(), 0.01, is_held_back) is None
    assert asked == [False, False, True]
    assert opening.task is None

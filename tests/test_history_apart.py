"""The history of a key and of all below it, read apart: in what order, and what ends it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from aioetcd2 import Client, ConnectionLostError, EventIndexClearedError
from aioetcd2._v2 import history_apart
from aioetcd2._v2.history_apart import HistoryApart
from aioetcd2._v2.stream import index_of
from aioetcd2._watching.steps import Fetch

from .misbehaver import (
    Behaviour,
    Exchange,
    Misbehaver,
    answer,
    chunk,
    happened,
    key_event,
    raw,
    stay,
    wait,
    wait_header,
)

UNTIL = 20


def serve(below: list[int], own: list[int], *, index: int = 30) -> Behaviour:
    """Answers from two histories."""

    async def behave(exchange: Exchange) -> bool | None:
        query = exchange.seen.query
        key, history = ("/a/b", below) if query.get("recursive") == "true" else ("/a", own)
        found = next((each for each in history if each >= int(query["waitIndex"])), None)
        return await (wait(index) if found is None else happened(key_event(key, found), index=index))(exchange)

    return behave


@asynccontextmanager
async def fetching(behave: Behaviour) -> AsyncIterator[tuple[HistoryApart, Misbehaver]]:
    async with Misbehaver(behave) as server, Client(server.endpoint) as client:
        yield HistoryApart(client._failover, "/v2/keys/a"), server


async def all_of(apart: HistoryApart, after: int = 10) -> list[int]:
    found: list[int] = []
    while (event := await apart.fetch(Fetch(after, UNTIL, False), 0.0)) is not None:
        after = index_of(event)
        found.append(after)
    return found


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_apart, "BLOCKED", 0.05)


@pytest.mark.parametrize(
    ("below", "own", "found"),
    [
        ([], [], []),
        ([12, 14], [], [12, 14]),
        ([], [12, 14], [12, 14]),
        ([12, 15], [11, 13, 14, 20], [11, 12, 13, 14, 15, 20]),
        ([12, 14], [12], [12, 14]),  # the same one, as where a directory above is deleted
        ([12, 21], [13, 22], [12, 13]),  # what is beyond comes by the stream
        ([8, 12], [9], [12]),
    ],
)
async def test_both_histories_in_one_order(below: list[int], own: list[int], found: list[int]) -> None:
    async with fetching(serve(below, own)) as (apart, _):
        assert await all_of(apart) == found


async def test_nothing_is_asked_for_twice_for_one_stream() -> None:
    async with fetching(serve([12, 13, 14], [])) as (apart, server):
        assert await all_of(apart) == [12, 13, 14]
        asked = [seen.query["waitIndex"] for seen in server.waits if "recursive" not in seen.query]
        assert asked == ["11"]
        assert await apart.fetch(Fetch(14, UNTIL + 1, False), 0.0) is None
        assert len(server.waits) == 5 + 2


async def test_a_member_that_lags_says_nothing_of_what_is_before_the_stream() -> None:
    async with fetching(serve([], [], index=UNTIL - 1)) as (apart, _):
        with pytest.raises(ConnectionLostError, match="lags"):
            await all_of(apart)


async def test_a_poll_that_ends_says_nothing_either() -> None:
    async with fetching(raw(wait_header(30) + chunk(b""), then=stay)) as (apart, _):
        with pytest.raises(ConnectionLostError, match="without an event"):
            await all_of(apart)


async def test_what_is_cleared_is_told() -> None:
    body = {"errorCode": 401, "message": "cleared", "cause": "", "index": 2000}
    async with fetching(answer(body, status=400)) as (apart, _):
        with pytest.raises(EventIndexClearedError):
            await all_of(apart)

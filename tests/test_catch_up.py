"""How history is fetched poll by poll: how many at a time, in what order, and what ends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import cast

import pytest
from async_timeout import timeout

from aioetcd2 import ConnectionLostError, InvalidResponseError, Node, Response
from aioetcd2._net.failover import Failover
from aioetcd2._net.request import Request
from aioetcd2._v2 import catch_up
from aioetcd2._v2.catch_up import CatchUp
from aioetcd2._watching.opening import settle
from aioetcd2._watching.steps import Fetch

ENDPOINT = "http://a:1"
PATH = "/v2/keys/a"


def event(index: int) -> Response:
    return Response("set", Node("/a", "v", modified_index=index))


class Server:
    """Answers each poll by what follows in its history, or as it is told."""

    def __init__(self, history: Iterable[int]) -> None:
        self.history = sorted(history)
        self.asked: list[int] = []
        self.open = self.most = 0
        self.answers: dict[int, Response | Exception | None] = {}
        self.slow = asyncio.Event()
        self.slow.set()

    async def poll(self, failover: object, request: Request) -> Response | None:
        assert failover is FAILOVER
        path, _, index = request.target.rpartition("=")
        assert path == f"{PATH}?wait=true&recursive=true&waitIndex"
        since = int(index) - 1
        self.asked.append(since)
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            await asyncio.sleep(0)
            await self.slow.wait()
            found = self.answers.get(since, next((event(each) for each in self.history if each > since), None))
            if isinstance(found, Exception):
                raise found
            if found is None and since not in self.answers:
                await asyncio.Event().wait()
            return found
        finally:
            self.open -= 1


class Live:
    """The open stream, and whether most of what is before it is ours."""

    index = 1_000_000
    took = 0.0
    crowd = False


FAILOVER = object()


@pytest.fixture
def live() -> Live:
    return Live()


@pytest.fixture
def catching() -> CatchUp:
    return CatchUp(cast(Failover, FAILOVER), PATH, True)


async def fetch(catching: CatchUp, cursor: int, live: Live) -> int | None:
    async with timeout(5):
        found = await catching.fetch(Fetch(cursor, live.index, live.crowd), live.took, ENDPOINT)
    assert found is None or found.node is not None
    return found.node.modified_index if found is not None and found.node is not None else None


@asynccontextmanager
async def fetching(catching: CatchUp, cursor: int, live: Live) -> AsyncIterator[asyncio.Task[int | None]]:
    """A fetch that has begun, and is cancelled in the end."""
    task = asyncio.ensure_future(fetch(catching, cursor, live))
    await asyncio.sleep(0.01)
    try:
        yield task
    finally:
        task.cancel()
        await settle(task)


async def fetch_all(catching: CatchUp, cursor: int, live: Live) -> list[int]:
    """All until there is nothing more, as a watcher does."""
    fetched: list[int] = []
    while cursor < live.index:
        index = await fetch(catching, cursor, live)
        if index is None:
            break
        if index > cursor:
            fetched.append(index)
            cursor = index
    await catching.stop()
    return fetched


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> type[Server]:
    class Serving(Server):
        def __init__(self, history: Iterable[int]) -> None:
            super().__init__(history)
            monkeypatch.setattr(catch_up, "poll", self.poll)

    return Serving


def test_at_first_nothing_is_under_way(catching: CatchUp) -> None:
    assert not catching.tasks


async def test_a_dense_history_is_fetched_by_more_and_more_polls(
    serve: type[Server], catching: CatchUp, live: Live
) -> None:
    server = serve(range(11, 411))
    live.index = 410
    for cursor, batch in ((10, 1), (11, 4), (15, 16), (31, 64), (95, 64), (159, 64)):
        assert not catching.tasks
        assert await fetch(catching, cursor, live) == cursor + 1
        assert server.asked[-batch:] == list(range(cursor, cursor + batch))
        for each in range(cursor + 1, cursor + batch):
            assert await fetch(catching, each, live) == each + 1
    assert await fetch_all(catching, 223, live) == list(range(224, 411))
    assert max(server.asked) == 409
    assert len(set(server.asked)) == len(server.asked) == 400


async def test_a_thin_history_is_fetched_by_fewer_and_fewer_polls(
    serve: type[Server], catching: CatchUp, live: Live
) -> None:
    server = serve([100, 200, 300, 400, 500])
    live.crowd = True
    live.index = 500
    sizes = []
    cursor = 10
    while cursor < live.index:
        asked = len(server.asked)
        first = await fetch(catching, cursor, live)
        assert first == (cursor // 100 + 1) * 100
        sizes.append(len(server.asked) - asked)
        while catching.tasks:
            assert await fetch(catching, cursor, live) in (first, first + 100)
        cursor = first
    assert sizes == [64, 32, 16, 8, 4]
    assert server.most == 64


async def test_no_poll_asks_beyond_the_registration(serve: type[Server], catching: CatchUp, live: Live) -> None:
    server = serve(range(11, 20))
    live.crowd = True
    live.index = 13
    assert await fetch(catching, 10, live) == 11
    assert server.asked == [10, 11, 12]
    await catching.stop()


async def test_one_poll_at_a_time_stays_one(serve: type[Server], catching: CatchUp, live: Live) -> None:
    server = serve([20, 30])
    assert await fetch(catching, 10, live) == 20
    assert await fetch(catching, 20, live) == 30
    assert server.asked == [10, 20]


@pytest.mark.parametrize(("took", "least", "most"), [(0.0, 0.24, 0.34), (0.1, 0.39, 0.6)])
@pytest.mark.slow
async def test_a_poll_that_is_not_answered_ends_it(
    took: float, least: float, most: float, serve: type[Server], catching: CatchUp, live: Live
) -> None:
    server = serve([])
    live.crowd = True
    live.took = took
    start = asyncio.get_running_loop().time()
    assert await fetch(catching, 10, live) is None
    assert least < asyncio.get_running_loop().time() - start < most
    assert server.open == 64
    await catching.stop()
    assert not server.open
    assert not catching.tasks


async def test_a_cancelled_fetch_leaves_nothing(serve: type[Server], catching: CatchUp, live: Live) -> None:
    server = serve([])
    live.crowd = True
    async with fetching(catching, 10, live) as task:
        assert server.open == 64
    assert task.cancelled()
    await catching.stop()  # as the driver does with the next step, or as it ends
    assert not server.open
    assert not catching.tasks


async def test_who_is_evicted_lost_the_connection(serve: type[Server], catching: CatchUp, live: Live) -> None:
    server = serve([])
    live.crowd = True
    async with fetching(catching, 10, live) as task:
        assert len(catching.tasks) == 64
        catching.evict()
        with pytest.raises(ConnectionLostError, match="it was left, for it does not answer") as caught:
            await task
    assert caught.value.endpoint == ENDPOINT
    assert not server.open
    await catching.stop()


async def test_a_poll_without_an_event_is_a_lost_connection(serve: type[Server], catching: CatchUp, live: Live) -> None:
    serve([]).answers = {10: None}
    with pytest.raises(ConnectionLostError, match="a poll ended without an event") as caught:
        await fetch(catching, 10, live)
    assert caught.value.endpoint == ENDPOINT


@pytest.mark.parametrize("index", [9, 10, 0])
async def test_an_event_that_was_not_asked_for_is_no_answer(
    index: int, serve: type[Server], catching: CatchUp, live: Live
) -> None:
    serve([]).answers = {10: event(index)}
    with pytest.raises(InvalidResponseError, match=f"event {index} is not one after 10") as caught:
        await fetch(catching, 10, live)
    assert (caught.value.endpoint, caught.value.status) == (ENDPOINT, 200)


async def test_the_error_of_a_poll_is_that_of_the_fetch(serve: type[Server], catching: CatchUp, live: Live) -> None:
    serve([]).answers = {10: ConnectionLostError(ENDPOINT, "gone")}
    with pytest.raises(ConnectionLostError, match="gone"):
        await fetch(catching, 10, live)


async def test_after_a_failure_a_quarter_of_the_polls_goes_on(
    serve: type[Server], catching: CatchUp, live: Live
) -> None:
    server = serve(range(11, 500))
    live.crowd = True
    server.answers = {10: ConnectionLostError(ENDPOINT, "gone")}
    for size in (64, 16, 4, 1, 1):
        asked = len(server.asked)
        with pytest.raises(ConnectionLostError):
            await fetch(catching, 10, live)
        assert len(server.asked) - asked == size
        await catching.stop()


async def test_another_gap_begins_as_it_is_told(serve: type[Server], catching: CatchUp, live: Live) -> None:
    server = serve(range(11, 101))
    live.index = 100
    for crowd, size in ((False, 1), (True, 64), (False, 1)):
        live.crowd = crowd
        asked = len(server.asked)
        assert await fetch(catching, 10, live) == 11
        assert len(server.asked) - asked == size
        assert await fetch_all(catching, 11, live) == list(range(12, 101))


async def test_settling_outlasts_a_cancellation() -> None:
    steps: list[str] = []

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.03)
            steps.append("over")

    task = asyncio.ensure_future(stubborn())
    await asyncio.sleep(0)
    task.cancel()
    settling = asyncio.ensure_future(settle(task))
    await asyncio.sleep(0)
    for _ in range(2):
        settling.cancel()
        await asyncio.sleep(0.001)
    with pytest.raises(asyncio.CancelledError):
        await settling
    assert steps == ["over"]


async def test_settling_hears_of_an_error_and_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ConnectionLostError(ENDPOINT, "gone")

    task = asyncio.ensure_future(fail())
    await settle(task)
    await settle(task)
    del task
    assert not caplog.records

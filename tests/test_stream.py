"""One wait: what it asks for, and how events come out of the pieces in which they arrive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import cast

import pytest

from aioetcd2 import InvalidResponseError, Response
from aioetcd2._net.failover import Failover
from aioetcd2._net.request import Request
from aioetcd2._v2 import requests
from aioetcd2._v2 import stream as stream_module
from aioetcd2._v2.stream import EventStream, index_of, poll

from .scripted import END, ONE, Stream, line


def ending(*pieces: bytes | Exception) -> Stream:
    return Stream(*pieces, END, index=7)


async def read_all(stream: EventStream) -> list[list[int]]:
    """The indexes of the events, piece by piece."""
    read: list[list[int]] = []
    while (events := await stream.read()) is not None:
        read.append(list(map(index_of, events)))
    return read


@pytest.mark.parametrize(
    ("recursive", "since", "stream", "target"),
    [
        (False, None, False, "/k?wait=true"),
        (False, None, True, "/k?wait=true&stream=true"),
        (True, None, False, "/k?wait=true&recursive=true"),
        (True, 6, True, "/k?wait=true&stream=true&recursive=true&waitIndex=7"),
        (False, 0, False, "/k?wait=true&waitIndex=1"),
    ],
)
def test_what_is_asked_for(recursive: bool, since: int | None, stream: bool, target: str) -> None:
    request = requests.wait("/k", recursive, since, stream=stream)
    assert (request.method, request.target, request.body, request.patient) == ("GET", target, None, False)
    assert requests.wait("/k", recursive, since, stream=stream, patient=True).patient


async def test_what_a_new_wait_says() -> None:
    before = time.monotonic()
    stream = ending()
    wait = EventStream(stream)
    assert (wait.endpoint, wait.address, wait.index) == (ONE, None, 7)
    assert wait.marks == (7, 0, 0, "c1")
    assert (wait.closed, wait.halfway, wait.silence) == (False, False, 0)
    assert before <= wait.registered_at == wait.heard_at <= time.monotonic()
    wait.close()
    assert wait.closed
    assert stream.closed == 1


async def test_what_was_heard_when() -> None:
    wait = EventStream(ending(A[:9], A[9:]))
    begun = wait.heard_at
    await asyncio.sleep(0.01)
    await wait.read()
    assert wait.heard_at > begun == wait.registered_at


A, B, C = line(8), line(9), line(12, "/a/b")


@pytest.mark.parametrize(
    ("pieces", "read"),
    [
        ([], []),
        ([A], [[8]]),
        ([A, B], [[8], [9]]),
        ([A + B + C], [[8, 9, 12]]),
        ([A[:9], A[9:]], [[], [8]]),
        ([A[:9], A[9:20], A[20:]], [[], [], [8]]),
        ([A + B[:9], B[9:] + C], [[8], [9, 12]]),
        ([A + B[:9], B[9:-1], b"\n"], [[8], [], [9]]),
        ([A[:-1]], [[], [8]]),  # the end ends the last line, too
        ([A + B[:9], B[9:-1]], [[8], [], [9]]),
        ([b"\n", A], [[], [8]]),
    ],
)
async def test_pieces_become_events(pieces: list[bytes], read: list[list[int]]) -> None:
    wait = EventStream(ending(*pieces))
    assert await read_all(wait) == read
    assert not wait.halfway


async def test_half_an_event_shows() -> None:
    wait = EventStream(ending(A + B[:9], B[9:]))
    await wait.read()
    assert wait.halfway
    await wait.read()
    assert not wait.halfway


async def test_an_event_has_what_the_header_said() -> None:
    events = await EventStream(ending(A)).read()
    assert events is not None
    assert (events[0].index, events[0].cluster_id) == (7, "c1")


@pytest.mark.parametrize("pieces", [[b"{}\n"], [b"<html>\n"], [A[:9], b"\n"], [A[:9]]])
async def test_what_is_no_event_is_told(pieces: list[bytes]) -> None:
    with pytest.raises(InvalidResponseError) as caught:
        await read_all(EventStream(ending(*pieces)))
    assert caught.value.endpoint == ONE


async def test_an_event_without_an_end_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "MAX_EVENT", 20)
    wait = EventStream(ending(A + A[:9], A[:11], A[:1]))
    await wait.read()
    await wait.read()
    with pytest.raises(InvalidResponseError, match="an event is longer than 20 bytes") as caught:
        await wait.read()
    assert (caught.value.endpoint, caught.value.status) == (ONE, 200)


def test_the_index_of_an_event() -> None:
    assert index_of(Response("delete")) == 0


class Opening:
    """A failover that opens one stream."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.asked: Request | None = None

    async def open(self, make: Callable[[str], Request], check: object) -> Stream:
        self.asked = make(ONE)
        return self.stream


@pytest.mark.parametrize(
    ("pieces", "index"), [([A], 8), ([A[:9], A[9:]], 8), ([A + B], 8), ([A, B], 8), ([], None), ([b"\n"], None)]
)
async def test_a_poll_gives_its_first_event(pieces: list[bytes], index: int | None) -> None:
    opening = Opening(ending(*pieces))
    request = requests.wait("/k", True, 5, stream=False)
    event = await poll(cast(Failover, opening), request)
    assert opening.asked is request
    assert (None if event is None else index_of(event)) == index
    assert opening.stream.closed == 1
    assert opening.stream.pieces == [END]


async def test_a_poll_that_fails_is_closed() -> None:
    opening = Opening(ending(A, InvalidResponseError(ONE, "broken")))
    with pytest.raises(InvalidResponseError, match="broken"):
        await poll(cast(Failover, opening), requests.wait("/k", True, 5, stream=False))
    assert opening.stream.closed == 1

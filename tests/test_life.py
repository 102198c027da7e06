"""What a client knows of the cluster: how far it has come, and when the life of its store has ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from aioetcd2 import (
    ClientClosedError,
    ClusterError,
    ConnectError,
    InvalidResponseError,
    KeyNotFoundError,
    Node,
    NotDirError,
    Response,
    UnauthorizedError,
    Version,
)
from aioetcd2._net.reporter import Reporter
from aioetcd2._net.request import Request
from aioetcd2._v2 import requests
from aioetcd2._v2.identity import Identity

ASK = requests.read("/v2/keys/a", quorum=True)
READ = requests.read("/v2/keys/a")

Told = Callable[[], list[str]]


def says(index: int, raft_index: int = 0, raft_term: int = 0) -> Response:
    return Response("get", Node("/a", "v"), None, index, raft_index, raft_term)


class Cluster:
    """Answers one question after the other, each when it may."""

    def __init__(self, *answers: Response | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[Request] = []
        self.go = asyncio.Event()
        self.go.set()

    async def call(self, request: Request) -> Response:
        self.asked.append(request)
        answer = self.answers.pop(0)
        await self.go.wait()
        if isinstance(answer, Exception):
            raise answer
        return answer


class Known(Identity):
    """One that has seen index 100, raft's index 1000 and term 7, and counts how often its life ended."""

    def __init__(self) -> None:
        super().__init__(Reporter())
        self.cluster = "c1"
        self.reached(100, 1000, 7)
        self.ends = 0
        self.on_end_of_life = self._ended

    def _ended(self) -> None:
        self.ends += 1


@pytest.fixture
def known() -> Known:
    return Known()


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Told:
    caplog.set_level(logging.INFO, "aioetcd2")
    return lambda: [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def begun_anew(index: int, mark: int = 100) -> str:
    return f"cluster c1 has begun anew: it is at index {index}, and was at {mark}; watches report lost events"


# --- the life of a store --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [says(99, 1000, 7), says(99), says(3, 9, 2), says(100, 999, 7), says(100, 1000, 6), says(5000, 2000, 6)],
    ids=lambda answer: f"{answer.index}-{answer.raft_index}-{answer.raft_term}",
)
async def test_an_answer_with_quorum_from_a_shorter_past_ends_the_life(
    answer: Response, known: Known, warnings: Told
) -> None:
    assert await known.ask(Cluster(answer).call, ASK) == answer.index
    assert (known.life, known.ends) == (1, 1)
    assert warnings() == [begun_anew(answer.index)]
    assert known.high_water_mark == answer.index
    assert (known.cluster, known.epoch) == ("c1", 0)  # it is the same cluster, by its name


@pytest.mark.parametrize(
    "answer",
    [says(100, 1000, 7), says(101, 1001, 8), says(100), says(0), says(0, 1000, 7), says(100, 0, 7), says(100, 1000, 0)],
    ids=lambda answer: f"{answer.index}-{answer.raft_index}-{answer.raft_term}",
)
async def test_an_answer_that_is_as_new_or_says_nothing_ends_no_life(
    answer: Response, known: Known, warnings: Told
) -> None:
    assert await known.ask(Cluster(answer).call, ASK) == answer.index
    assert (known.life, known.ends, warnings()) == (0, 0, [])
    assert known.high_water_mark == max(answer.index, 100)


async def test_marks_begin_anew_with_a_life(known: Known, warnings: Told) -> None:
    cluster = Cluster(says(3, 9, 2), says(4, 10, 2), says(4, 10, 3), says(2, 11, 3))
    await known.ask(cluster.call, ASK)
    assert not known.doubts(0, 9, 2)
    assert known.doubts(0, 8, 2)
    assert known.doubts(0, 9, 1)
    for _ in range(2):
        await known.ask(cluster.call, ASK)
    assert known.life == 1
    await known.ask(cluster.call, ASK)
    assert (known.life, known.ends) == (2, 2)
    assert warnings() == [begun_anew(3), begun_anew(2, 4)]


@pytest.mark.parametrize("second", [says(3, 9, 2), says(4, 10, 2)], ids=["same", "later"])
async def test_two_answers_that_say_so_at_once_end_one_life(second: Response, known: Known, warnings: Told) -> None:
    cluster = Cluster(says(3, 9, 2), second)
    cluster.go.clear()
    asked = [asyncio.ensure_future(known.ask(cluster.call, ASK)) for _ in range(2)]
    await asyncio.sleep(0)
    cluster.go.set()
    assert await asyncio.gather(*asked) == [3, second.index]
    assert (known.life, known.ends, len(warnings())) == (1, 1, 1)
    assert known.high_water_mark == 3, "what was asked of the old life tells nothing of the new one"


@pytest.mark.parametrize("second", [says(100, 9, 2), says(150, 9, 2)], ids=["same", "beyond"])
async def test_two_answers_that_say_so_by_their_term_end_one_life(
    second: Response, known: Known, warnings: Told
) -> None:
    cluster = Cluster(says(150, 9, 2), second)
    cluster.go.clear()
    asked = [asyncio.ensure_future(known.ask(cluster.call, ASK)) for _ in range(2)]
    await asyncio.sleep(0)
    cluster.go.set()
    await asyncio.gather(*asked)
    assert (known.life, known.ends, len(warnings())) == (1, 1, 1)
    assert known.high_water_mark == 150
    assert not known.doubts(0, 9, 2)


async def test_what_is_seen_while_an_answer_is_on_its_way_does_not_make_it_old(known: Known) -> None:
    cluster = Cluster(says(100, 1000, 7))
    cluster.go.clear()
    asked = asyncio.ensure_future(known.ask(cluster.call, ASK))
    await asyncio.sleep(0)
    known.reached(300, 3000, 9)
    cluster.go.set()
    assert await asked == 100
    assert (known.life, known.high_water_mark) == (0, 300)


async def test_nobody_has_to_hear_of_the_end(known: Known) -> None:
    known.on_end_of_life = None
    await known.ask(Cluster(says(3)).call, ASK)
    assert known.life == 1


async def test_a_client_that_has_seen_nothing_ends_no_life(warnings: Told) -> None:
    identity = Identity(Reporter())
    assert await identity.ask(Cluster(says(3, 9, 2)).call, ASK) == 3
    assert (identity.life, identity.high_water_mark, warnings()) == (0, 3, [])


# --- asking, and doubting -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("absence", [KeyNotFoundError, NotDirError])
@pytest.mark.parametrize(("index", "life"), [(150, 0), (100, 0), (99, 1), (0, 0)])
async def test_an_absent_key_tells_as_well(
    index: int, life: int, absence: type[KeyNotFoundError] | type[NotDirError], known: Known
) -> None:
    assert await known.ask(Cluster(absence(100, "no", "/a", index)).call, ASK) == index
    assert known.life == life
    assert known.high_water_mark == (index if life else max(index, 100))


@pytest.mark.parametrize("error", [UnauthorizedError(110, "no", index=3), ConnectError("http://a:1", "refused")])
async def test_no_answer_ends_no_life(error: Exception, known: Known) -> None:
    with pytest.raises(type(error)):
        await known.ask(Cluster(error).call, ASK)
    assert (known.life, known.high_water_mark) == (0, 100)


@pytest.mark.parametrize(
    ("raft_index", "raft_term", "doubtful"),
    [
        (1000, 7, False),
        (1001, 8, False),
        (999, 7, True),
        (1000, 6, True),
        (2000, 6, True),
        (0, 0, False),  # the header was not there
        (0, 7, False),
        (1000, 0, False),
        (999, 0, True),
    ],
)
def test_who_seems_to_have_a_shorter_past_is_doubted(
    raft_index: int, raft_term: int, doubtful: bool, known: Known
) -> None:
    assert known.doubts(0, raft_index, raft_term) is doubtful


def test_who_has_seen_nothing_doubts_nobody() -> None:
    assert not Identity(Reporter()).doubts(0, 1, 1)


def test_what_is_forgotten_is_not_held_against_anybody(known: Known) -> None:
    known.forget()
    assert not known.doubts(0, 1, 1)
    assert (known.cluster, known.high_water_mark, known.epoch, known.life, known.ends) == ("", 0, 1, 0, 0)


def test_marks_only_rise(known: Known) -> None:
    known.reached(5, 6, 7)
    known.reached(0)
    assert known.high_water_mark == 100
    assert known.doubts(0, 999, 0)


# --- a read that is not from back in time ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("second", "life"),
    [(says(100, 1000, 7), 0), (says(5, 6, 7), 1), (KeyNotFoundError(100, "no", "/a", 5), 1)],
    ids=str,
)
async def test_an_older_read_is_asked_for_with_quorum_which_judges(
    second: Response | Exception, life: int, known: Known, warnings: Told
) -> None:
    cluster = Cluster(says(5), second)
    read: Awaitable[Response] = known.read(cluster.call, READ)
    if isinstance(second, Exception):
        with pytest.raises(KeyNotFoundError):
            await read
    else:
        assert await read is second
    assert cluster.asked == [READ, ASK]
    assert (known.life, known.ends, len(warnings())) == (life, life, life)
    assert known.high_water_mark == (5 if life else 100)


@pytest.mark.parametrize("answer", [says(100, 9, 2), says(120, 1100, 6)], ids=["index", "term"])
async def test_a_read_without_quorum_ends_no_life(answer: Response, known: Known) -> None:
    assert await known.read(Cluster(answer).call, READ) is answer
    assert known.life == 0


def test_an_index_below_what_was_seen_is_doubted(known: Known) -> None:
    assert known.doubts(99, 0, 0)
    assert not known.doubts(100, 0, 0)
    assert not known.doubts(0, 0, 0)


# --- before 3.1 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "cluster", "old"),
    [
        ("2.3.8", "2.3.0", True),
        ("3.0.17", "3.0.0", True),
        ("3.1.0", "3.0.0", True),  # another member is older
        ("3.0.17", "not_decided", True),
        ("3.1.0", "3.1.0", False),
        ("3.1.0-rc.0+git", "not_decided", False),
        ("3.10.1", "3.10.0", False),
        ("", "", False),
        ("10.0.0", "10.0.0", False),
    ],
)
async def test_members_before_3_1_are_known_by_their_version_which_is_asked_for_once(
    server: str, cluster: str, old: bool, known: Known
) -> None:
    asked = 0

    async def ask() -> Version:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return Version(server, cluster)

    assert await asyncio.gather(*(known.is_old(ask) for _ in range(3))) == [old] * 3
    assert asked == 1
    known.forget()
    assert await known.is_old(ask) is old
    assert asked == 2


async def test_where_no_version_is_to_be_had_members_may_be_old_until_there_is_one(known: Known) -> None:
    outcomes: list[Version | Exception] = [
        ClusterError("GET /version", []),
        ClientClosedError("closed"),
        InvalidResponseError("http://a", "no etcd"),
    ]

    async def ask() -> Version:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    assert await known.is_old(ask)
    with pytest.raises(ClientClosedError):
        await known.is_old(ask)
    assert not await known.is_old(ask)
    assert not await known.is_old(ask)
    assert not outcomes

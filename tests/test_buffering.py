"""Which endpoints are taken to hold back what a wait brings."""

from __future__ import annotations

import asyncio
import logging

import pytest

from aioetcd2 import (
    APIError,
    ClientClosedError,
    ClusterError,
    ConnectError,
    ConnectionLostError,
    EndpointError,
    EtcdError,
    HeaderTimeoutError,
    InvalidResponseError,
    NoLeaderError,
    ServerError,
)
from aioetcd2._net.reporter import Reporter
from aioetcd2._watching import buffering as buffering_module
from aioetcd2._watching.buffering import HELD_BACK, Buffering

from .clockwork import Clock
from .scripted import ONE, TWO, Etcd, surroundings


class Answering:
    """Endpoints that answer, or do not."""

    def __init__(self) -> None:
        self.says: dict[str, Exception | None] = {}
        self.hangs = False
        self.asked: list[str] = []

    async def __call__(self, endpoint: str) -> None:
        self.asked.append(endpoint)
        await asyncio.sleep(0)
        if self.hangs:
            await asyncio.Event().wait()
        error = self.says.get(endpoint)
        if error is not None:
            raise error


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(buffering_module, "time", clock)
    return clock


@pytest.fixture
def answering() -> Answering:
    return Answering()


@pytest.fixture
def buffering(answering: Answering) -> Buffering:
    return Buffering(answering, 0.1, Reporter())


def known(buffering: Buffering) -> tuple[bool, bool, bool]:
    return buffering.anywhere(), buffering.at(ONE), buffering.at(TWO)


async def test_who_answers_otherwise_holds_back_for_longer_and_longer(
    buffering: Buffering, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert known(buffering) == (False, False, False)
    assert not buffering.at(None)
    for seconds in (60, 120, 240, 480, 960, 1920, 3600, 3600):
        assert await buffering.judge(ONE)
        clock.now += seconds - 0.001
        assert known(buffering) == (True, True, False)
        clock.now += 0.001
        assert known(buffering) == (False, False, False)
    words = f"{ONE} holds back what a wait brings, as a buffering proxy does; using long polls"
    assert [record.message for record in caplog.records] == [words] * 8


async def test_many_that_find_it_in_one_moment_have_found_it_once(
    buffering: Buffering, clock: Clock, answering: Answering, caplog: pytest.LogCaptureFixture
) -> None:
    """Or sixteen watches of a minute would make an hour of it."""
    caplog.set_level(logging.INFO)
    assert await asyncio.gather(*(buffering.judge(ONE) for _ in range(16))) == [True] * 16
    assert len(caplog.records) == 1
    assert await buffering.judge(ONE)
    assert len(answering.asked) <= 16
    clock.now += 60
    assert known(buffering) == (False, False, False)


@pytest.mark.parametrize("error", [ClusterError("GET", [ConnectError(ONE, "refused")]), APIError(0, "what?")])
async def test_who_does_not_answer_does_not_hold_back(
    error: EtcdError, buffering: Buffering, answering: Answering
) -> None:
    answering.says[ONE] = error
    assert not await buffering.judge(ONE)
    assert not buffering.anywhere()


async def test_a_closed_client_judges_nobody(buffering: Buffering, answering: Answering) -> None:
    answering.says[ONE] = ClientClosedError("the client is closed")
    with pytest.raises(ClientClosedError):
        await buffering.judge(ONE)


@pytest.mark.parametrize(("probe_timeout", "seconds"), [(0.05, 0.05), (5.0, 0.1)])
async def test_holding_back_is_found_out_soon(
    probe_timeout: float, seconds: float, answering: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffering_module, "ANSWERS_WITHIN", 0.1)
    buffering = Buffering(answering, probe_timeout, Reporter())
    answering.hangs = True
    start = asyncio.get_running_loop().time()
    assert not await buffering.judge(ONE)
    assert seconds - 0.01 <= asyncio.get_running_loop().time() - start < seconds + 0.3


@pytest.mark.parametrize(
    ("error", "explained", "asked"),
    [
        (HeaderTimeoutError(ONE, "no answer"), True, [ONE]),
        (ConnectionLostError(ONE, "reset"), True, [ONE]),
        (ServerError(ONE, "504 time-out", status=504), True, [ONE]),
        (NoLeaderError(ONE, "503"), True, [ONE]),
        (ConnectError(ONE, "refused"), False, []),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_what_may_be_a_header_that_was_held_back(
    error: ServerError, explained: bool, asked: list[str], buffering: Buffering, answering: Answering
) -> None:
    assert await buffering.explains(ClusterError("GET", [error]), HELD_BACK) is explained
    assert (answering.asked, buffering.at(ONE)) == (asked, explained)


async def test_all_that_were_silent_are_judged_once(buffering: Buffering, answering: Answering) -> None:
    error = ClusterError("GET", [HeaderTimeoutError(each, "no answer") for each in (ONE, TWO)])
    answering.says[ONE] = ClusterError("GET", [ConnectError(ONE, "refused")])
    assert await buffering.explains(error, HELD_BACK)
    assert known(buffering) == (True, False, True)
    assert not await buffering.explains(error, HELD_BACK)
    assert answering.asked == [ONE, TWO, ONE]
    answering.says.clear()
    assert await buffering.explains(error, HELD_BACK)
    assert known(buffering) == (True, True, True)


async def test_an_answer_that_is_none_of_etcds_explains_nothing(buffering: Buffering, answering: Answering) -> None:
    assert not await buffering.explains(InvalidResponseError(ONE, "what?"), HELD_BACK)
    assert not answering.asked


async def test_v2_is_judged_by_a_read_with_credentials() -> None:
    etcd = Etcd()
    assert await surroundings(etcd, 10.0, 0.1).buffering.judge(TWO)
    assert (etcd.probed, etcd.probes) == ([TWO], ["GET /v2/keys/_nothing"])


@pytest.mark.parametrize(
    ("error", "explained"), [(HeaderTimeoutError(ONE, "no answer"), True), (ConnectionLostError(ONE, "reset"), False)]
)
async def test_who_breaks_off_early_did_not_hold_back(
    error: EndpointError, explained: bool, buffering: Buffering, answering: Answering
) -> None:
    assert await buffering.explains(ClusterError("GET", [error]), 0.9 * HELD_BACK) is explained
    assert bool(answering.asked) is explained

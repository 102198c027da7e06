"""Which endpoints are probed for watches, when and how, and who has to leave."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from multidict import CIMultiDict

from aioetcd2 import (
    APIError,
    ClientClosedError,
    ClusterError,
    ConnectError,
    ConnectionLostError,
    EndpointError,
    HeaderTimeoutError,
    Health,
    HTTPResult,
    InvalidResponseError,
    NoLeaderError,
    UnauthorizedError,
)
from aioetcd2._net.failover import Decoder, Failover
from aioetcd2._net.reporter import Reporter
from aioetcd2._net.request import Request
from aioetcd2._v2.identity import Identity
from aioetcd2._v2.keys import surroundings_of
from aioetcd2._watching import liveness
from aioetcd2._watching import surroundings as rooms
from aioetcd2._watching.liveness import REST, Liveness

from .clockwork import Clock, Dice, idle, stop_clocks
from .scripted import ONE, TWO, Etcd, surroundings

THREE = "http://three:3"


def unreachable(endpoint: str = ONE, *, ours: bool = False) -> ClusterError:
    return ClusterError("GET /health", [ConnectError(endpoint, "refused", ours=ours)])


def broken() -> ClusterError:
    return ClusterError("GET /v2/members/leader", [ConnectionLostError(ONE, "it broke")])


def silent() -> ClusterError:
    return ClusterError("GET /v2/members/leader", [HeaderTimeoutError(ONE, "no answer")])


class Members:
    """The endpoints, and what each says when it is probed."""

    def __init__(self) -> None:
        self.endpoints: tuple[str, ...] = (ONE, TWO)
        self.closed = False
        self.says: dict[str, Health | Exception | None] = {}
        self.probed: list[tuple[str, str | None, bool]] = []
        self.suspected: list[tuple[str, str | None]] = []
        self.takes = 0.0

    async def probe(self, endpoint: str, address: str | None, thorough: bool) -> Health:
        self.probed.append((endpoint, address, thorough))
        said = self.says.get(endpoint, Health(True))
        await asyncio.sleep(0)
        if said is None:
            await asyncio.Event().wait()
        if isinstance(said, Exception):
            raise said
        assert said is not None
        return said

    def elsewhere(self, endpoint: str, address: str | None) -> list[tuple[str, str | None]]:
        return [(other, None) for other in self.endpoints if other != endpoint]

    def suspect(self, endpoint: str, address: str | None = None) -> None:
        self.suspected.append((endpoint, address))


class Watching:
    """A watcher, as far as liveness knows."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.quiet_since: list[float] = []

    def evict(self) -> None:
        self.calls.append("evict")

    def renew_if_quiet_since(self, moment: float) -> None:
        self.quiet_since.append(moment)

    def abort(self) -> None:
        self.calls.append("abort")

    async def aclose(self) -> None:
        self.calls.append("aclose")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return stop_clocks(monkeypatch, liveness)


@pytest.fixture
def members() -> Members:
    return Members()


@pytest.fixture
async def alive(clock: Clock, members: Members) -> AsyncIterator[Liveness]:
    alive = Liveness(cast(Failover, members), members.probe, 10.0, 0.1, Reporter())
    yield alive
    await alive.close()
    await idle()


# --- when -----------------------------------------------------------------------------------------------------------


async def test_an_endpoint_is_probed_once_an_interval_while_it_has_watchers(
    alive: Liveness, members: Members, clock: Clock
) -> None:
    watchers = [Watching() for _ in range(3)]
    for each in watchers:
        alive.attach(each, ONE, None)
    await idle()
    assert (clock.sleeps, members.probed) == ([10.0], [])
    for times in (1, 2):
        await clock.wake()
        assert members.probed == [(ONE, None, False)] * times
    assert clock.sleeps == [10.0] * 3
    for each in watchers[:2]:
        alive.detach(each, ONE, None)
    await clock.wake()
    assert len(members.probed) == 3
    alive.detach(watchers[2], ONE, None)
    await idle()
    assert not alive._probing
    await clock.wake()
    assert len(members.probed) == 3
    assert [each.calls for each in watchers] == [[], [], []]


async def test_each_address_of_a_name_is_probed(alive: Liveness, members: Members, clock: Clock) -> None:
    watchers = {address: Watching() for address in ("10.0.0.1", "10.0.0.2", None)}
    for address, each in watchers.items():
        alive.attach(each, ONE, address)
    await idle()
    for _ in watchers:
        await clock.wake()
    assert {(endpoint, address) for endpoint, address, _ in members.probed} == {(ONE, each) for each in watchers}
    for address, each in watchers.items():
        alive.detach(each, ONE, address)
    assert not alive._at


async def test_every_thirty_seconds_a_probe_is_thorough(alive: Liveness, members: Members, clock: Clock) -> None:
    watcher = Watching()
    alive.attach(watcher, ONE, None)
    await idle()
    for _ in range(9):
        await clock.wake()
    assert [thorough for _, _, thorough in members.probed] == [False, False, True] * 3


async def test_a_probe_that_takes_long_delays_no_other(
    alive: Liveness, members: Members, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = Watching()
    alive.attach(watcher, ONE, None)
    await idle()
    for seconds, sleeps in ((4.0, [10.0, 6.0]), (25.0, [10.0, 6.0, 0.0])):

        async def slow(*args: Any, seconds: float = seconds) -> Health:
            clock.now += seconds
            return Health(True)

        monkeypatch.setattr(alive, "_probe", slow)
        await clock.wake()
        assert clock.sleeps == sleeps


async def test_who_is_forgotten_is_not_probed_for(alive: Liveness, members: Members, clock: Clock) -> None:
    watcher = Watching()
    alive.attach(watcher, ONE, None)
    members.says[ONE] = unreachable()
    await idle()
    del watcher
    gc.collect()
    await clock.wake()
    assert not members.suspected


async def test_a_closed_client_is_not_probed_for(alive: Liveness, members: Members, clock: Clock) -> None:
    watcher = Watching()
    alive.attach(watcher, ONE, None)
    await idle()
    members.closed = True
    await clock.wake()
    assert len(members.probed) == 1
    await clock.wake()
    assert len(clock.sleeps) == 1


async def test_detaching_where_nobody_is_does_nothing(alive: Liveness) -> None:
    alive.detach(Watching(), ONE, None)


async def test_attaching_again_probes_again(alive: Liveness, members: Members, clock: Clock) -> None:
    watcher = Watching()
    alive.attach(watcher, ONE, None)
    await idle()
    alive.detach(watcher, ONE, None)
    alive.attach(watcher, ONE, None)
    await idle()
    for _ in range(2):
        await clock.wake()
    assert members.probed
    assert len(alive._probing) == 1


async def test_who_comes_and_goes_puts_off_no_probe(alive: Liveness, members: Members, clock: Clock) -> None:
    """A wait that always ends before its first probe is due does not keep an endpoint from being probed."""
    watcher = Watching()
    for gone in (4.0, 4.0, 4.0):
        alive.attach(watcher, ONE, "10.0.0.1")
        await idle()
        alive.detach(watcher, ONE, "10.0.0.1")
        clock.now += gone
    alive.attach(watcher, ONE, None)
    await idle()
    assert clock.sleeps == [10.0, 6.0, 2.0, 0.0]
    clock.now += 20.0
    alive.detach(watcher, ONE, None)
    alive.attach(watcher, ONE, None)
    await idle()
    assert clock.sleeps[-1] == 10.0


# --- who leaves -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (Health(True), None),
        (Health(False), "it is not healthy: no leader"),
        (Health(False, "RAFT NO LEADER"), "it is not healthy: RAFT NO LEADER"),
        (unreachable(), "refused"),
        (unreachable(ours=True), None),
        (None, "no answer to a probe within 0.1 s"),
        (ClientClosedError("the client is closed"), "the client is closed"),
        (APIError(0, "what?"), None),
        (UnauthorizedError(110, "no"), None),
        (InvalidResponseError(ONE, "what?"), None),
    ],
    ids=str,
)
@pytest.mark.parametrize("address", [None, "10.0.0.1"])
async def test_who_does_not_answer_or_is_not_healthy_loses_its_watchers(
    says: Health | Exception | None,
    words: str | None,
    address: str | None,
    alive: Liveness,
    members: Members,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    watchers, elsewhere = [Watching(), Watching()], Watching()
    for each in watchers:
        alive.attach(each, ONE, address)
    alive.attach(elsewhere, ONE, "10.0.0.2")
    await idle()
    members.says[ONE] = says
    await clock.wake()
    await asyncio.sleep(0.15 if says is None else 0)
    await idle()
    assert [each.calls for each in watchers] == [["evict"] if words else []] * 2
    assert members.suspected == ([(ONE, address)] if words else [])
    assert elsewhere.calls == []
    assert clock.sleeps == [10.0] * 3  # it goes on
    assert [record.message for record in caplog.records] == ([f"2 watches leave {ONE}: {words}"] if words else [])
    assert (alive.answered_at(ONE, address) is None) is (words is not None)


async def test_who_leaves_an_endpoint_that_is_known_to_fail_is_no_news(
    alive: Liveness, members: Members, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """In an outage, one tries for all, and a probe of where it tries fails as well."""
    caplog.set_level(logging.DEBUG)
    alive.attach(Watching(), ONE, None)
    members.says[ONE] = unreachable()
    await idle()
    for _ in range(3):
        alive.attach(watcher := Watching(), ONE, None)
        await clock.wake()
        alive.detach(watcher, ONE, None)
    leaving = [record.levelname for record in caplog.records if "leave" in record.message]
    assert leaving == ["INFO", "DEBUG", "DEBUG"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("endpoints", "others", "leaves"),
    [
        ((ONE, TWO), {TWO: Health(True)}, True),
        ((ONE, TWO), {TWO: Health(False)}, False),
        ((ONE, TWO), {TWO: unreachable(TWO)}, False),
        ((ONE, TWO), {TWO: APIError(0, "what?")}, False),
        ((ONE, TWO), {TWO: None}, False),
        ((ONE,), {}, False),
        ((ONE, TWO, THREE), {TWO: Health(False), THREE: Health(True)}, True),
        ((ONE, TWO, THREE), {TWO: None, THREE: Health(True)}, True),
        ((ONE, TWO, THREE), {TWO: Health(False), THREE: unreachable(THREE)}, False),
    ],
    ids=str,
)
async def test_who_is_not_healthy_is_left_only_while_another_is_healthy(
    endpoints: tuple[str, ...],
    others: dict[str, Health | Exception | None],
    leaves: bool,
    alive: Liveness,
    members: Members,
    clock: Clock,
) -> None:
    members.endpoints = endpoints
    members.says = {ONE: Health(False), **others}
    watcher = Watching()
    alive.attach(watcher, ONE, "10.0.0.1")
    await idle()
    await clock.wake()
    await asyncio.sleep(0.15)
    await idle()
    assert watcher.calls == (["evict"] if leaves else [])
    assert members.probed[0] == (ONE, "10.0.0.1", False)
    assert sorted(members.probed[1:]) == sorted((each, None, False) for each in others)


@pytest.mark.parametrize("says", [unreachable(), None])
async def test_who_does_not_answer_is_left_whatever_the_others_say(
    says: Exception | None, alive: Liveness, members: Members, clock: Clock
) -> None:
    members.says = {ONE: says, TWO: unreachable(TWO)}
    watcher = Watching()
    alive.attach(watcher, ONE, None)
    await idle()
    await clock.wake()
    await asyncio.sleep(0.15)
    assert watcher.calls == ["evict"]
    assert members.probed == [(ONE, None, False)]


async def test_endpoints_that_are_gone_are_left(alive: Liveness) -> None:
    first, second, third = Watching(), Watching(), Watching()
    alive.attach(first, ONE, None)
    alive.attach(second, TWO, None)
    alive.attach(third, ONE, "10.0.0.1")
    alive.leave({TWO})
    assert (first.calls, second.calls, third.calls) == (["evict"], [], ["evict"])


async def test_all_are_left_also_by_who_is_nowhere_yet(alive: Liveness) -> None:
    first, second = Watching(), Watching()
    for each in (first, second):
        alive.add(each)
    alive.attach(first, ONE, None)
    alive.leave_all()
    alive.discard(second)
    alive.leave_all()
    assert (first.calls, second.calls) == (["evict", "evict"], ["evict"])


# --- what is known of them ------------------------------------------------------------------------------------------


async def test_when_an_endpoint_answered(alive: Liveness, members: Members, clock: Clock) -> None:
    watcher, other = Watching(), Watching()
    alive.attach(watcher, ONE, None)
    alive.attach(other, ONE, "10.0.0.1")
    await idle()
    assert alive.answered_at(ONE, None) is None
    await clock.wake()
    assert alive.answered_at(ONE, None) == 1010.0
    assert alive.answered_at(ONE, "10.0.0.1") is None
    members.says[ONE] = unreachable()
    await clock.wake()
    assert alive.answered_at(ONE, None) == 1010.0
    alive.detach(watcher, ONE, None)
    assert alive.answered_at(ONE, None) is None


@pytest.mark.parametrize("seconds", [0.05, 0.1])
async def test_a_probe_has_its_time(seconds: float, members: Members) -> None:
    alive = Liveness(cast(Failover, members), members.probe, 10.0, 0.1, Reporter())
    members.says[ONE] = None
    start = asyncio.get_running_loop().time()
    problem, _ = await alive._ask((ONE, None), seconds, thorough=False)
    assert isinstance(problem, HeaderTimeoutError)
    assert str(problem) == f"{ONE}: no answer to a probe within {seconds} s"
    assert seconds - 0.01 <= asyncio.get_running_loop().time() - start < seconds + 0.3


@pytest.mark.parametrize(
    ("says", "problem"),
    [
        (Health(True), None),
        (Health(False), NoLeaderError(ONE, "it is not healthy: no leader")),
        (Health(False, "ETCDSERVER: no quorum"), NoLeaderError(ONE, "it is not healthy: ETCDSERVER: no quorum")),
        (unreachable(), ConnectError(ONE, "refused")),
        (unreachable(ours=True), None),
        (APIError(0, "what?"), None),
    ],
)
async def test_why_an_endpoint_is_left(
    says: Health | Exception, problem: EndpointError | None, alive: Liveness, members: Members
) -> None:
    members.says[ONE] = says
    found = await alive.why_leave((ONE, None), thorough=False)
    assert (type(found), str(found)) == (type(problem), str(problem))


# --- registering anew -----------------------------------------------------------------------------------------------


async def test_who_is_quiet_is_to_register_anew_after_a_rest(
    alive: Liveness, members: Members, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = Dice(200.0, 250.0, 270.0)
    monkeypatch.setattr(liveness, "random", dice)
    watchers = [Watching(), Watching()]
    for each in watchers:
        alive.attach(each, ONE, None)
    await idle()
    for _ in range(3):
        await clock.wake()
    assert [each.quiet_since for each in watchers] == [[810.0, 770.0, 760.0]] * 2
    assert dice.asked == [REST] * 4
    members.says[ONE] = unreachable()
    await clock.wake()
    assert [len(each.quiet_since) for each in watchers] == [3, 3]


def test_a_rest_is_shorter_than_what_balancers_bear() -> None:
    assert REST == (200.0, 270.0)


# --- closing --------------------------------------------------------------------------------------------------------


async def test_closing_shuts_all_before_it_waits_for_any(alive: Liveness) -> None:
    told: list[str] = []

    class Telling(Watching):
        def abort(self) -> None:
            told.append("abort")

        async def aclose(self) -> None:
            told.append("aclose")
            await asyncio.sleep(0)

    watchers = [Telling(), Telling(), Telling()]
    for each in watchers:
        alive.add(each)
        alive.attach(each, ONE, None)
    alive.discard(watchers[2])
    probing = list(alive._probing.values())
    await alive.close()
    assert told == ["abort", "abort", "aclose", "aclose"]
    assert all(each.cancelled() for each in probing)
    assert not alive._probing
    assert not alive._at


@pytest.mark.parametrize("asking", [False, True])
async def test_closing_waits_for_the_end_of_probes(
    asking: bool, alive: Liveness, members: Members, clock: Clock
) -> None:
    members.says = {ONE: Health(False), TWO: None}
    watcher = Watching()
    alive.attach(watcher, ONE, None)
    probing = alive._probing[ONE, None]
    await idle()
    if asking:
        await clock.wake()
        assert members.probed[-1] == (TWO, None, False)
    await alive.close()
    assert probing.done()
    await Liveness(cast(Failover, members), members.probe, 1.0, 1.0, Reporter()).close()


# --- how v2 is probed -----------------------------------------------------------------------------------------------


class Answering:
    """A failover of which each endpoint gives scripted answers."""

    def __init__(self, **answers: HTTPResult | Exception) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str, str | None]] = []

    async def at(self, endpoint: str, request: Request, decode: Decoder[Any], *, address: str | None = None) -> Any:
        self.asked.append((endpoint, str(request), address))
        said = self.answers[request.target.rpartition("/")[2]]
        if isinstance(said, Exception):
            raise said
        return decode(said, request)


def result(status: int, body: bytes = b"") -> HTTPResult:
    return HTTPResult(status, CIMultiDict(), body, ONE)


GOOD = result(200, b'{"health":"true"}')
ILL = result(503, b'{"health":"false","reason":"RAFT NO LEADER"}')
LEADER, HEALTH = "GET /v2/members/leader", "GET /health"


@pytest.mark.parametrize(
    ("leader", "health", "thorough", "asked", "said"),
    [
        (result(200, b"{}"), ILL, False, [LEADER], Health(True)),
        (result(503), GOOD, False, [LEADER], Health(False, "no leader")),
        (result(404), GOOD, False, [LEADER, HEALTH], Health(True)),
        (result(500), ILL, False, [LEADER, HEALTH], Health(False, "RAFT NO LEADER")),
        (result(401), GOOD, False, [LEADER, HEALTH], Health(True)),
        (broken(), GOOD, False, [LEADER, HEALTH], Health(True)),
        (unreachable(), GOOD, False, [LEADER], None),
        (silent(), GOOD, False, [LEADER], None),
        (InvalidResponseError(ONE, "what?"), GOOD, False, [LEADER, HEALTH], Health(True)),
        (broken(), unreachable(), False, [LEADER, HEALTH], None),
        (result(200), GOOD, True, [HEALTH], Health(True)),
        (result(200), ILL, True, [HEALTH], Health(False, "RAFT NO LEADER")),
    ],
)
async def test_a_probe_asks_for_the_leader_and_for_the_health_where_that_is_in_doubt(
    leader: HTTPResult | Exception,
    health: HTTPResult | Exception,
    thorough: bool,
    asked: list[str],
    said: Health | None,
) -> None:
    failover = Answering(leader=leader, health=health)
    reporter = Reporter()
    shared = surroundings_of(
        cast(Failover, failover), Identity(reporter), reporter, probe_interval=1.0, header_timeout=1.0
    )
    probe = shared.liveness._probe(ONE, "10.0.0.1", thorough)
    if said is None:
        with pytest.raises(ClusterError):
            await probe
    else:
        assert await probe == said
    assert failover.asked == [(ONE, each, "10.0.0.1") for each in asked]


@pytest.mark.parametrize(("header_timeout", "seconds"), [(0.05, 0.05), (None, 0.1)])
async def test_limits_of_streams_and_probes(header_timeout: float | None, seconds: float) -> None:
    shared = surroundings(Etcd(), 0.1, header_timeout)
    assert (shared.hush._seconds, shared.stuck._seconds) == (rooms.SILENCE, seconds)
    assert shared.liveness._probe_timeout == (seconds if header_timeout is None else 2 * seconds)


async def test_what_begins_anew_forgets_and_leaves() -> None:
    etcd = Etcd()
    shared = surroundings(etcd, 10.0, 0.1)
    watcher = Watching()
    shared.liveness.add(watcher)
    etcd.state = (5, None)
    await shared.looks.look("/v2/keys/a", True, at_least=5)
    assert etcd.identity.on_end_of_life is not None
    etcd.identity.on_end_of_life()
    assert watcher.calls == ["evict"]
    await shared.looks.look("/v2/keys/a", True, at_least=5)
    assert len(etcd.reads) == 2
    await shared.close()
    assert watcher.calls == ["evict", "abort", "aclose"]

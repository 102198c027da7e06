"""Every coroutine, cancelled at each of its steps, one after the other: nothing leaks, and the client goes on."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import types
from collections.abc import Awaitable, Callable, Iterator
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any

import pytest
from async_timeout import timeout

from aioetcd2 import (
    APIError,
    AuthError,
    Client,
    ClientClosedError,
    ClusterError,
    EndpointSelection,
    EtcdError,
    EventIndexClearedError,
    Health,
    HTTPResult,
    KeyNotFoundError,
    LeaderStats,
    Member,
    MemberNotFoundError,
    Permission,
    Response,
    Role,
    RoleNotFoundError,
    SelfStats,
    StoreStats,
    User,
    UserNotFoundError,
    Version,
    Watcher,
)
from aioetcd2.testing import EtcdServer

from .conftest import open_sockets
from .misbehaver import (
    Behaviour,
    Exchange,
    Misbehaver,
    answer,
    chunk,
    close,
    hang,
    happened,
    key_event,
    raw,
    reset,
    stay,
    wait,
    wait_header,
)
from .steps import BEFORE_3_11, BOTH, CANCELLED, Steps, at_every_step, cancelled_at, make_task, own_tasks, until

pytestmark = pytest.mark.slow

Call = Callable[[Client, str], Awaitable[Any]]
"""A call that has to do with a key of its own."""


@pytest.fixture(autouse=True)
async def steps_are_counted() -> None:
    asyncio.get_running_loop().set_task_factory(make_task)


# --- calls to a real etcd --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def etcd() -> Iterator[EtcdServer]:
    """An etcd of our own, for users and roles are not kept apart by a prefix."""
    etcd = EtcdServer()

    async def start() -> None:
        await etcd.__aenter__()
        async with Client(etcd.endpoints) as client:
            await until_capable(client)
            await client.auth.users.add("bob", "p")
            await client.auth.roles.add("reader")

    asyncio.run(start())
    yield etcd
    asyncio.run(etcd.__aexit__(None, None, None))


async def until_capable(client: Client) -> None:
    """Wait until the server has auth, which takes it a moment after its start."""
    while True:
        with suppress(ClusterError):
            await client.auth.users.list()
            return
        await asyncio.sleep(0.05)


class Found:
    """A discoverer that takes its time."""

    def __init__(self, *endpoints: str) -> None:
        self.endpoints = list(endpoints)

    async def discover(self, domain: str) -> list[str]:
        for _ in range(3):
            await asyncio.sleep(0)
        return self.endpoints


async def from_srv(client: Client, key: str) -> Response:
    async with await Client.from_srv("example.com", discoverer=Found(*client.endpoints)) as other:
        return await other.keys.set(key, "v")


async def entered(client: Client, key: str) -> Response:
    async with Client(client.endpoints) as other:
        return await other.keys.set(key, "v")


async def watched(client: Client, key: str) -> Response:
    async with client.keys.watch(key) as watcher:
        await client.keys.set(key, "v")
        return await watcher.next()


async def closed_watcher(client: Client, key: str) -> Response:
    watcher = client.keys.watch(key, after_index=(await client.keys.set(key, "v")).index - 1)
    try:
        return await watcher.next()
    finally:
        await watcher.aclose()


READ = Permission.READ

ETCD_CALLS: dict[str, tuple[Call, type | tuple[type, ...]]] = {
    "get": (lambda client, key: client.keys.get(key, quorum=True), KeyNotFoundError),
    "set": (lambda client, key: client.keys.set(key, "v"), Response),
    "create": (lambda client, key: client.keys.create(key, "v"), Response),
    "update": (lambda client, key: client.keys.update(key, "v"), KeyNotFoundError),
    "create_in_order": (lambda client, key: client.keys.create_in_order(key, "v"), Response),
    "refresh": (lambda client, key: client.keys.refresh(key, 60), KeyNotFoundError),
    "mkdir": (lambda client, key: client.keys.mkdir(key), Response),
    "delete": (lambda client, key: client.keys.delete(key), KeyNotFoundError),
    "members.list": (lambda client, key: client.members.list(), list),
    "members.leader": (lambda client, key: client.members.leader(), Member),
    "members.add": (lambda client, key: client.members.add("no URL"), APIError),
    "members.remove": (lambda client, key: client.members.remove("?"), MemberNotFoundError),
    "members.update": (lambda client, key: client.members.update("?", "http://127.0.0.1:1"), MemberNotFoundError),
    "auth.enable": (lambda client, key: client.auth.enable(), AuthError),
    "auth.disable": (lambda client, key: client.auth.disable(), AuthError),
    "auth.enabled": (lambda client, key: client.auth.enabled(), bool),
    "users.list": (lambda client, key: client.auth.users.list(), list),
    "users.get": (lambda client, key: client.auth.users.get(key[1:]), UserNotFoundError),
    "users.add": (lambda client, key: client.auth.users.add(key[1:], "p"), User),
    "users.remove": (lambda client, key: client.auth.users.remove(key[1:]), UserNotFoundError),
    "users.grant": (lambda client, key: client.auth.users.grant(key[1:], "reader"), UserNotFoundError),
    "users.revoke": (lambda client, key: client.auth.users.revoke(key[1:], "reader"), UserNotFoundError),
    "users.change_password": (lambda client, key: client.auth.users.change_password("bob", key), User),
    "roles.list": (lambda client, key: client.auth.roles.list(), list),
    "roles.get": (lambda client, key: client.auth.roles.get(key[1:]), RoleNotFoundError),
    "roles.add": (lambda client, key: client.auth.roles.add(key[1:]), Role),
    "roles.remove": (lambda client, key: client.auth.roles.remove(key[1:]), RoleNotFoundError),
    "roles.grant": (lambda client, key: client.auth.roles.grant("reader", key, permission=READ), Role),
    "roles.revoke": (lambda client, key: client.auth.roles.revoke(key[1:], key, permission=READ), RoleNotFoundError),
    "stats.self": (lambda client, key: client.stats.self(), SelfStats),
    "stats.leader": (lambda client, key: client.stats.leader(), LeaderStats),
    "stats.store": (lambda client, key: client.stats.store(), StoreStats),
    "sync": (lambda client, key: client.sync(), types.NoneType),
    "version": (lambda client, key: client.version(), Version),
    "health": (lambda client, key: client.health(), Health),
    "health-of-one": (lambda client, key: client.health(client.endpoints[0]), Health),
    "request": (lambda client, key: client.request("PUT", f"/v2/keys{key}", form={"value": "v"}), HTTPResult),
    "from_srv": (from_srv, Response),
    "async-with": (entered, Response),
    "watch": (watched, Response),
    "watch-the-past": (closed_watcher, Response),
}

numbers = itertools.count()


@pytest.mark.parametrize("name", ETCD_CALLS)
async def test_call(name: str, etcd: EtcdServer) -> None:
    """On a connection that is kept, and by a client that has none yet."""
    call, expected = ETCD_CALLS[name]
    sockets = open_sockets()
    kept = 2 if "watch" in name else 1  # a watcher counts the keys beside its wait

    async def attempt(fresh: bool, at: int, waking: bool) -> bool:
        async with etcd_client(etcd) if fresh else nullcontext(pooled) as client:
            key = f"/{name}-{next(numbers)}"
            outcome, reached = await cancelled_at(at, waking, lambda: call(client, key))
            await until(lambda: not own_tasks())
            await until(lambda: len(open_sockets() - sockets) <= kept)
            if outcome is not CANCELLED:
                assert isinstance(outcome, expected), outcome
                assert_own(outcome, key)
            with pytest.raises(KeyNotFoundError) as caught:
                await client.keys.get(f"{key}-next")
            assert_own(caught.value, f"{key}-next")
            return reached

    for fresh in (False, True):
        async with etcd_client(etcd) as pooled:
            await at_every_step(partial(attempt, fresh))


def etcd_client(etcd: EtcdServer) -> Client:
    return Client(etcd.endpoints, selection=EndpointSelection.PRIORITIZE_LEADER)


def assert_own(outcome: object, key: str) -> None:
    """See that this is the answer to what was asked, and not to anything before."""
    if isinstance(outcome, Response):
        assert outcome.node is not None
        assert outcome.node.key.startswith(key)
    if isinstance(outcome, KeyNotFoundError):
        assert outcome.cause == key


# --- failover --------------------------------------------------------------------------------------------------------


async def fine(exchange: Exchange) -> bool | None:
    """Answer as a healthy server does, with what was asked for as the key."""
    path = exchange.seen.target.partition("?")[0]
    key = path.removeprefix("/v2/keys")
    if exchange.seen.query.get("wait") == "true":
        return await happened(key_event(key), index=10)(exchange)
    status = 200 if exchange.seen.method == "GET" else 201
    body = {"etcdserver": "3.5.1", "health": "true", "members": MEMBERS, **MEMBERS[0], **key_event(key)}
    return await answer(body, status=status)(exchange)


MEMBERS = [{"id": "1", "name": "a", "peerURLs": [], "clientURLs": ["http://127.0.0.1:1"]}]

in_pieces = raw(wait_header(), chunk(b'{"action": "get", '), chunk(b'"node": '), pause=0.001, then=hang)

FAILURES: dict[str, Behaviour] = {
    "lost": close,
    "reset": reset,
    "no-leader": answer("no leader", status=503),
    "no-etcd": answer("<html>"),
    "no-v2": answer("404 page not found\n", status=404),
    "silent": hang,
    "stalling": in_pieces,
}


async def first_event(client: Client, key: str) -> Response:
    async with client.keys.watch(key) as watcher:
        return await watcher.next()


FAILOVER_CALLS: dict[str, Call] = {
    "get": lambda client, key: client.keys.get(key),
    "set": lambda client, key: client.keys.set(key, "v"),
    "create": lambda client, key: client.keys.create(key, "v"),
    "watch": first_event,
}


def client_of(*servers: Misbehaver | str, header_timeout: float | None = 30.0, **options: Any) -> Client:
    endpoints = [server if isinstance(server, str) else server.endpoint for server in servers]
    return Client(endpoints, header_timeout=header_timeout, selection=EndpointSelection.PRIORITIZE_LEADER, **options)


async def attempt_of(call: Call, client: Client, at: int, waking: bool, *servers: Misbehaver) -> bool:
    """Cancel a call at a step, and see that the client goes on; whether it got there."""
    key = f"/{next(numbers)}"
    outcome, reached = await cancelled_at(at, waking, lambda: call(client, key))
    await until(lambda: not own_tasks())
    await until(lambda: not any(server.behaving for server in servers))
    if outcome is not CANCELLED:
        assert outcome is None or isinstance(outcome, (Response, EtcdError)), outcome
        assert_own(outcome, key)
    client.set_endpoints(servers[-1].endpoint)
    assert_own(await patiently(client, f"{key}-next"), f"{key}-next")
    kept = 2 if call is first_event else 1  # a watcher counts the keys beside its wait
    await until(lambda: all(server.open <= kept for server in servers))
    return reached


def header_timeout_for(failure: str) -> float:
    """A short one where it is to end what an endpoint does not."""
    return 0.03 if failure in ("silent", "stalling", "held-back") else 30.0


async def patiently(client: Client, key: str) -> Response:
    """A get that goes on where a slow machine does not answer within a short header timeout."""
    for _ in range(20):
        with suppress(ClusterError):
            return await client.keys.get(key)
    raise AssertionError("it never answers")


@pytest.mark.parametrize("failure", ["refused", *FAILURES])
@pytest.mark.parametrize("name", FAILOVER_CALLS)
async def test_failover(name: str, failure: str) -> None:
    async with Misbehaver(FAILURES.get(failure, hang)) as failing, Misbehaver(fine) as other:

        async def attempt(at: int, waking: bool) -> bool:
            first = "http://127.0.0.1:1" if failure == "refused" else failing
            async with client_of(first, other, header_timeout=header_timeout_for(failure)) as client:
                return await attempt_of(FAILOVER_CALLS[name], client, at, waking, failing, other)

        await at_every_step(attempt, manners=(False,) if BEFORE_3_11 and name == "watch" else BOTH)


def by_path(**behaviours: Behaviour) -> Behaviour:
    """What is done for targets that hold a word; otherwise what is fine."""

    async def behave(exchange: Exchange) -> bool | None:
        for word, behaviour in behaviours.items():
            if word in exchange.seen.target:
                return await behaviour(exchange)
        return await fine(exchange)

    return behave


async def moved(exchange: Exchange) -> bool | None:
    where = exchange.seen.target.replace("moved", "found")
    return await answer(status=307, headers={"Location": where})(exchange)


async def pieces(exchange: Exchange) -> bool | None:
    body = json.dumps(key_event(exchange.seen.target.removeprefix("/v2/keys"))).encode()
    cut = raw(wait_header(), chunk(body[:20]), chunk(body[20:]), chunk(b""), pause=0.001, then=stay)
    return await cut(exchange)


async def rediscovered(client: Client, key: str) -> Response:
    """Find the endpoint that serves when the first one found does not."""
    finds = [["http://127.0.0.1:1"], list(client.endpoints)]

    class Finder(Found):
        async def discover(self, domain: str) -> list[str]:
            self.endpoints = finds.pop(0)
            return await super().discover(domain)

    async with await Client.from_srv("example.com", discoverer=Finder()) as other:
        return await other.keys.get(key)


async def older(client: Client, key: str) -> Response:
    """See an index, and then a lower one: asks again with quorum."""
    await client.keys.get("/newer")
    return await client.keys.get(key)


async def big(client: Client, key: str) -> Response:
    return await client.keys.set(key, "v" * 3_000_000)


ROUNDS: dict[str, tuple[Call, Behaviour]] = {
    "read-again-with-quorum": (older, by_path(newer=answer(key_event("/newer"), index=99))),
    "stats.leader-elsewhere": (
        lambda client, key: client.stats.leader(),
        by_path(stats=answer({"message": "not current leader"}, status=403)),
    ),
    "sync": (lambda client, key: client.sync(), fine),
    "v2-off": (lambda client, key: client.keys.get("/v2off"), by_path(v2off=answer("404 page not found", status=404))),
    "redirect": (
        lambda client, key: client.keys.get(f"{key}-moved"),
        by_path(moved=moved),
    ),
    "rediscovery": (rediscovered, fine),
    "big-body": (big, fine),
    "answer-in-pieces": (lambda client, key: client.keys.get(f"{key}-pieces"), by_path(pieces=pieces)),
}


@pytest.mark.parametrize("name", ROUNDS)
async def test_call_of_several_rounds(name: str) -> None:
    call, behaviour = ROUNDS[name]
    async with Misbehaver(behaviour) as server:

        async def attempt(at: int, waking: bool) -> bool:
            async with client_of(server) as client:
                return await attempt_of(call, client, at, waking, server)

        await at_every_step(attempt)


async def test_auto_sync(etcd: EtcdServer) -> None:
    async def attempt(at: int, waking: bool) -> bool:
        outcome, reached = await cancelled_at(at, waking, lambda: client.auto_sync(0.001))
        assert outcome is CANCELLED
        assert not own_tasks()
        assert (await client.version()).server
        return reached

    async with etcd_client(etcd) as client:
        await at_every_step(attempt, most=15)


# --- deadlines -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", ["lost", "silent", "stalling"])
@pytest.mark.parametrize("name", ["get", "create"])
async def test_deadline(name: str, failure: str) -> None:
    """A deadline of the caller that passes at a step is what the caller gets, and it leaves no cancellation behind."""
    async with Misbehaver(FAILURES[failure]) as failing, Misbehaver(fine) as other:

        async def attempt(at: int, waking: bool) -> bool:
            deadline = timeout(None)

            async def call() -> object:
                async with deadline:
                    return await FAILOVER_CALLS[name](client, "/k")

            async with client_of(failing, other, header_timeout=header_timeout_for(failure)) as client:
                steps = Steps(at, waking, lambda _: end_now(deadline))
                task = await steps.run(call)
                await until(lambda: not own_tasks())
            error = task.exception()
            if has_expired(deadline):
                assert isinstance(error, asyncio.TimeoutError)
                assert not isinstance(error, EtcdError)
            else:
                assert error is None or isinstance(error, EtcdError)
            if sys.version_info >= (3, 11):
                assert not task.cancelling()
            return steps.reached

        await at_every_step(attempt)


def end_now(deadline: Any) -> None:
    if sys.version_info >= (3, 11):
        deadline.reschedule(0.0)
    else:
        deadline.update(0.0)


def has_expired(deadline: Any) -> bool:
    return bool(deadline.expired() if sys.version_info >= (3, 11) else deadline.expired)


PATIENCE = 0.07


@pytest.mark.parametrize("stage", ["silent", "stalling"])
@pytest.mark.parametrize("lead", [-1e-7, 0.0, 1e-7])
@pytest.mark.parametrize("name", ["get", "create", "watch"])
async def test_cancelled_as_the_header_timeout_ends(
    name: str, lead: float, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both timers are due in the same turn of the event loop, in either order."""
    if name == "watch" and BEFORE_3_11:
        pytest.skip("a watch cancels its own task in the turn in which the timeout does, see BEFORE_3_11")
    loop = asyncio.get_running_loop()
    call_at = loop.call_at
    ties: list[float] = []

    def together(when: float, callback: Any, *args: Any, **options: Any) -> asyncio.TimerHandle:
        if PATIENCE / 2 < when - loop.time() < 1:
            ties.append(when)
            call_at(when + lead, task.cancel)
        return call_at(when, callback, *args, **options)

    async with Misbehaver(FAILURES[stage]) as failing, Misbehaver(fine) as other:
        async with client_of(failing, other, header_timeout=PATIENCE) as client:
            monkeypatch.setattr(loop, "call_at", together)
            task = asyncio.ensure_future(FAILOVER_CALLS[name](client, "/k"))
            with pytest.raises(asyncio.CancelledError):
                await task
            assert ties
            await until(lambda: not own_tasks())
            await until(lambda: not failing.behaving)
            assert not other.seen
            monkeypatch.undo()
            client.set_endpoints(other.endpoint)
            assert_own(await client.keys.get("/next"), "/next")


# --- closing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("auto_sync", [None, 30.0], ids=["", "auto-sync"])
async def test_close(auto_sync: float | None) -> None:
    """A close that is cancelled has closed all the same: no one may be there to close again."""
    async with Misbehaver(by_path(**{"wait=true": wait(), "stuck": hang, "members": hang})) as server:

        async def attempt(at: int, waking: bool) -> bool:
            client = client_of(server, auto_sync=auto_sync)
            watchers = [client.keys.watch("/watched") for _ in range(3)]
            calls = [asyncio.ensure_future(client.keys.get("/stuck")) for _ in range(3)]
            calls += [asyncio.ensure_future(watcher.next()) for watcher in watchers]
            try:
                await until(lambda: server.behaving == len(calls) + bool(auto_sync))
                outcome, reached = await cancelled_at(at, waking, client.close)
                assert outcome in (CANCELLED, None)
                with pytest.raises(ClientClosedError):
                    await client.keys.get("/k")
                await until(lambda: not own_tasks(), 2)
                await until(lambda: not server.open, 2)
                outcomes = await asyncio.gather(*calls, return_exceptions=True)
                assert {type(each) for each in outcomes} == {ClientClosedError}
            finally:
                await client.close()
                await asyncio.gather(*calls, return_exceptions=True)
            return reached

        await at_every_step(attempt)


# --- watchers --------------------------------------------------------------------------------------------------------

START, NOW = 10, 16


async def history(exchange: Exchange) -> bool | None:
    """Waits at a server that has had an event at every index up to now, and to which two more come."""
    since = int(exchange.seen.query.get("waitIndex", NOW + 1))
    if since <= NOW:
        return await happened(key_event(index=since), index=max(NOW, since))(exchange)
    events = [chunk(json.dumps(key_event(index=each)).encode() + b"\n") for each in range(since, NOW + 3)]
    return await raw(wait_header(NOW), *events, pause=0.001, then=hang)(exchange)


async def held_back(exchange: Exchange) -> bool | None:
    """The same behind a proxy that lets no header through before the event."""
    since = int(exchange.seen.query.get("waitIndex", NOW + 1))
    if since > NOW + 2 or "stream" in exchange.seen.query:
        await hang(exchange)
    return await happened(key_event(index=since), index=max(NOW, since))(exchange)


everything: list[object] = [*range(START + 1, NOW + 3)]
half_an_event = raw(wait_header(START), chunk(json.dumps(key_event()).encode()[:30]))
cleared = answer({"errorCode": 401, "message": "outdated", "index": NOW}, status=400, index=NOW)

WATCHES: dict[str, tuple[list[Behaviour], list[object]]] = {
    "history": ([history], everything),
    "end": ([raw(wait_header(START), chunk(b""), then=stay), history], everything),
    "lost": ([raw(wait_header(START), pause=0.002), history], everything),
    "half-an-event": ([half_an_event, history], everything),
    "lost-twice": ([half_an_event, close, history], everything),
    "held-back": ([held_back], everything),
    "resync": ([cleared, history], ["resync", NOW + 1, NOW + 2]),
    "cleared": ([cleared, history], ["cleared", NOW + 1, NOW + 2]),
}


async def receive(watcher: Watcher, received: list[object], number: int, *, late: bool = False) -> None:
    while len(received) < number:
        try:
            event = await watcher.next()
        except EventIndexClearedError:
            received.append("cleared")
        except ClusterError:
            assert late  # or else the header timeout is far too long for this
        else:
            assert event.node is not None
            received.append("resync" if event.action == "resync" else event.node.modified_index)


@pytest.mark.parametrize("name", WATCHES)
async def test_watch_loses_nothing(name: str) -> None:
    script, expected = WATCHES[name]

    async def attempt(at: int, waking: bool) -> bool:
        reads = answer(key_event(index=NOW), index=NOW + 2 * (name == "held-back"))
        async with (
            Misbehaver(*script, reads=reads) as server,
            client_of(server, header_timeout=header_timeout_for(name)) as client,
        ):
            watcher = client.keys.watch("/k", after_index=START, resync=name == "resync")
            received: list[object] = []

            async def receive_all() -> None:
                await receive(watcher, received, len(expected), late=name == "held-back")

            _, reached = await cancelled_at(at, waking, receive_all)
            async with timeout(20):
                await receive_all()
            assert received == expected
            await watcher.aclose()
            await until(lambda: not own_tasks())
            await until(lambda: not server.behaving)
        return reached

    await at_every_step(attempt)


async def test_watch_loses_nothing_of_etcd(etcd: EtcdServer, prefix: str) -> None:
    async def write(number: int) -> list[object]:
        responses = [await writer.keys.set(f"{prefix}/{each}", "v") for each in range(number)]
        return [response.index for response in responses]

    async def attempt(at: int, waking: bool) -> bool:
        start = (await writer.keys.set(f"{prefix}-else", "v")).index
        written = await write(4)
        received: list[object] = []

        async def write_more() -> None:
            await until(lambda: len(received) == 4)
            written.extend(await write(3))

        async with etcd_client(etcd) as client:
            watcher = client.keys.watch(prefix, recursive=True, after_index=start)
            writing = asyncio.create_task(write_more())
            _, reached = await cancelled_at(at, waking, lambda: receive(watcher, received, 7))
            async with timeout(20):
                await receive(watcher, received, 7)
            await writing
            assert received == written
            await watcher.aclose()
            await until(lambda: not own_tasks())
        return reached

    async with etcd_client(etcd) as writer:
        await at_every_step(attempt)


STAGES: dict[str, Behaviour] = {
    "registering": hang,
    "listening": wait(),
    "fetching-history": by_path(**{"stream=true&waitIndex": history, "stream": wait(NOW), "wait": hang}),
    "backing-off": close,
}


@pytest.mark.parametrize("stage", STAGES)
async def test_closing_a_watcher(stage: str) -> None:
    """A close of a watcher that is cancelled has closed it all the same."""
    script = [wait(), STAGES[stage]] if stage == "backing-off" else [STAGES[stage]]

    async def attempt(at: int, waking: bool) -> bool:
        async with Misbehaver(*script, reads=answer(key_event())) as server, client_of(server) as client:
            watcher = client.keys.watch("/k", after_index=START)
            receiving = asyncio.ensure_future(receive(watcher, [], 9))
            await until(lambda: bool(server.waits))
            await asyncio.sleep(0.02)
            if stage == "backing-off":
                server.hang_up()
                await until(lambda: len(server.waits) > 3)
            _, reached = await cancelled_at(at, waking, watcher.aclose)
            await until(lambda: not own_tasks())
            await until(lambda: not server.behaving)
            with pytest.raises(ClientClosedError):
                await receiving
            with pytest.raises(ClientClosedError):
                await watcher.next()
        return reached

    await at_every_step(attempt)

"""The client and a model of etcd's store take the same random steps: same answers, same errors, same events."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import sys
import time
from collections.abc import Awaitable
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any, NamedTuple, TypeVar

import pytest
from async_timeout import timeout
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from aioetcd2 import APIError, Client, KeysAPI, Response, RootReadOnlyError
from aioetcd2.testing import EtcdServer
from aioetcd2.watch import Watcher

from .store_model import Expected, StoreModel, assert_same, clean

T = TypeVar("T")

EXAMPLES = int(os.environ.get("AIOETCD2_EXAMPLES", "0"))
"""How many random runs; 0 = a few, and always the same."""

STEPS = settings(
    max_examples=EXAMPLES or 40,
    stateful_step_count=50,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)

AWHILE = 30.0
"""Seconds after which something hangs, also on a machine that is very busy."""

MOST_WATCHERS = 5

SEGMENTS = st.sampled_from(
    ["", "a", "b", "_hidden", "a b", "?wait=true", "#", "%2F", "100%", "+;&=", "...", "\\", "é\u2028", "😀", "<\0\r\n>"]
) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/"), max_size=3).filter(
    lambda segment: segment not in (".", "..")
)
VALUES = st.sampled_from(["", "v", "w", "+;&=%2B", "\r\n\0", "é\ufffd😀", "w" * 3000]) | st.text(max_size=5)
TTLS = st.sampled_from([None, None, 1000, 1000.5, 10**6, 7_000_000_000, timedelta(days=1, microseconds=1)])
MAYBE = st.booleans()
WHETHER = st.sampled_from([None, True, False])
NUMBER = st.integers(0, 9)
PREVIOUS = st.sampled_from(["now", None, "other"])

_roots = itertools.count()


class Watching(NamedTuple):
    """A watcher, and what it must give."""

    watcher: Watcher
    expected: Expected
    key: str
    recursive: bool


class Pair:
    """The client and the model, which take the same steps below a root of their own.

    Args:
        api: The keys of the client.
        prefix: What goes before each key that the client is given; empty where its keys are confined to the root.
        root: The root.
        model: The model.
    """

    def __init__(self, api: KeysAPI, prefix: str, root: str, model: StoreModel) -> None:
        self.api = api
        self.prefix = prefix
        self.root = root
        self.model = model
        self.slack = 0.5  # the clocks of client and server are the same, but a call takes its time

    async def do(self, name: str, key: str, *args: Any, **options: Any) -> Response | None:
        """One step, by both; the answer if it was no refusal."""
        (answer,) = await self.ask(getattr(self.api, name)(self.prefix + key, *args, **options))
        return self.judge(answer, name, key, *args, **options)

    async def ask(self, *calls: Awaitable[Response]) -> list[Response | APIError]:
        """What the server answers to some calls at the same time."""
        began = time.monotonic()
        answers = await asyncio.gather(*map(outcome, calls))
        self.slack = max(self.slack, 0.5 + time.monotonic() - began)
        return answers

    def judge(self, answer: Response | APIError, name: str, key: str, *args: Any, **options: Any) -> Response | None:
        """Let the model take the step, too, and compare."""
        self.model.answered(answer.index or self.model.index, datetime.now(timezone.utc))
        try:
            wanted = getattr(self.model, name)(f"{self.root}/{key}", *args, **options)
        except APIError as refusal:
            assert isinstance(answer, APIError), f"{answer}, not {refusal!r}"
            assert facts(answer) == facts(refusal), f"{facts(answer)}, not {facts(refusal)}"
            return None
        assert isinstance(answer, Response), f"{answer!r}, not {wanted}"
        assert_same(answer, wanted, self.slack, ordered=name != "get" or options["sort"])
        return answer

    async def watch(self, key: str, recursive: bool, after: int | None = None) -> Watching:
        """Begin to watch, and to expect."""
        since = self.model.index if after is None else after
        expected = Expected(self.model, f"{self.root}/{key}", recursive, since)
        return await self.begin(Watching(self._watcher(key, recursive, after), expected, key, recursive))

    async def watch_anew(self, old: Watching) -> Watching:
        """Go on with another watcher from where one was."""
        await old.watcher.aclose()
        return await self.begin(old._replace(watcher=self._watcher(old.key, old.recursive, old.watcher.index)))

    async def begin(self, watching: Watching) -> Watching:
        await watching.watcher.__aenter__()
        return watching

    async def read(self, watching: Watching, most: int = 1000) -> None:
        """Take events while some are owed."""
        while most and watching.expected.owed:
            try:
                async with timeout(AWHILE):
                    event = await watching.watcher.next()
            except asyncio.TimeoutError:
                pytest.fail(f"the watch of {watching.key!r} gives nothing more, but {watching.expected.owed}")
            self.take(watching, event)
            most -= 1

    def take(self, watching: Watching, event: Response) -> None:
        """Compare an event with the one that the model says must come."""
        assert event.node is not None
        assert_same(event, watching.expected.given(event.node.modified_index), self.slack)
        assert watching.watcher.index == event.node.modified_index

    def _watcher(self, key: str, recursive: bool, after: int | None) -> Watcher:
        return self.api.watch(self.prefix + key, recursive=recursive, after_index=after)


class StoreMachine(RuleBasedStateMachine):
    """Random steps of a pair.

    Args:
        server: The real server; it is used by nobody else meanwhile.
        updates_directories: Whether it does.
        complaints: Gets what the event loop has to complain of.
    """

    segments = Bundle("segments")
    watches = Bundle("watches")
    keys = st.builds("/".join, st.lists(segments, min_size=1, max_size=3))

    def __init__(self, server: EtcdServer, updates_directories: bool, complaints: list[Any]) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.loop.set_debug(False)  # it would take more than twice the time
        self.loop.set_exception_handler(lambda loop, context: complaints.append(context))
        self.client = Client(server.endpoints, header_timeout=AWHILE)
        self.model = StoreModel(self.run(self.client.keys.get("/")).index, updates_directories=updates_directories)
        self.watching: dict[int, Watching] = {}

    def run(self, work: Awaitable[T]) -> T:
        async def bounded() -> T:
            async with timeout(AWHILE):
                return await work

        return self.loop.run_until_complete(bounded())

    @initialize(
        target=segments,
        segments=st.tuples(SEGMENTS, SEGMENTS, st.sampled_from(["_hidden", "ab", "_"])),
        confined=MAYBE,
        name=st.sampled_from(["model", "_model", "mod él"]),
    )
    def begin(self, segments: tuple[str, ...], confined: bool, name: str) -> Any:
        root = f"/{name}-{next(_roots)}"
        api = KeysAPI(self.client, f"/v2/keys{root}") if confined else self.client.keys
        self.pair = Pair(api, "" if confined else f"{root}/", root, self.model)
        return multiple(*segments)

    def do(self, name: str, key: str, *args: Any, **options: Any) -> Response | None:
        return self.run(self.pair.do(name, key, *args, **options))

    @rule(key=keys, value=VALUES, ttl=TTLS, prev_exist=WHETHER, silently=MAYBE)
    def set(self, key: str, value: str, ttl: Any, prev_exist: bool | None, silently: bool) -> None:
        self.do("set", key, value, ttl=ttl, prev_exist=prev_exist, no_value_on_success=silently)

    @rule(key=keys, value=VALUES, ttl=TTLS)
    def create(self, key: str, value: str, ttl: Any) -> None:
        self.do("create", key, value, ttl=ttl)

    @rule(key=keys, number=NUMBER, value=VALUES, ttl=TTLS)
    def update(self, key: str, number: int, value: str, ttl: Any) -> None:
        self.do("update", self.one_of_ours(number, key), value, ttl=ttl)

    @rule(
        key=keys,
        number=NUMBER,
        value=VALUES,
        ttl=TTLS,
        prev_value=PREVIOUS,
        prev_index=PREVIOUS,
        prev_exist=st.sampled_from([None, True]),
    )
    def compare_and_set(
        self, key: str, number: int, value: str, ttl: Any, prev_value: Any, prev_index: Any, prev_exist: bool | None
    ) -> None:
        key = self.one_of_ours(number, key)
        conditions = self.conditions(key, prev_value, prev_index)
        self.do("set", key, value, ttl=ttl, prev_exist=prev_exist, **conditions)

    @rule(target=segments, key=keys, value=VALUES, ttl=TTLS)
    def create_in_order(self, key: str, value: str, ttl: Any) -> Any:
        answer = self.do("create_in_order", key, value, ttl=ttl)
        return multiple() if answer is None or answer.node is None else answer.node.key.rpartition("/")[2]

    @rule(key=keys, number=NUMBER, ttl=TTLS.filter(bool))
    def refresh(self, key: str, number: int, ttl: Any) -> None:
        self.do("refresh", self.one_of_ours(number, key), ttl)

    @rule(key=keys, number=NUMBER, ttl=TTLS.filter(bool), prev_value=PREVIOUS, prev_index=PREVIOUS)
    def compare_and_refresh(self, key: str, number: int, ttl: Any, prev_value: Any, prev_index: Any) -> None:
        key = self.one_of_ours(number, key)
        conditions = self.conditions(key, prev_value, prev_index)
        if conditions.get("prev_value") != "":  # which is refused before it is sent
            self.do("refresh", key, ttl, **conditions)

    @rule(key=keys, ttl=TTLS, prev_exist=WHETHER)
    def mkdir(self, key: str, ttl: Any, prev_exist: bool | None) -> None:
        self.do("mkdir", key, ttl=ttl, prev_exist=prev_exist)

    @rule(key=keys, recursive=MAYBE, dir=MAYBE)
    def delete(self, key: str, recursive: bool, dir: bool) -> None:
        self.do("delete", key, recursive=recursive, dir=dir)

    @rule(key=keys, number=NUMBER, recursive=MAYBE, prev_value=PREVIOUS, prev_index=PREVIOUS)
    def compare_and_delete(self, key: str, number: int, recursive: bool, prev_value: Any, prev_index: Any) -> None:
        key = self.one_of_ours(number, key)
        self.do("delete", key, recursive=recursive, **self.conditions(key, prev_value, prev_index))

    @rule(key=keys, recursive=MAYBE, sort=MAYBE, quorum=MAYBE)
    def get(self, key: str, recursive: bool, sort: bool, quorum: bool) -> None:
        self.do("get", key, recursive=recursive, sort=sort, quorum=quorum)

    @rule(key=keys, values=st.lists(VALUES, min_size=2, max_size=12), ttl=TTLS)
    def set_at_the_same_time(self, key: str, values: list[str], ttl: Any) -> None:
        """The index tells in which order they arrived."""
        calls = [self.pair.api.set(self.pair.prefix + key, value, ttl=ttl) for value in values]
        answers = zip(self.run(self.pair.ask(*calls)), values, strict=True)
        for answer, value in sorted(answers, key=lambda pair: pair[0].index):
            self.pair.judge(answer, "set", key, value, ttl=ttl)

    @rule(
        call=st.sampled_from([("set", "v"), ("create", "v"), ("update", "v"), ("refresh", 9), ("mkdir",), ("delete",)])
    )
    def the_root_is_read_only(self, call: tuple[Any, ...]) -> None:
        name, *args = call
        (answer,) = self.run(self.pair.ask(getattr(self.client.keys, name)("/", *args)))
        assert isinstance(answer, RootReadOnlyError)

    @precondition(lambda self: len(self.watching) < MOST_WATCHERS)
    @rule(target=watches, key=keys, recursive=MAYBE, ago=st.none() | st.integers(0, 40))
    def watch(self, key: str, recursive: bool, ago: int | None) -> int:
        """From now on, or from an index that is some time ago."""
        after = None if ago is None else max(0, self.model.index - ago)
        return self.keep(self.run(self.pair.watch(key, recursive, after)))

    def keep(self, watching: Watching) -> int:
        number = max(self.watching, default=0) + 1
        self.watching[number] = watching
        return number

    @rule(number=watches, most=st.integers(1, 5))
    def read(self, number: int, most: int) -> None:
        self.run(self.pair.read(self.watching[number], most))

    @rule(number=watches)
    def read_with_little_patience(self, number: int) -> None:
        """What `next()` was about to give when it was cancelled, the next one gives."""

        async def hasty() -> Response | None:
            try:
                async with timeout(0.002):
                    return await self.watching[number].watcher.next()
            except asyncio.TimeoutError:
                return None

        event = self.run(hasty())
        if event is not None:
            self.pair.take(self.watching[number], event)

    @rule(target=watches, number=consumes(watches), most=st.integers(0, 3))
    def watch_anew(self, number: int, most: int) -> int:
        """Go on with another watcher from where one was, though more had come by then perhaps."""
        watching = self.watching.pop(number)
        self.run(self.pair.read(watching, most))
        return self.keep(self.run(self.pair.watch_anew(watching)))

    @rule(number=consumes(watches))
    def stop_watching(self, number: int) -> None:
        self.run(self.watching.pop(number).watcher.aclose())

    def one_of_ours(self, number: int, key: str) -> str:
        """A key that exists, or else any."""
        root = self.model.at(self.pair.root)
        ours = [] if root is None else sorted(root.paths())
        return ours[number][len(self.pair.root) :] if number < len(ours) else key

    def conditions(self, key: str, prev_value: Any, prev_index: Any) -> dict[str, Any]:
        """Conditions that hold, and such as do not."""
        entry = self.model.at(clean(f"{self.pair.root}/{key}"))
        conditions: dict[str, Any] = {}
        if prev_value is not None:
            now = entry.value if entry is not None else None
            conditions["prev_value"] = now[:99] if prev_value == "now" and now is not None else "other"
        if prev_index is not None:
            conditions["prev_index"] = entry.modified if prev_index == "now" and entry is not None else 1
        return conditions

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self.see_all_events()
        finally:
            self.run(self.client.close())
            assert not asyncio.all_tasks(self.loop)
            self.loop.close()

    def see_all_events(self) -> None:
        """Let something happen to each watched key, so that its watcher has to give all that came before."""
        for watching in self.watching.values():
            self.do("delete", "", recursive=True)
            self.do("set", watching.key, "the last")
            self.run(self.pair.read(watching))
        self.do("delete", "", recursive=True)


async def outcome(call: Awaitable[Response]) -> Response | APIError:
    try:
        return await call
    except APIError as refusal:
        return refusal


def facts(error: APIError) -> tuple[object, ...]:
    return type(error), error.code, error.message, error.cause, error.status, error.index


@pytest.mark.timeout(600 + 2 * EXAMPLES)
def test_random_steps(server: EtcdServer, etcd_release: tuple[int, int, int]) -> None:
    complaints: list[Any] = []
    machine: Any = partial(StoreMachine, server, etcd_release < (3, 5), complaints)
    run_state_machine_as_test(machine, settings=STEPS)
    gc.collect()
    assert not complaints


@pytest.fixture
async def pair(client: Client, prefix: str, etcd_release: tuple[int, int, int]) -> Pair:
    index = (await client.keys.get("/")).index
    return Pair(client.keys, f"{prefix}/", prefix, StoreModel(index, updates_directories=etcd_release < (3, 5)))


async def test_a_watch_goes_on_from_any_event(pair: Pair) -> None:
    watching = await pair.watch("", recursive=True)
    for number in range(9):
        await pair.do("set", f"key{number % 2}", "v")
    while watching.expected.owed:
        await pair.read(watching, 1)
        watching = await pair.watch_anew(watching)
    await watching.watcher.aclose()


async def test_what_expires(pair: Pair) -> None:
    inside = ["dir", "dir/file", "dir/_hidden", "dir/_hidden/file", "dir/short", "dir/missing"]
    keys = [*inside, "di", "dir2", "kept", "queue"]
    began = pair.model.index
    everything = await pair.watch("", recursive=True)
    live = [await pair.watch(key, recursive) for key in keys for recursive in (False, True)]
    await pair.do("mkdir", "dir", ttl=3)
    await pair.do("set", "dir/file", "v")
    await pair.do("set", "dir/_hidden/file", "v")
    await pair.do("set", "dir/short", "v", ttl=2)
    await pair.do("set", "dir/refreshed", "v", ttl=2)
    await pair.do("refresh", "dir/refreshed", 1000)
    await pair.do("set", "kept", "v", ttl=2)
    await pair.do("update", "kept", "w")
    await pair.do("create_in_order", "queue", "v", ttl=2)
    await pair.read(everything)

    for _ in ("dir/short", "queue/...", "dir"):
        event = await everything.watcher.next()
        assert event.node is not None
        pair.model.answered(event.node.modified_index, datetime.now(timezone.utc))
        expiration = pair.model.find(event.node.key).expiration
        assert expiration is not None
        assert expiration <= pair.model.now + timedelta(seconds=pair.slack)
        pair.model.expire(event.node.key)
        pair.take(everything, event)
    assert pair.model.at(f"{pair.root}/dir") is None

    late = [await pair.watch(key, recursive, began) for key in keys for recursive in (False, True)]
    for key in keys:
        await pair.do("delete", "", recursive=True)
        await pair.do("set", key, "the last")
    for watching in (everything, *live, *late):
        await pair.read(watching)
        await watching.watcher.aclose()

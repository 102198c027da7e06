from __future__ import annotations

import asyncio
import dataclasses
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from aioetcd2 import (
    Client,
    ClusterError,
    CompareFailedError,
    DirNotEmptyError,
    KeyNotFoundError,
    KeysAPI,
    Node,
    NodeExistsError,
    NotDirError,
    NotFileError,
    PrevValueRequiredError,
    RaftInternalError,
    Response,
    RootReadOnlyError,
)
from aioetcd2.testing import EtcdServer

from .conftest import node_of
from .misbehaver import Misbehaver, answer, close, key_event

MAX_FORM = 10 << 20
MAX_REQUEST_LINE = 4096

Call = Callable[[KeysAPI], Awaitable[object]]

VALUES = [
    "",
    "a\0b",
    "\r\n",
    "line\nline\n",
    "😀 é \u2028 \ufffd",
    "a;b",
    "a&b=c%",
    "+",
    "1 + 1 = 2",
    "%41%zz",
    "<>&'\"\\",
    "\x7f\x1b",
]

STRANGE = [
    "what?recursive=true",
    "a#b",
    "%",
    "%2F",
    "%zz",
    "a+b",
    "a b",
    " ",
    "😀",
    "é",
    "a;b",
    "back\\slash",
    "nul\0nul",
    "new\nline",
    "carriage\r\nreturn",
    "...",
    "..a",
    "a..",
    ".hidden",
    "_hidden",
    "~t!$(),*=:@",
    "[br]",
    '"quoted"',
    "\u2028",
    "\x7f",
]


def prev_of(response: Response) -> Node:
    assert response.prev_node is not None
    return response.prev_node


def keys_of(node: Node) -> list[str]:
    return [each.key for each in node.nodes]


async def value_of(keys: KeysAPI, key: str) -> str | None:
    return node_of(await keys.get(key)).value


@pytest.fixture
def keys(client: Client) -> KeysAPI:
    return client.keys


@pytest.fixture
async def wire() -> AsyncIterator[Misbehaver]:
    async with Misbehaver(answer(key_event())) as wire:
        yield wire


@pytest.fixture
async def wired(wire: Misbehaver) -> AsyncIterator[KeysAPI]:
    """Keys at a server that takes everything, to see what was sent."""
    async with Client(wire.endpoint) as client:
        yield client.keys


class TestSet:
    async def test_new_key(self, keys: KeysAPI, prefix: str) -> None:
        response = await keys.set(f"{prefix}/k", "v")
        node = node_of(response)
        assert response.action == "set"
        assert response.prev_node is None
        assert (node.key, node.value, node.dir, node.nodes) == (f"{prefix}/k", "v", False, ())
        assert node.created_index == node.modified_index == response.index
        assert (node.ttl, node.expiration) == (None, None)
        assert response.raft_index > 0
        assert response.raft_term > 0
        assert int(response.cluster_id, 16) > 0

    async def test_overwriting_creates_anew(self, keys: KeysAPI, prefix: str) -> None:
        first = await keys.set(prefix, "1")
        second = await keys.set(prefix, "2")
        assert second.prev_node == first.node
        assert node_of(second).created_index == node_of(second).modified_index > node_of(first).created_index

    @pytest.mark.parametrize("value", VALUES)
    async def test_value_round_trip(self, keys: KeysAPI, prefix: str, value: str) -> None:
        assert node_of(await keys.set(prefix, value)).value == value
        assert await value_of(keys, prefix) == value

    async def test_largest_value(self, server: EtcdServer, prefix: str) -> None:
        value = "x" * (MAX_FORM - len("value="))
        async with Client(server.endpoints, header_timeout=60) as client:
            assert node_of(await client.keys.set(prefix, value)).value == value
            assert await value_of(client.keys, prefix) == value
            await client.keys.delete(prefix)

    async def test_below_a_file(self, keys: KeysAPI, prefix: str) -> None:
        await keys.set(prefix, "file")
        with pytest.raises(NotDirError) as caught:
            await keys.set(f"{prefix}/k", "v")
        assert caught.value.cause == prefix

    @pytest.mark.parametrize("condition", [{}, {"prev_value": "v"}, {"prev_index": 1}, {"prev_exist": True}])
    async def test_directory(self, keys: KeysAPI, prefix: str, condition: dict[str, Any]) -> None:
        await keys.mkdir(prefix)
        with pytest.raises(NotFileError):
            await keys.set(prefix, "v", **condition)

    async def test_takes_away_the_ttl(self, keys: KeysAPI, prefix: str) -> None:
        await keys.set(prefix, "1", ttl=1000)
        response = await keys.set(prefix, "2")
        assert prev_of(response).ttl is not None
        assert (node_of(response).ttl, node_of(response).expiration) == (None, None)

    async def test_form_on_the_wire(self, wired: KeysAPI, wire: Misbehaver) -> None:
        await wired.set("k", "a&b=c%;+ \n", ttl=5, prev_value="é", prev_index=7, no_value_on_success=True)
        (seen,) = wire.seen
        assert (seen.method, seen.target) == ("PUT", "/v2/keys/k")
        assert seen.headers["content-type"] == "application/x-www-form-urlencoded"
        assert seen.form == {
            "value": "a&b=c%;+ \n",
            "ttl": "5",
            "noValueOnSuccess": "true",
            "prevValue": "é",
            "prevIndex": "7",
        }

    async def test_no_condition_sends_none(self, wired: KeysAPI, wire: Misbehaver) -> None:
        await wired.set("k", "")
        assert wire.seen[0].body == b"value="

    async def test_no_value_on_success(self, keys: KeysAPI, prefix: str, etcd_release: tuple[int, int, int]) -> None:
        if etcd_release < (3, 1):
            pytest.skip("etcd 3.1 and later know noValueOnSuccess")
        for action, prev_exist in (("create", False), ("set", None), ("update", True)):
            response = await keys.set(prefix, action, prev_exist=prev_exist, no_value_on_success=True)
            assert (response.action, response.node, response.prev_node) == (action, None, None)
            assert response.index > 0
        assert await value_of(keys, prefix) == "update"


class TestConditions:
    async def test_value_holds(self, keys: KeysAPI, prefix: str) -> None:
        first = await keys.set(prefix, "1")
        second = await keys.set(prefix, "2", prev_value="1")
        assert second.action == "compareAndSwap"
        assert second.prev_node == first.node
        assert node_of(second).created_index == node_of(first).created_index
        assert node_of(second).modified_index > node_of(first).modified_index

    async def test_index_holds(self, keys: KeysAPI, prefix: str) -> None:
        first = await keys.set(prefix, "")
        second = await keys.set(prefix, "2", prev_index=node_of(first).modified_index)
        assert (second.action, node_of(second).value) == ("compareAndSwap", "2")

    async def test_value_differs(self, keys: KeysAPI, prefix: str) -> None:
        index = node_of(await keys.set(prefix, "is")).modified_index
        with pytest.raises(CompareFailedError) as caught:
            await keys.set(prefix, "new", prev_value="expected")
        error = caught.value
        assert (error.code, error.status, error.cause) == (101, 412, "[expected != is]")
        assert error.index >= index
        for words in (f"PUT /v2/keys{prefix}", "Compare failed", "[expected != is]"):
            assert words in str(error)
        assert await value_of(keys, prefix) == "is"

    async def test_both_must_hold(self, keys: KeysAPI, prefix: str) -> None:
        index = node_of(await keys.set(prefix, "1")).modified_index
        with pytest.raises(CompareFailedError, match=rf"\[{index + 1} != {index}\]"):
            await keys.set(prefix, "2", prev_value="1", prev_index=index + 1)
        with pytest.raises(CompareFailedError, match=r"\[0 != 1\]"):
            await keys.set(prefix, "2", prev_value="0", prev_index=index)
        assert node_of(await keys.set(prefix, "2", prev_value="1", prev_index=index)).value == "2"

    @pytest.mark.parametrize("condition", [{"prev_value": "v"}, {"prev_index": 5}, {"prev_exist": True}])
    async def test_missing_key(self, keys: KeysAPI, prefix: str, condition: dict[str, Any]) -> None:
        with pytest.raises(KeyNotFoundError) as caught:
            await keys.set(prefix, "v", **condition)
        assert caught.value.cause == prefix
        with pytest.raises(KeyNotFoundError):
            await keys.get(prefix)

    @pytest.mark.parametrize("value", ["a;b", "a&b=c%", "+", "😀", " "])
    async def test_strange_value(self, keys: KeysAPI, prefix: str, value: str) -> None:
        await keys.set(prefix, value)
        assert (await keys.set(prefix, value, prev_value=value)).action == "compareAndSwap"
        assert (await keys.delete(prefix, prev_value=value)).action == "compareAndDelete"

    async def test_empty_value_is_refused_by_the_server(self, keys: KeysAPI, prefix: str) -> None:
        await keys.set(prefix, "")
        with pytest.raises(PrevValueRequiredError):
            await keys.set(prefix, "v", prev_value="")
        with pytest.raises(PrevValueRequiredError):
            await keys.delete(prefix, prev_value="")
        assert await value_of(keys, prefix) == ""

    @pytest.mark.parametrize("condition", [{"prev_value": "v"}, {"prev_index": 1}])
    async def test_absent_and_previous_exclude_each_other(
        self, wired: KeysAPI, wire: Misbehaver, condition: dict[str, Any]
    ) -> None:
        with pytest.raises(ValueError, match="exclude"):
            await wired.set("k", "v", prev_exist=False, **condition)
        assert wire.seen == []


class TestCreateAndUpdate:
    async def test_create(self, keys: KeysAPI, prefix: str) -> None:
        response = await keys.create(prefix, "v", ttl=1000)
        assert response.action == "create"
        assert response.prev_node is None
        assert node_of(response).ttl is not None

    async def test_create_what_exists(self, keys: KeysAPI, prefix: str) -> None:
        await keys.create(f"{prefix}/k", "1")
        for taken in (f"{prefix}/k", prefix):
            with pytest.raises(NodeExistsError) as caught:
                await keys.create(taken, "2")
            assert (caught.value.code, caught.value.status, caught.value.cause) == (105, 412, taken)
        assert await value_of(keys, f"{prefix}/k") == "1"

    async def test_update_keeps_created_index(self, keys: KeysAPI, prefix: str) -> None:
        first = node_of(await keys.create(prefix, "1", ttl=1000))
        response = await keys.update(prefix, "2")
        second = node_of(response)
        assert response.action == "update"
        assert (second.value, second.created_index) == ("2", first.created_index)
        assert second.modified_index > first.modified_index
        assert second.ttl is None

    async def test_update_with_ttl(self, keys: KeysAPI, prefix: str) -> None:
        await keys.set(prefix, "1")
        assert node_of(await keys.update(prefix, "2", ttl=1000)).expiration is not None

    async def test_update_missing(self, keys: KeysAPI, prefix: str) -> None:
        with pytest.raises(KeyNotFoundError):
            await keys.update(prefix, "v")


class TestCreateInOrder:
    async def test_names_sort_as_they_were_made(self, keys: KeysAPI, prefix: str) -> None:
        made = []
        for value in "abc":
            response = await keys.create_in_order(prefix, value)
            assert response.action == "create"
            assert node_of(response).value == value
            made.append(node_of(response).key)
        assert made == sorted(set(made))
        assert all(key.startswith(f"{prefix}/") for key in made)
        listing = node_of(await keys.get(prefix, sort=True))
        assert [(node.key, node.value) for node in listing.nodes] == list(zip(made, "abc", strict=True))

    async def test_ttl(self, keys: KeysAPI, prefix: str) -> None:
        assert node_of(await keys.create_in_order(prefix, "v", ttl=1000)).ttl is not None

    async def test_below_a_file(self, keys: KeysAPI, prefix: str) -> None:
        await keys.set(prefix, "file")
        with pytest.raises(NotDirError):
            await keys.create_in_order(prefix, "v")

    async def test_in_the_root(self, keys: KeysAPI) -> None:
        key = node_of(await keys.create_in_order("/", "v")).key
        assert key.strip("/").isdigit()
        await keys.delete(key)


class TestTTL:
    @pytest.mark.parametrize(
        ("ttl", "sent"),
        [
            (1, "1"),
            (60, "60"),
            (0.001, "1"),
            (1.0, "1"),
            (1.5, "2"),
            (7e9, "7000000000"),
            (timedelta(minutes=2), "120"),
            (timedelta(milliseconds=1), "1"),
            (timedelta(days=1, microseconds=1), "86401"),
        ],
    )
    async def test_rounds_up(self, wired: KeysAPI, wire: Misbehaver, ttl: float | timedelta, sent: str) -> None:
        for call in (
            wired.set("k", "v", ttl=ttl),
            wired.create("k", "v", ttl=ttl),
            wired.update("k", "v", ttl=ttl),
            wired.create_in_order("k", "v", ttl=ttl),
            wired.mkdir("k", ttl=ttl),
            wired.refresh("k", ttl),
        ):
            await call
        assert [seen.form["ttl"] for seen in wire.seen] == [sent] * 6

    @pytest.mark.parametrize(
        ("ttl", "error"),
        [
            (0, ValueError),
            (0.0, ValueError),
            (-1, ValueError),
            (-0.5, ValueError),
            (math.nan, ValueError),
            (math.inf, ValueError),
            (-math.inf, ValueError),
            (7_000_000_001, ValueError),
            (10**400, ValueError),
            (timedelta(0), ValueError),
            (timedelta(seconds=-1), ValueError),
            (timedelta.max, ValueError),
            (True, TypeError),
            ("60", TypeError),
        ],
        ids=repr,
    )
    async def test_refused(self, wired: KeysAPI, wire: Misbehaver, ttl: Any, error: type[Exception]) -> None:
        for call in (
            wired.set("k", "v", ttl=ttl),
            wired.create("k", "v", ttl=ttl),
            wired.update("k", "v", ttl=ttl),
            wired.create_in_order("k", "v", ttl=ttl),
            wired.mkdir("k", ttl=ttl),
            wired.refresh("k", ttl),
        ):
            with pytest.raises(error, match="ttl"):
                await call
        assert wire.seen == []

    async def test_longest(self, keys: KeysAPI, prefix: str) -> None:
        node = node_of(await keys.set(prefix, "v", ttl=7_000_000_000))
        assert node.expiration is not None
        assert node.expiration.year > 2200

    async def test_expiration_is_aware(self, keys: KeysAPI, prefix: str) -> None:
        before = datetime.now(timezone.utc)
        node = node_of(await keys.set(prefix, "v", ttl=1000))
        after = datetime.now(timezone.utc)
        assert node.expiration is not None
        assert node.expiration.utcoffset() == timedelta(0)
        assert before <= node.expiration - timedelta(seconds=1000) <= after
        assert node.ttl is not None
        assert 900 < node.ttl <= 1000

    @pytest.mark.slow
    async def test_at_its_end_a_key_has_a_ttl_of_0(self, keys: KeysAPI, prefix: str) -> None:
        """The server removes keys every half second; until then it leaves out the TTL, as of a permanent key."""
        seen: set[int | None] = set()
        for _ in range(3):
            await keys.set(f"{prefix}/k", "v", ttl=1)
            with pytest.raises(KeyNotFoundError):
                while True:
                    one = node_of(await keys.get(f"{prefix}/k"))
                    listed = node_of(await keys.get(prefix)).nodes
                    seen.update(each.ttl for each in (one, *listed))
        assert seen == {0, 1}
        with pytest.raises(ValueError, match="ttl is above 0"):
            await keys.set(f"{prefix}/k", "v", ttl=0)

    async def test_expires(self, keys: KeysAPI, prefix: str) -> None:
        await keys.mkdir(f"{prefix}/dir", ttl=1)
        await keys.set(f"{prefix}/dir/below", "v")
        async with keys.watch(f"{prefix}/key") as watcher:
            await keys.set(f"{prefix}/key", "v", ttl=1)
            events = [await watcher.next(), await watcher.next()]
        assert [event.action for event in events] == ["set", "expire"]
        assert prev_of(events[1]).value == "v"
        deadline = time.monotonic() + 20
        for gone in ("key", "dir/below"):
            with pytest.raises(KeyNotFoundError):
                while time.monotonic() < deadline:
                    await keys.get(f"{prefix}/{gone}")
                    await asyncio.sleep(0.05)


def assert_refreshed(first: Node, second: Node) -> None:
    assert (second.value, second.created_index) == ("v", first.created_index)
    assert second.modified_index > first.modified_index
    assert second.ttl is not None
    assert second.ttl > 4000


class TestRefresh:
    async def test_keeps_the_value(self, keys: KeysAPI, prefix: str) -> None:
        first = node_of(await keys.set(prefix, "v", ttl=1000))
        response = await keys.refresh(prefix, 5000)
        second = node_of(response)
        assert response.action == "update"
        assert_refreshed(first, second)
        assert node_of(await keys.get(prefix)).modified_index == second.modified_index

    async def test_gives_a_ttl(self, keys: KeysAPI, prefix: str) -> None:
        await keys.set(prefix, "v")
        assert node_of(await keys.refresh(prefix, timedelta(hours=1))).ttl is not None

    async def test_fires_no_watch(self, keys: KeysAPI, prefix: str) -> None:
        await keys.set(prefix, "v", ttl=1000)
        async with keys.watch(prefix) as watcher:
            await keys.refresh(prefix, 2000)
            await keys.update(prefix, "next")
            event = await watcher.next()
        assert (event.action, node_of(event).value) == ("update", "next")

    @pytest.mark.parametrize("condition", ["index", "value", "both"])
    async def test_with_a_condition_that_holds(self, keys: KeysAPI, prefix: str, condition: str) -> None:
        first = node_of(await keys.set(prefix, "v", ttl=1000))
        async with keys.watch(prefix) as watcher:
            response = await keys.refresh(
                prefix,
                5000,
                prev_index=None if condition == "value" else first.modified_index,
                prev_value=None if condition == "index" else "v",
            )
            second = node_of(response)
            assert response.action == "compareAndSwap"
            assert_refreshed(first, second)
            assert node_of(await keys.get(prefix)) == second
            await keys.update(prefix, "next")
            event = await watcher.next()
        assert (event.action, node_of(event).value) == ("update", "next")

    async def test_with_a_condition_that_does_not_hold(self, keys: KeysAPI, prefix: str) -> None:
        first = node_of(await keys.set(prefix, "v", ttl=1000))
        index = first.modified_index
        for conditions in ({"prev_index": index - 1}, {"prev_value": "w"}, {"prev_index": index, "prev_value": "w"}):
            with pytest.raises(CompareFailedError):
                await keys.refresh(prefix, 5000, **conditions)
        now = node_of(await keys.get(prefix))
        assert now.modified_index == index
        assert now.ttl is not None
        assert now.ttl <= 1000

    @pytest.mark.slow
    async def test_with_conditions_a_lease_is_kept_alive(self, keys: KeysAPI, prefix: str) -> None:
        node = node_of(await keys.create(prefix, "me", ttl=1))
        for _ in range(4):
            await asyncio.sleep(0.6)
            node = node_of(await keys.refresh(prefix, 1, prev_index=node.modified_index, prev_value="me"))
        assert node.value == "me"

    async def test_with_a_condition_on_what_is_missing_or_a_directory(self, keys: KeysAPI, prefix: str) -> None:
        for conditions in ({"prev_index": 1}, {"prev_value": "v"}):
            with pytest.raises(KeyNotFoundError):
                await keys.refresh(f"{prefix}/k", 10, **conditions)
        await keys.mkdir(f"{prefix}/d")
        with pytest.raises(NotFileError):
            await keys.refresh(f"{prefix}/d", 10, prev_index=1)

    async def test_what_is_sent(self, wired: KeysAPI, wire: Misbehaver) -> None:
        """With `prevExist` the server would ignore the conditions."""
        await wired.refresh("k", 5)
        await wired.refresh("k", 5, prev_index=7)
        await wired.refresh("k", 5, prev_value="a&b", prev_index=7)
        assert [seen.form for seen in wire.seen] == [
            {"refresh": "true", "ttl": "5", "prevExist": "true"},
            {"refresh": "true", "ttl": "5", "prevIndex": "7"},
            {"refresh": "true", "ttl": "5", "prevValue": "a&b", "prevIndex": "7"},
        ]

    async def test_refused_before_sending(self, wired: KeysAPI, wire: Misbehaver) -> None:
        wrong: Any = 1
        for call, error in (
            (wired.refresh("k", 5, prev_value=""), ValueError),
            (wired.refresh("k", 5, prev_value="", prev_index=7), ValueError),
            (wired.refresh("k", 5, prev_value=wrong), TypeError),
            (wired.refresh("k", 5, prev_value="a\ud800"), ValueError),
            (wired.refresh("k", 5, prev_index=0), ValueError),
            (wired.refresh("k", 5, prev_index=2**64), ValueError),
        ):
            with pytest.raises(error, match="prev_"):
                await call
        assert wire.connections == 0

    async def test_missing(self, keys: KeysAPI, prefix: str) -> None:
        with pytest.raises(KeyNotFoundError):
            await keys.refresh(prefix, 10)
        with pytest.raises(KeyNotFoundError):
            await keys.get(prefix)


class TestMkdir:
    async def test_new(self, keys: KeysAPI, prefix: str) -> None:
        response = await keys.mkdir(f"{prefix}/a/b")
        node = node_of(response)
        assert response.action == "create"
        assert (node.key, node.dir, node.value, node.nodes) == (f"{prefix}/a/b", True, None, ())
        assert node_of(await keys.get(f"{prefix}/a/b")).nodes == ()
        assert keys_of(node_of(await keys.get(prefix))) == [f"{prefix}/a"]

    async def test_ttl(self, keys: KeysAPI, prefix: str) -> None:
        node = node_of(await keys.mkdir(prefix, ttl=1000))
        assert node.ttl is not None
        assert node.expiration is not None

    async def test_what_exists(self, keys: KeysAPI, prefix: str) -> None:
        await keys.mkdir(f"{prefix}/dir")
        await keys.set(f"{prefix}/file", "v")
        for name in ("dir", "file"):
            with pytest.raises(NodeExistsError):
                await keys.mkdir(f"{prefix}/{name}")

    async def test_without_condition(self, keys: KeysAPI, prefix: str) -> None:
        assert node_of(await keys.mkdir(prefix, prev_exist=None)).dir
        with pytest.raises(NotFileError):
            await keys.mkdir(prefix, prev_exist=None)

    async def test_without_condition_replaces_a_file(self, keys: KeysAPI, prefix: str) -> None:
        await keys.set(prefix, "v")
        await keys.mkdir(prefix, prev_exist=None)
        assert node_of(await keys.get(prefix)).dir

    async def test_update(self, keys: KeysAPI, prefix: str, etcd_release: tuple[int, int, int]) -> None:
        await keys.set(f"{prefix}/k", "v")
        if etcd_release >= (3, 5):
            with pytest.raises(RaftInternalError, match="Not a file"):
                await keys.mkdir(prefix, ttl=1000, prev_exist=True)
            assert node_of(await keys.get(prefix)).ttl is None
        else:
            response = await keys.mkdir(prefix, ttl=1000, prev_exist=True)
            assert (response.action, node_of(response).dir) == ("update", True)
            assert node_of(await keys.get(prefix)).ttl is not None
        assert await value_of(keys, f"{prefix}/k") == "v"

    async def test_update_empties_a_file(self, keys: KeysAPI, prefix: str) -> None:
        await keys.set(prefix, "v")
        node = node_of(await keys.mkdir(prefix, prev_exist=True))
        assert (node.dir, node.value) == (False, "")

    async def test_update_missing(self, keys: KeysAPI, prefix: str) -> None:
        with pytest.raises(KeyNotFoundError):
            await keys.mkdir(prefix, prev_exist=True)


class TestGet:
    async def test_missing(self, keys: KeysAPI, prefix: str) -> None:
        with pytest.raises(KeyNotFoundError) as caught:
            await keys.get(f"{prefix}/a/b")
        error = caught.value
        assert (error.code, error.status, error.cause, error.message) == (100, 404, prefix, "Key not found")
        assert error.index > 0
        assert f"GET /v2/keys{prefix}/a/b" in str(error)

    async def test_below_a_file(self, keys: KeysAPI, prefix: str) -> None:
        await keys.set(prefix, "file")
        with pytest.raises(NotDirError):
            await keys.get(f"{prefix}/k")

    async def test_as_it_was_set(self, keys: KeysAPI, prefix: str) -> None:
        written = await keys.set(prefix, "v")
        read = await keys.get(prefix)
        assert (read.action, read.node, read.prev_node) == ("get", written.node, None)
        assert read.index >= written.index
        assert read.cluster_id == written.cluster_id

    async def test_directory_lists_its_children(self, keys: KeysAPI, prefix: str) -> None:
        await keys.set(f"{prefix}/b/c", "v")
        await keys.set(f"{prefix}/a", "v")
        node = node_of(await keys.get(prefix, sort=True))
        assert (node.dir, node.value) == (True, None)
        assert keys_of(node) == [f"{prefix}/a", f"{prefix}/b"]
        assert node.nodes[1].dir
        assert node.nodes[1].nodes == ()

    async def test_recursive_and_sorted(self, keys: KeysAPI, prefix: str) -> None:
        names = ["a", "b/c/d", "b/e", "f/g", "é", "10", "9"]
        for name in reversed(names):
            await keys.set(f"{prefix}/{name}", name)
        await keys.mkdir(f"{prefix}/empty")
        node = node_of(await keys.get(prefix, recursive=True, sort=True))
        assert [leaf.value for leaf in node.leaves()] == ["10", "9", "a", "b/c/d", "b/e", "f/g", "é"]
        unsorted = node_of(await keys.get(prefix, recursive=True))
        assert sorted(leaf.value or "" for leaf in unsorted.leaves()) == sorted(names)

    async def test_root(self, keys: KeysAPI, prefix: str) -> None:
        await keys.set(f"{prefix}/k", "v")
        for root in ("/", "", "//"):
            node = node_of(await keys.get(root))
            assert (node.key, node.dir) == ("/", True)
            assert prefix in keys_of(node)

    async def test_hidden_keys_are_not_listed(self, keys: KeysAPI, prefix: str) -> None:
        for name in ("_file", "_dir/below", "dir/_file", "seen"):
            await keys.set(f"{prefix}/{name}", name)
        node = node_of(await keys.get(prefix, recursive=True))
        assert [leaf.key for leaf in node.leaves()] == [f"{prefix}/seen"]
        assert await value_of(keys, f"{prefix}/_file") == "_file"
        hidden = node_of(await keys.get(f"{prefix}/_dir", recursive=True))
        assert keys_of(hidden) == [f"{prefix}/_dir/below"]

    async def test_quorum(self, keys: KeysAPI, prefix: str) -> None:
        written = await keys.set(prefix, "v")
        response = await keys.get(prefix, quorum=True)
        assert (response.action, response.node) == ("get", written.node)
        with pytest.raises(KeyNotFoundError):
            await keys.get(f"{prefix}-missing", quorum=True)

    @pytest.mark.parametrize(
        ("default", "asked", "sent"),
        [
            (False, None, False),
            (False, True, True),
            (False, False, False),
            (True, None, True),
            (True, True, True),
            (True, False, False),
        ],
    )
    async def test_quorum_default(self, wire: Misbehaver, default: bool, asked: bool | None, sent: bool) -> None:
        async with Client(wire.endpoint, quorum=default) as client:
            await client.keys.get("k", quorum=asked)
        assert wire.seen[0].target == ("/v2/keys/k?quorum=true" if sent else "/v2/keys/k")

    async def test_options_on_the_wire(self, wired: KeysAPI, wire: Misbehaver) -> None:
        await wired.get("k")
        await wired.get("k", recursive=True, sort=True)
        assert [(seen.method, seen.target, seen.body) for seen in wire.seen] == [
            ("GET", "/v2/keys/k", b""),
            ("GET", "/v2/keys/k?recursive=true&sorted=true", b""),
        ]


class TestDelete:
    async def test_file(self, keys: KeysAPI, prefix: str) -> None:
        written = await keys.set(prefix, "v")
        response = await keys.delete(prefix)
        node = node_of(response)
        assert response.action == "delete"
        assert response.prev_node == written.node
        assert (node.key, node.value) == (prefix, None)
        assert node.modified_index > node.created_index == node_of(written).created_index
        with pytest.raises(KeyNotFoundError):
            await keys.delete(prefix)

    async def test_directory(self, keys: KeysAPI, prefix: str) -> None:
        await keys.mkdir(prefix)
        with pytest.raises(NotFileError):
            await keys.delete(prefix)
        response = await keys.delete(prefix, dir=True)
        assert node_of(response).dir
        with pytest.raises(KeyNotFoundError):
            await keys.get(prefix)

    @pytest.mark.parametrize("name", ["k", "_hidden"])
    async def test_directory_with_keys(self, keys: KeysAPI, prefix: str, name: str) -> None:
        await keys.set(f"{prefix}/{name}", "v")
        with pytest.raises(DirNotEmptyError) as caught:
            await keys.delete(prefix, dir=True)
        assert (caught.value.code, caught.value.status) == (108, 403)
        await keys.delete(prefix, recursive=True)
        with pytest.raises(KeyNotFoundError):
            await keys.get(prefix)

    @pytest.mark.parametrize("condition", ["value", "index", "both"])
    async def test_condition_holds(self, keys: KeysAPI, prefix: str, condition: str) -> None:
        index = node_of(await keys.set(prefix, "v")).modified_index
        response = await keys.delete(
            prefix,
            prev_value="v" if condition != "index" else None,
            prev_index=index if condition != "value" else None,
        )
        assert response.action == "compareAndDelete"
        assert prev_of(response).value == "v"
        with pytest.raises(KeyNotFoundError):
            await keys.get(prefix)

    async def test_condition_fails(self, keys: KeysAPI, prefix: str) -> None:
        index = node_of(await keys.set(prefix, "is")).modified_index
        with pytest.raises(CompareFailedError, match=r"\[expected != is\]"):
            await keys.delete(prefix, prev_value="expected")
        with pytest.raises(CompareFailedError, match=rf"\[{index + 1} != {index}\]"):
            await keys.delete(prefix, prev_value="is", prev_index=index + 1)
        assert await value_of(keys, prefix) == "is"

    async def test_condition_on_a_directory(self, keys: KeysAPI, prefix: str) -> None:
        index = node_of(await keys.mkdir(prefix)).modified_index
        with pytest.raises(NotFileError):
            await keys.delete(prefix, recursive=True, prev_index=index)
        assert node_of(await keys.get(prefix)).dir

    async def test_options_on_the_wire(self, wired: KeysAPI, wire: Misbehaver) -> None:
        await wired.delete("k", recursive=True, dir=True)
        await wired.delete("k", prev_value="a&b;+ é", prev_index=7)
        assert [(seen.method, seen.target, seen.body) for seen in wire.seen] == [
            ("DELETE", "/v2/keys/k?recursive=true&dir=true", b""),
            ("DELETE", "/v2/keys/k?prevValue=a%26b%3B%2B+%C3%A9&prevIndex=7", b""),
        ]


class TestKeyText:
    @pytest.mark.parametrize("name", STRANGE)
    async def test_round_trip(self, keys: KeysAPI, prefix: str, name: str) -> None:
        key = f"{prefix}/{name}/{name}"
        assert node_of(await keys.set(key, name)).key == key
        assert node_of(await keys.get(key)).value == name
        parent = node_of(await keys.get(f"{prefix}/{name}"))
        assert parent.key == f"{prefix}/{name}"
        assert keys_of(parent) == ([] if name.startswith("_") else [key])
        assert node_of(await keys.create_in_order(f"{prefix}/{name}/{name}-queue", "v")).key.startswith(f"{key}-queue/")
        assert node_of(await keys.delete(key, prev_value=name)).key == key

    @pytest.mark.parametrize("spelling", ["{0}/a/b", "/{0}/a/b", "//{0}/a/b", "/{0}//a///b", "/{0}/a/b/", "/{0}/a/b//"])
    async def test_slashes_fold(self, keys: KeysAPI, prefix: str, spelling: str) -> None:
        key = spelling.format(prefix.strip("/"))
        assert node_of(await keys.set(key, "v")).key == f"{prefix}/a/b"
        assert node_of(await keys.get(key)).value == "v"
        assert keys_of(node_of(await keys.get(f"{prefix}/a"))) == [f"{prefix}/a/b"]
        assert node_of(await keys.delete(key)).key == f"{prefix}/a/b"

    @pytest.mark.parametrize("key", [".", "..", "/.", "/a/../b", "a/..", "./a", "/../members/1", "//..//a"])
    async def test_dot_segments(self, wired: KeysAPI, wire: Misbehaver, key: str) -> None:
        await refuses(wired, wire, key, ValueError, "segment")

    @pytest.mark.parametrize("key", ["\ud800", "/a/\udfff", "\ud83d\ude00"])
    async def test_surrogates(self, wired: KeysAPI, wire: Misbehaver, key: str) -> None:
        await refuses(wired, wire, key, ValueError, "valid Unicode")

    @pytest.mark.parametrize("key", [b"k", None, 1, ["k"]], ids=repr)
    async def test_other_types(self, wired: KeysAPI, wire: Misbehaver, key: Any) -> None:
        await refuses(wired, wire, key, TypeError, "a key is a str")

    async def test_too_long(self, wired: KeysAPI, wire: Misbehaver) -> None:
        await refuses(wired, wire, "k" * MAX_REQUEST_LINE, ValueError, "request line")

    @pytest.mark.parametrize("letter", ["k", "é", "/k"])
    async def test_longest_request_line(self, server: EtcdServer, prefix: str, letter: str) -> None:
        room = MAX_REQUEST_LINE - len(f"DELETE /v2/keys{prefix}?recursive=true HTTP/1.1\r\n")
        sizes = {"k": 1, "é": 6, "/k": 2}
        key = prefix + letter * (room // sizes[letter]) + "x" * (room % sizes[letter])
        async with Client(server.endpoints) as writer:
            assert node_of(await writer.keys.set(key, "v")).key == key
        async with Client(server.endpoints) as deleter:
            with pytest.raises(ValueError, match="request line would be 4097 bytes"):
                await deleter.keys.delete(f"{key}x", recursive=True)
            assert node_of(await deleter.keys.delete(key, recursive=True)).key == key

    async def test_root_is_read_only(self, keys: KeysAPI) -> None:
        for call in (
            keys.set("/", "v"),
            keys.create("", "v"),
            keys.update("/", "v"),
            keys.refresh("/", 10),
            keys.mkdir("/"),
            keys.delete("/", recursive=True),
        ):
            with pytest.raises(RootReadOnlyError):
                await call


async def refuses(keys: KeysAPI, wire: Misbehaver, key: Any, error: type[Exception], match: str) -> None:
    """Every call refuses the key, and nothing is sent."""
    calls: list[Call] = [
        lambda keys: keys.get(key),
        lambda keys: keys.set(key, "v"),
        lambda keys: keys.create(key, "v"),
        lambda keys: keys.update(key, "v"),
        lambda keys: keys.create_in_order(key, "v"),
        lambda keys: keys.refresh(key, 1),
        lambda keys: keys.mkdir(key),
        lambda keys: keys.delete(key),
        lambda keys: keys.watch(key).next(),
    ]
    for call in calls:
        with pytest.raises(error, match=match):
            await call(keys)
    assert wire.connections == 0


class TestRefusedBeforeSending:
    @pytest.mark.parametrize("value", [b"v", None, 1, 1.5, True, ["v"]], ids=repr)
    async def test_values_of_other_types(self, wired: KeysAPI, wire: Misbehaver, value: Any) -> None:
        for call in (
            wired.set("k", value),
            wired.create("k", value),
            wired.update("k", value),
            wired.create_in_order("k", value),
        ):
            with pytest.raises(TypeError, match="value is a str"):
                await call
        assert wire.connections == 0

    async def test_surrogates(self, wired: KeysAPI, wire: Misbehaver) -> None:
        for call in (
            wired.set("k", "a\ud800"),
            wired.create("k", "a\ud800"),
            wired.update("k", "a\ud800"),
            wired.create_in_order("k", "a\ud800"),
            wired.set("k", "v", prev_value="a\ud800"),
            wired.delete("k", prev_value="a\ud800"),
        ):
            with pytest.raises(ValueError, match=r"value is valid Unicode: .* position 1"):
                await call
        assert wire.connections == 0

    async def test_previous_value_of_another_type(self, wired: KeysAPI, wire: Misbehaver) -> None:
        wrong: Any = 1
        for call in (wired.set("k", "v", prev_value=wrong), wired.delete("k", prev_value=wrong)):
            with pytest.raises(TypeError, match="prev_value is a str"):
                await call
        assert wire.connections == 0

    @pytest.mark.parametrize(
        ("index", "error"),
        [(0, ValueError), (-1, ValueError), (2**64, ValueError), (True, TypeError), ("5", TypeError), (5.0, TypeError)],
    )
    async def test_previous_index(self, wired: KeysAPI, wire: Misbehaver, index: Any, error: type[Exception]) -> None:
        for call in (wired.set("k", "v", prev_index=index), wired.delete("k", prev_index=index)):
            with pytest.raises(error, match="prev_index"):
                await call
        assert wire.connections == 0

    @pytest.mark.parametrize(
        ("index", "error"), [(-1, ValueError), (2**64, ValueError), (True, TypeError), ("5", TypeError)]
    )
    async def test_watch_index(self, wired: KeysAPI, wire: Misbehaver, index: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match="after_index"):
            wired.watch("k", after_index=index)
        assert wire.connections == 0

    async def test_form_over_10_mb(self, wired: KeysAPI, wire: Misbehaver) -> None:
        too_long = "x" * (MAX_FORM - len("value=") + 1)
        for call in (
            wired.set("k", too_long),
            wired.create_in_order("k", too_long),
            wired.set("k", "&" * (MAX_FORM // 3)),
            wired.set("k", "v", prev_value=too_long),
        ):
            with pytest.raises(ValueError, match=r"the form would be \d+ bytes"):
                await call
        assert wire.connections == 0

    async def test_condition_of_a_delete_over_4096_bytes(self, wired: KeysAPI, wire: Misbehaver) -> None:
        with pytest.raises(ValueError, match="request line would be"):
            await wired.delete("k", prev_value="v" * MAX_REQUEST_LINE)
        assert wire.connections == 0

    async def test_condition_of_a_set_is_not_bound_by_the_line(self, keys: KeysAPI, prefix: str) -> None:
        long = "v" * 100_000
        await keys.set(prefix, long)
        assert (await keys.set(prefix, "short", prev_value=long)).action == "compareAndSwap"


CONDITIONAL: dict[str, Call] = {
    "create": lambda keys: keys.create("k", "v"),
    "create_in_order": lambda keys: keys.create_in_order("k", "v"),
    "set if value": lambda keys: keys.set("k", "v", prev_value="w"),
    "set if index": lambda keys: keys.set("k", "v", prev_index=1),
    "update if value": lambda keys: keys.set("k", "v", prev_exist=True, prev_value="w"),
    "delete": lambda keys: keys.delete("k"),
    "delete if value": lambda keys: keys.delete("k", prev_value="w"),
    "refresh if index": lambda keys: keys.refresh("k", 1, prev_index=1),
    "refresh if value": lambda keys: keys.refresh("k", 1, prev_value="w"),
    "mkdir": lambda keys: keys.mkdir("k"),
}

PLAIN: dict[str, Call] = {
    "set": lambda keys: keys.set("k", "v"),
    "update": lambda keys: keys.update("k", "v"),
    "refresh": lambda keys: keys.refresh("k", 1),
    "mkdir": lambda keys: keys.mkdir("k", prev_exist=None),
}


class TestSentOnce:
    """A lost answer: a write ends there, unless it is a plain one and the client was told to repeat these."""

    @pytest.mark.parametrize("repeat_writes", [False, True])
    @pytest.mark.parametrize("call", [*PLAIN.values(), *CONDITIONAL.values()], ids=[*PLAIN, *CONDITIONAL])
    async def test_write(self, call: Call, repeat_writes: bool) -> None:
        async with Misbehaver(close) as one, Misbehaver(close) as other:
            async with Client([one.endpoint, other.endpoint], repeat_writes=repeat_writes) as client:
                with pytest.raises(ClusterError) as caught:
                    await call(client.keys)
            assert caught.value.maybe_applied
            assert len(one.seen) + len(other.seen) == (2 if repeat_writes and call in PLAIN.values() else 1)

    async def test_read(self) -> None:
        async with Misbehaver(close) as one, Misbehaver(close) as other:
            async with Client([one.endpoint, other.endpoint]) as client:
                with pytest.raises(ClusterError) as caught:
                    await client.keys.get("k")
            assert len(caught.value.errors) == 2
            assert len(one.seen) > 0
            assert len(other.seen) > 0


class TestPrefix:
    async def test_confines_to_a_subtree(self, client: Client, prefix: str) -> None:
        keys = KeysAPI(client, prefix=f"/v2/keys{prefix}")
        assert node_of(await keys.set("/a", "v")).key == f"{prefix}/a"
        assert await value_of(client.keys, f"{prefix}/a") == "v"
        assert keys_of(node_of(await keys.get("/"))) == [f"{prefix}/a"]
        for outside in ("..", "/../x", "a/../../x"):
            with pytest.raises(ValueError, match="segment"):
                await keys.set(outside, "v")

    async def test_watch(self, client: Client, prefix: str) -> None:
        keys = KeysAPI(client, prefix=f"/v2/keys{prefix}/")
        async with keys.watch("/dir", recursive=True) as watcher:
            await client.keys.set(f"{prefix}/elsewhere", "v")
            await keys.set("dir/k", "v")
            assert node_of(await watcher.next()).key == f"{prefix}/dir/k"

    async def test_any_other(self, wire: Misbehaver) -> None:
        async with Client(wire.endpoint) as client:
            keys = KeysAPI(client, prefix="/v2/etcd keys/")
            await keys.get("/k")
            await keys.get("")
        assert [seen.target for seen in wire.seen] == ["/v2/etcd%20keys/k", "/v2/etcd%20keys/"]


class TestModels:
    async def test_immutable(self, keys: KeysAPI, prefix: str) -> None:
        response = await keys.set(prefix, "v")
        for thing, name in ((response, "action"), (response.node, "value")):
            with pytest.raises((AttributeError, dataclasses.FrozenInstanceError)):
                setattr(thing, name, "other")

    async def test_leaves(self, keys: KeysAPI, prefix: str) -> None:
        await keys.set(f"{prefix}/file", "v")
        assert list(node_of(await keys.get(f"{prefix}/file")).leaves()) == []
        await keys.mkdir(f"{prefix}/dir/empty")
        assert list(node_of(await keys.get(f"{prefix}/dir", recursive=True)).leaves()) == []
        assert [leaf.key for leaf in node_of(await keys.get(prefix, recursive=True)).leaves()] == [f"{prefix}/file"]

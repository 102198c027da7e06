"""The models: leaves, and that they are values."""

from __future__ import annotations

import copy
import pickle
from datetime import datetime, timezone
from typing import Any, get_args

import pytest
from msgspec import Struct

from aioetcd2 import (
    Action,
    Counts,
    FollowerStats,
    Health,
    HTTPResult,
    Latency,
    LeaderInfo,
    LeaderStats,
    Member,
    Node,
    NoNodeError,
    NotFileError,
    Permission,
    Response,
    Role,
    SelfStats,
    StoreStats,
    User,
    Version,
    models,
)

NOW = datetime(2026, 11, 23, 10, 46, 4, tzinfo=timezone.utc)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """Nothing here opens anything, so there is nothing to look for."""


def file(key: str) -> Node:
    return Node(key, "x")


def directory(key: str, *nodes: Node) -> Node:
    return Node(key, dir=True, nodes=nodes)


HASHABLE: list[Struct] = [
    Node("/a", "1", created_index=4, modified_index=5, ttl=7, expiration=NOW),
    directory("/d", file("/d/a"), directory("/d/e")),
    Response("set", file("/a"), file("/a"), 5, 6, 7, "cdf8"),
    Version("3.5.1", "3.5.0"),
    Health(False, "RAFT NO LEADER"),
    Member("8e9e05c52164694d", "m0", ("http://a:2380",), ("http://a:2379",)),
    User("bob", ("reader",)),
    Role("reader", ("/a/*",), ()),
    LeaderInfo("8e9e05c52164694d", "1h2m3.5s", NOW),
    SelfStats("m0", "8e9e05c52164694d", start_time=NOW),
    Latency(0.1, 0.2, 0.3, 0.4, 0.5),
    Counts(1, 2),
    FollowerStats(Latency(0.1), Counts(1)),
    StoreStats(1, 2, watchers=3),
]
ALL: list[Struct] = [
    *HASHABLE,
    HTTPResult(200, {"X-Etcd-Index": "7"}, b"{}", "http://a:2379"),
    LeaderStats("8e9e05c52164694d", {"2": FollowerStats()}),
]


def name_of(model: Struct) -> str:
    return type(model).__name__


def test_every_model_is_sampled() -> None:
    public = {getattr(models, name) for name in models.__all__}
    assert {type(model) for model in ALL} | {Permission, Action} == public


@pytest.mark.parametrize(
    ("node", "keys"),
    [
        (file("/a"), []),
        (directory("/"), []),
        (directory("/", file("/a")), ["/a"]),
        (directory("/", file("/b"), file("/a")), ["/b", "/a"]),
        (directory("/", directory("/d"), directory("/e", directory("/e/f"))), []),
        (
            directory("/", file("/a"), directory("/d", file("/d/a"), directory("/d/e", file("/d/e/a"))), file("/z")),
            ["/a", "/d/a", "/d/e/a", "/z"],
        ),
        (directory("/", directory("/d", file("/d/a")), directory("/e", file("/e/a"))), ["/d/a", "/e/a"]),
    ],
)
def test_leaves_come_depth_first(node: Node, keys: list[str]) -> None:
    assert [leaf.key for leaf in node.leaves()] == keys


def test_leaves_of_a_deep_tree() -> None:
    node = file("/bottom")
    for _ in range(5000):
        node = directory("/d", node)
    assert [leaf.key for leaf in node.leaves()] == ["/bottom"]


def test_leaves_of_a_wide_tree_come_one_at_a_time() -> None:
    leaves = directory("/", *(file(f"/{number}") for number in range(100_000))).leaves()
    assert next(leaves).key == "/0"
    assert sum(1 for _ in leaves) == 99_999


@pytest.mark.parametrize("model", ALL, ids=name_of)
def test_model_is_immutable(model: Struct) -> None:
    for field in model.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(model, field, getattr(model, field))
        with pytest.raises(AttributeError):
            delattr(model, field)
    with pytest.raises(AttributeError):
        model.something_else = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("model", ALL, ids=name_of)
def test_model_is_equal_to_its_copies(model: Struct) -> None:
    for other in (copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other == model
        assert type(other) is type(model)


@pytest.mark.parametrize("model", HASHABLE, ids=name_of)
def test_model_is_hashable(model: Struct) -> None:
    assert hash(copy.deepcopy(model)) == hash(model)
    assert {model: "found"}[copy.deepcopy(model)] == "found"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (file("/a"), file("/b")),
        (file("/a"), directory("/a")),
        (Node("/a", ""), Node("/a", None)),
        (Response("set", index=1), Response("set", index=2)),
        (Member("1", "a"), Member("1", "b")),
    ],
)
def test_models_differ(one: Struct, other: Struct) -> None:
    assert one != other


@pytest.mark.parametrize("model", ALL, ids=name_of)
def test_model_shows_its_fields(model: Struct) -> None:
    text = repr(model)
    assert text.startswith(f"{type(model).__name__}(")
    assert all(f"{field}=" in text for field in model.__struct_fields__)


def test_node_of_nothing_is_the_root() -> None:
    assert Node() == Node("/", None, False, (), 0, 0, None, None)


def test_response_of_nothing_but_an_action() -> None:
    assert Response("set") == Response("set", None, None, 0, 0, 0, "")


@pytest.mark.parametrize(("permission", "value"), [("READ", "read"), ("WRITE", "write"), ("READ_WRITE", "readwrite")])
def test_permissions(permission: str, value: Any) -> None:
    assert Permission[permission] is Permission(value)
    assert len(Permission) == 3


# --- shortcuts of a response ------------------------------------------------------------------------------------------

A_KEY = Node("/a", "v", created_index=3, modified_index=7)
A_DIRECTORY = Node("/d", dir=True, nodes=(Node("/d/a", "1"), Node("/d/b", dir=True, nodes=(Node("/d/b/c", "2"),))))


def test_shortcuts_read_the_node() -> None:
    response = Response("set", A_KEY, Node("/a", "u"))
    assert (response.key, response.value, response.prev_value) == ("/a", "v", "u")
    assert (response.created_index, response.modified_index) == (3, 7)
    assert response.nodes == ()
    assert list(response.leaves()) == []
    assert not response.deleted


def test_shortcuts_of_a_directory() -> None:
    response = Response("get", A_DIRECTORY)
    assert response.key == "/d"
    assert [node.key for node in response.nodes] == ["/d/a", "/d/b"]
    assert [node.key for node in response.leaves()] == ["/d/a", "/d/b/c"]
    assert response.prev_value is None
    with pytest.raises(NotFileError) as caught:
        _ = response.value
    assert str(caught.value) == "102 Not a file (/d); it is a directory, whose keys are in .nodes and .leaves()"
    assert (caught.value.code, caught.value.cause) == (102, "/d")


@pytest.mark.parametrize("action", ["delete", "expire", "compareAndDelete"])
def test_shortcuts_of_what_is_gone(action: Action) -> None:
    response = Response(action, Node("/a", modified_index=9), Node("/a", "v"))
    assert response.deleted
    assert (response.key, response.modified_index, response.prev_value) == ("/a", 9, "v")
    with pytest.raises(NoNodeError, match=rf"^{action} of /a leaves no value, and what it was is \.prev_value$"):
        _ = response.value
    directory = Response(action, Node("/d", dir=True), A_DIRECTORY)
    with pytest.raises(NoNodeError, match=rf"^{action} of /d leaves no value$"):
        _ = directory.value


@pytest.mark.parametrize("name", ["key", "value", "created_index", "modified_index", "nodes", "leaves"])
@pytest.mark.parametrize(
    ("action", "words"),
    [
        ("set", r"this set has no node: the server was asked for none \(no_value_on_success\)"),
        ("resync", "this resync found nothing: what was watched is not there"),
    ],
)
def test_shortcuts_of_a_response_without_a_node(name: str, action: Action, words: str) -> None:
    response = Response(action)
    with pytest.raises(NoNodeError, match=f"^{words}$"):
        _ = response.leaves() if name == "leaves" else getattr(response, name)
    assert response.prev_value is None


@pytest.mark.parametrize("action", get_args(Action))
def test_only_what_takes_a_key_away_deletes(action: Action) -> None:
    assert Response(action).deleted is (action in ("delete", "expire", "compareAndDelete"))

"""Trees that are nested deeper than a recursive decoder goes."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioetcd2 import Client, HTTPResult, InvalidResponseError, Node, Response
from aioetcd2._v2 import deep, responses
from aioetcd2.testing import EtcdServer

DEPTH = 900
ENDPOINT = "http://a:1"

RANDOM = settings(max_examples=300, derandomize=True, deadline=None, database=None)


def nested(depth: int, inner: str = "") -> str:
    """A tree of so many directories, one in the other, as etcd sends it."""
    leaf = f'{{"key":"/leaf","value":"v"{inner},"modifiedIndex":7,"createdIndex":7}}'
    opening = '{"key":"/d","dir":true,"nodes":['
    return opening * depth + leaf + '],"modifiedIndex":5,"createdIndex":4}' * depth


def answered(body: str | bytes, status: int = 200) -> Response:
    data = body.encode() if isinstance(body, str) else body
    return responses.keys(HTTPResult(status, {"X-Etcd-Index": "10"}, data, ENDPOINT), "GET /v2/keys/d")


def depth_of(node: Node | None) -> int:
    depth = 0
    while node is not None and node.nodes:
        depth += 1
        (node,) = node.nodes
    assert node is not None
    assert node == Node("/leaf", "v", created_index=7, modified_index=7)
    return depth


@pytest.mark.parametrize("depth", [1, 300, DEPTH, 5000])
def test_a_deep_tree_is_decoded(depth: int) -> None:
    response = answered(f'{{"action":"get","node":{nested(depth)}}}')
    assert (response.action, response.index) == ("get", 10)
    assert depth_of(response.node) == depth
    assert response.prev_node is None
    assert response.node is not None
    assert (response.node.dir, response.node.modified_index, response.node.created_index) == (True, 5, 4)


def test_a_deep_tree_that_was_deleted_is_decoded() -> None:
    body = f'{{"prevNode":{nested(DEPTH)},"node":{{"key":"/d","dir":true}},"action":"delete"}}'
    response = answered(body)
    assert (response.action, response.node) == ("delete", Node("/d", dir=True))
    assert depth_of(response.prev_node) == DEPTH


def test_times_in_a_deep_tree_are_those_of_any_other() -> None:
    end = ',"expiration":"2026-11-23T12:46:04+02:00"'
    response = answered(f'{{"action":"get","node":{nested(DEPTH, end)},"prevNode":{nested(DEPTH, end)}}}')
    for node in (response.node, response.prev_node):
        assert node is not None
        (leaf,) = node.leaves()
        assert (leaf.ttl, leaf.expiration) == (0, datetime(2026, 11, 23, 10, 46, 4, tzinfo=timezone.utc))


def test_a_deep_tree_in_an_event_is_decoded() -> None:
    deep_one = f'{{"action":"delete","node":{{"key":"/d","dir":true}},"prevNode":{nested(DEPTH)}}}'
    lines = f'{{"action":"set","node":{{"key":"/a"}}}}\n{deep_one}\n\n'.encode()
    head = HTTPResult(200, {}, b"", ENDPOINT)
    first, second = responses.events(lines, (10, 0, 0, "1"), head)
    assert (first.node, first.prev_node, second.index) == (Node("/a"), None, 10)
    assert depth_of(second.prev_node) == DEPTH
    with pytest.raises(InvalidResponseError):
        responses.events(lines + b"{", (10, 0, 0, "1"), head)


@pytest.mark.parametrize(
    "body",
    [
        nested(DEPTH),  # no action
        f'{{"action":7,"node":{nested(DEPTH)}}}',
        f'{{"action":"get","node":{nested(DEPTH)}',
        f'{{"action":"get","node":{nested(DEPTH)}}}}}',
        f'{{"action":"get","node":{nested(DEPTH)}}}{{}}',
        f'{{"action":"get","node":[{nested(DEPTH)}]}}',
        f'{{"action":"get","node":{nested(DEPTH, ",")}}}',
        f'{{"action":"get","node":{nested(DEPTH, ",7:7")}}}',
        '{"action":"get","node":' + nested(DEPTH, ',"ttl":"soon"') + "}",
        '{"action":"get","node":' + nested(DEPTH, ',"nodes":[7]') + "}",
        f'{{"action":"get","node":{nested(DEPTH)[:-1]}]}}',
        "[" * 5000,
        "[" * 5000 + "]" * 5000,
        '{"node":' * 5000 + "{}" + "}" * 5000,
        '{"action":"get","node":' + '{"nodes":[' * 2000,
    ],
    ids=lambda body: f"{body[:24]}...{body[-4:]}",
)
def test_what_is_deep_and_damaged_is_refused(body: str) -> None:
    with pytest.raises(InvalidResponseError):
        answered(body)


def test_what_is_deep_and_unknown_is_passed_over() -> None:
    odd = "[" * 2000 + "]" * 2000
    assert answered(f'{{"action":"get","odd":{odd},"node":{{"key":"/a","odd":{odd}}}}}').node == Node("/a")


# --- equal to the usual way -----------------------------------------------------------------------------------------


def usual(body: bytes) -> Any:
    try:
        found = responses._decode_keys(body)
    except responses._MALFORMED:
        return None
    return found.action, found.node, found.prev_node


def deeply(body: bytes) -> Any:
    try:
        found = responses._deep_keys(body)
    except responses._MALFORMED:
        return None
    return found.action, found.node, found.prev_node


KEYS = st.sampled_from(["/a", "/ä", "/\U0001f600", '/"', "/\\", "/ ,:[]{}", "\ud800", ""]) | st.text(max_size=5)
INDEXES = st.integers(0, 2**63 - 1) | st.just(-1) | st.just(2**63) | st.just(1.5)
TIMES = st.sampled_from(["2024-02-29T12:00:00.5Z", "2024-02-29T12:00:00+01:00", "never", 7])


def fields(children: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"key": KEYS},
        optional={
            "value": KEYS | st.none(),
            "dir": st.booleans(),
            "modifiedIndex": st.integers(0, 2**63 - 1),
            "createdIndex": INDEXES,
            "ttl": st.integers(-9, 9) | st.none(),
            "expiration": TIMES,
            "nodes": children,
            "odd": children | KEYS,
        },
    )


NODES = st.recursive(fields(st.just([])), lambda inner: fields(st.lists(inner, max_size=3)), max_leaves=8)
ANSWERS = st.fixed_dictionaries(
    {"action": st.sampled_from(["get", "set", "expire"])}, optional={"node": NODES, "prevNode": NODES, "odd": NODES}
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | KEYS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["action", "node", "nodes", "prevNode", "key", "dir", "ttl"]), inner)
    ),
    max_leaves=12,
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An answer of which something is cut out, doubled, or put in its place."""
    body: str = draw(ANSWERS.map(json.dumps))
    here = draw(st.integers(0, len(body)))
    there = draw(st.integers(here, min(len(body), here + 4)))
    instead: str = draw(st.sampled_from(["", *'{}[],:"\\0-. x', "null", "NaN", "1e999", "01", body[here:there] * 2]))
    return f"{body[:here]}{instead}{body[there:]}".encode()


def dumped(answers: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    indents = st.sampled_from([None, 1])
    return st.builds(
        lambda answer, indent, plain: json.dumps(answer, indent=indent, ensure_ascii=plain).encode(errors="replace"),
        answers,
        indents,
        st.booleans(),
    )


@pytest.mark.slow
@RANDOM
@given(dumped(ANSWERS))
def test_a_shallow_answer_is_the_same_as_the_usual_way(body: bytes) -> None:
    assert deeply(body) == usual(body)


@pytest.mark.slow
@RANDOM
@given(
    dumped(ANYTHING)
    | st.fixed_dictionaries({"action": st.just("get"), "node": ANYTHING}).map(json.dumps).map(str.encode)
)
def test_any_json_is_the_same_as_the_usual_way(body: bytes) -> None:
    assert deeply(body) == usual(body)


@pytest.mark.slow
@RANDOM
@given(damaged())
def test_a_damaged_answer_is_the_same_as_the_usual_way(body: bytes) -> None:
    assert deeply(body) == usual(body)


@RANDOM
@given(st.binary(max_size=20) | st.text(max_size=20).map(lambda text: text.encode(errors="surrogatepass")))
def test_any_bytes_are_the_same_as_the_usual_way(body: bytes) -> None:
    assert deeply(body) == usual(body)


def test_what_is_no_node_stays_as_it_is() -> None:
    whole = b' { "a" : [ 1 , {"node": {"nodes": 2}} ] } '
    assert deep.decode(whole) == {"a": [1, {"node": {"nodes": 2}}]}


# --- through a client -----------------------------------------------------------------------------------------------


async def test_a_deep_tree_gets_through_a_client(server: EtcdServer, prefix: str) -> None:
    """As deep as etcd makes one; its own decoder gives up at 10,000."""
    async with Client(server.endpoints) as client:
        await client.keys.set(prefix + "/d" * DEPTH + "/leaf", "v")
        response = await client.keys.get(prefix, recursive=True)
        leaves = list(response.node.leaves()) if response.node is not None else []
        assert [leaf.key for leaf in leaves] == [prefix + "/d" * DEPTH + "/leaf"]
        await client.keys.delete(prefix, recursive=True)

"""A key that is kept alive: how long it is believed in, whatever becomes of what is sent for it."""

from __future__ import annotations

import asyncio
import time

import pytest

from aioetcd2 import ClusterError, KeyNotFoundError, Node, NodeExistsError, Response
from aioetcd2.recipes import _clock
from aioetcd2.recipes._lease import Lease, LeaseGoneError, check_ttl, margin_of

from .lossy_keys import ANSWER_LOST, DROPPED, LATE, TWICE, UNSENT, Clock, LossyKeys

TTL = 15.0
BELIEF = TTL - 1.5


@pytest.fixture
def store() -> LossyKeys:
    return LossyKeys(Clock())


@pytest.fixture
def lease(store: LossyKeys) -> Lease:
    return Lease(store.keys, "/p/1", "me", TTL, clock=store.clock)


async def made(lease: Lease, store: LossyKeys) -> None:
    await lease.create()
    store.sent.clear()


# --- making it --------------------------------------------------------------------------------------------------------


async def test_belief_begins_when_it_is_sent(lease: Lease, store: LossyKeys) -> None:
    assert lease.remaining() == 0
    store.took = 2
    await lease.create()
    assert lease.remaining() == BELIEF - 2
    store.clock.now += 5
    assert lease.remaining() == BELIEF - 7
    store.clock.now += 60
    assert lease.remaining() == 0


async def test_each_try_gets_a_sixth_of_the_ttl(lease: Lease, store: LossyKeys) -> None:
    assert store.seconds == TTL / 6


async def test_a_lost_answer_is_settled_by_a_quorum_read(lease: Lease, store: LossyKeys) -> None:
    store.fates.append(ANSWER_LOST)
    store.took = 1
    await lease.create()
    assert store.sent == ["create", "get /p/1 quorum"]
    assert lease.node == store.nodes["/p/1"]
    assert lease.remaining() == BELIEF - 2


async def test_one_that_did_not_arrive_is_made_later(lease: Lease, store: LossyKeys) -> None:
    store.fates.append(UNSENT)
    with pytest.raises(ClusterError):
        await lease.create()
    assert store.sent == ["create"]
    assert lease.until_expired() == 0
    await lease.create()
    assert lease.remaining() == BELIEF


async def test_one_that_was_dropped_may_be_there_for_as_long_as_its_ttl(lease: Lease, store: LossyKeys) -> None:
    store.fates.append(DROPPED)
    with pytest.raises(ClusterError):
        await lease.create()
    assert lease.remaining() == 0
    assert lease.until_expired() == TTL


async def test_one_that_came_late_is_never_made_twice(lease: Lease, store: LossyKeys) -> None:
    store.fates.append(LATE)
    with pytest.raises(ClusterError):
        await lease.create()
    store.clock.now += 4
    store.thaw()
    await lease.create()
    assert list(store.nodes) == ["/p/1"]
    assert lease.remaining() == BELIEF - 4


async def test_one_that_comes_between_the_read_and_the_repetition(lease: Lease, store: LossyKeys) -> None:
    store.fates.append(LATE)
    with pytest.raises(ClusterError):
        await lease.create()
    store.clock.now += 4
    assert not await lease._settle()
    store.thaw()
    store.fates.append(TWICE)  # whatever comes first, it finds the key made
    store.clock.now += 1
    await lease.create()
    assert lease.remaining() == BELIEF - 5


async def test_a_copy_that_comes_first(lease: Lease, store: LossyKeys) -> None:
    store.fates.append(TWICE)
    await lease.create()
    assert store.sent == ["create", "get /p/1 quorum"]
    assert lease.remaining() == BELIEF


async def test_another_s_key_of_that_name(lease: Lease, store: LossyKeys) -> None:
    store.nodes["/p/1"] = Node("/p/1", "you", created_index=1, modified_index=1)
    with pytest.raises(LeaseGoneError, match="another"):
        await lease.create()


async def test_a_create_that_is_cancelled_is_open(lease: Lease, store: LossyKeys) -> None:
    task = asyncio.ensure_future(lease.create())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert lease.until_expired() == TTL


# --- keeping it alive -------------------------------------------------------------------------------------------------


async def test_a_keep_alive_is_due_at_a_third(lease: Lease, store: LossyKeys) -> None:
    await lease.create()
    assert lease.next_due == store.clock.now + 5


async def test_kept_alive(lease: Lease, store: LossyKeys) -> None:
    await made(lease, store)
    store.clock.now += 5
    await lease.refresh()
    await lease.refresh()
    assert store.sent == ["refresh", "refresh"]
    assert lease.remaining() == BELIEF


async def test_one_that_did_not_arrive_changes_nothing(lease: Lease, store: LossyKeys) -> None:
    await made(lease, store)
    store.clock.now += 5
    store.fates.append(UNSENT)
    with pytest.raises(ClusterError):
        await lease.refresh()
    assert lease.remaining() == BELIEF - 5
    await lease.refresh()
    assert store.sent == ["refresh", "refresh"]


async def test_unknown_ones_count_from_the_first(lease: Lease, store: LossyKeys) -> None:
    await made(lease, store)
    store.clock.now += 5
    store.fates.extend([DROPPED, ANSWER_LOST])
    for _ in range(2):
        with pytest.raises(ClusterError):
            await lease.refresh()
        store.clock.now += 1
    assert lease.remaining() == BELIEF - 7
    await lease.refresh()
    assert store.sent == ["refresh", "get /p/1 quorum", "refresh", "get /p/1 quorum"]
    assert lease.remaining() == BELIEF - 2


async def test_one_that_was_dropped_is_sent_again(lease: Lease, store: LossyKeys) -> None:
    await made(lease, store)
    store.fates.append(DROPPED)
    with pytest.raises(ClusterError):
        await lease.refresh()
    store.clock.now += 1
    await lease.refresh()
    assert store.sent == ["refresh", "get /p/1 quorum", "refresh"]
    assert lease.remaining() == BELIEF


async def test_one_that_comes_late_counts_from_when_it_was_sent(lease: Lease, store: LossyKeys) -> None:
    await made(lease, store)
    store.fates.extend([LATE, DROPPED])
    with pytest.raises(ClusterError):
        await lease.refresh()
    store.clock.now += 2
    with pytest.raises(ClusterError):
        await lease.refresh()
    store.thaw()
    store.clock.now += 2
    await lease.refresh()
    assert lease.remaining() == BELIEF - 4


async def test_a_late_one_is_refused_once_another_was_carried_out(lease: Lease, store: LossyKeys) -> None:
    await made(lease, store)
    store.fates.append(LATE)
    with pytest.raises(ClusterError):
        await lease.refresh()
    await lease.refresh()
    index = store.index
    store.thaw()
    assert store.index == index
    await lease.refresh()


async def test_a_copy_of_a_keep_alive_that_comes_first(lease: Lease, store: LossyKeys) -> None:
    await made(lease, store)
    store.fates.append(TWICE)
    store.took = 1
    await lease.refresh()
    assert store.sent == ["refresh", "get /p/1 quorum"]
    assert lease.remaining() == BELIEF - 2
    await lease.refresh()


async def test_gone(lease: Lease, store: LossyKeys) -> None:
    await made(lease, store)
    del store.nodes["/p/1"]
    with pytest.raises(LeaseGoneError, match="expired or was deleted"):
        await lease.refresh()


async def test_gone_while_one_is_open(lease: Lease, store: LossyKeys) -> None:
    await made(lease, store)
    store.fates.append(DROPPED)
    with pytest.raises(ClusterError):
        await lease.refresh()
    del store.nodes["/p/1"]
    with pytest.raises(LeaseGoneError, match="expired or was deleted"):
        await lease.refresh()


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(Node("/p/1", "you", created_index=1, modified_index=9), id="another value"),
        pytest.param(Node("/p/1", "me", created_index=9, modified_index=9), id="made anew"),
        pytest.param(Node("/p/1", None, dir=True, created_index=1, modified_index=9), id="a directory"),
    ],
)
async def test_written_by_another(lease: Lease, store: LossyKeys, other: Node) -> None:
    await made(lease, store)
    store.nodes["/p/1"] = other
    with pytest.raises(LeaseGoneError, match="another has written"):
        await lease.refresh()


async def test_deleted_twice(lease: Lease, store: LossyKeys) -> None:
    await made(lease, store)
    await lease.delete()
    assert not store.nodes
    await lease.delete()
    with pytest.raises(KeyNotFoundError):
        await store.get("/p/1")


# --- times ------------------------------------------------------------------------------------------------------------


def test_margin() -> None:
    assert margin_of(3) == 0.5
    assert margin_of(60) == 6


@pytest.mark.parametrize("ttl", [2.99, 0, -1, float("nan")])
def test_a_ttl_that_is_too_short(ttl: float) -> None:
    with pytest.raises(ValueError, match="at least 3 seconds"):
        check_ttl(ttl)


@pytest.mark.parametrize("ttl", ["15", None, True])
def test_a_ttl_that_is_no_number(ttl: object) -> None:
    with pytest.raises(TypeError, match="ttl is a number of seconds"):
        check_ttl(ttl)  # type: ignore[arg-type]


def test_the_clock_does_not_stand_still_with_the_machine() -> None:
    assert abs(_clock.now() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 1


# --- a key that others want as well -----------------------------------------------------------------------------------


@pytest.fixture
def contested(store: LossyKeys) -> Lease:
    return Lease(store.keys, "/p/1", "me", TTL, contested=True, clock=store.clock)


async def test_who_is_slower_asks_no_more(store: LossyKeys, contested: Lease) -> None:
    await store.create("/p/1", "another", ttl=TTL)
    store.sent.clear()
    with pytest.raises(NodeExistsError):
        await contested.create()
    assert store.sent == ["create"]
    assert contested.until_expired() == 0


@pytest.mark.parametrize("fate", [ANSWER_LOST, DROPPED])
async def test_a_lost_answer_to_a_contested_create(store: LossyKeys, contested: Lease, fate: str) -> None:
    store.fates.append(fate)
    if fate == DROPPED:
        with pytest.raises(ClusterError):
            await contested.create()
        await contested.create()
    else:
        await contested.create()
    assert store.nodes["/p/1"].value == "me"


async def test_a_late_copy_of_a_contested_create_is_ours(store: LossyKeys, contested: Lease) -> None:
    store.fates.append(LATE)
    with pytest.raises(ClusterError):
        await contested.create()
    real = store.get

    async def get(key: str, *, quorum: bool = False) -> Response:
        try:
            return await real(key, quorum=quorum)
        finally:
            store.thaw()

    store.get = get  # type: ignore[method-assign]
    await contested.create()
    assert contested.node is not None
    assert store.sent.count("create") == 2


async def test_another_was_faster_after_a_lost_answer(store: LossyKeys, contested: Lease) -> None:
    store.fates.append(DROPPED)
    with pytest.raises(ClusterError):
        await contested.create()
    await store.create("/p/1", "another", ttl=TTL)
    with pytest.raises(LeaseGoneError):
        await contested.create()


async def test_a_contested_key_is_deleted_by_its_owner_alone(store: LossyKeys, contested: Lease) -> None:
    await contested.create()
    await contested.refresh()
    await store.delete("/p/1")
    await store.create("/p/1", "another", ttl=TTL)
    await contested.delete()
    assert store.nodes["/p/1"].value == "another"
    await store.delete("/p/1")
    await contested.delete()

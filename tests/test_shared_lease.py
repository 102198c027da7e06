"""A key that others write, too: whose it is, whatever becomes of what is sent for it."""

from __future__ import annotations

import asyncio

import pytest

from aioetcd2 import ClusterError, Node, NotFileError
from aioetcd2.recipes import _shared
from aioetcd2.recipes._lease import LeaseGoneError
from aioetcd2.recipes._shared import LeaseTakenError, SharedLease

from .lossy_keys import ANSWER_LOST, DONE, DROPPED, LATE, TWICE, UNSENT, Clock
from .shared_keys import SharedKeys

TTL = 60.0
BELIEF = TTL - 6
KEY = "/s/1"


@pytest.fixture
async def store(monkeypatch: pytest.MonkeyPatch) -> SharedKeys:
    monkeypatch.setattr(_shared, "LOOK", 0.01)
    return SharedKeys(Clock())


@pytest.fixture
async def lease(store: SharedKeys) -> SharedLease:
    return SharedLease(store.keys, KEY, "us", TTL, clock=store.clock)


async def registered(lease: SharedLease, store: SharedKeys) -> None:
    await lease.create()
    store.sent.clear()


def value_in(store: SharedKeys) -> str | None:
    return store.nodes[KEY].value if KEY in store.nodes else None


# --- putting it there -------------------------------------------------------------------------------------------------


async def test_made_where_there_is_none(lease: SharedLease, store: SharedKeys) -> None:
    await lease.create()
    assert store.sent == ["get /s/1 quorum", "create"]
    assert lease.remaining() == BELIEF
    assert lease.is_current


@pytest.mark.parametrize("left", ["us", "them"])
async def test_taken_over_on_a_condition(lease: SharedLease, store: SharedKeys, left: str) -> None:
    store.put(KEY, left)
    await lease.create()
    assert store.sent == ["get /s/1 quorum", "set"]
    assert value_in(store) == "us"
    assert lease.is_current


@pytest.mark.parametrize("before", [None, "older"])
async def test_the_last_one_wins_whoever_comes_between(
    lease: SharedLease, store: SharedKeys, before: str | None
) -> None:
    if before is not None:
        store.put(KEY, before)
    task = asyncio.ensure_future(lease.create())
    await asyncio.sleep(0)
    store.put(KEY, "between")
    await task
    assert value_in(store) == "us"


async def test_a_directory_is_none(lease: SharedLease, store: SharedKeys) -> None:
    store.nodes[KEY] = Node(KEY, dir=True, created_index=1, modified_index=1)
    with pytest.raises(NotFileError, match="a directory; register a key below it"):
        await lease.create()
    assert store.sent == ["get /s/1 quorum"]


@pytest.mark.parametrize("before", [None, "us", "them"])
@pytest.mark.parametrize("fate", [ANSWER_LOST, DROPPED, UNSENT, LATE])
async def test_what_failed_to_register_is_removed_and_nothing_else(
    lease: SharedLease, store: SharedKeys, before: str | None, fate: str
) -> None:
    if before is not None:
        store.put(KEY, before)
    store.fates.append(fate)
    with pytest.raises(ClusterError):
        await lease.create()
    await lease.delete()
    assert value_in(store) == (None if fate == ANSWER_LOST else before)
    assert (lease.until_expired() > 0) is (fate != UNSENT)


# --- keeping it alive -------------------------------------------------------------------------------------------------


async def test_kept_alive(lease: SharedLease, store: SharedKeys) -> None:
    await registered(lease, store)
    store.clock.now += 20
    await lease.refresh()
    await lease.refresh()
    assert store.sent == ["refresh", "refresh"]
    assert lease.remaining() == BELIEF


async def test_made_again_where_it_is_gone(lease: SharedLease, store: SharedKeys) -> None:
    await registered(lease, store)
    store.drop(KEY)
    await lease.refresh()
    assert store.sent == ["refresh", "create"]
    assert value_in(store) == "us"


@pytest.mark.parametrize("value", ["them", "us"])
async def test_theirs_where_another_has_written_it(lease: SharedLease, store: SharedKeys, value: str) -> None:
    await registered(lease, store)
    store.put(KEY, value)
    with pytest.raises(LeaseTakenError) as taken:
        await lease.refresh()
    assert taken.value.index == store.index
    assert lease.node is None
    await lease.delete()
    assert value_in(store) == value


@pytest.mark.parametrize("value", ["them", "us"])
async def test_theirs_where_another_has_made_it(lease: SharedLease, store: SharedKeys, value: str) -> None:
    await registered(lease, store)
    store.drop(KEY)
    store.put(KEY, value)
    with pytest.raises(LeaseTakenError):
        await lease.refresh()
    await lease.delete()
    assert value_in(store) == value


@pytest.mark.parametrize("value", ["them", "us"])
async def test_theirs_where_another_makes_it_before_us(lease: SharedLease, store: SharedKeys, value: str) -> None:
    await registered(lease, store)
    store.drop(KEY)
    lease.node = None
    store.put(KEY, value)
    with pytest.raises(LeaseTakenError):
        await lease.refresh()
    assert store.sent == ["create"]


async def test_theirs_where_another_has_made_a_directory_of_it(lease: SharedLease, store: SharedKeys) -> None:
    await registered(lease, store)
    store.nodes[KEY] = Node(KEY, dir=True, created_index=9, modified_index=9)
    with pytest.raises(LeaseTakenError):
        await lease.refresh()
    await lease.delete()
    assert KEY in store.nodes


async def test_a_directory_is_not_removed(lease: SharedLease, store: SharedKeys) -> None:
    await registered(lease, store)
    store.nodes[KEY] = Node(KEY, dir=True, created_index=9, modified_index=9)
    await lease.delete()
    assert KEY in store.nodes


# --- lost answers -----------------------------------------------------------------------------------------------------


async def test_a_lost_answer_is_ours_where_nobody_made_an_event(lease: SharedLease, store: SharedKeys) -> None:
    await registered(lease, store)
    store.fates.append(ANSWER_LOST)
    with pytest.raises(ClusterError):
        await lease.refresh()
    await lease.refresh()
    assert store.sent == ["refresh", "get /s/1 quorum", "watch /s/1", "refresh"]
    assert store.watchers[0].closed
    await lease.delete()
    assert not store.nodes


@pytest.mark.parametrize("value", ["them", "us"])
async def test_a_lost_answer_is_theirs_where_another_made_one(
    lease: SharedLease, store: SharedKeys, value: str
) -> None:
    await registered(lease, store)
    store.put(KEY, value)
    store.fates.append(DROPPED)
    with pytest.raises(ClusterError):
        await lease.refresh()
    with pytest.raises(LeaseTakenError):
        await lease.refresh()


@pytest.mark.parametrize("value", ["them", "us"])
async def test_what_is_theirs_is_not_removed_after_a_lost_answer(
    lease: SharedLease, store: SharedKeys, value: str
) -> None:
    await registered(lease, store)
    store.fates.append(ANSWER_LOST)
    with pytest.raises(ClusterError):
        await lease.refresh()
    store.put(KEY, value)
    await lease.delete()
    assert value_in(store) == value


async def test_where_history_is_gone_a_lost_answer_is_ours_but_nothing_is_removed(
    lease: SharedLease, store: SharedKeys
) -> None:
    await registered(lease, store)
    store.history = False
    for _ in range(2):
        store.fates += [ANSWER_LOST]
        with pytest.raises(ClusterError):
            await lease.refresh()
    await lease.refresh()
    store.fates.append(ANSWER_LOST)
    with pytest.raises(ClusterError):
        await lease.refresh()
    await lease.delete()
    assert value_in(store) == "us"


async def test_where_history_is_gone_a_refusal_is_a_successor_s(lease: SharedLease, store: SharedKeys) -> None:
    await registered(lease, store)
    store.put(KEY, "us")
    store.history = False
    with pytest.raises(LeaseTakenError):
        await lease.refresh()


async def test_where_history_is_gone_a_key_that_was_made_anew_is_theirs(lease: SharedLease, store: SharedKeys) -> None:
    await registered(lease, store)
    store.history = False
    store.fates.append(DROPPED)
    with pytest.raises(ClusterError):
        await lease.refresh()
    store.drop(KEY)
    store.put(KEY, "us")
    with pytest.raises(LeaseTakenError):
        await lease.refresh()


async def test_one_that_comes_late_harms_no_one(lease: SharedLease, store: SharedKeys) -> None:
    await registered(lease, store)
    store.fates.append(LATE)
    with pytest.raises(ClusterError):
        await lease.refresh()
    await lease.refresh()
    store.put(KEY, "them")
    before = store.nodes[KEY]
    store.thaw()
    assert store.nodes[KEY] == before


async def test_one_that_comes_between_the_read_and_the_repetition(lease: SharedLease, store: SharedKeys) -> None:
    await registered(lease, store)
    store.fates.append(LATE)
    with pytest.raises(ClusterError):
        await lease.refresh()
    task = asyncio.ensure_future(lease.refresh())
    await asyncio.sleep(0)
    store.thaw()
    await task
    assert lease.node == store.nodes[KEY]


async def test_a_copy_of_a_refresh_that_comes_first(lease: SharedLease, store: SharedKeys) -> None:
    await registered(lease, store)
    store.fates.append(TWICE)
    await lease.refresh()
    assert lease.node == store.nodes[KEY]


async def test_a_lost_create_is_found_again(lease: SharedLease, store: SharedKeys) -> None:
    await registered(lease, store)
    store.drop(KEY)
    store.fates += [DONE, ANSWER_LOST]
    with pytest.raises(ClusterError):
        await lease.refresh()
    await lease.refresh()
    assert lease.node == store.nodes[KEY]
    assert [event.action for event in store.events] == ["create", "compareAndDelete", "create"]


async def test_a_create_that_comes_late_is_ours(lease: SharedLease, store: SharedKeys) -> None:
    await registered(lease, store)
    store.drop(KEY)
    store.fates += [DONE, LATE]
    with pytest.raises(ClusterError):
        await lease.refresh()
    task = asyncio.ensure_future(lease.refresh())
    await asyncio.sleep(0)  # it has read that there is none
    store.thaw()
    await task
    assert lease.node == store.nodes[KEY]


# --- another value ----------------------------------------------------------------------------------------------------


async def test_another_value_is_set_on_a_condition(lease: SharedLease, store: SharedKeys) -> None:
    await registered(lease, store)
    lease.value = "new"
    assert not lease.is_current
    await lease.refresh()
    assert store.sent == ["set"]
    assert value_in(store) == "new"


async def test_another_value_does_not_overwrite_a_successor(lease: SharedLease, store: SharedKeys) -> None:
    await registered(lease, store)
    store.put(KEY, "them")
    lease.value = "new"
    with pytest.raises(LeaseTakenError):
        await lease.refresh()
    assert value_in(store) == "them"


@pytest.mark.parametrize("fate", [ANSWER_LOST, DROPPED, LATE])
async def test_values_whose_answers_are_lost(lease: SharedLease, store: SharedKeys, fate: str) -> None:
    await registered(lease, store)
    for value in ("second", "third"):
        lease.value = value
        store.fates.append(fate)
        with pytest.raises(ClusterError):
            await lease.refresh()
        store.thaw()
    lease.value = "fourth"
    await lease.refresh()
    assert value_in(store) == "fourth"
    await lease.delete()
    assert not store.nodes


async def test_a_value_given_while_another_is_written(lease: SharedLease, store: SharedKeys) -> None:
    await registered(lease, store)
    task = asyncio.ensure_future(lease.refresh())
    await asyncio.sleep(0)
    lease.value = "new"
    await task
    assert store.sent == ["refresh", "set"]
    assert value_in(store) == "new"


# --- the end ----------------------------------------------------------------------------------------------------------


async def test_removed(lease: SharedLease, store: SharedKeys) -> None:
    await registered(lease, store)
    await lease.delete()
    assert not store.nodes


async def test_removed_where_it_is_gone(lease: SharedLease, store: SharedKeys) -> None:
    await registered(lease, store)
    store.drop(KEY)
    await lease.delete()


async def test_removed_again_after_a_lost_answer(lease: SharedLease, store: SharedKeys) -> None:
    await registered(lease, store)
    store.fates.append(ANSWER_LOST)
    with pytest.raises(ClusterError):
        await lease.delete()
    store.put(KEY, "us")
    await lease.delete()
    assert value_in(store) == "us"


async def test_others_who_never_let_it_be(lease: SharedLease, store: SharedKeys) -> None:
    await registered(lease, store)

    async def create(*_: object, **__: object) -> None:
        store.put(KEY, "us")
        store.drop(KEY)
        store._there(KEY)

    store.drop(KEY)
    store.create = create  # type: ignore[method-assign,assignment]
    with pytest.raises(LeaseGoneError, match="all the time"):
        await lease.refresh()

"""The recipes as a type checker sees them: checked by mypy and pyright, strictly, and never run."""

from __future__ import annotations

import asyncio
from datetime import datetime

from typing_extensions import assert_type

from aioetcd2 import Client
from aioetcd2.recipes import (
    Election,
    Held,
    Holder,
    Item,
    Leader,
    LeadershipLostError,
    Lock,
    LockHeldError,
    LockLostError,
    Queue,
    Semaphore,
    Term,
)


async def lock(client: Client) -> None:
    lock = Lock(client.keys, "/lock", ttl=15, name="me", wait=False, cancel=False)
    async with lock as held:
        assert_type(held, Held)
    assert_type(await lock.acquire(), Held)
    assert_type(await lock.release(held), None)
    assert_type(await lock.holder(), Holder | None)
    assert_type(await lock.waiting(), list[Holder])
    assert_type(held.key, str)
    assert_type(held.token, int)
    assert_type(held.name, str)
    assert_type(held.reason, str | None)
    assert_type(held.valid, bool)
    assert_type(held.lost, asyncio.Event)
    assert_type(held.remaining(), float)
    assert_type(held.check(), None)


def read(holder: Holder, lost: LockLostError, leadership: LeadershipLostError, taken: LockHeldError) -> None:
    assert_type(holder.name, str)
    assert_type(holder.token, int)
    assert_type(holder.since, datetime | None)
    assert_type(lost.reason, str)
    assert_type(leadership.token, int)
    assert_type(taken.holder, Holder | None)


async def semaphore(client: Client) -> None:
    semaphore = Semaphore(client.keys, "/semaphore", 3, ttl=15, name="me", wait=False, cancel=False)
    async with semaphore as held:
        assert_type(held, Held)
    assert_type(await semaphore.acquire(), Held)
    assert_type(await semaphore.release(held), None)
    assert_type(await semaphore.holders(), list[Holder])
    assert_type(await semaphore.waiting(), list[Holder])


async def election(client: Client) -> None:
    election = Election(client.keys, "/election", name="me", ttl=15)
    async with election.lead() as term:
        assert_type(term, Term)
        term.check()
    assert_type(await election.leader(), Leader | None)
    assert_type(await election.candidates(), list[Leader])
    async for leader in election.observe():
        assert_type(leader, Leader | None)


async def queue(client: Client) -> None:
    async with Queue(client.keys, "/queue", ttl=30) as queue:
        assert_type(queue, Queue)
        assert_type(await queue.put("v"), str)
        assert_type(await queue.size(), int)
        async with queue.take() as item:
            assert_type(item, Item)
            assert_type(item.value, str)
            assert_type(item.name, str)
            assert_type(item.attempt, int)
            assert_type(item.token, int)
            assert_type(item.valid, bool)
            assert_type(item.check(), None)

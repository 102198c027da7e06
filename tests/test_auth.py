"""Auth on a real etcd, and the shapes of its answers that no release at hand gives."""

from __future__ import annotations

import logging
import traceback
from collections.abc import AsyncIterator

import pytest

from aioetcd2 import (
    APIError,
    AuthError,
    Client,
    ClusterError,
    EtcdError,
    Permission,
    Role,
    RoleExistsError,
    RoleNotFoundError,
    UnauthorizedError,
    User,
    UserExistsError,
    UserNotFoundError,
)
from aioetcd2.testing import EtcdServer

from .conftest import node_of
from .misbehaver import Behaviour, Misbehaver, answer

ROOT = "r00t-S3cret-ü"
BOB = "b0b-S3cret"


@pytest.fixture
async def guarded() -> AsyncIterator[EtcdServer]:
    """An etcd with auth on: root, bob with a role for /bob/*, and no guests."""
    async with EtcdServer() as server:
        async with Client(server.endpoints) as anyone:
            await anyone.auth.users.add("root", ROOT)
            await anyone.auth.users.add("bob", BOB)
            await anyone.auth.roles.add("bobs")
            await anyone.auth.roles.grant("bobs", "/bob/*", permission=Permission.READ_WRITE)
            await anyone.auth.roles.grant("bobs", "/public", permission=Permission.READ)
            await anyone.auth.users.grant("bob", "bobs")
            await anyone.auth.enable()
        async with Client(server.endpoints, username="root", password=ROOT) as root:
            await root.auth.roles.remove("guest")
        yield server


@pytest.mark.etcd
async def test_whole_life_of_users_and_roles() -> None:
    async with EtcdServer() as server, Client(server.endpoints) as client:
        auth = client.auth
        assert not await auth.enabled()
        assert await auth.users.list() == []
        assert await auth.roles.list() == ["root"]
        with pytest.raises(AuthError, match="No root user"):
            await auth.enable()
        with pytest.raises(AuthError, match="already disabled"):
            await auth.disable()
        assert (await auth.users.add("root", ROOT)).name == "root"
        assert await auth.users.add("ann", "x") == User("ann")
        with pytest.raises(UserExistsError):
            await auth.users.add("ann", "other")
        assert await auth.roles.add("r") == Role("r")
        with pytest.raises(RoleExistsError):
            await auth.roles.add("r")
        both = await auth.roles.grant("r", "/a/*", "/b", permission=Permission.READ_WRITE)
        assert both == Role("r", read=("/a/*", "/b"), write=("/a/*", "/b"))
        with pytest.raises(AuthError):
            await auth.roles.grant("r", "/b", permission=Permission.READ)
        less = await auth.roles.revoke("r", "/b", permission=Permission.WRITE)
        assert less == Role("r", read=("/a/*", "/b"), write=("/a/*",))
        with pytest.raises(AuthError):
            await auth.roles.revoke("r", "/b", permission=Permission.WRITE)
        assert await auth.roles.get("r") == less
        assert await auth.users.grant("ann", "r") == User("ann", ("r",))
        assert await auth.users.get("ann") == User("ann", ("r",))
        with pytest.raises(AuthError, match="duplicate"):
            await auth.users.grant("ann", "r")
        assert await auth.users.revoke("ann", "r") == User("ann")
        with pytest.raises(AuthError, match="ungranted"):
            await auth.users.revoke("ann", "r")
        assert sorted(await auth.users.list()) == ["ann", "root"]
        assert sorted(await auth.roles.list()) == ["r", "root"]
        await auth.roles.remove("r")
        await auth.users.remove("ann")
        await auth.enable()
        assert await auth.enabled()


@pytest.mark.parametrize("call", ["get", "grant", "revoke", "remove", "change_password"])
async def test_missing_user(client: Client, call: str) -> None:
    more = {"grant": ["r"], "revoke": ["r"], "change_password": ["p"]}.get(call, [])
    with pytest.raises(UserNotFoundError, match="nobody"):
        await getattr(client.auth.users, call)("nobody", *more)
    assert "nobody" not in await client.auth.users.list()


async def test_missing_role(client: Client) -> None:
    roles = client.auth.roles
    for refused in (
        roles.get("none"),
        roles.remove("none"),
        roles.grant("none", "/a", permission=Permission.READ),
        roles.revoke("none", "/a", permission=Permission.READ),
    ):
        with pytest.raises(RoleNotFoundError, match="none"):
            await refused


async def test_root_does_what_users_may_not(guarded: EtcdServer) -> None:
    async with (
        Client(guarded.endpoints, username="root", password=ROOT) as root,
        Client(guarded.endpoints, username="bob", password=BOB) as bob,
    ):
        await root.keys.set("/public", "read me")
        assert node_of(await bob.keys.get("/public")).value == "read me"
        await bob.keys.set("/bob/x", "mine")
        for refused in (
            bob.keys.set("/public", "no"),
            bob.keys.get("/other"),
            bob.auth.users.list(),
            bob.auth.users.change_password("bob", "new"),
            bob.members.add("http://127.0.0.1:1"),
        ):
            with pytest.raises(UnauthorizedError):
                await refused
        async with bob.keys.watch("/bob/", recursive=True) as watcher:
            await bob.keys.set("/bob/y", "seen")
            assert node_of(await watcher.next()).key == "/bob/y"
        with pytest.raises(UnauthorizedError):
            async with bob.keys.watch("/other"):
                pass
        with pytest.raises(UnauthorizedError, match="root"):
            await root.auth.users.remove("root")
        await root.auth.users.change_password("bob", "another")
        with pytest.raises(UnauthorizedError):
            await bob.keys.get("/bob/x")


@pytest.mark.parametrize(
    ("username", "password"), [(None, None), ("bob", "wrong"), ("nobody", BOB), ("root", ""), ("bob", ROOT)]
)
async def test_wrong_credentials(guarded: EtcdServer, username: str | None, password: str | None) -> None:
    async with Client(guarded.endpoints, username=username, password=password) as client:
        with pytest.raises(UnauthorizedError) as caught:
            await client.keys.get("/bob/x")
        assert (caught.value.code, caught.value.status) == (110, 401)
        assert await client.auth.enabled()
        assert await client.members.list()
        assert (await client.version()).server


async def test_passwords_appear_nowhere(guarded: EtcdServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    endpoints = ["http://127.0.0.1:1", *guarded.endpoints]
    async with Client(endpoints, username="bob", password=BOB) as bob:
        shown += [repr(bob), str(vars(bob)), repr(bob._transport)]
        for refused in (bob.keys.set("/x", "1"), bob.auth.users.add("eve", "eve-S3cret"), bob.keys.get("/bob/none")):
            try:
                await refused
            except EtcdError as error:
                shown += [str(error), repr(error), "".join(traceback.format_exception(error))]
    async with Client("http://127.0.0.1:1", username="root", password=ROOT) as root:
        with pytest.raises(ClusterError) as caught:
            await root.auth.users.change_password("bob", "eve-S3cret")
        shown += [str(caught.value), repr(caught.value.errors)]
    shown.append(caplog.text)
    assert "curl" in caplog.text
    for text in shown:
        assert BOB not in text
        assert ROOT not in text
        assert "eve-S3cret" not in text
        assert "Basic " not in text


@pytest.mark.parametrize("name", ["", "a/b", ".", "..", "\ud800"])
async def test_bad_names(client: Client, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        await client.auth.users.get(name)
    with pytest.raises(ValueError, match="name"):
        await client.auth.roles.add(name)


async def test_bad_input(client: Client) -> None:
    auth = client.auth
    for refused in (
        auth.users.add("a:b", "p"),
        auth.users.grant("a"),
        auth.users.revoke("a"),
        auth.roles.grant("a", permission=Permission.READ),
        auth.users.add("a", "\udcff"),
        auth.roles.grant("a", "/x", permission="sometimes"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError):
            await refused
    with pytest.raises(TypeError):
        await auth.users.add("a", b"p")  # type: ignore[arg-type]
    with pytest.raises(AuthError, match="empty password"):
        await auth.users.add("a", "")


@pytest.mark.parametrize("name", ["a b", "ü", "a?b#c", "%41", "a+b", "💥"])
async def test_names_arrive_as_given(client: Client, name: str) -> None:
    await client.auth.users.add(name, "p")
    await client.auth.roles.add(name)
    assert (await client.auth.users.get(name)).name == name
    assert name in await client.auth.users.list()
    assert (await client.auth.users.grant(name, name)).roles == (name,)
    await client.auth.users.remove(name)
    await client.auth.roles.remove(name)


ROLE = {"role": "r1", "permissions": {"kv": {"read": ["/a/*"], "write": None}}}


@pytest.mark.parametrize(
    ("call", "behaviour", "expected"),
    [
        ("users.list", answer({"users": None}), []),
        ("users.list", answer({}), []),
        ("users.list", answer({"users": ["ann", "bob"]}), ["ann", "bob"]),
        ("users.list", answer({"users": [{"user": "ann", "roles": [ROLE]}, {"user": "bob"}]}), ["ann", "bob"]),
        ("roles.list", answer({"roles": None}), []),
        ("roles.list", answer({"roles": ["r1"]}), ["r1"]),
        ("roles.list", answer({"roles": [ROLE]}), ["r1"]),
        ("users.get", answer({"user": "n"}), User("n")),
        ("users.get", answer({"user": "n", "roles": None}), User("n")),
        ("users.get", answer({"user": "n", "roles": ["r1"]}), User("n", ("r1",))),
        ("users.get", answer({"user": "n", "roles": [ROLE]}), User("n", ("r1",))),
        ("roles.get", answer(ROLE), Role("r1", ("/a/*",))),
        ("roles.get", answer({"role": "r1", "permissions": {"kv": {}}}), Role("r1")),
        ("roles.get", answer({"role": "r1"}), Role("r1")),
        ("users.remove", answer(b"", headers={"Content-Type": "application/json"}), None),
    ],
)
async def test_answer_shapes(call: str, behaviour: Behaviour, expected: object) -> None:
    group, method = call.split(".")
    async with Misbehaver(behaviour) as server, Client(server.endpoint) as client:
        names = [] if method == "list" else ["n"]
        assert await getattr(getattr(client.auth, group), method)(*names) == expected


@pytest.mark.parametrize(
    ("status", "message", "error"),
    [
        (404, "auth: User n does not exist.", UserNotFoundError),
        (404, "auth: Role ghost does not exist.", RoleNotFoundError),
        (409, "auth: User n already exists.", UserExistsError),
        (400, "Invalid JSON in request body.", AuthError),
        (401, "Insufficient credentials", UnauthorizedError),
        (403, "auth: Cannot modify role root: is root role.", UnauthorizedError),
    ],
)
async def test_refusals(status: int, message: str, error: type[APIError]) -> None:
    async with Misbehaver(answer({"message": message}, status=status)) as server, Client(server.endpoint) as client:
        with pytest.raises(error, match=message.rstrip(".")) as caught:
            await client.auth.users.get("n")
        assert type(caught.value) is error
        assert (caught.value.code, caught.value.status, caught.value.endpoint) == (0, status, server.endpoint)


async def test_a_user_with_a_role_that_is_gone_is_not_added_again() -> None:
    gone = answer({"message": "auth: Role ghost does not exist."}, status=404)
    async with Misbehaver(gone) as server, Client(server.endpoint) as client:
        with pytest.raises(UserExistsError):
            await client.auth.users.add("n", "p")
        assert [seen.method for seen in server.seen] == ["GET"]


async def test_upgrading_cluster_is_asked_elsewhere() -> None:
    upgrading = answer({"message": "Not capable of accessing auth feature during rolling upgrades."}, status=500)
    async with Misbehaver(upgrading) as server, Client(server.endpoint) as client:
        with pytest.raises(ClusterError, match="rolling upgrades"):
            await client.auth.enabled()

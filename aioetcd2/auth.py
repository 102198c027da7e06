"""Auth: on and off, users, roles, and what the roles permit."""

from __future__ import annotations

import re
from typing import Any, Protocol

import msgspec
from msgspec import Struct, field

from . import _response
from ._failover import Failover
from ._request import Replay, build, check_text, quote_segment
from .errors import (
    APIError,
    AuthError,
    EtcdError,
    RoleExistsError,
    RoleNotFoundError,
    UserExistsError,
    UserNotFoundError,
)
from .models import HTTPResult, Permission, Role, User

__all__ = ["AuthAPI", "RolesAPI", "UsersAPI"]

PATH = "/v2/auth"

_BY_WORDS: dict[tuple[str, bool], type[APIError]] = {
    ("User", False): UserNotFoundError,
    ("User", True): UserExistsError,
    ("Role", False): RoleNotFoundError,
    ("Role", True): RoleExistsError,
}
_WORDS = re.compile(r"auth: (User|Role) .* (already exists|does not exist|doesn't exist)", re.DOTALL)


class _Enabled(Struct):
    enabled: bool


class _Patterns(Struct, frozen=True):
    read: tuple[str, ...] | None = None
    write: tuple[str, ...] | None = None


class _Permissions(Struct):
    kv: _Patterns = _Patterns()


class _RoleBody(Struct):
    role: str
    permissions: _Permissions | None = None


class _UserBody(Struct):
    user: str
    roles: tuple[_RoleBody | str, ...] | None = None


class _UserList(Struct):
    users: tuple[_UserBody | str, ...] | None = None


class _RoleList(Struct):
    roles: tuple[_RoleBody | str, ...] | None = None


class _UserChange(Struct, omit_defaults=True):
    user: str
    password: str | None = None
    grant: tuple[str, ...] | None = None
    revoke: tuple[str, ...] | None = None


class _Change(Struct):
    kv: dict[str, tuple[str, ...]] = field(default_factory=dict)


class _RoleChange(Struct, omit_defaults=True):
    role: str
    permissions: _Change | None = None
    grant: _Change | None = None
    revoke: _Change | None = None


_decode_enabled = msgspec.json.Decoder(_Enabled).decode
_decode_user = msgspec.json.Decoder(_UserBody).decode
_decode_users = msgspec.json.Decoder(_UserList).decode
_decode_role = msgspec.json.Decoder(_RoleBody).decode
_decode_roles = msgspec.json.Decoder(_RoleList).decode
_encode = msgspec.json.Encoder().encode


class Caller(Protocol):
    """What auth needs of a client."""

    _failover: Failover


class AuthAPI:
    """The auth API; `client.auth`.

    With auth on, all but `enabled()` needs the user root: `UnauthorizedError` otherwise. A write takes a quorum;
    without one the server answers after 7 to 14 s.

    Attributes:
        users: The users.
        roles: The roles.

    Example:
        >>> await client.auth.users.add("root", "secret")
        >>> await client.auth.enable()
    """

    def __init__(self, client: Caller) -> None:
        self._failover = client._failover
        self.users = UsersAPI(client)
        self.roles = RolesAPI(client)

    async def enable(self) -> None:
        """Turn auth on; there must be a user `root`.

        Everyone who sends no credentials is a guest then; the role `guest` appears, and permits everything until it is
        changed or removed.

        Raises:
            AuthError: There is no user root, or auth is on already.
        """
        await self._failover.call(build("PUT", f"{PATH}/enable"), _nothing)

    async def disable(self) -> None:
        """Turn auth off; users and roles stay.

        Raises:
            AuthError: It is off already.
        """
        await self._failover.call(build("DELETE", f"{PATH}/enable"), _nothing)

    async def enabled(self) -> bool:
        """Whether auth is on; open to everyone."""
        return await self._failover.call(build("GET", f"{PATH}/enable"), _enabled)


class UsersAPI:
    """The users; `client.auth.users`.

    Example:
        >>> await client.auth.users.add("app", "secret")
        >>> await client.auth.users.grant("app", "reader")
    """

    def __init__(self, client: Caller) -> None:
        self._failover = client._failover

    async def list(self) -> list[str]:
        """The names of all users."""
        return await self._failover.call(build("GET", f"{PATH}/users"), _user_names)

    async def get(self, name: str) -> User:
        """One user.

        Raises:
            UserNotFoundError: There is no such user.
            RoleNotFoundError: The user has a role that no longer exists.
        """
        return await self._failover.call(build("GET", _user_path(name)), _user)

    async def add(self, name: str, password: str) -> User:
        """Add a user. Sent at most once.

        The server would take this for a change of password where the user exists, so that is asked first.

        Args:
            name: The name, without `:` and `/`.
            password: The password, not empty.

        Raises:
            UserExistsError: There is such a user.
            AuthError: The password is empty.
        """
        path = _user_path(name)
        if ":" in name:
            raise ValueError(f"a user name has no ':', HTTP Basic auth can't carry it: {name!r}")
        body = _encode(_UserChange(name, password=check_text("password", password)))
        request = build("PUT", path, json=body, replay=Replay.IF_UNSENT, secret=True)
        await self._failover.call(build("GET", path, replay=Replay.IF_UNSENT), _absent)
        return await self._failover.call(request, _user)

    async def remove(self, name: str) -> None:
        """Remove a user; root only while auth is off. Sent at most once.

        Raises:
            UserNotFoundError: There is no such user.
        """
        await self._failover.call(build("DELETE", _user_path(name), replay=Replay.IF_UNSENT), _nothing)

    async def grant(self, name: str, *roles: str) -> User:
        """Give roles to a user.

        Args:
            name: The user.
            roles: The roles' names, at least one.

        Raises:
            UserNotFoundError: There is no such user.
            AuthError: The user has one of the roles already; nothing has changed.
        """
        return await self._change(_UserChange(name, grant=_names("role", roles)))

    async def revoke(self, name: str, *roles: str) -> User:
        """Take roles from a user.

        Args:
            name: The user.
            roles: The roles' names, at least one.

        Raises:
            UserNotFoundError: There is no such user.
            AuthError: The user does not have one of the roles; nothing has changed.
        """
        return await self._change(_UserChange(name, revoke=_names("role", roles)))

    async def change_password(self, name: str, password: str) -> User:
        """Give a user another password; that of the user who asks goes on being the old one in this client.

        Args:
            name: The user.
            password: The new password, not empty.

        Raises:
            UserNotFoundError: There is no such user.
        """
        change = _UserChange(name, password=check_text("password", password))
        _user_path(name)
        try:
            await self.get(name)  # the server would add a user who does not exist
        except RoleNotFoundError:  # the user does exist, and has a role that is gone
            pass
        return await self._change(change)

    async def _change(self, change: _UserChange) -> User:
        request = build("PUT", _user_path(change.user), json=_encode(change), secret=change.password is not None)
        return await self._failover.call(request, _user)


class RolesAPI:
    """The roles; `client.auth.roles`.

    A key prefix is a pattern: `/a/*` covers everything below `/a/`, `/a` the key alone. The server matches the path as
    it was sent, so that `/a/*` permits listing `/a/`, and not `/a`.

    Example:
        >>> await client.auth.roles.add("reader")
        >>> await client.auth.roles.grant("reader", "/config/*", permission=Permission.READ)
    """

    def __init__(self, client: Caller) -> None:
        self._failover = client._failover

    async def list(self) -> list[str]:
        """The names of all roles."""
        return await self._failover.call(build("GET", f"{PATH}/roles"), _role_names)

    async def get(self, name: str) -> Role:
        """One role.

        Raises:
            RoleNotFoundError: There is no such role.
        """
        return await self._failover.call(build("GET", _role_path(name)), _role)

    async def add(self, name: str) -> Role:
        """Add a role that permits nothing yet. Sent at most once.

        Raises:
            RoleExistsError: There is such a role.
        """
        path = _role_path(name)
        body = _encode(_RoleChange(name, permissions=_Change({"read": (), "write": ()})))
        return await self._failover.call(build("PUT", path, json=body, replay=Replay.IF_UNSENT), _role)

    async def remove(self, name: str) -> None:
        """Remove a role, but root. Sent at most once.

        Raises:
            RoleNotFoundError: There is no such role.
        """
        await self._failover.call(build("DELETE", _role_path(name), replay=Replay.IF_UNSENT), _nothing)

    async def grant(self, name: str, *prefixes: str, permission: Permission) -> Role:
        """Permit more to a role.

        Args:
            name: The role.
            prefixes: Patterns of keys, at least one.
            permission: What it may do there.

        Raises:
            RoleNotFoundError: There is no such role.
            AuthError: It may do so already; nothing has changed.
        """
        return await self._change(_RoleChange(name, grant=_patterns(prefixes, permission)))

    async def revoke(self, name: str, *prefixes: str, permission: Permission) -> Role:
        """Permit less to a role.

        Args:
            name: The role.
            prefixes: Patterns as they were granted, at least one.
            permission: What it may no longer do there.

        Raises:
            RoleNotFoundError: There is no such role.
            AuthError: It could not do so anyway; nothing has changed.
        """
        return await self._change(_RoleChange(name, revoke=_patterns(prefixes, permission)))

    async def _change(self, change: _RoleChange) -> Role:
        return await self._failover.call(build("PUT", _role_path(change.role), json=_encode(change)), _role)


def _user_path(name: str) -> str:
    return f"{PATH}/users/{quote_segment('a user name', name)}"


def _role_path(name: str) -> str:
    return f"{PATH}/roles/{quote_segment('a role name', name)}"


def _names(what: str, names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise ValueError(f"at least one {what} is needed")
    return tuple(check_text(f"a {what}", name) for name in names)


def _patterns(prefixes: tuple[str, ...], permission: Permission) -> _Change:
    patterns = _names("key prefix", prefixes)
    permission = Permission(permission)
    reads = permission in (Permission.READ, Permission.READ_WRITE)
    writes = permission in (Permission.WRITE, Permission.READ_WRITE)
    return _Change({"read": patterns if reads else (), "write": patterns if writes else ()})


def _refusal(result: HTTPResult, request: object) -> EtcdError:
    match = _WORDS.match(_response.message_of(result))
    known = _BY_WORDS[match[1], match[2].startswith("already")] if match is not None else AuthError
    return _response.refusal(result, request, {404: known, 409: known}, AuthError)


def _succeeded(result: HTTPResult, request: object) -> HTTPResult:
    if result.status not in (200, 201):
        raise _refusal(result, request)
    return result


def _nothing(result: HTTPResult, request: object) -> None:
    _succeeded(result, request)


def _enabled(result: HTTPResult, request: object) -> bool:
    enabled: bool = _response.decode(_decode_enabled, _succeeded(result, request)).enabled
    return enabled


def _absent(result: HTTPResult, request: object) -> None:
    if result.status == 200:
        raise _response.api_error(UserExistsError, result, request, "the user exists already")
    error = _refusal(result, request)
    if isinstance(error, RoleNotFoundError):
        raise _response.api_error(UserExistsError, result, request, "the user exists already, with a role that is gone")
    if not isinstance(error, UserNotFoundError):
        raise error


def _user(result: HTTPResult, request: object) -> User:
    body = _response.decode(_decode_user, _succeeded(result, request))
    return User(body.user, tuple(map(_name, body.roles or ())))


def _user_names(result: HTTPResult, request: object) -> list[str]:
    return list(map(_name, _response.decode(_decode_users, _succeeded(result, request)).users or ()))


def _role(result: HTTPResult, request: object) -> Role:
    body = _response.decode(_decode_role, _succeeded(result, request))
    kv = body.permissions.kv if body.permissions is not None else _Patterns()
    return Role(body.role, kv.read or (), kv.write or ())


def _role_names(result: HTTPResult, request: object) -> list[str]:
    return list(map(_name, _response.decode(_decode_roles, _succeeded(result, request)).roles or ()))


def _name(entry: Any) -> str:
    name: str = entry if isinstance(entry, str) else entry.role if isinstance(entry, _RoleBody) else entry.user
    return name

"""Users, roles and what they permit, in v2: requests, and decoders of their answers."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Struct, field

from .._net.request import Replay, Request, build, quote_segment
from ..errors import (
    APIError,
    AuthError,
    EtcdError,
    RoleExistsError,
    RoleNotFoundError,
    UserExistsError,
    UserNotFoundError,
)
from ..models import HTTPResult, Permission, Role, User
from . import responses

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

ENABLED = build("GET", f"{PATH}/enable")
ENABLE = build("PUT", f"{PATH}/enable")
DISABLE = build("DELETE", f"{PATH}/enable")
LIST_USERS = build("GET", f"{PATH}/users")
LIST_ROLES = build("GET", f"{PATH}/roles")


def get_user(name: str, *, once: bool = False) -> Request:
    """One user."""
    return build("GET", _user_path(name), replay=Replay.IF_UNSENT if once else Replay.ALWAYS)


def add_user(name: str, password: str) -> Request:
    """A new user; where there is one of that name, the server takes it for a change of password."""
    path = _user_path(name)
    body = _encode(_UserChange(name, password=password))
    return build("PUT", path, json=body)


def remove_user(name: str) -> Request:
    """The removal of a user."""
    return build("DELETE", _user_path(name))


def change_password(name: str, password: str) -> Request:
    """A new password; where there is no such user, the server adds one."""
    body = _encode(_UserChange(name, password=password))
    return build("PUT", _user_path(name), json=body, replay=Replay.IF_ALLOWED)


def change_user(name: str, *, grant: tuple[str, ...] | None = None, revoke: tuple[str, ...] | None = None) -> Request:
    """Roles for a user to get, or to lose."""
    body = _encode(_UserChange(name, grant=grant, revoke=revoke))
    return build("PUT", _user_path(name), json=body, replay=Replay.IF_ALLOWED)


def get_role(name: str) -> Request:
    """One role."""
    return build("GET", _role_path(name))


def add_role(name: str) -> Request:
    """A new role, which permits nothing."""
    path = _role_path(name)
    body = _encode(_RoleChange(name, permissions=_Change({"read": (), "write": ()})))
    return build("PUT", path, json=body)


def remove_role(name: str) -> Request:
    """The removal of a role."""
    return build("DELETE", _role_path(name))


def grant(name: str, prefixes: tuple[str, ...], permission: Permission) -> Request:
    """More that a role permits."""
    body = _encode(_RoleChange(name, grant=_patterns(prefixes, permission)))
    return build("PUT", _role_path(name), json=body, replay=Replay.IF_ALLOWED)


def revoke(name: str, prefixes: tuple[str, ...], permission: Permission) -> Request:
    """Less that a role permits."""
    body = _encode(_RoleChange(name, revoke=_patterns(prefixes, permission)))
    return build("PUT", _role_path(name), json=body, replay=Replay.IF_ALLOWED)


def _user_path(name: str) -> str:
    return f"{PATH}/users/{quote_segment('a user name', name)}"


def _role_path(name: str) -> str:
    return f"{PATH}/roles/{quote_segment('a role name', name)}"


def _patterns(prefixes: tuple[str, ...], permission: Permission) -> _Change:
    reads = permission in (Permission.READ, Permission.READ_WRITE)
    writes = permission in (Permission.WRITE, Permission.READ_WRITE)
    return _Change({"read": prefixes if reads else (), "write": prefixes if writes else ()})


def _refusal(result: HTTPResult, request: object) -> EtcdError:
    match = _WORDS.match(responses.message_of(result, request))
    known = _BY_WORDS[match[1], match[2].startswith("already")] if match is not None else AuthError
    return responses.refusal(result, request, {404: known, 409: known}, AuthError)


def _succeeded(result: HTTPResult, request: object) -> HTTPResult:
    if result.status not in (200, 201):
        raise _refusal(result, request)
    return result


def nothing(result: HTTPResult, request: object) -> None:
    """Check an answer that only says that it is done."""
    _succeeded(result, request)


def enabled(result: HTTPResult, request: object) -> bool:
    """Whether auth is on."""
    answer: _Enabled = responses.decode(_decode_enabled, _succeeded(result, request))
    return answer.enabled


def absent(result: HTTPResult, request: object) -> None:
    """Check that there is no such user."""
    if result.status == 200:
        raise responses.api_error(UserExistsError, result, request, "the user exists already")
    error = _refusal(result, request)
    if isinstance(error, RoleNotFoundError):
        raise responses.api_error(UserExistsError, result, request, "the user exists already, with a role that is gone")
    if not isinstance(error, UserNotFoundError):
        raise error


def user(result: HTTPResult, request: object) -> User:
    """One user."""
    body = responses.decode(_decode_user, _succeeded(result, request))
    return User(body.user, tuple(map(_name, body.roles or ())))


def user_names(result: HTTPResult, request: object) -> list[str]:
    """The names of all users."""
    return list(map(_name, responses.decode(_decode_users, _succeeded(result, request)).users or ()))


def role(result: HTTPResult, request: object) -> Role:
    """One role."""
    body = responses.decode(_decode_role, _succeeded(result, request))
    kv = body.permissions.kv if body.permissions is not None else _Patterns()
    return Role(body.role, kv.read or (), kv.write or ())


def role_names(result: HTTPResult, request: object) -> list[str]:
    """The names of all roles."""
    return list(map(_name, responses.decode(_decode_roles, _succeeded(result, request)).roles or ()))


def _name(entry: Any) -> str:
    name: str = entry if isinstance(entry, str) else entry.role if isinstance(entry, _RoleBody) else entry.user
    return name

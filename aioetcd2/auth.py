"""Auth: on and off, users, roles, and what the roles permit."""

from __future__ import annotations

from ._net.failover import Caller
from ._net.request import check_text
from ._v2 import auth
from .errors import RoleNotFoundError
from .models import Permission, Role, User

__all__ = ["AuthAPI", "RolesAPI", "UsersAPI"]


class AuthAPI:
    """The auth API; `client.auth`.

    With auth on, all but `enabled()` needs the user root: `UnauthorizedError` otherwise. A write takes a quorum;
    without one the server answers after 7 to 14 s.

    Attributes:
        users (UsersAPI): The users.
        roles (RolesAPI): The roles.

    Examples:
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
        await self._failover.call(auth.ENABLE, auth.nothing)

    async def disable(self) -> None:
        """Turn auth off; users and roles stay.

        Raises:
            AuthError: It is off already.
        """
        await self._failover.call(auth.DISABLE, auth.nothing)

    async def enabled(self) -> bool:
        """Whether auth is on; open to everyone."""
        return await self._failover.call(auth.ENABLED, auth.enabled)


class UsersAPI:
    """The users; `client.auth.users`.

    Examples:
        >>> await client.auth.users.add("app", "secret")
        >>> await client.auth.users.grant("app", "reader")
    """

    def __init__(self, client: Caller) -> None:
        self._failover = client._failover

    async def list(self) -> list[str]:
        """The names of all users."""
        return await self._failover.call(auth.LIST_USERS, auth.user_names)

    async def get(self, name: str) -> User:
        """One user.

        Args:
            name: The name of the user.

        Raises:
            UserNotFoundError: There is no such user.
            RoleNotFoundError: The user has a role that no longer exists.
        """
        return await self._failover.call(auth.get_user(name), auth.user)

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
        question = auth.get_user(name, once=True)
        if ":" in name:
            raise ValueError(f"a user name has no ':', HTTP Basic auth can't carry it: {name!r}")
        request = auth.add_user(name, check_text("password", password))
        await self._failover.call(question, auth.absent)
        return await self._failover.call(request, auth.user)

    async def remove(self, name: str) -> None:
        """Remove a user; root only while auth is off. Sent at most once.

        Args:
            name: The name of the user.

        Raises:
            UserNotFoundError: There is no such user.
        """
        await self._failover.call(auth.remove_user(name), auth.nothing)

    async def grant(self, name: str, *roles: str) -> User:
        """Give roles to a user.

        Args:
            name: The user.
            roles: The roles' names, at least one.

        Raises:
            UserNotFoundError: There is no such user.
            AuthError: The user has one of the roles already; nothing has changed.
        """
        request = auth.change_user(name, grant=_check_names("role", roles))
        return await self._failover.call(request, auth.user)

    async def revoke(self, name: str, *roles: str) -> User:
        """Take roles from a user.

        Args:
            name: The user.
            roles: The roles' names, at least one.

        Raises:
            UserNotFoundError: There is no such user.
            AuthError: The user does not have one of the roles; nothing has changed.
        """
        request = auth.change_user(name, revoke=_check_names("role", roles))
        return await self._failover.call(request, auth.user)

    async def change_password(self, name: str, password: str) -> User:
        """Give a user another password; that of the user who asks goes on being the old one in this client.

        Args:
            name: The user.
            password: The new password, not empty.

        Raises:
            UserNotFoundError: There is no such user.
        """
        request = auth.change_password(name, check_text("password", password))
        try:
            await self.get(name)  # the server would add a user who does not exist
        except RoleNotFoundError:  # the user does exist, and has a role that is gone
            pass
        return await self._failover.call(request, auth.user)


class RolesAPI:
    """The roles; `client.auth.roles`.

    A key prefix is a pattern: `/a/*` covers everything below `/a/`, `/a` the key alone. The server matches the path as
    it was sent, so that `/a/*` permits listing `/a/`, and not `/a`.

    Examples:
        >>> await client.auth.roles.add("web")
        >>> await client.auth.roles.grant("web", "/config/*", permission=Permission.READ)
    """

    def __init__(self, client: Caller) -> None:
        self._failover = client._failover

    async def list(self) -> list[str]:
        """The names of all roles."""
        return await self._failover.call(auth.LIST_ROLES, auth.role_names)

    async def get(self, name: str) -> Role:
        """One role.

        Args:
            name: The name of the role.

        Raises:
            RoleNotFoundError: There is no such role.
        """
        return await self._failover.call(auth.get_role(name), auth.role)

    async def add(self, name: str) -> Role:
        """Add a role that permits nothing yet. Sent at most once.

        Args:
            name: The name of the role.

        Raises:
            RoleExistsError: There is such a role.
        """
        return await self._failover.call(auth.add_role(name), auth.role)

    async def remove(self, name: str) -> None:
        """Remove a role, but root. Sent at most once.

        Args:
            name: The name of the role.

        Raises:
            RoleNotFoundError: There is no such role.
        """
        await self._failover.call(auth.remove_role(name), auth.nothing)

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
        request = auth.grant(name, _check_names("key prefix", prefixes), Permission(permission))
        return await self._failover.call(request, auth.role)

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
        request = auth.revoke(name, _check_names("key prefix", prefixes), Permission(permission))
        return await self._failover.call(request, auth.role)


def _check_names(what: str, names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise ValueError(f"at least one {what} is needed")
    return tuple(check_text(f"a {what}", name) for name in names)

"""The credentials of a client: the transport asks for them with each request."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Protocol

from .request import check_text


class Credentials(Protocol):
    """A source of credentials, which may give another answer for each endpoint and at each time.

    Attributes:
        username: The user, as a curl line shows it; `None` = nobody.
    """

    @property
    def username(self) -> str | None: ...

    def headers(self, endpoint: str) -> Mapping[str, str]:
        """The headers that tell an endpoint who we are; empty = nothing."""


class BasicCredentials:
    """A user and a password, by HTTP Basic auth, the same for every endpoint; or nobody.

    Args:
        username: The user; `None` = nobody.
        password: The user's password.

    Raises:
        ValueError: Only one of both is given, or the name can't be sent.
    """

    def __init__(self, username: str | None, password: str | None) -> None:
        self.username = username
        self._headers = {} if username is None and password is None else _basic_auth(username, password)

    def headers(self, endpoint: str) -> Mapping[str, str]:
        """The headers that tell an endpoint who we are; empty = nothing."""
        return self._headers


def _basic_auth(username: str | None, password: str | None) -> dict[str, str]:
    if not isinstance(username, str) or not isinstance(password, str):
        raise ValueError("username and password go together, and both are str")
    if ":" in username:
        raise ValueError(f"a user name has no ':', HTTP Basic auth can't carry it: {username!r}")
    check_text("username", username)
    check_text("password", password)
    return {"Authorization": f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"}

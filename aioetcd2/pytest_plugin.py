"""Fixtures for pytest, which finds them by itself: a real etcd, and a client whose store is empty.

| fixture | scope | what it is |
|---|---|---|
| `etcd_server` | session | an `EtcdServer` that runs |
| `etcd` | function | its endpoints, as a `Client` takes them; the store is empty |
| `etcd_client` | function | a `Client` for an async test, under pytest-asyncio or anyio; the store is empty |
| `etcd_cluster` | function | an `EtcdCluster` of three members, which the test may hurt |

Nothing is started, nor is this library imported, before a test asks for one of them. Where there is no etcd, it
fails; with `etcd_missing = skip` in the configuration of pytest it is skipped.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from .client import Client
from .errors import EtcdError, KeyNotFoundError
from .testing import EtcdServer

__all__ = ["CleanStore"]

pytest_plugins = ["_aioetcd2_pytest"]
"""Where this module is named as a plugin, and not found by its entry point."""

MOST_CHANGES = 100
"""How many changes are read from the history, which takes as long then as to start the server anew."""

PATIENCE = 1.0
"""Seconds in which a server answers; one that was left frozen does not, and starting it anew takes no longer."""

MARKER = "/aioetcd2-was-cleaned"

ROLES_OF_AN_EMPTY_STORE = ["root"]

UNREADABLE = "\N{REPLACEMENT CHARACTER}"


class CleanStore:
    """The store of a server, to be emptied again and again: keys, hidden ones included, users and roles.

    A hidden key is in no list, but in etcd's history: each change since the store was empty tells which key to delete.
    Where that is not certain to leave nothing (there are users or roles, auth is on, too much has changed, the server
    does not answer) the server is wiped.

    Args:
        server: The server; it speaks plain HTTP, and is no member of a cluster.

    Example:
        >>> store = CleanStore(server)
        >>> await store.clean()
    """

    def __init__(self, server: EtcdServer) -> None:
        self._server = server
        self._pid = server.pid
        self._empty_at = 0

    async def clean(self) -> None:
        """Leave nothing in the store.

        Raises:
            RuntimeError: The server had to be wiped, and did not start again.
        """
        if self._pid != self._server.pid:  # started anew, and perhaps wiped: its index may have begun anew
            self._pid, self._empty_at = self._server.pid, 0
        async with Client(self._server.endpoints, header_timeout=PATIENCE) as client:
            with suppress(EtcdError):
                if await self._delete_what_came(client):
                    return
        await self._server.wipe()

    async def _delete_what_came(self, client: Client) -> bool:
        """Delete each key that was touched since the store was empty; whether it certainly is again."""
        if (await client.keys.get("/")).index == self._empty_at:
            return True
        if await client.auth.users.list() or await client.auth.roles.list() != ROLES_OF_AN_EMPTY_STORE:
            return False
        now = (await client.keys.set(MARKER, "")).index
        if not 0 < now - self._empty_at <= MOST_CHANGES:
            return False
        names: set[str] = set()
        index = self._empty_at
        while index < now:
            index, key = await _event_after(index, client)
            names.add(key.split("/")[1])
        if any(UNREADABLE in name for name in names):
            return False
        deletions = 0
        for name in names:
            with suppress(KeyNotFoundError):
                await client.keys.delete(f"/{name}", recursive=True)
                deletions += 1
        end = (await client.keys.get("/")).index
        self._empty_at = end if end == now + deletions else now  # others have written meanwhile: next time it is found
        return True


async def _event_after(index: int, client: Client) -> tuple[int, str]:
    """The index and the key of the next event in the server's history, which shows hidden keys, too."""
    wait = {"wait": "true", "recursive": "true", "waitIndex": str(index + 1)}
    node: dict[str, Any] = json.loads((await client.request("GET", "/v2/keys/", params=wait)).body)["node"]
    return node["modifiedIndex"], node["key"]

"""Give each user its own part of the store.

python examples/auth.py
"""

from __future__ import annotations

import asyncio

from aioetcd2 import Client, Permission, UnauthorizedError
from aioetcd2.testing import EtcdServer


async def set_up(client: Client) -> None:
    """A root user, a user with a role, and no access for anyone else."""
    await client.auth.users.add("root", "change me")
    await client.auth.users.add("web", "s3cret")
    await client.auth.roles.add("web-team")
    await client.auth.roles.grant("web-team", "/web/*", permission=Permission.READ_WRITE)
    await client.auth.roles.grant("web-team", "/config/*", permission=Permission.READ)
    await client.auth.users.grant("web", "web-team")
    await client.keys.set("/config/colour", "blue")
    await client.auth.enable()


async def use(name: str, client: Client) -> None:
    for what, call in (
        ("get /config/colour", client.keys.get("/config/colour")),
        ("set /config/colour", client.keys.set("/config/colour", "red")),
        ("set /web/port", client.keys.set("/web/port", "8080")),
    ):
        try:
            await call
        except UnauthorizedError:
            print(f"{name:<8}{what:<20}no")
        else:
            print(f"{name:<8}{what:<20}yes")


async def main() -> None:
    async with EtcdServer() as server:
        async with Client(server.endpoints) as client:
            await set_up(client)

        async with Client(server.endpoints, username="root", password="change me") as root:
            await root.auth.roles.remove("guest")  # what anyone may do; at first that is everything
            role = await root.auth.roles.get("web-team")
            print(f"{role.name} reads {', '.join(role.read)} and writes {', '.join(role.write)}\n")

        async with Client(server.endpoints, username="web", password="s3cret") as web:
            await use("web", web)
        async with Client(server.endpoints) as anyone:
            await use("anyone", anyone)


if __name__ == "__main__":
    asyncio.run(main())

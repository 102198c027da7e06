"""A cluster with a member in a network of its own, which can be cut off from the others while clients reach it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aioetcd2.testing import EtcdServer, find_etcd

if TYPE_CHECKING:
    from typing_extensions import Self

MEMBER = """\
#!/bin/sh
[ "$1" = --version ] && exec {etcd} --version
exec unshare -n sh -c 'ip link set lo up; {python} -m tests.isolation {links} & exec {etcd} "$@"' sh "$@"
"""


def can_isolate() -> bool:
    """Whether this process may make a network, as root may."""
    if not shutil.which("unshare") or not shutil.which("ip"):
        return False
    return subprocess.run(["unshare", "-n", "ip", "link", "set", "lo", "up"], capture_output=True).returncode == 0


class IsolatedCluster:
    """Three members, of which the first can be cut off.

    Args:
        flags: Flags for etcd.

    Attributes:
        members: The members.
    """

    def __init__(self, flags: tuple[str, ...]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="isolated-")
        self._relays: list[subprocess.Popen[bytes]] = []
        self._exit = AsyncExitStack()
        self._flags = flags
        self.members: list[EtcdServer] = []

    async def __aenter__(self) -> Self:
        script = Path(self._folder.name, "etcd")
        self.members = [EtcdServer("m0", flags=self._flags, binary=str(script))]
        self.members += [EtcdServer(f"m{each}", flags=self._flags) for each in (1, 2)]
        first, *others = self.members
        peer, client = self._link(first.peer_url), self._link(first.endpoint)
        outward = [self._link(each.peer_url) for each in others]
        inside = [f"{path}={port}" for port, path in (peer, client)] + [f"{port}={path}" for port, path in outward]
        script.write_text(MEMBER.format(etcd=find_etcd(), python=sys.executable, links=" ".join(inside)))
        script.chmod(0o755)
        for member in self.members:
            member._join(self.members)
            self._exit.push_async_exit(member)
        between = [f"{peer[0]}={peer[1]}", *(f"{path}={port}" for port, path in outward)]
        for links in (between, [f"{client[0]}={client[1]}"]):
            self._relays.append(subprocess.Popen([sys.executable, "-m", "tests.isolation", *links]))
        try:
            for member in self.members:
                member._spawn()
            for member in self.members:
                await member._ready()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for relay in self._relays:
            relay.kill()
            relay.wait()
        await self._exit.aclose()
        self._folder.cleanup()

    def _link(self, url: str) -> tuple[int, str]:
        """A port, and a socket's path by which it is reached from the other network."""
        port = urlsplit(url).port
        assert port is not None
        return port, f"{self._folder.name}/{port}"

    def cut_off(self) -> None:
        """Let nothing pass between the first member and the others; their connections stay open."""
        self._relays[0].send_signal(signal.SIGSTOP)

    def join_again(self) -> None:
        """Undo that."""
        self._relays[0].send_signal(signal.SIGCONT)


async def relay(listen: str, target: str) -> None:
    """Pass on what comes to a port of this machine, or to a socket, to another of these."""

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if target.isdigit():
            return await asyncio.open_connection("127.0.0.1", int(target))
        return await asyncio.open_unix_connection(target)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await connect()
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, back), pump(there, writer))

    if listen.isdigit():
        server = await asyncio.start_server(serve, "127.0.0.1", int(listen))
    else:
        server = await asyncio.start_unix_server(serve, listen)
    async with server:
        await server.serve_forever()


async def main() -> None:
    await asyncio.gather(*(relay(*link.split("=")) for link in sys.argv[1:]))


if __name__ == "__main__":
    os.environ.pop("PYTHONASYNCIODEBUG", None)
    asyncio.run(main())

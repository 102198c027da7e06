"""A register that refuses whoever comes with an older token than it has seen, as what a lock protects should."""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .turns import Act

if TYPE_CHECKING:
    from typing_extensions import Self


class Register:
    """A number, and who may count it up.

    Args:
        path: The socket at which it listens.
        fencing: `False` = it accepts everyone.

    Attributes:
        acts: What it was told, in order.
    """

    def __init__(self, path: str, *, fencing: bool = True) -> None:
        self.path = path
        self.acts: list[Act] = []
        self._fencing = fencing
        self._newest = 0
        self._value = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._accept, self.path)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def act(self, token: int, based: int | None) -> int | None:
        """Read, or count up what was read; the value, or `None` for one who is refused."""
        accepted = token >= self._newest or not self._fencing
        self.acts.append(Act(token, based, self._value, accepted))
        if not accepted:
            return None
        self._newest = max(self._newest, token)
        if based is not None:
            self._value = based + 1
        return self._value

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer), name="register")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                number, token, based = json.loads(line)
                writer.write(json.dumps([number, self.act(token, based)]).encode() + b"\n")
        except OSError:
            pass
        finally:
            writer.close()


class Access:
    """A holder's way to the register."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._number = 0

    @classmethod
    async def to(cls, path: str) -> Self:
        """Connect to the register at this socket."""
        return cls(*await asyncio.open_unix_connection(path))

    async def act(self, token: int, based: int | None = None) -> int | None:
        """Send it at once, before anything else can happen; the value, or `None` where it is refused."""
        self._number += 1
        self._writer.write(json.dumps([self._number, token, based]).encode() + b"\n")
        while True:
            answer: list[Any] = json.loads(await self._reader.readline())
            if answer[0] == self._number:  # or else to one that was cancelled
                value: int | None = answer[1]
                return value

    def close(self) -> None:
        """Hang up."""
        self._writer.close()

"""What the loop over endpoints needs of a transport, so that a scripted one can take its place."""

from __future__ import annotations

from typing import Protocol

from ..models import HTTPResult
from .request import Request


class Answer(Protocol):
    """What an exchange brings: a whole result, or a stream whose body is still coming."""

    @property
    def head(self) -> HTTPResult: ...
    def close(self) -> None: ...


class OpenStream(Answer, Protocol):
    """What a watch needs of a stream."""

    @property
    def address(self) -> str | None:
        """The address that its connection has; `None` = not known, or that of the endpoint anyway."""

    async def read(self) -> bytes: ...


class Exchanger(Protocol):
    """A transport: carries one request to one endpoint."""

    @property
    def closed(self) -> bool: ...
    @property
    def username(self) -> str | None: ...
    async def exchange(
        self, endpoint: str, request: Request, *, trusted: bool = True, address: str | None = None
    ) -> HTTPResult: ...
    async def open(self, endpoint: str, request: Request, *, trusted: bool = True) -> OpenStream: ...
    def avoid(self, address: str) -> None: ...
    def address_of(self, endpoint: str) -> str | None: ...
    def other_addresses(self, endpoint: str, address: str) -> list[str]: ...
    def check_open(self) -> None: ...

"""What the loop over endpoints needs of a transport, so that a scripted one can take its place."""

from __future__ import annotations

from typing import Protocol

from ..models import HTTPResult
from .request import Request


class OpenStream(Protocol):
    """What a watch needs of a stream: an answer whose body is still coming.

    Attributes:
        head: Its status and headers.
        address: The address that its connection has; `None` = not known, or that of the endpoint anyway.
    """

    @property
    def head(self) -> HTTPResult: ...
    @property
    def address(self) -> str | None: ...
    async def read(self) -> bytes: ...
    def close(self) -> None: ...


Answer = HTTPResult | OpenStream
"""What an exchange brings: a whole result, or a stream."""


def head_of(answer: Answer) -> HTTPResult:
    """Status and headers of an answer; with its body, where that has come."""
    return answer if isinstance(answer, HTTPResult) else answer.head


def drop(answer: Answer) -> None:
    """Let go of an answer that is not wanted: a whole one holds no connection."""
    if not isinstance(answer, HTTPResult):
        answer.close()


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

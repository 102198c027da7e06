"""An answer whose body is still coming."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import aiohttp

from ..errors import ConnectionLostError
from ..models import HTTPResult
from .causes import words_of
from .tally import Tally


class Stream:
    """An answer whose body is still coming.

    Attributes:
        head: Status and headers; the body too where the status is not 200.
        address: The address that its connection has, where the endpoint's name may have others.
    """

    __slots__ = ("__weakref__", "_check_open", "_first", "_response", "_tally", "address", "head")

    def __init__(
        self,
        check_open: Callable[[], None],
        response: aiohttp.ClientResponse,
        head: HTTPResult,
        address: str | None,
        tally: Tally,
    ) -> None:
        self._tally = tally
        self._check_open = check_open
        self.address = address
        self._response = response
        self._first = b""
        with suppress(aiohttp.ClientError):  # what has come already; aiohttp would drop it with the connection
            self._first = response.content.read_nowait()
        self.head = head

    @property
    def endpoint(self) -> str:
        """Where it comes from."""
        return self.head.endpoint

    @property
    def closed(self) -> bool:
        """Whether it has ended, or was dropped."""
        return self._response.closed

    async def read(self) -> bytes:
        """The next piece of the body; empty at its end. Cancelling this loses nothing.

        Raises:
            ConnectionLostError: The connection broke.
            ClientClosedError: The client was closed.
        """
        if self._first:
            piece, self._first = self._first, b""
            self._tally.bytes_received += len(piece)
            return piece
        try:
            piece = await self._response.content.readany()
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            self.close()
            self._check_open()
            raise ConnectionLostError(self.head.endpoint, words_of(error)) from error
        self._tally.bytes_received += len(piece)
        return piece

    def close(self) -> None:
        """Drop the answer, and its connection if the body has not ended. Idempotent."""
        self._response.close()

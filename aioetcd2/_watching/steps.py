"""What a machine asks of its driver, and what the driver tells it: the words they share, whatever the API."""

from __future__ import annotations

from enum import Enum, auto
from typing import Any, Protocol

from msgspec import Struct

from ..errors import EtcdError
from ..models import Response


class Patience(Enum):
    """How long a stream may be silent."""

    ENDLESS = auto()
    HUSHED = auto()
    """So many events have come that the server may have dropped the stream."""
    HALFWAY = auto()
    """Half an event has come."""


# --- what is to be done -----------------------------------------------------------------------------------------------


class Open(Struct, frozen=True):
    """Register a stream.

    Attributes:
        since: The index after which events are wanted; `None` = from now on.
        cursor: The same at an endpoint that holds back headers, where nobody knows when «now» was; `None` = there is
            no such index.
        sure: Whether the cluster is known to have come as far as that: where headers are held back, none says so.
    """

    since: int | None
    cursor: int | None
    sure: bool = False


class Read(Struct, frozen=True):
    """Take the next piece of the open stream."""

    patience: Patience


class Fetch(Struct, frozen=True):
    """Fetch from history the event after an index, for what was before the open stream; `crowd`: most are ours."""

    after: int
    until: int
    crowd: bool


class Ask(Struct, frozen=True):
    """Ask the whole cluster how far it has come."""


class Look(Struct, frozen=True):
    """Read what is watched, as it is at this index at least, while the open stream is read as well."""

    quorum: bool
    at_least: int


class Pause(Struct, frozen=True):
    """Take breath after so many failures in a row; none after the first."""

    troubles: int
    error: EtcdError


Todo = Open | Read | Fetch | Ask | Look | Pause


# --- what has happened ------------------------------------------------------------------------------------------------


class Registered(Struct, frozen=True):
    """A stream is open.

    Attributes:
        index: The cluster's index at its registration.
        since: The index after which events were asked for; `None` = from now on.
        cluster: The cluster's ID.
        life: Which life of the cluster's store this is, as far as the client knows.
        doubtful: Whether the member that answered seems to have a shorter past than others had.
        ends: Whether it ends with its first event.
        blind: There is no stream, for its header would come with its first event: ask where the cluster is, first.
    """

    index: int
    since: int | None = None
    cluster: str = ""
    life: int = 0
    doubtful: bool = False
    ends: bool = False
    blind: bool = False


class Heard(Struct, frozen=True):
    """The open stream brought events, perhaps none yet; `halfway`: a part of another one."""

    events: list[Response]
    halfway: bool = False


class Over(Struct, frozen=True):
    """The stream that was open, or about to be, is no more.

    Attributes:
        error: Why; `None` = silence that was expected to end it.
        lasted: Seconds since it was registered.
    """

    error: EtcdError | None = None
    lasted: float = 0.0


class Fetched(Struct, frozen=True):
    """History brought an event."""

    event: Response


class NothingFetched(Struct, frozen=True):
    """History has no event after that index, as far as can be told; `sure`: the server has said so."""

    sure: bool = False


class Answered(Struct, frozen=True):
    """The whole cluster answered: the index it has come to, which life of its store this is, and the cluster's ID."""

    index: int
    life: int
    cluster: str = ""


class Looked(Struct, frozen=True):
    """What is watched, as it was at an index, in the words of an API."""

    index: int
    tree: Any


class Failed(Struct, frozen=True):
    """What was to be done can't be done now."""

    error: EtcdError


class Cleared(Struct, frozen=True):
    """The server no longer holds the events that were asked for."""

    error: EtcdError


class Refused(Struct, frozen=True):
    """What was to be done is not allowed, or can't ever be done; somebody has to know."""

    error: EtcdError


class Spoilt(Struct, frozen=True):
    """An event came that can't be taken."""

    error: EtcdError


class Woke(Struct, frozen=True):
    """The pause is over."""


class Released(Struct, frozen=True):
    """The consumer has left for now: the stream was closed from here."""


Happening = (
    Registered
    | Heard
    | Over
    | Fetched
    | NothingFetched
    | Answered
    | Looked
    | Failed
    | Cleared
    | Refused
    | Spoilt
    | Woke
    | Released
)


Seen = tuple[int, Any]
"""An index, and what was there then, in the words of an API."""


class Progress(Protocol):
    """How far a watch has come, and what it has heard that nobody has taken yet.

    Attributes:
        key: What is watched, as people know it.
        cursor: The index up to which every event was heard; `None` before the first registration.
    """

    key: str
    cursor: int | None

    @property
    def index(self) -> int | None:
        """The index up to which every event was given away."""

    @property
    def has_event(self) -> bool:
        """Whether an event is there to be taken, or an error."""

    def pop(self) -> Response:
        """Take the oldest event.

        Raises:
            EtcdError: It is an error.
        """

    def raise_error(self) -> None:
        """Raise the error that is to be taken next, if it is one.

        Raises:
            EtcdError: It is.
        """

    def give_up(self) -> None:
        """Go back to what was given away, for good."""


class Machine(Protocol):
    """The control of one watch: told what happened, says what to do next. It does nothing itself.

    Attributes:
        position: How far the watch has come.
        registered: Whether it was registered once.
        troubles: How many failures there were in a row.
        resyncs: How often an event stood for what was lost.
    """

    @property
    def position(self) -> Progress: ...
    @property
    def registered(self) -> bool: ...
    @property
    def troubles(self) -> int: ...
    @property
    def resyncs(self) -> int: ...
    @property
    def todo(self) -> Todo:
        """What to do next."""

    @property
    def keeps_stream(self) -> bool:
        """Whether the stream that is open is still wanted."""

    @property
    def streams(self) -> bool:
        """Whether it listens to its stream, and wants nothing else."""

    def happened(self, what: Happening) -> None:
        """Move on; an error that the consumer is to see lies among the events then."""

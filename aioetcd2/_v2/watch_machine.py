"""The control of a watch in v2, as a machine without I/O: it opens nothing, awaits nothing, reads no clock.

=========== ============================== ======================================================================
state       asks for                       left by
=========== ============================== ======================================================================
Registering a stream since the cursor      Registered: Streaming; below the cursor or doubtful: Doubting; another
                                           cluster or life: Gap; no stream (blind): Doubting, Gap where there is no
                                           cursor. Cleared: Gap. Over, Failed: Pausing. Refused: raises, stays.
                                           Released: stays
Streaming   the next piece                 Heard: stays; an event of history: CatchingUp. Over: Pausing, then
                                           Registering, or CatchingUp where most events are ours. Released:
                                           Registering. Spoilt: Pausing; the third time at one place: raises, and
                                           Registering, or Gap with resync. Registered (renewed): as in Registering.
                                           Cleared (as it is renewed): Gap. Refused: raises, Registering
CatchingUp  a stream from now on; then     Registered: as in Registering, but stays while the stream began behind the
            the event after the cursor     cursor. Fetched: stays until the stream's beginning is reached: Streaming.
                                           NothingFetched: Registering (Streaming, where that is sure). Released:
                                           Registering. Cleared: Gap. Over, Failed: Pausing.
                                           Spoilt: as in Streaming. Refused: raises, Registering
Doubting    how far the cluster has come   Answered: the member only lags: Streaming, or CatchingUp as it was
                                           (Registering, where there is no stream); the life has ended: Gap. Over:
                                           Pausing. Failed, Cleared: Pausing, then Doubting while the stream is open.
                                           Refused: raises, stays. Released: Registering
Gap         a stream from now on; then     Registered, Heard, Released: stays. Looked, not below the stream's index:
            a look, while that is read     Streaming, unseen or told once (Registering, where there is no stream);
            (alone, where three streams    below it: looks again with quorum. Over, Failed, Cleared, Spoilt (the third
            in a row did not last)         time raises, too): Pausing, back to Gap. Refused: raises, stays
Pausing     a pause                        Woke: where it came from. Over, Released: stays
=========== ============================== ======================================================================

Where a silence was expected to end a stream no pause comes before what follows. Before the first registration a
failure raises, and no pause follows it.

The cursor is the index up to which every event was handed out, or is proved not to exist. Three things move it: an
event that is taken; a look at its index, where nothing had changed or that was told; the first registration without an
index to begin after. A stream that ends proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import ClassVar

from .._watching import steps
from ..errors import EtcdError, EventIndexClearedError, InvalidResponseError
from ..models import Response
from .hearing import Hearing
from .lost_events import lost_events, outdated
from .past import Past
from .position import Position

MOST_GAP_STREAMS = 3
"""After how many failures in a row a gap is looked at without a stream beside it."""

HELD_FOR_SURE = 1.0
"""Seconds after which a stream that ends was none of a series of failures."""

MOST_SPOILT = 3
"""How often in a row an event that can't be taken is asked for at one place."""

OUTDATED = outdated("")
"""What a server would say of a gap of which none has said anything; one for all watches, and never raised itself."""


class State(Enum):
    """Where a watch is; see the table above."""

    REGISTERING = auto()
    STREAMING = auto()
    CATCHING_UP = auto()
    DOUBTING = auto()
    GAP = auto()
    PAUSING = auto()


class WatchMachine:
    """The control of one watch.

    Args:
        position: Where it begins, and what it has heard.
        resync: Whether lost events are an event, instead of an error.

    Attributes:
        state: Where it is.
        position: What it has heard.
        registered: Whether it was registered once.
        troubles: How many failures there were in a row.
        resyncs: How often an event stood for what was lost.
    """

    __slots__ = (
        *("position", "registered", "resyncs", "state", "troubles", "_cleared_by", "_crowd", "_in_gap", "_lost"),
        *("_past", "_quorum", "_resync", "_spoilt", "_stream", "_sure", "_then", "_trouble"),
    )

    def __init__(self, position: Position, resync: bool) -> None:
        self.position = position
        self.state = State.REGISTERING
        self.registered = False
        self.troubles = 0
        self.resyncs = 0
        self._resync = resync
        self._past = Past()
        self._stream: Hearing | None = None
        self._crowd = False  # whether most of what is to be fetched is ours
        self._quorum = False
        self._sure = False  # just now, an answer showed the cluster to be at the cursor at least
        self._in_gap = False  # until a look has succeeded
        self._lost: EventIndexClearedError | None = None  # a gap's error, where it needs no look to be sure
        self._cleared_by = OUTDATED
        self._trouble: EtcdError = OUTDATED
        self._then = State.REGISTERING
        self._spoilt = (0, 0)  # how often, after which index

    @property
    def streams(self) -> bool:
        """Whether it listens to its stream, and wants nothing else."""
        return self.state is State.STREAMING

    @property
    def keeps_stream(self) -> bool:
        """Whether the stream that is open is still wanted."""
        return self._stream is not None

    @property
    def todo(self) -> steps.Todo:
        """What to do next."""
        stream = self._stream
        match self.state:
            case State.STREAMING if stream is not None:
                return stream.todo
            case State.REGISTERING:
                return steps.Open(self.position.cursor, self.position.cursor, self._sure)
            case State.CATCHING_UP if stream is None:
                return steps.Open(None, self.position.cursor, self._sure)
            case State.CATCHING_UP if stream is not None:
                return steps.Fetch(self.position.reached, stream.index, self._crowd)
            case State.GAP if stream is not None:
                return steps.Look(self._quorum, stream.index)
            case State.DOUBTING:
                return steps.Ask()
            case State.PAUSING:
                return steps.Pause(self.troubles, self._trouble)
        return steps.Open(None, None)

    def happened(self, what: steps.Happening) -> None:
        """Move on; an error that the consumer is to see lies among the events then."""
        self._sure = self._sure and isinstance(what, steps.Woke)
        self.TABLE[self.state, type(what)](self, what)

    # --- a stream is open ---------------------------------------------------------------------------------------------

    def _registered(self, stream: steps.Registered) -> None:
        """A stream since the cursor, or one from now on beside which history is fetched."""
        self._stream = Hearing(stream)
        position = self.position
        if stream.blind:
            self._begin_blindly()
        elif position.cursor is None:
            position.begin(stream.index)
            self._accept(stream)
        elif (elsewhere := self._past.elsewhere(stream.cluster, stream.life)) is not None:
            self._gap(elsewhere)
        elif stream.index < position.reached or stream.doubtful:
            self.state = State.DOUBTING
        else:
            self._accept(stream)

    def _begin_blindly(self) -> None:
        """Begin where no header says when the watch is registered: with a look, or by asking where the cluster is."""
        self._in_gap = self.position.cursor is None  # with nothing to lose yet
        self.state = State.GAP if self._in_gap else State.DOUBTING
        if not self._in_gap:
            self._drop()

    def _accept(self, stream: steps.Registered) -> None:
        """Listen to a stream from here on."""
        self._past.believe(stream.cluster, stream.life)
        self.registered = True
        behind = stream.since is None and self.position.reached < stream.index
        self.state = State.CATCHING_UP if behind else State.STREAMING

    def _registered_in_gap(self, stream: steps.Registered) -> None:
        if not stream.blind:  # or no header says whose it is
            self._lost = self._lost or self._past.elsewhere(stream.cluster, stream.life)
        self._stream = Hearing(stream)
        behind = stream.doubtful or stream.index < self.position.reached
        if self._lost is None and behind and self.position.cursor is not None and not stream.blind:
            self.state = State.DOUBTING  # what the look shows may be of another life, though it seems unchanged

    # --- events -------------------------------------------------------------------------------------------------------

    def _heard(self, what: steps.Heard) -> None:
        stream = self._hearing
        for event in what.events:
            self._take(event)
        stream.hear(what)
        if stream.is_history:
            self._drop()
            self._crowd = False
            self.state = State.CATCHING_UP

    def _heard_in_gap(self, what: steps.Heard) -> None:
        stream = self._hearing
        stream.held += what.events
        stream.hear(what)

    def _fetched(self, what: steps.Fetched) -> None:
        self._take(what.event)
        if self.position.reached >= self._hearing.index:
            self.state = State.STREAMING

    def _nothing_fetched(self, what: steps.NothingFetched) -> None:
        """A stream since the cursor brings what follows, whatever that is; the open one, where that is sure."""
        if what.sure:
            self.state = State.STREAMING
        else:
            self._drop()
            self.state = State.REGISTERING

    def _take(self, event: Response) -> None:
        if self.position.take(event):
            self.troubles = 0

    # --- the end of a stream ------------------------------------------------------------------------------------------

    def _over(self, what: steps.Over) -> None:
        self._crowd = self._stream is not None and self._stream.is_crowd  # then another one, from now on, at once
        self._sure = self._stream is not None and self._stream.has_ended_well
        then = State.CATCHING_UP if self._crowd else State.REGISTERING
        self._drop()
        if what.lasted >= HELD_FOR_SURE:
            self.troubles = 0
        self._go_on(what.error, then)

    def _over_at_once(self, what: steps.Over) -> None:
        self._drop()
        self._go_on(what.error, self._again)

    def _go_on(self, error: EtcdError | None, then: State) -> None:
        """Go on after an expected end at once, after a failure with a pause."""
        if error is None:
            self.state = then
        else:
            self._pause(error, then)

    def _only_drop(self, _: steps.Over | steps.Released) -> None:
        self._drop()

    def _released(self, _: steps.Released) -> None:
        self._drop()
        self.state = self._again

    @property
    def _again(self) -> State:
        """Where to open another stream."""
        return State.GAP if self._in_gap else State.REGISTERING

    @property
    def _hearing(self) -> Hearing:
        assert self._stream is not None
        return self._stream

    def _drop(self) -> None:
        self._stream = None

    # --- failures -----------------------------------------------------------------------------------------------------

    def _failed(self, what: steps.Failed | steps.Cleared) -> None:
        if self.state not in (State.DOUBTING, State.GAP):
            self._drop()
            self.state = State.REGISTERING
        if self.registered:
            self._pause(what.error, self.state)
        else:
            self.position.tell(what.error)

    def _pause(self, error: EtcdError, then: State) -> None:
        self.troubles += 1
        self._trouble = error
        self._then = then
        self.state = State.PAUSING

    def _woke(self, _: steps.Woke) -> None:
        self.state = self._then
        if self._stream is None and self.state is State.DOUBTING:
            self.state = self._again
        elif self._stream is None and self.state is State.GAP and self.troubles >= MOST_GAP_STREAMS:
            self._stream = Hearing(steps.Registered(0, blind=True))  # no stream lasts: the look has to do without one

    def _refused(self, what: steps.Refused) -> None:
        self.position.tell(what.error)

    def _refused_streaming(self, what: steps.Refused) -> None:
        self._released(steps.Released())
        self.position.tell(what.error)

    def _spoilt_event(self, what: steps.Spoilt) -> None:
        self._drop()
        if not self._is_spoilt_for_good():
            self._pause(what.error, State.REGISTERING)
        elif self._resync:
            self._gap(outdated("an event that can't be taken"))
        else:
            self.state = State.REGISTERING
            self.position.tell(what.error)

    def _spoilt_in_gap(self, what: steps.Spoilt) -> None:
        self._drop()
        self._pause(what.error, State.GAP)
        if self._is_spoilt_for_good():
            self.position.tell(what.error)

    def _is_spoilt_for_good(self) -> bool:
        """Whether it is the third time in a row at this place."""
        times, where = self._spoilt
        times = times + 1 if where == self.position.reached else 1
        self._spoilt = times % MOST_SPOILT, self.position.reached
        return times == MOST_SPOILT

    # --- what the server's past is ------------------------------------------------------------------------------------

    def _cleared(self, what: steps.Cleared) -> None:
        self._cleared_by = what.error if isinstance(what.error, EventIndexClearedError) else OUTDATED
        self._gap(None)

    def _gap(self, lost: EventIndexClearedError | None) -> None:
        """Go on behind a gap; `lost`: it is known that events are lost."""
        self._drop()
        self._lost = lost
        self._quorum = False
        self._in_gap = True
        self.state = State.GAP

    def _answered(self, what: steps.Answered) -> None:
        elsewhere = self._past.elsewhere(what.cluster, what.life, what.index, self.position.reached)
        if elsewhere is not None:
            self._gap(elsewhere)
        elif self._in_gap:
            self.state = State.GAP
        elif self._stream is None:
            self._past.believe(what.cluster, what.life)
            self.registered = self._sure = True
            self.state = State.REGISTERING
        else:
            self._accept(self._hearing.registered)

    def _looked(self, what: steps.Looked) -> None:
        stream = self._hearing
        if what.index < stream.index:  # of a member that lags: it may not know yet what the stream did not bring
            if self._quorum:
                self._pause(InvalidResponseError("", "a read with quorum lags"), State.GAP)
            self._quorum = True
            return
        position = self.position
        lost = self._lost or self._past.elsewhere(what.tree.cluster, what.tree.life)
        if lost is None and position.cursor is not None and position.may_have_missed(what.tree):
            lost = self._cleared_by
        if lost is not None and self._resync:
            position.resync(what.index, what.tree)
            self.resyncs += 1
        else:
            if lost is not None:
                position.tell(lost_events(lost, position.key, what.index))
            position.skip(what.index, what.tree)
        go_on = self._past.believe if lost is None else self._past.begin_anew
        go_on(what.tree.cluster, what.tree.life)
        self._settle(stream)

    def _settle(self, hearing: Hearing) -> None:
        """Go on with a gap's stream, dropping what the look has told."""
        stream = hearing.registered
        self._lost = None
        self._in_gap = False
        self.registered = True
        if stream.blind:
            self._drop()
            self.state = State.REGISTERING
            return
        self._accept(stream)
        for event in hearing.held:
            self._take(event)
        hearing.held.clear()

    TABLE: ClassVar[dict[tuple[State, type[steps.Happening]], Callable[..., None]]] = {
        (State.REGISTERING, steps.Registered): _registered,
        (State.REGISTERING, steps.Over): _over_at_once,
        (State.REGISTERING, steps.Failed): _failed,
        (State.REGISTERING, steps.Cleared): _cleared,
        (State.REGISTERING, steps.Refused): _refused,
        (State.REGISTERING, steps.Released): _released,
        (State.STREAMING, steps.Heard): _heard,
        (State.STREAMING, steps.Over): _over,
        (State.STREAMING, steps.Spoilt): _spoilt_event,
        (State.STREAMING, steps.Released): _released,
        (State.STREAMING, steps.Registered): _registered,
        (State.STREAMING, steps.Cleared): _cleared,
        (State.STREAMING, steps.Refused): _refused_streaming,
        (State.CATCHING_UP, steps.Registered): _registered,
        (State.CATCHING_UP, steps.Fetched): _fetched,
        (State.CATCHING_UP, steps.NothingFetched): _nothing_fetched,
        (State.CATCHING_UP, steps.Over): _over_at_once,
        (State.CATCHING_UP, steps.Failed): _failed,
        (State.CATCHING_UP, steps.Cleared): _cleared,
        (State.CATCHING_UP, steps.Refused): _refused_streaming,
        (State.CATCHING_UP, steps.Spoilt): _spoilt_event,
        (State.CATCHING_UP, steps.Released): _released,
        (State.DOUBTING, steps.Answered): _answered,
        (State.DOUBTING, steps.Over): _over_at_once,
        (State.DOUBTING, steps.Failed): _failed,
        (State.DOUBTING, steps.Cleared): _failed,
        (State.DOUBTING, steps.Refused): _refused,
        (State.DOUBTING, steps.Released): _released,
        (State.GAP, steps.Registered): _registered_in_gap,
        (State.GAP, steps.Heard): _heard_in_gap,
        (State.GAP, steps.Looked): _looked,
        (State.GAP, steps.Over): _over_at_once,
        (State.GAP, steps.Failed): _failed,
        (State.GAP, steps.Cleared): _failed,
        (State.GAP, steps.Refused): _refused,
        (State.GAP, steps.Spoilt): _spoilt_in_gap,
        (State.GAP, steps.Released): _only_drop,
        (State.PAUSING, steps.Woke): _woke,
        (State.PAUSING, steps.Over): _only_drop,
        (State.PAUSING, steps.Released): _only_drop,
    }
    """What is done in a state where something happens; what is not here can't happen."""

"""Does what the machine of a watch says: opens, reads, looks, sleeps. Cancelled at any await, it loses nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import ClassVar

from ..errors import ClientClosedError, ClusterError, ConnectionLostError, EtcdError, InvalidResponseError
from ..models import Response
from . import steps
from .opening import cancel_all, consume_exception, settle
from .registration import Registration, Where
from .renewal import Renewal
from .speaker import EventStream, Speaker
from .surroundings import Surroundings


class Driver:
    """Behind `Watcher`, whatever the API.

    Args:
        surroundings: What all watches of the client share.
        machine: What says what to do.
        speaker: What says it in the words of an API.

    Attributes:
        closed: Whether the watch has ended.
    """

    __slots__ = (
        *("__weakref__", "closed", "tally", "_at", "_ending", "_live", "_machine"),
        *("_registration", "_renewal", "_shared", "_speaker", "_step"),
    )

    def __init__(self, surroundings: Surroundings, machine: steps.Machine, speaker: Speaker) -> None:
        self._shared = surroundings
        self._machine = machine
        self._speaker = speaker
        self._step: asyncio.Task[None] | None = None
        self._renewal = Renewal(surroundings, speaker, self._renewed)
        self._ending: set[asyncio.Task[None]] = set()
        self._registration = Registration(surroundings, speaker, machine.position.key, self._move)
        self._live: EventStream | None = None
        self._at: Where | None = None
        self.tally = surroundings.reporter.tally
        self.closed = False
        surroundings.liveness.add(self)

    # --- what the facade asks -----------------------------------------------------------------------------------------

    @property
    def client_closed(self) -> bool:
        """Whether the whole client is closed."""
        return self._shared.failover.closed

    @property
    def last_heard(self) -> float | None:
        """When something was last heard of the watch or of its endpoint, by the monotonic clock."""
        if self._live is None or self._at is None:
            return None
        return max(self._live.heard_at, self._shared.liveness.answered_at(*self._at) or 0.0)

    async def advance(self) -> None:
        """One step towards the next event.

        Where this is cancelled, a step goes on that is more than listening, so that callers with little patience get
        there too, however long it takes to connect.
        """
        if self.closed:
            raise ClientClosedError("the watcher is closed")
        if self._step is None:
            todo = self._machine.todo
            if not isinstance(todo, steps.Read):
                self._begin(self._do(todo))
            elif not await self._read(todo):
                return
        step = self._step
        assert step is not None
        try:
            await asyncio.wait((step,))
        except BaseException:
            if (
                self._at is not None
                and self._registration.opening.task is not None
                and self._shared.buffering.at(self._at[0])
            ):
                await self._abandon(step)  # there, this is listening
            raise
        if self._step is step:
            self._step = None
        if step.cancelled() and self.closed:
            raise ClientClosedError("the watcher is closed")
        if not step.cancelled():
            step.result()

    def rest(self) -> None:
        """Free the connection until the next event is asked for. No failure."""
        if self._step is not None:
            self._step.cancel()
            self._ending.add(self._step)
            self._step.add_done_callback(self._ending.discard)
            self._step = None
        self._move(None)
        self._close_live()
        self._registration.opening.call_off()
        cancel_all(self._renewal.task, *self._speaker.tasks)
        self._machine.happened(steps.Released())

    def evict(self) -> None:
        """Leave the endpoint, which does not answer, for another."""
        self._registration.opening.call_off()
        if self._live is not None:
            self._live.close()
        self._speaker.evict()

    def abort(self) -> None:
        """Stop watching, and free the connection, without waiting for the end of what is under way."""
        self.closed = True
        self._machine.position.give_up()
        self._shared.liveness.discard(self)
        self._move(None)
        self.evict()
        cancel_all(self._step, self._renewal.task, *self._speaker.tasks)

    async def aclose(self) -> None:
        """Stop watching, and wait for the end of what is under way. Idempotent."""
        tasks = [self._step, self._renewal.task, self._registration.opening.task, *self._ending, *self._speaker.tasks]
        self.abort()
        for task in filter(None, tasks):
            await settle(task)

    def renew_if_quiet_since(self, moment: float) -> None:
        """Register anew where nothing was heard since then: what is in between may have forgotten the connection."""
        if self._live is not None and self._live.heard_at <= moment and self._machine.streams:
            self._renewal.begin(self._live, self._machine.position.cursor)

    # --- listening ----------------------------------------------------------------------------------------------------

    async def _read(self, todo: steps.Read) -> bool:
        """Take the next piece of the stream; true where a step was begun instead."""
        live = self._live
        assert live is not None
        start = time.monotonic()
        try:
            if todo.patience is steps.Patience.ENDLESS:
                events = await live.read()
            else:
                deadlines = self._shared.hush if todo.patience is steps.Patience.HUSHED else self._shared.stuck
                deadlines.check(live.silence)
                with deadlines.begin():
                    events = await live.read()
        except asyncio.CancelledError:
            live.silence += time.monotonic() - start  # who waits a little at a time has waited as well
            raise
        except asyncio.TimeoutError:
            if todo.patience is steps.Patience.HALFWAY:
                self._begin(self._stuck(live))
                return True
            self._tell(steps.Over(None, live.age))
        except (ConnectionLostError, InvalidResponseError) as error:
            if self.closed:
                raise ClientClosedError("the watcher is closed") from None
            if live is self._live:
                self._broke(live, error)
        else:
            self._heard(live, events)
        return False

    def _heard(self, live: EventStream, events: list[Response] | None) -> None:
        """What a stream has brought; nothing of one that was replaced meanwhile, whose successor brings it, too."""
        if live is not self._live:
            return
        if events is None:
            self._broke(live, ConnectionLostError(live.endpoint, "the wait ended without an event"))
            return
        live.silence = 0.0
        self._speaker.heard(events)
        self._tell(steps.Heard(events, live.halfway))

    def _broke(self, live: EventStream, error: EtcdError) -> None:
        if isinstance(error, InvalidResponseError):
            self._tell(steps.Spoilt(error))
        else:
            self._tell(steps.Over(error, live.age))

    async def _stuck(self, live: EventStream) -> None:
        """Half an event, and silence: something in between holds back the rest, perhaps."""
        await self._shared.buffering.judge(live.endpoint)
        if live is self._live:
            self._tell(steps.Over(None, live.age))

    # --- steps --------------------------------------------------------------------------------------------------------

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        self._step = asyncio.ensure_future(work)
        self._step.add_done_callback(consume_exception)

    async def _abandon(self, step: asyncio.Task[None]) -> None:
        step.cancel()
        self._step = None
        await settle(step)

    async def _do(self, todo: steps.Todo) -> None:
        if not isinstance(todo, steps.Fetch):
            await self._speaker.stop_fetching()
        await self._DOES[type(todo)](self, todo)

    def _tell(self, what: steps.Happening) -> None:
        """Let the machine move on, and close the stream that it does not want any more."""
        self._machine.happened(what)
        if not self._machine.keeps_stream:
            self._close_live()
        elif self._live is not None and self._machine.streams:
            self._speaker.listens(self._live)

    def _close_live(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.close()

    def _move(self, where: Where | None) -> None:
        if where != self._at:
            if self._at is not None:
                self._shared.liveness.detach(self, *self._at)
            if where is not None and not self.closed:
                self._shared.liveness.attach(self, *where)
            self._at = where

    async def _pause(self, todo: steps.Pause) -> None:
        await self._shared.outage.pause(self._machine.position.key, todo.troubles, todo.error)
        self._tell(steps.Woke())

    async def _open(self, todo: steps.Open) -> None:
        """Register a stream."""
        outcome = await self._registration.register(todo, again=self._machine.registered)
        if isinstance(outcome, tuple):
            self._take(*outcome)
        elif outcome is not None:
            self._tell(outcome)

    def _take(self, live: EventStream, registered: steps.Registered) -> None:
        """Go on with a stream that was opened."""
        self._close_live()
        self._live = live
        self._move((live.endpoint, live.address))
        self._tell(registered)

    async def _fetch(self, todo: steps.Fetch) -> None:
        try:
            fetched = await self._speaker.fetch(todo)
        except EtcdError as error:
            self._tell(self._mapped(error))
        else:
            self._tell(fetched)
            if self._machine.streams:
                await self._speaker.stop_fetching()

    async def _ask(self, _: steps.Ask) -> None:
        """Ask how far the cluster has come; without a stream, as one tries to register."""
        if self._live is not None:
            self._tell(await self._answer())
            return
        outage, key, attempt = self._shared.outage, self._machine.position.key, asyncio.current_task()
        self._move(None)
        await outage.enter(attempt)
        try:
            answer = await self._answer()
            if isinstance(answer, steps.Failed):
                outage.failed(attempt, key, answer.error)
            else:
                outage.answered(key)
        finally:
            outage.leave(attempt)
        self._tell(answer)

    async def _answer(self) -> steps.Happening:
        try:
            return await self._speaker.ask()
        except EtcdError as error:
            return steps.Failed(error) if isinstance(error, InvalidResponseError) else self._mapped(error)

    def _mapped(self, error: EtcdError) -> steps.Happening:
        """What a failure means of what was asked beside a stream."""
        if isinstance(error, InvalidResponseError):
            return steps.Spoilt(error)
        if isinstance(error, (ClusterError, ConnectionLostError)):
            return steps.Failed(error)
        return self._speaker.mapped(error)

    async def _look(self, todo: steps.Look) -> None:
        """Look at what is watched, and take what the stream brings meanwhile."""
        blind = self._live is None
        look = asyncio.ensure_future(self._speaker.look(quorum=todo.quorum, at_least=todo.at_least))
        try:
            await self._listen_until(look)
            if blind:
                await asyncio.wait((look,))
        finally:
            look.cancel()
            await settle(look)
        if look.cancelled() or (self._live is None and not blind):
            return  # the stream is over, and the machine knows
        resyncs = self._machine.resyncs
        try:
            seen = look.result()
        except EtcdError as error:
            self._tell(self._mapped(error))
        else:
            self._tell(steps.Looked(*seen))
            if self._machine.resyncs != resyncs:
                self._shared.reporter.watch_resynchronized(self._machine.position.key, seen[0])

    async def _listen_until(self, done: asyncio.Task[steps.Seen]) -> None:
        """Take what the stream brings until a task is done, or the stream is over."""
        while not done.done() and (live := self._live) is not None:
            reading = asyncio.ensure_future(live.read())
            try:
                await asyncio.wait((done, reading), return_when=asyncio.FIRST_COMPLETED)
            finally:
                reading.cancel()
                try:
                    await settle(reading)
                finally:
                    if not reading.cancelled():  # whatever else happens, what was read is not lost
                        self._take_reading(live, reading)

    def _take_reading(self, live: EventStream, reading: asyncio.Task[list[Response] | None]) -> None:
        try:
            self._heard(live, reading.result())
        except EtcdError as error:
            if live is self._live:
                self._broke(live, error)

    def _renewed(self, old: EventStream, outcome: tuple[EventStream, steps.Registered] | EtcdError) -> None:
        """A quiet stream was registered anew, or can't be: the old one is closed only now."""
        if old is not self._live or not self._machine.streams or self.closed:
            if isinstance(outcome, tuple):
                outcome[0].close()
        elif isinstance(outcome, tuple):
            self._take(*outcome)
        else:
            self._tell(self._speaker.mapped(outcome))

    _DOES: ClassVar[dict[type[steps.Todo], Callable[..., Awaitable[None]]]] = {
        steps.Open: _open,
        steps.Fetch: _fetch,
        steps.Ask: _ask,
        steps.Look: _look,
        steps.Pause: _pause,
    }

"""What one endpoint's outcome means for a call: go on, give up, raise or return. No I/O, no state.

=====================================  ==================  ==================  ==========================
outcome at one endpoint                may be repeated     is sent once        the endpoint
=====================================  ==================  ==================  ==========================
UNSENT: name, refused, connect, TLS    next                next                cools down
HINDERED: no descriptor left, here     next                next                nothing is known of it
NOT_SERVED: it has no such path        next                next                cools down
UNANSWERED: EOF, reset, time-out       next                give up             cools down
FAILED: a 5xx                          next                give up             cools down
UNUSABLE: an answer none of etcd's     next                give up             cools down
STRANGE: another cluster's answer      next; a write: give up; either way      cools down
REFUSED: a 4xx and the like            raise               raise               is healthy
ANSWERED: anything else                return              return              is healthy
=====================================  ==================  ==================  ==========================

Reads may be repeated; plain writes (`Replay.IF_ALLOWED`) by a client only that has `repeat_writes`; other writes never.

An endpoint that is healthy after others have failed in the same pass gets the pin. Where a call goes on and there is no
next endpoint, it gives up: it raises what the pass as a whole amounts to (`sum_up`).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, IntEnum, auto
from itertools import product
from typing import NamedTuple

from ..errors import (
    ClusterError,
    ClusterMismatchError,
    ConnectError,
    ConnectionLostError,
    EndpointError,
    EtcdError,
    HeaderTimeoutError,
    InvalidResponseError,
    ServerError,
)
from .request import Replay, Request


class NotServedError(InvalidResponseError):
    """The endpoint serves no such path, so that the request certainly was not carried out there."""


class Outcome(IntEnum):
    """How a request fared at one endpoint."""

    UNSENT = auto()
    HINDERED = auto()
    NOT_SERVED = auto()
    UNANSWERED = auto()
    FAILED = auto()
    UNUSABLE = auto()
    STRANGE = auto()
    REFUSED = auto()
    ANSWERED = auto()


class Place(IntEnum):
    """Where in its pass an endpoint was asked."""

    FIRST = auto()
    AFTER_FAILURES = auto()


class Step(Enum):
    """What a call does then."""

    NEXT = auto()
    GIVE_UP = auto()
    RAISE = auto()
    RETURN = auto()


class Verdict(NamedTuple):
    """What an outcome means.

    Attributes:
        step: What the call does.
        cools: Whether the endpoint cools down.
        heals: Whether the endpoint is healthy.
        pins: Whether the endpoint gets the pin.
        maybe_applied: Whether a write may have been carried out there.
    """

    step: Step
    cools: bool
    heals: bool
    pins: bool
    maybe_applied: bool


_MAYBE_APPLIED = (Outcome.UNANSWERED, Outcome.FAILED, Outcome.UNUSABLE, Outcome.STRANGE)
_STEPS = {Outcome.REFUSED: Step.RAISE, Outcome.ANSWERED: Step.RETURN}
_HEALTHY = (Outcome.REFUSED, Outcome.ANSWERED)


def _judge(outcome: Outcome, replay: Replay, place: Place, writes: bool, repeat_writes: bool) -> Verdict:
    maybe_applied = outcome in _MAYBE_APPLIED
    repeated = replay is Replay.ALWAYS or (replay is Replay.IF_ALLOWED and repeat_writes)
    once = writes if outcome is Outcome.STRANGE else not repeated
    step = _STEPS.get(outcome, Step.GIVE_UP if once and maybe_applied else Step.NEXT)
    heals = outcome in _HEALTHY
    cools = not heals and outcome is not Outcome.HINDERED
    return Verdict(step, cools, heals, heals and place is Place.AFTER_FAILURES, maybe_applied and writes)


# The keys are ints, for an Enum's hash is computed in Python, with each call.
_TABLE = {cell: _judge(*cell) for cell in product(Outcome, Replay, Place, (False, True), (False, True))}


def verdict(outcome: Outcome, request: Request, place: Place, *, repeat_writes: bool = False) -> Verdict:
    """What an outcome means for a request, by the table above."""
    return _TABLE[outcome, request.replay, place, request.writes, repeat_writes]


def outcome_of(error: EtcdError, request: Request) -> Outcome:
    """Which outcome an error is."""
    match error:
        case ConnectError():
            return Outcome.HINDERED if error.ours else Outcome.UNSENT
        case HeaderTimeoutError() | ConnectionLostError():
            unsent = request.writes and not error.maybe_applied
            return Outcome.UNSENT if unsent else Outcome.UNANSWERED
        case ServerError(status=413):
            return Outcome.UNSENT
        case EndpointError():
            return Outcome.FAILED
        case NotServedError():
            return Outcome.NOT_SERVED
        case InvalidResponseError():
            return Outcome.UNUSABLE
        case ClusterMismatchError():
            return Outcome.STRANGE
    return Outcome.REFUSED


def failure_of(error: EtcdError, request: Request, judged: Verdict) -> EndpointError:
    """An error as the failure of one endpoint, where others may know better."""
    assert isinstance(error, (EndpointError, InvalidResponseError, ClusterMismatchError))
    if isinstance(error, ClusterMismatchError):
        error.maybe_applied = judged.maybe_applied
        failure = EndpointError(error.endpoint, error.reason, maybe_applied=judged.maybe_applied)
        failure.__cause__ = error
        return failure
    if isinstance(error, EndpointError):
        error.maybe_applied = judged.maybe_applied
        return error
    if request.secret:
        error._hide_body()
    error.maybe_applied = judged.maybe_applied
    return error._as_failure()


def sum_up(request: Request, failures: Iterable[EndpointError], told: EtcdError | None) -> EtcdError:
    """What a pass amounts to in which no endpoint gave an answer that counts.

    Args:
        request: What was asked.
        failures: One for each try, in their order.
        told: What the API's own knowledge says, which is more to the point unless the write may have been applied
            elsewhere.
    """
    whole = ClusterError(str(request), failures)
    elsewhere = [failure for failure in whole.errors if failure.maybe_applied and failure.__cause__ is not told]
    if isinstance(told, ClusterMismatchError) and not elsewhere:
        return told
    if told is not None and not whole.maybe_applied:
        return told
    causes = [failure.__cause__ for failure in whole.errors]
    unusable = [cause for cause in causes if isinstance(cause, InvalidResponseError)]
    if unusable and len(unusable) == len(causes):
        return unusable[0]._as_outcome(str(request), whole.errors)
    return whole

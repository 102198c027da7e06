"""The verdict on an outcome: each outcome, replay and place; which error is which outcome; the sum of a pass."""

from __future__ import annotations

from itertools import product

import pytest

from aioetcd2 import (
    APIError,
    ClientClosedError,
    ClusterError,
    ClusterMismatchError,
    ConnectError,
    ConnectionLostError,
    EndpointError,
    EtcdError,
    HeaderTimeoutError,
    InvalidResponseError,
    KeyNotFoundError,
    NoLeaderError,
    RedirectError,
    ServerError,
    V2DisabledError,
)
from aioetcd2._net.request import Replay, Request
from aioetcd2._net.verdict import (
    NotServedError,
    Outcome,
    Place,
    Step,
    Verdict,
    failure_of,
    outcome_of,
    sum_up,
    verdict,
)

A, B = "http://a:1", "http://b:2"
READ = Request("GET", "/k")
WRITE = Request("PUT", "/k", b"value=v", replay=Replay.IF_ALLOWED, writes=True)
CREATE = Request("PUT", "/k", b"value=v", replay=Replay.IF_UNSENT, writes=True)

NEXT, GIVE_UP, RAISE, RETURN = Step.NEXT, Step.GIVE_UP, Step.RAISE, Step.RETURN

EXPECTED = {  # outcome: step where it may be repeated, where it is sent once; cools, heals; maybe applied
    Outcome.UNSENT: (NEXT, NEXT, True, False, False),
    Outcome.HINDERED: (NEXT, NEXT, False, False, False),
    Outcome.NOT_SERVED: (NEXT, NEXT, True, False, False),
    Outcome.UNANSWERED: (NEXT, GIVE_UP, True, False, True),
    Outcome.FAILED: (NEXT, GIVE_UP, True, False, True),
    Outcome.UNUSABLE: (NEXT, GIVE_UP, True, False, True),
    Outcome.REFUSED: (RAISE, RAISE, False, True, False),
    Outcome.ANSWERED: (RETURN, RETURN, False, True, False),
}


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """Nothing here opens anything, so there is nothing to look for."""


def test_every_outcome_is_expected() -> None:
    assert set(EXPECTED) | {Outcome.STRANGE} == set(Outcome)


@pytest.mark.parametrize("repeat_writes", [False, True])
@pytest.mark.parametrize(
    ("outcome", "replay", "place", "writes"), list(product(EXPECTED, Replay, Place, (False, True)))
)
def test_every_outcome_replay_and_place(
    outcome: Outcome, replay: Replay, place: Place, writes: bool, repeat_writes: bool
) -> None:
    repeated, once, cools, heals, maybe_applied = EXPECTED[outcome]
    may_be_repeated = {Replay.ALWAYS: True, Replay.IF_ALLOWED: repeat_writes, Replay.IF_UNSENT: False}[replay]
    request = Request("PUT", "/k", replay=replay, writes=writes)
    assert verdict(outcome, request, place, repeat_writes=repeat_writes) == Verdict(
        step=repeated if may_be_repeated else once,
        cools=cools,
        heals=heals,
        pins=heals and place is Place.AFTER_FAILURES,
        maybe_applied=maybe_applied and writes,
    )


@pytest.mark.parametrize("repeat_writes", [False, True])
@pytest.mark.parametrize("replay", Replay)
@pytest.mark.parametrize("place", Place)
def test_a_read_goes_past_a_stranger_and_a_write_stops_there(replay: Replay, place: Place, repeat_writes: bool) -> None:
    read = verdict(Outcome.STRANGE, Request("GET", "/k", replay=replay), place, repeat_writes=repeat_writes)
    assert read == Verdict(NEXT, cools=True, heals=False, pins=False, maybe_applied=False)
    write = verdict(
        Outcome.STRANGE, Request("PUT", "/k", replay=replay, writes=True), place, repeat_writes=repeat_writes
    )
    assert write == Verdict(GIVE_UP, cools=True, heals=False, pins=False, maybe_applied=True)


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("place", Place)
def test_a_write_that_may_have_been_applied_is_never_sent_again(outcome: Outcome, place: Place) -> None:
    for request, repeat_writes in ((WRITE, False), (CREATE, False), (CREATE, True)):
        judged = verdict(outcome, request, place, repeat_writes=repeat_writes)
        assert not (judged.maybe_applied and judged.step is NEXT)


ERRORS = [
    (ConnectError(A, "refused"), Outcome.UNSENT),
    (ConnectError(A, "Too many open files", ours=True), Outcome.HINDERED),
    (HeaderTimeoutError(A, "no answer", maybe_applied=True), Outcome.UNANSWERED),
    (ConnectionLostError(A, "reset", maybe_applied=True), Outcome.UNANSWERED),
    (NoLeaderError(A, "no leader"), Outcome.FAILED),
    (ServerError(A, "500"), Outcome.FAILED),
    (NotServedError(A, "no such page"), Outcome.NOT_SERVED),
    (InvalidResponseError(A, "no JSON"), Outcome.UNUSABLE),
    (ClusterMismatchError(A, "1", "2"), Outcome.STRANGE),
    (KeyNotFoundError(100, "Key not found"), Outcome.REFUSED),
    (APIError(0, "?"), Outcome.REFUSED),
    (RedirectError("nowhere"), Outcome.REFUSED),
    (ClientClosedError("closed"), Outcome.REFUSED),
]


@pytest.mark.parametrize(("error", "outcome"), ERRORS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("request_", [READ, WRITE, CREATE], ids=["read", "write", "create"])
def test_which_error_is_which_outcome(error: EtcdError, outcome: Outcome, request_: Request) -> None:
    assert outcome_of(error, request_) is outcome


@pytest.mark.parametrize("kind", [HeaderTimeoutError, ConnectionLostError])
def test_a_write_that_certainly_was_not_sent_goes_on(kind: type[EndpointError]) -> None:
    assert outcome_of(kind(A, "before it was sent"), CREATE) is Outcome.UNSENT
    assert outcome_of(kind(A, "before it was sent"), READ) is Outcome.UNANSWERED


@pytest.mark.parametrize(
    "error", [ServerError(A, "500"), InvalidResponseError(A, "no JSON", status=200, body=b"<html>")]
)
def test_a_failure_says_whether_a_write_may_have_been_applied(error: EtcdError) -> None:
    for request in (READ, WRITE):
        judged = verdict(outcome_of(error, request), request, Place.FIRST)
        failure = failure_of(error, request, judged)
        assert (failure.endpoint, failure.maybe_applied) == (A, request.writes)
    assert "<html>" in str(failure) or isinstance(error, ServerError)


def test_a_failure_of_a_secret_request_shows_no_body() -> None:
    request = Request("PUT", "/k", b"hunter2", writes=True, secret=True)
    error = InvalidResponseError(A, "hunter2 is no JSON", body=b"hunter2")
    failure = failure_of(error, request, verdict(Outcome.UNUSABLE, request, Place.FIRST))
    assert "hunter2" not in str(failure) + repr(failure) + str(failure.__cause__)
    assert failure.maybe_applied


def test_a_stranger_is_a_failure_that_says_so() -> None:
    for request in (READ, WRITE):
        error = ClusterMismatchError(A, "1", "2", str(request))
        failure = failure_of(error, request, verdict(Outcome.STRANGE, request, Place.FIRST))
        assert failure.__cause__ is error
        assert failure.maybe_applied is error.maybe_applied is request.writes


def unusable(endpoint: str, *, maybe_applied: bool = False) -> EndpointError:
    return InvalidResponseError(endpoint, "no JSON", maybe_applied=maybe_applied)._as_failure()


def test_the_sum_of_a_pass() -> None:
    refused, told = ConnectError(A, "refused"), V2DisabledError(A, "3.6.16")
    assert type(sum_up(READ, [refused], None)) is ClusterError
    assert sum_up(READ, [refused], told) is told
    applied = sum_up(WRITE, [ServerError(A, "500", maybe_applied=True)], told)
    assert isinstance(applied, ClusterError)
    assert applied.maybe_applied
    assert type(sum_up(READ, [unusable(A), unusable(B)], None)) is InvalidResponseError
    assert type(sum_up(READ, [unusable(A), refused], None)) is ClusterError
    assert type(sum_up(READ, [refused, unusable(A)], None)) is ClusterError


def test_only_strangers_make_a_mismatch() -> None:
    stranger = ClusterMismatchError(A, "1", "2")
    met = failure_of(stranger, WRITE, verdict(Outcome.STRANGE, WRITE, Place.FIRST))
    assert sum_up(WRITE, [ConnectError(B, "refused"), met], stranger) is stranger
    elsewhere = ServerError(B, "500", maybe_applied=True)
    assert type(sum_up(WRITE, [elsewhere], stranger)) is ClusterError

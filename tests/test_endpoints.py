"""What an endpoint is, and which one comes next."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aioetcd2 import InvalidEndpointError, NoEndpointsError
from aioetcd2._net.endpoints import (
    COOL_BASE,
    COOL_CAP,
    EndpointPool,
    Pass,
    parse_endpoint,
    parse_endpoints,
    socket_path,
)

A, B, C, D, E = (f"http://{name}:2379" for name in "abcde")


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """Nothing here opens anything, so there is nothing to look for."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


def passing(pool: EndpointPool) -> list[str]:
    """What one pass hands out."""
    return list(iter(Pass(pool).next, None))


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("http://127.0.0.1:2379", "http://127.0.0.1:2379"),
        ("http://127.0.0.1:2379/", "http://127.0.0.1:2379"),
        ("https://etcd.example.com:443", "https://etcd.example.com:443"),
        ("127.0.0.1:2379", "http://127.0.0.1:2379"),
        ("localhost:2379", "http://localhost:2379"),
        ("HTTP://LocalHost:2379/", "http://localhost:2379"),
        ("http://localhost:02379", "http://localhost:2379"),
        ("http://etcd_1.my-net.:4001", "http://etcd_1.my-net.:4001"),
        ("http://xn--bcher-kva.example:80", "http://xn--bcher-kva.example:80"),
        ("http://[::1]:2379", "http://[::1]:2379"),
        ("[fe80::1]:2379", "http://[fe80::1]:2379"),
        ("http://[FE80::1%eth0]:2379", "http://[fe80::1%eth0]:2379"),
        ("http://etcd", "http://etcd"),
        ("https://[::1]/", "https://[::1]"),
        ("http://h:65535", "http://h:65535"),
        ("unix:///run/etcd.sock", "unix:///run/etcd.sock"),
        ("unix:///run/etcd.sock/", "unix:///run/etcd.sock"),
        ("UNIX:///Run/Etcd.sock", "unix:///Run/Etcd.sock"),
        ("unix://localhost:0", "unix://localhost:0"),
        ("unix:///run/bücher://x.sock", "unix:///run/bücher://x.sock"),
        ("unix:///", "unix:///"),
        ("unix:///run/X/", "unix:///run/X"),
    ],
)
def test_endpoint_is_written_one_way(text: str, endpoint: str) -> None:
    assert parse_endpoint(text) == endpoint
    assert parse_endpoint(endpoint) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        ":2379",
        "http://",
        "http:///",
        "http:///v2",
        "http://:2379",
        "http://h:",
        "http://h:0",
        "http://h:65536",
        "http://h:-1",
        "http://h:x",
        "http://h:1_0",
        "http://h:+1",
        "http://h:２３",
        "http:h:1",
        "http://h:1:2",
        "http://h:1/v2",
        "http://h:1//",
        "http://h:1?x=y",
        "http://h:1/?",
        "http://h:1#x",
        "http://h:1#",
        "http://h\\x:1",
        "h:1,h:2",
        "http://a:1 http://b:1",
        " http://h:1",
        "http://h:1\n",
        "http://h\t:1",
        "http://h\0:1",
        "http://h\u200b:1",
        "http://h%41:1",
        "http://-h:1",
        "http://bücher:1",
        "http://a℀b:1",
        "http://::1:2379",
        "::1",
        "http://[::1",
        "http://::1]:1",
        "http://[::1]x:1",
        "http://[::1]2379",
        "http://[::1]x]:1",
        "http://[::g]:1",
        "http://[127.0.0.1]:1",
        "http://[v1.a]:1",
        "http://[::1%]x]:1",
        "http://[::1%-x]:1",
        "http://[::1%eth0!]:1",
        "http://[::1%a b]:1",
        "ftp://h:1",
        "etcd://h:1",
        "unixs:///run/etcd.sock",
        "://h:1",
        "unix://",
        "unix:///run/etcd.sock?x",
        "unix:///run/etcd.sock#x",
        "unix:///run/e tcd.sock",
        "unix:///run/e\0tcd.sock",
        "unix:///run/e\x01tcd.sock",
        f"http://{63 * 'a'}X:1",
    ],
)
def test_text_that_is_no_endpoint_is_refused_and_named(text: str) -> None:
    with pytest.raises(InvalidEndpointError) as caught:
        parse_endpoint(text)
    assert repr(text) in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("endpoint", [None, 2379, b"http://h:1", ("h", 1)])
def test_endpoint_of_another_type_is_refused(endpoint: Any) -> None:
    with pytest.raises(InvalidEndpointError, match=r"an endpoint is a str, as 'http:.*', not"):
        parse_endpoint(endpoint)


@given(st.text())
def test_any_text_is_parsed_once_for_all_or_refused(text: str) -> None:
    try:
        endpoint = parse_endpoint(text)
    except InvalidEndpointError:
        return
    assert parse_endpoint(endpoint) == endpoint
    assert endpoint.startswith(("http://", "https://", "unix://"))


class Url:
    def __repr__(self) -> str:
        return "Url('http://bob:hunter2@h:1')"


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://bob:hunter2@h:1",
        "https://bob:hunter2@h:1/path",
        "bob:hunter2@h:1",
        "http://hunter2@h:1",
        "hunter2@h:1",
        "http://bob:x@hunter2@h:1",
        "http://bob:hunter2@h:x",
        "http://bob:hunter2@h℀:1",
        "http://bob:hunter2@[::1",
        "http://bob:hunter2@",
        "http://bob:hunter2@x@h:1",
        "http://bob:hunter2/@h:1",
        "http://bob:hunter2?@h:1",
        "http://bob:hunter2#@h:1",
        "http://bob:hunter2\n@h:1",
        "ftp://bob:hunter2@h:1",
        "bob:hunter2://x@h:1",
        b"http://bob:hunter2@h:1",
        Url(),
    ],
)
def test_credentials_in_an_endpoint_are_never_shown(endpoint: Any) -> None:
    with pytest.raises(InvalidEndpointError) as caught:
        parse_endpoint(endpoint)
    assert "hunter2" not in str(caught.value)
    assert "***@" in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [("ftp://bob:hunter2@h:1", "'ftp://***@h:1'"), ("bob:hunter2@h:1", "'***@h:1'"), ("hunter2@h:1", "'***@h:1'")],
)
def test_what_is_left_of_an_endpoint_with_credentials_is_shown(text: str, shown: str) -> None:
    with pytest.raises(InvalidEndpointError) as caught:
        parse_endpoint(text)
    assert shown in str(caught.value)


@given(
    st.sampled_from(["", "http://", "https://", "HTTP://", "ftp://"]),
    st.text(st.characters(exclude_characters="@")),
    st.sampled_from(["h:1", "h", "[::1]:1", "", "h℀:1", "h:x", "[::1"]),
)
@example("http://", "", "h℀:1")
def test_no_password_is_accepted_or_shown(scheme: str, noise: str, host: str) -> None:
    with pytest.raises(InvalidEndpointError) as caught:
        parse_endpoint(f"{scheme}bob:hunter2{noise}@{host}")
    assert "hunter2" not in str(caught.value)


def test_one_endpoint_needs_no_list() -> None:
    assert parse_endpoints("h:1") == ["http://h:1"]


def test_endpoints_keep_their_order_and_come_once() -> None:
    assert parse_endpoints(iter(["b:1", "http://a:1/", "HTTP://B:1", "a:1"])) == ["http://b:1", "http://a:1"]


@pytest.mark.parametrize("endpoints", [[], (), iter([])])
def test_no_endpoints_are_refused(endpoints: Any) -> None:
    with pytest.raises(NoEndpointsError, match="no endpoints"):
        parse_endpoints(endpoints)


def test_one_bad_endpoint_spoils_all() -> None:
    with pytest.raises(InvalidEndpointError, match="ftp://b"):
        parse_endpoints(["a:1", "ftp://b:1"])


@pytest.mark.parametrize(
    ("endpoint", "path"),
    [
        ("unix:///run/etcd.sock", "/run/etcd.sock"),
        ("unix://localhost:0", "localhost:0"),
        ("unix:///run/a%20b", "/run/a b"),
        (A, None),
        ("https://unix:1", None),
    ],
)
def test_socket_path(endpoint: str, path: str | None) -> None:
    assert socket_path(endpoint) == path


def test_order_is_as_given() -> None:
    pool = EndpointPool([C, A, B])
    assert pool.order() == (C, A, B)
    assert pool.pinned == C


def test_order_is_shuffled_by_the_rng() -> None:
    given = [A, B, C, D, E]
    expected = given.copy()
    random.Random(7).shuffle(expected)
    pool = EndpointPool(given, shuffle=True, rng=random.Random(7))
    assert expected != given
    assert list(pool.order()) == expected


def test_shuffled_clients_begin_everywhere() -> None:
    rng = random.Random(1)
    first = [EndpointPool([A, B, C], shuffle=True, rng=rng).pinned for _ in range(300)]
    assert all(80 < first.count(endpoint) < 120 for endpoint in (A, B, C))


def test_shuffling_needs_no_rng_of_the_caller() -> None:
    assert sorted(EndpointPool([A, B, C], shuffle=True).order()) == [A, B, C]


def test_the_same_set_in_another_order_is_another_order() -> None:
    pool = EndpointPool([A, B, C])
    pool.replace([C, B, A])
    assert pool.order() == (A, C, B)


def test_the_same_set_is_not_shuffled_again() -> None:
    pool = EndpointPool([A, B, C, D, E], shuffle=True, rng=random.Random(7))
    before = pool.order()
    for _ in range(10):
        pool.replace([E, D, C, B, A])
        assert pool.order() == before


def test_a_changed_set_is_shuffled_again() -> None:
    rng = random.Random(7)
    pool = EndpointPool([A], shuffle=True, rng=rng)
    expected = [B, C, D, E]
    state = rng.getstate()
    rng.shuffle(expected)
    rng.setstate(state)
    pool.give([B, C, D, E])
    assert list(pool.order()) == expected != [B, C, D, E]


def test_a_pass_hands_out_each_endpoint_once() -> None:
    pool = EndpointPool([A, B, C])
    assert passing(pool) == [A, B, C]


def test_a_pass_begins_at_the_pin_and_goes_round() -> None:
    pool = EndpointPool([A, B, C])
    pool.pin(B)
    assert pool.pinned == B
    assert pool.order() == (B, C, A)


def test_an_unknown_endpoint_is_not_pinned() -> None:
    pool = EndpointPool([A, B])
    pool.pin(C)
    assert pool.order() == (A, B)
    pool.replace([C, D])
    pool.pin(E)
    assert pool.order() == (C, D)


def test_a_pass_begins_at_the_pin_even_if_that_is_hot(clock: Clock) -> None:
    pool = EndpointPool([A, B, C], clock=clock)
    pool.failed(A)
    pool.pin(A)
    assert Pass(pool).next() == pool.order()[0] == A
    pool.failed(B)
    assert pool.pinned == A


def test_failure_moves_the_pin(clock: Clock) -> None:
    pool = EndpointPool([A, B, C], clock=clock)
    pool.failed(A)
    assert pool.order() == (B, C, A)


def test_failure_elsewhere_leaves_the_pin(clock: Clock) -> None:
    pool = EndpointPool([A, B, C], clock=clock)
    pool.failed(B)
    assert pool.order() == (A, C, B)


def test_the_pin_skips_what_is_hot(clock: Clock) -> None:
    pool = EndpointPool([A, B, C], clock=clock)
    pool.failed(B)
    pool.failed(A)
    assert pool.pinned == C


def test_failure_of_an_unknown_endpoint_is_nothing(clock: Clock) -> None:
    pool = EndpointPool([A, B], clock=clock)
    pool.failed(C)
    assert pool.order() == (A, B)
    pool.replace([A, C, B])
    assert pool.order() == (A, C, B)


def test_cool_down_doubles_up_to_a_cap(clock: Clock) -> None:
    pool = EndpointPool([A, B, C], clock=clock)
    measured = []
    for _ in range(9):
        pool.pin(A)
        pool.failed(B)
        begin = clock.now
        assert pool.order() == (A, C, B)
        while pool.order() == (A, C, B):
            clock.now += 0.125
        measured.append(clock.now - begin)
    assert measured == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert (COOL_BASE, COOL_CAP) == (0.5, 30.0)


def test_cool_down_stays_at_its_cap_for_ever(clock: Clock) -> None:
    pool = EndpointPool([A, B, C], clock=clock)
    for _ in range(5000):
        pool.failed(B)
        clock.now += COOL_CAP
    pool.failed(B)
    clock.now += COOL_CAP - 0.01
    assert pool.order() == (A, C, B)
    clock.now += 0.01
    assert pool.order() == (A, B, C)


def test_an_answer_ends_the_cool_down(clock: Clock) -> None:
    pool = EndpointPool([A, B, C], clock=clock)
    for _ in range(4):
        pool.failed(B)
        clock.now += COOL_CAP
    pool.failed(B)
    assert pool.order() == (A, C, B)
    pool.answered(B)
    assert pool.order() == (A, B, C)
    pool.failed(B)
    clock.now += COOL_BASE
    assert pool.order() == (A, B, C)


def test_failures_together_count_as_one(clock: Clock) -> None:
    pool = EndpointPool([A, B, C], clock=clock)
    for _ in range(100):
        pool.failed(B)
        clock.now += COOL_BASE / 200
    clock.now += COOL_BASE / 2
    assert pool.order() == (A, B, C)
    pool.failed(B)
    clock.now += 2 * COOL_BASE - 0.01
    assert pool.order() == (A, C, B)
    clock.now += 0.01
    assert pool.order() == (A, B, C)


def test_the_pool_never_refuses(clock: Clock) -> None:
    pool = EndpointPool([A, B, C], clock=clock)
    for endpoint in (A, B, C):
        pool.failed(endpoint)
        clock.now += 0.1
    assert sorted(pool.order()) == [A, B, C]
    assert pool.pinned == A


def test_what_is_hot_comes_in_the_order_of_cooling(clock: Clock) -> None:
    pool = EndpointPool([A, B, C, D], clock=clock)
    for endpoint in (D, B, C):
        pool.failed(endpoint)
        clock.now += 0.1
    assert pool.order() == (A, D, B, C)


def test_one_endpoint_keeps_the_pin_though_it_fails(clock: Clock) -> None:
    pool = EndpointPool([A], clock=clock)
    pool.failed(A)
    assert pool.pinned == A
    assert pool.order() == (A,)


def test_sync_keeps_the_pin_where_it_is_still_there() -> None:
    pool = EndpointPool([A, B])
    pool.pin(B)
    pool.replace([C, D, B])
    assert pool.pinned == B
    assert pool.order() == (B, C, D)
    assert passing(pool) == [B, C, D, A]


def test_pin_on_what_was_given_and_synced_keeps_what_was_synced() -> None:
    pool = EndpointPool([A])
    pool.replace([B, A])
    pool.pin(A)
    assert pool.order() == (A, B)


def test_sync_keeps_the_pin_in_a_shuffled_pool() -> None:
    pool = EndpointPool([A, B, C], shuffle=True, rng=random.Random(3))
    pool.pin(B)
    pool.replace([A, B, C, D, E])
    assert pool.pinned == B


def test_sync_begins_at_the_first_where_the_pin_is_gone() -> None:
    pool = EndpointPool([A, B])
    pool.replace([C, D])
    assert pool.pinned == C


def test_sync_keeps_the_cool_down_of_what_stays(clock: Clock) -> None:
    pool = EndpointPool([A, B], clock=clock)
    pool.failed(B)
    pool.replace([A, B, C])
    assert pool.order() == (A, C, B)


def test_sync_forgets_the_cool_down_of_what_goes(clock: Clock) -> None:
    pool = EndpointPool([A, B, C], clock=clock)
    pool.failed(B)
    pool.replace([A, C])
    pool.replace([A, B, C])
    assert pool.order() == (A, B, C)


def test_what_was_given_follows_what_was_synced() -> None:
    pool = EndpointPool([A, B])
    pool.replace([C, D])
    assert passing(pool) == [C, D, A, B]


@pytest.mark.parametrize("synced", [[C], [C, D]])
def test_what_was_synced_stays_until_what_was_given_answers(synced: list[str], clock: Clock) -> None:
    pool = EndpointPool([A], clock=clock)
    pool.replace(synced)
    for endpoint in [*synced, A]:
        pool.failed(endpoint)
    assert pool.pinned in synced
    pool.pin(A)
    assert pool.order() == (A,)


def test_other_endpoints_given_are_fallen_back_on() -> None:
    pool = EndpointPool([A])
    pool.give([B])
    pool.replace([C])
    assert pool.order() == (C,)
    assert passing(pool) == [C, B]


@pytest.mark.parametrize("given_now", [[C, B, A], [A, B]], ids=["others", "the same"])
@pytest.mark.parametrize("ranked", [False, True])
def test_other_endpoints_given_are_begun_with_the_first(given_now: list[str], ranked: bool) -> None:
    pool = EndpointPool([A, B])
    pool.pin(B)
    pool.give(given_now, ranked=ranked)
    assert list(pool.order()) == given_now


def test_other_endpoints_given_to_a_shuffled_pool_are_begun_with_any() -> None:
    rng = random.Random(7)
    pool = EndpointPool([A, B], shuffle=True, rng=rng)
    pool.pin(B)
    expected = [E, D, C, B, A]
    state = rng.getstate()
    rng.shuffle(expected)
    rng.setstate(state)
    pool.give([E, D, C, B, A])
    assert list(pool.order()) == expected
    assert expected[0] != B


def test_the_same_set_given_to_a_shuffled_pool_changes_nothing() -> None:
    pool = EndpointPool([A, B, C], shuffle=True, rng=random.Random(7))
    first, second, third = pool.order()
    pool.pin(second)
    pool.give([third, second, first])
    assert pool.order() == (second, third, first)


def test_ranked_endpoints_are_never_shuffled_but_what_is_synced_is() -> None:
    rng = random.Random(7)
    pool = EndpointPool([A], shuffle=True, rng=rng)
    pool.give([B, C, D, E], ranked=True)
    assert pool.order() == (B, C, D, E)
    expected = [A, C, D, E]
    state = rng.getstate()
    rng.shuffle(expected)
    rng.setstate(state)
    pool.replace([A, C, D, E])
    assert list(pool.order()) == expected != [A, C, D, E]
    pool.give([B, C, D, E])
    pool.give([B, C, D, E], ranked=True)
    assert pool.order() == (B, C, D, E)
    pool.pin(C)
    pool.give([E, D, C, B])
    assert pool.order() == (C, D, E, B)


def test_ours_are_those_in_use_and_those_given() -> None:
    pool = EndpointPool([A])
    pool.replace([B])
    assert A in pool
    assert B in pool
    assert C not in pool
    pool.give([C])
    assert A not in pool
    assert B not in pool


@pytest.mark.parametrize(
    "text", ["unix:///tmp/sock%00evil", "http://a..b:80", "http://.a:80", f"http://{'a' * 64}.example:80"]
)
def test_what_no_lookup_could_take_is_no_endpoint(text: str) -> None:
    with pytest.raises(InvalidEndpointError):
        parse_endpoint(text)


# --- a pass ---------------------------------------------------------------------------------------------------------


def test_a_pass_goes_on_over_what_is_new(clock: Clock) -> None:
    pool = EndpointPool([A, B], clock=clock)
    way = Pass(pool)
    assert way.next() == A
    way.failed(A)
    pool.replace([B, C, A])
    assert [way.next(), way.next(), way.next()] == [B, C, None]
    assert list(way.tried) == [A, B, C]


def test_a_pass_comes_late_to_what_another_finds_failing(clock: Clock) -> None:
    pool = EndpointPool([A, B, C, D], clock=clock)
    way = Pass(pool)
    assert way.next() == A
    way.failed(A)
    pool.failed(C)
    clock.now += 0.1
    pool.failed(B)
    assert [way.next(), way.next(), way.next(), way.next()] == [D, C, B, None]


def test_the_pin_goes_where_the_pass_goes(clock: Clock) -> None:
    pool = EndpointPool([A, B, C], clock=clock)
    pool.failed(B)
    clock.now += 0.1
    pool.failed(C)
    way = Pass(pool)
    pinned = []
    while (endpoint := way.next()) is not None:
        clock.now += 0.1
        way.failed(endpoint)
        pinned.append(pool.pinned)
    assert pinned == [B, C, B]  # the last has none to go to: the one that is cool first
    assert list(way.tried) == [A, B, C]


def seconds_to_try_all(number: int) -> float:
    """The best of five passes in which every one of so many endpoints fails."""
    pool = EndpointPool([f"http://h{each}:2379" for each in range(number)])
    took: list[float] = []
    for _ in range(6):  # all cool, then all hot
        begin = time.process_time()
        way = Pass(pool)
        while (endpoint := way.next()) is not None:
            way.failed(endpoint)
        assert len(way.tried) == number
        took.append(time.process_time() - begin)
    assert took[0] < 0.1
    return min(took[1:])


def test_a_pass_over_many_that_fail_takes_as_long_for_each_as_one_over_few() -> None:
    few, many = seconds_to_try_all(100), seconds_to_try_all(800)
    assert many < 20 * few  # 8 would be a straight line, 64 a square

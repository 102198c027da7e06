"""What the keys API makes of the arguments of its calls, before anything is built."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from aioetcd2.keys import MAX_TTL, _check_index, _check_ttl


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """Nothing here opens anything, so there is nothing to look for."""


@pytest.mark.parametrize(
    ("ttl", "text"),
    [
        (1, "1"),
        (60, "60"),
        (0.001, "1"),
        (1.0, "1"),
        (1.1, "2"),
        (59.999, "60"),
        (timedelta(seconds=90), "90"),
        (timedelta(milliseconds=1), "1"),
        (timedelta(days=1, microseconds=1), "86401"),
        (MAX_TTL, "7000000000"),
    ],
)
def test_ttl_is_whole_seconds_rounded_up(ttl: float | timedelta, text: str) -> None:
    assert _check_ttl(ttl) == int(text)


@pytest.mark.parametrize(
    "ttl", [0, 0.0, -1, -0.5, timedelta(0), timedelta(seconds=-1), math.nan, math.inf, -math.inf, MAX_TTL + 1]
)
def test_ttl_that_the_server_would_misread_is_refused(ttl: float | timedelta) -> None:
    with pytest.raises(ValueError, match="ttl is above 0"):
        _check_ttl(ttl)


@pytest.mark.parametrize("ttl", ["60", True, None, b"1", [1]])
def test_ttl_of_another_type_is_refused(ttl: Any) -> None:
    with pytest.raises(TypeError, match="ttl is seconds or a timedelta"):
        _check_ttl(ttl)


@pytest.mark.parametrize("index", [1, 2, 2**64 - 1])
def test_index_is_written_out(index: int) -> None:
    assert _check_index("prev_index", index, 1) == index


@pytest.mark.parametrize(("index", "least"), [(0, 1), (-1, 1), (-1, 0), (2**64, 1)])
def test_index_that_the_server_would_misread_is_refused(index: int, least: int) -> None:
    with pytest.raises(ValueError, match="prev_index is between"):
        _check_index("prev_index", index, least)


def test_index_may_be_0_where_that_has_a_meaning() -> None:
    assert _check_index("after_index", 0, 0) == 0


@pytest.mark.parametrize("index", ["7", 7.0, True, None])
def test_index_of_another_type_is_refused(index: Any) -> None:
    with pytest.raises(TypeError, match="prev_index is an int"):
        _check_index("prev_index", index, 1)

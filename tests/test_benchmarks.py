"""The benchmarks run, and write their page; what they measure is no test's business."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness import ratios
from benchmarks.report import ratio_aim

pytestmark = [pytest.mark.etcd, pytest.mark.skipif(sys.platform != "linux", reason="the benchmarks read /proc")]

ROOT = Path(__file__).parent.parent
SHORT = ("--rounds", "1", "--seconds", "0.05", "--calls", "100", "--watchers", "20")


async def run(*options: str) -> tuple[int | None, str, str]:
    command = [sys.executable, "-m", "benchmarks", *SHORT, "--contenders", "aioetcd2", "bare aiohttp", *options]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_what_is_measured_takes_its_place_on_the_page(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text("<!-- begin watch -->\nkept\n<!-- end watch -->\n<!-- begin flat -->\nold\n<!-- end flat -->\n")
    status, out, err = await run("--only", "flat", "calls", "--output", str(tmp_path))
    assert status == 0, err
    text = page.read_text()
    places = [text.index(part) for part in ("# Benchmarks", "## get and set", "kept", "## What makes a call no slower")]
    assert places == sorted(places)
    assert "old" not in text.split()
    assert "get, 128 tasks: CPU per call over bare aiohttp's" in text
    assert "## get and set" in out


async def test_what_watchers_cost_is_counted_before_the_members(tmp_path: Path) -> None:
    options = ("--only", "outage", "looks", "--outage", "1.5", "--keys", "50", "--output", str(tmp_path))
    status, _, err = await run(*options, "--before", str(ROOT))
    assert status == 0, err
    text = (tmp_path / "benchmarks.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| aioetcd2")]
    assert [name for name, *_ in rows] == ["aioetcd2", "aioetcd2 before"] * 3

    outage, *_ = rows
    connects, burst, warnings, infos = map(float, outage[1:5])
    assert 1 <= connects * 1.5 <= 100
    assert 1 <= burst <= connects * 1.5 + 1
    assert warnings == 1
    assert infos >= 1
    for _, gets, _, requests, *_ in rows[2::2]:
        assert 1 <= float(gets) <= 20
        assert float(requests) > 20
    for aim in ("outage: watchers that got their event", "looks: watchers that got their event"):
        assert f"| {aim} | 20 | at least 20 | yes |" in text


async def test_a_tree_is_compared_with_the_listing_that_it_is_made_of(tmp_path: Path) -> None:
    status, _, err = await run("--only", "tree", "--keys", "50", "--output", str(tmp_path))
    assert status == 0, err
    text = (tmp_path / "benchmarks.md").read_text()
    assert "250 keys of 100 bytes" in text
    rows = [
        line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith(("| Tree", "| recursive get"))
    ]
    assert [name for name, *_ in rows] == ["recursive get", "Tree", "Tree"]
    assert all(float(figure.replace(",", "")) > 0 for figure in rows[2][1:5])
    assert "| tree: files that are missing | 0 | at most 0 | yes |" in text


async def test_what_registrations_cost_is_counted_before_the_member(tmp_path: Path) -> None:
    options = ("--registrations", "60", "--registered", "4", "--output", str(tmp_path))
    status, _, err = await run("--only", "registration", *options)
    assert status == 0, err
    (row,) = [line for line in (tmp_path / "benchmarks.md").read_text().splitlines() if line.startswith("| aioetcd2")]
    rate, burst, *_, there = row.strip("| ").split(" | ")[1:]
    assert 0 < float(rate) <= float(burst) <= 60
    assert there == "60"


async def test_who_others_are_compared_with_takes_part(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--contenders", "aioetcd2", "--output", str(tmp_path)]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stderr=asyncio.subprocess.PIPE)
    _, err = await process.communicate()
    assert process.returncode == 1
    assert b"bare aiohttp can't be left out" in err
    assert not list(tmp_path.iterdir())


def test_a_figure_over_nothing_is_no_figure() -> None:
    found = ratios([{"memory": 5}], [{"memory": 0}], "memory")
    assert math.isnan(found.median)
    assert not ratio_aim("memory", found, 1.3).met


def test_an_earlier_library_has_no_recipes() -> None:
    """Its worker is this checkout's, and must not ask it for what it does not have."""
    code = "import sys; sys.modules['aioetcd2.recipes'] = None; import benchmarks.worker"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)

"""Mutation testing itself: what it changes, and that it tells who is killed from who survives."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys

import pytest

from .mutate import mutants


def changes(source: str) -> list[str]:
    return [mutant.what for mutant in mutants(ast.parse(source))]


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("x.y = a < 1", ["x.y = a < 1  =>  pass", "a < 1  =>  a <= 1", "a < 1  =>  a >= 1", "1  =>  2"]),
        ("x = a and b", ["a and b  =>  a or b", "a and b  =>  b", "a and b  =>  a"]),
        ("x = not a", ["not a  =>  a"]),
        ("x = a + 'b'", ["a + 'b'  =>  a - 'b'", "'b'  =>  'bXX'"]),
        ("f(a, b=c)", ["f(a, b=c)  =>  pass", "f(a, b=c)  =>  without b="]),
        ("x = a if b else c", ["a if b else c  =>  a if not b else c", "a if b else c  =>  a", "a if b else c  =>  c"]),
        ("if a:\n    b()", ["if a:  =>  if not a:", "if a:  =>  if False:", "if a:  =>  if True:", "b()  =>  pass"]),
        ("def f():\n    return a", ["return a  =>  return None"]),
        (
            "try:\n    a\nexcept (B, C):\n    d = 0",
            ["except (B, C):  =>  without B", "except (B, C):  =>  without C", "a  =>  pass", "0  =>  1"],
        ),
        ('raise ValueError(f"no {a}")', ["raise ValueError(f'no {a}')  =>  pass"]),
        ('import a\nlogger.info("b")\n"""c"""\ndef f(a: b = c) -> d: ...', []),
    ],
)  # fmt: skip
def test_one_thing_is_changed_at_a_time(source: str, wanted: list[str]) -> None:
    found = changes(source)
    assert [each for each in found if not each.startswith("logger.")] == wanted


def run(*arguments: str) -> str:
    command = [sys.executable, "-m", "tests.mutate", "_v2.census", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}  # not for its tests
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_who_is_killed_and_who_survives() -> None:
    listed = run("--list")
    numbers = [
        found[1]
        for change in ("if counted.newest_directory > index:  =>  if True:", "count += 1  =>  count -= 1")
        if (found := re.search(rf"^ *(\d+) [^ ]*: {re.escape(change)}$", listed, re.MULTILINE))
    ]
    assert len(numbers) == 2
    outcome = run("tests/test_position.py", "--only", ",".join(numbers))
    assert re.search(rf"^ *{numbers[0]} SURVIVED ", outcome, re.MULTILINE)
    assert re.search(rf"^ *{numbers[1]} killed ", outcome, re.MULTILINE)
    assert "{'SURVIVED': 1, 'killed': 1}" in outcome

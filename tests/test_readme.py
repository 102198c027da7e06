"""Every Python block of the README runs as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from aioetcd2.testing import EtcdServer

README = Path(__file__).parent.parent / "README.md"
NOT_RUN = "<!-- not run -->"
USUAL_ENDPOINT = "127.0.0.1:2379"


class Block(NamedTuple):
    line: int
    code: str
    runs: bool


def python_blocks(text: str) -> list[Block]:
    blocks = []
    lines = text.splitlines()
    begin = -1
    for number, line in enumerate(lines):
        if begin < 0 and line.strip() == "```python":
            begin = number
        elif begin >= 0 and line.strip() == "```":
            before = [line.strip() for line in lines[:begin] if line.strip()]
            runs = not before or before[-1] != NOT_RUN
            blocks.append(Block(begin + 2, "\n".join(lines[begin + 1 : number]), runs))
            begin = -1
    assert begin < 0, f"the block of line {begin + 1} has no end"
    return blocks


BLOCKS = python_blocks(README.read_text("utf-8"))


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.runs], ids=lambda block: f"line {block.line}")
def test_block(server: EtcdServer, block: Block, tmp_path: Path) -> None:
    """A block brings its own etcd, or finds one where etcd usually listens."""
    assert block.code.startswith(("import ", "from ", '"""'))
    code = block.code.replace(USUAL_ENDPOINT, server.endpoint.removeprefix("http://"))
    program = tmp_path / "README.py"
    program.write_text("\n" * (block.line - 1) + code + "\n", "utf-8")  # tracebacks show the README's line numbers
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONASYNCIODEBUG"}
    result = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    print(result.stdout)
    assert result.returncode == 0, result.stderr


def test_blocks_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    left_out = [block.line for block in BLOCKS if not block.runs]
    if left_out:
        with capsys.disabled():
            print(f"\nREADME.md: {len(left_out)} Python blocks are not run, at lines {left_out}")
    assert len(BLOCKS) == README.read_text("utf-8").count("```python")
    assert len(BLOCKS) > len(left_out)


def test_parsing() -> None:
    text = f"a\n```python\nimport one\n```\n```sh\nls\n```\n{NOT_RUN}\n\n```python\nimport two\n\nthree\n```\n"
    assert python_blocks(text) == [Block(3, "import one", True), Block(11, "import two\n\nthree", False)]
    with pytest.raises(AssertionError, match="line 1 has no end"):
        python_blocks("```python\nimport one\n")


def test_pypi_gets_no_link_that_leads_nowhere() -> None:
    """There are no files beside the README there; `pyproject.toml` says what becomes of links to them."""
    project = pytest.importorskip("tomllib").loads(README.with_name("pyproject.toml").read_text("utf-8"))
    text = README.read_text("utf-8")
    for each in project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(each["pattern"], each["replacement"], text)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"^\[[^\]]+\]: (\S+)", text, re.MULTILINE)
    assert [each for each in targets if not each.startswith(("#", "https://"))] == []
    assert re.findall(r"\]\[", text) == []
    assert "What a watch promises says how" in text

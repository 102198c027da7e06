"""What is shown to users passes strict type checkers as it stands: README, docs and examples, without an assert."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .test_readme import python_blocks

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each block of code as a program of its own."""
    folder = tmp_path_factory.mktemp("blocks")
    for page in PAGES:
        for block in python_blocks(page.read_text("utf-8")):
            if "--8<--" not in block.code:  # an example, which is checked as the file it is
                (folder / f"{page.stem.lower()}_line_{block.line}.py").write_text(block.code + "\n", "utf-8")
    assert len(list(folder.iterdir())) > 3
    return folder


def run(*command: str) -> None:
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
def test_mypy_finds_nothing(programs: Path) -> None:
    run(sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(programs / "cache"), str(programs))


@pytest.mark.slow
def test_pyright_finds_nothing(programs: Path) -> None:
    configuration = {"typeCheckingMode": "strict", "extraPaths": [str(ROOT)]}
    (programs / "pyrightconfig.json").write_text(json.dumps(configuration), "utf-8")
    run(sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable, "--project", str(programs))


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_no_example_asserts_what_a_type_should_say(path: Path) -> None:
    assert "assert " not in path.read_text("utf-8")

"""`docs/architecture.md` names every module, and nothing that is not there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import aioetcd2

PACKAGE = Path(aioetcd2.__file__).parent
ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
TREE = PAGE.partition("```\n")[2].partition("```")[0]
CODE = set(re.findall(r"`([^`\n]+)`", PAGE.replace("```", "")))
FILES = {each for each in CODE if re.fullmatch(r"[\w/]+\.py", each)}
MODULES = {str(path.relative_to(PACKAGE)): path for path in PACKAGE.rglob("*.py") if path.stem[:2] != "__"}


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """Nothing here opens anything, so there is nothing to look for."""


def names_in(tree: ast.AST) -> set[str]:
    """Everything that is called by a name below a node: what is defined, assigned, taken as an argument."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Name, ast.Attribute, ast.arg)):
            found.add(
                node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else node.arg
            )
    return found


def test_tree_has_every_module() -> None:
    found = []
    room = ""
    for line in TREE.splitlines():
        if re.match(r"  \w+/ ", line):
            room = line.split()[0]
        words = line.split()
        found += [f"{room}{word}" for word in (words[:1] if room else words) if word.endswith(".py")]
    assert sorted(found) == sorted(MODULES)


def test_files_are_there() -> None:
    assert {each for each in FILES if each not in MODULES and not (ROOT / each).exists()} == set()


def test_names_are_there() -> None:
    trees = [
        ast.parse(path.read_text("utf-8")) for path in (*MODULES.values(), *map(ROOT.joinpath, FILES - set(MODULES)))
    ]
    names = set().union(*map(names_in, trees))
    classes: dict[str, set[str]] = {}
    for node in (node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)):
        classes.setdefault(node.name, set()).update(names_in(node))
    missing = set()
    for each in CODE:
        match = re.fullmatch(r"([A-Za-z]\w*)(?:\.(\w+))?(?:\(.*\))?", each)
        if match is None or match[2] == "py" or match[1] in ("v2", "v3"):
            continue
        owner, member = match.groups()
        if owner not in names or (member and owner in classes and member not in classes[owner]):
            missing.add(each)
    assert missing == set()

"""The reference of the documentation is made of docstrings: what it can show, and nothing left out."""

from __future__ import annotations

import enum
import inspect
import re
from pathlib import Path

import msgspec
import pytest

import aioetcd2
from aioetcd2 import ErrorCode, errors, events, models, recipes
from aioetcd2._v2 import responses

PAGES = Path(__file__).parent.parent.joinpath("docs", "reference")
PACKAGE = Path(aioetcd2.__file__).parent
SOURCES = sorted([*PACKAGE.glob("*.py"), *PACKAGE.joinpath("recipes").glob("[!_]*.py")])


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """Nothing here opens anything, so there is nothing to look for."""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_sections_are_those_that_the_pages_can_show(path: Path) -> None:
    """`Example:` would be a quotation in which all lines run together, and `::` is no Markdown."""
    assert (
        re.findall(r"^ *(?:Example|Note|Arguments|Return|Raise):$|^ *::$", path.read_text("utf-8"), re.MULTILINE) == []
    )


@pytest.mark.parametrize("name", sorted(set(aioetcd2.__all__) - {"__version__", "Action"}))
def test_each_public_name_has_a_place(name: str) -> None:
    value = getattr(aioetcd2, name)
    shown = re.findall(r"^::: (\S+)$", "\n".join(page.read_text("utf-8") for page in PAGES.iterdir()), re.MULTILINE)
    assert not {f"aioetcd2.{name}", value.__module__}.isdisjoint(shown)


@pytest.mark.parametrize("name", sorted(set(recipes.__all__) - set(aioetcd2.__all__)))
def test_each_recipe_has_a_place(name: str) -> None:
    assert f"::: aioetcd2.recipes.{name}\n" in PAGES.joinpath("recipes.md").read_text("utf-8")


@pytest.mark.parametrize(
    "kind",
    [
        value
        for module in (errors, events, models)
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__ == module.__name__ and not value.__name__.startswith("_")
    ],
    ids=lambda kind: kind.__name__,
)
def test_each_field_is_told(kind: type) -> None:
    told = re.findall(r"^    (\w+)(?: \(.+?\))?: ", inspect.getdoc(kind) or "", re.MULTILINE)
    if issubclass(kind, enum.Enum):
        assert told == list(kind.__members__)
    elif issubclass(kind, msgspec.Struct):
        inherited = [field for base in kind.__bases__ for field in getattr(base, "__struct_fields__", ())]
        assert sorted(told) == sorted(set(kind.__struct_fields__) - set(inherited))


@pytest.mark.parametrize("code", ErrorCode, ids=lambda code: code.name)
def test_each_code_is_told_with_its_class(code: ErrorCode) -> None:
    kind = responses.class_for_code(code)
    assert re.search(
        rf"^    {code.name}: {int(code)}, an? `{kind.__name__}`", inspect.getdoc(ErrorCode) or "", re.MULTILINE
    )

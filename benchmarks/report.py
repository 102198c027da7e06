"""The page: sections of tables between markers, so that each can be measured anew by itself."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from .harness import Figures, Spread, ratios

HEAD = """\
# Benchmarks

Made by `python -m benchmarks`, which starts its own etcd. The contenders take turns in one run, each in a process of
its own; figures are medians of the rounds, ratios are taken round by round and given as median (least to greatest).
Absolute figures are of one machine; the ratios are what counts.
"""


@dataclass
class Table:
    """A caption, and rows of cells."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        lines = [self.header, ["---"] + ["---:"] * (len(self.header) - 1), *self.rows]
        text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        return f"{self.caption}\n\n{text}\n" if self.caption else f"{text}\n"


class Column(NamedTuple):
    """A figure of every contender: what is taken of its rounds, or how it compares with another's, round by round."""

    title: str
    key: str
    scale: float = 1.0
    format: str = ",.2f"
    over: str | None = None
    take: Callable[[Iterable[float]], float] = statistics.median

    def cell(self, name: str, figures: dict[str, list[Figures]]) -> str:
        """What it is for one contender."""
        if self.over is not None:
            return str(ratios(figures[name], figures[self.over], self.key))
        return format(self.take(figure[self.key] for figure in figures[name]) * self.scale, self.format)


def compared(caption: str, figures: dict[str, list[Figures]], *columns: Column) -> Table:
    """A table with a row for each contender, and the columns over those that take part."""
    columns = tuple(column for column in columns if column.over is None or column.over in figures)
    rows = [[name, *(column.cell(name, figures) for column in columns)] for name in figures]
    return Table(caption, ["", *(column.title for column in columns)], rows)


@dataclass
class Aim:
    """What a figure is meant to be."""

    what: str
    figure: float
    limit: float
    unit: str = ""
    at_least: bool = False
    spread: Spread | None = None

    @property
    def met(self) -> bool:
        """Whether the figure is what it is meant to be."""
        return self.figure >= self.limit if self.at_least else self.figure <= self.limit

    @property
    def cells(self) -> Sequence[str]:
        """Its row."""
        unit = f" {self.unit}" if self.unit else ""
        figure = str(self.spread) if self.spread is not None else f"{self.figure:.4g}"
        relation = "at least" if self.at_least else "at most"
        return self.what, f"{figure}{unit}", f"{relation} {self.limit:g}{unit}", "yes" if self.met else "**no**"


def ratio_aim(what: str, spread: Spread, limit: float, *, at_least: bool = False) -> Aim:
    """An aim whose figure is the median of ratios."""
    return Aim(what, spread.median, limit, at_least=at_least, spread=spread)


@dataclass
class Bars:
    """A picture: for each group, a bar of each series, with the least and the greatest."""

    title: str
    label: str
    groups: list[str]
    series: dict[str, list[Spread]]


@dataclass
class Section:
    """A part of the page, and the pictures that go with it."""

    name: str
    title: str
    text: str
    tables: list[Table]
    aims: list[Aim] = field(default_factory=list)
    bars: list[Bars] = field(default_factory=list)

    def markdown(self, setting: str, picture: str | None) -> str:
        """The section as it stands on the page."""
        parts = [f"## {self.title}\n", f"{self.text}\n", f"*{setting}*\n"]
        if picture is not None:
            parts.append(f"![{self.title}]({picture})\n")
        parts += map(str, self.tables)
        if self.aims:
            parts.append(str(Table("", ("aim", "measured", "wanted", "met"), [aim.cells for aim in self.aims])))
        return "\n".join(parts)


def write_page(page: Path, sections: dict[str, str], order: Sequence[str]) -> None:
    """Put sections on the page: in place of their earlier selves, the others stay as they are."""
    text = page.read_text() if page.exists() else ""
    known = dict(re.findall(r"<!-- begin (\w+) -->\n(.*?)<!-- end \1 -->", text, re.DOTALL))
    known.update(sections)
    between = "<!-- begin {0} -->\n\n{1}\n\n<!-- end {0} -->\n"
    parts = [HEAD, *(between.format(name, known[name].strip()) for name in order if name in known)]
    page.write_text("\n".join(parts))

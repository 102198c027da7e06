"""The pictures, by matplotlib where it is installed."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .report import Bars


def draw(pictures: Sequence[Bars], file: Path) -> bool:
    """Draw bars below each other into an SVG; false where matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return False
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "aioetcd2", "font.size": 9})
    plot: Any = importlib.import_module("matplotlib.pyplot")
    figure, axes = plot.subplots(
        len(pictures), 1, figsize=(9, 3.2 * len(pictures)), squeeze=False, layout="constrained"
    )
    for bars, (axis,) in zip(pictures, axes, strict=True):
        width = 0.85 / len(bars.series)
        for number, (name, values) in enumerate(bars.series.items()):
            places = [group + (number - (len(bars.series) - 1) / 2) * width for group in range(len(values))]
            heights = [value.median for value in values]
            ends = [[v.median - v.least for v in values], [v.most - v.median for v in values]]
            axis.bar(places, heights, width, label=name, yerr=ends, error_kw={"elinewidth": 0.6, "ecolor": "#555"})
        axis.axhline(1.0, color="#888", linewidth=0.6)
        axis.set_title(bars.title)
        axis.set_ylabel(bars.label)
        axis.set_xticks(range(len(bars.groups)), bars.groups)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    figure.savefig(file, metadata={"Date": None})
    plot.close(figure)
    return True

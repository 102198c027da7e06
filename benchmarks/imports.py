"""What `import aioetcd2` takes, beside `import aiohttp`."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from .contenders import BEFORE
from .harness import ROOT, Figures, Settings, ratios
from .report import Column, Section, compared, ratio_aim

OURS, THEIRS = "aioetcd2", "aiohttp"
PROGRAM = """\
import time
wall, cpu = time.perf_counter(), time.process_time()
import {}
print(time.perf_counter() - wall, time.process_time() - cpu)
"""
RUNS = 5
"""So many for each round."""

COLUMNS = (
    Column("ms", "wall", 1e3, ".0f"),
    Column("over aiohttp", "wall", over=THEIRS),
    Column("over before", "wall", over=BEFORE),
    Column("CPU ms", "cpu", 1e3, ".0f"),
    Column("over aiohttp", "cpu", over=THEIRS),
    Column("CPU over before", "cpu", over=BEFORE),
)


def once(module: str, folder: Path = ROOT) -> Figures:
    """The time of one import, in a process of its own, and from bytecode, as of an installed package."""
    command = [sys.executable, "-c", PROGRAM.format(module)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=folder)
    wall, cpu = run.stdout.split()
    return {"wall": float(wall), "cpu": float(cpu)}


async def measure(settings: Settings) -> Section:
    imported: dict[str, tuple[str, Path]] = {OURS: (OURS, ROOT), THEIRS: (THEIRS, ROOT)}
    if settings.before is not None:
        imported[BEFORE] = OURS, settings.before
    figures: dict[str, list[Figures]] = {name: [] for name in imported}
    for what in imported.values():
        await asyncio.to_thread(once, *what)
    for number in range(settings.rounds * RUNS):
        for name in sorted(figures, reverse=bool(number % 2)):
            figures[name].append(await asyncio.to_thread(once, *imported[name]))
    theirs = figures[THEIRS]
    text = f"{settings.rounds * RUNS} fresh processes of each in turn; from before the import to after it."
    aims = [
        ratio_aim("import: time over aiohttp's", ratios(figures[OURS], theirs, "wall"), 1.15),
        ratio_aim("import: CPU over aiohttp's", ratios(figures[OURS], theirs, "cpu"), 1.15),
    ]
    return Section("imports", "Import", text, [compared("", figures, *COLUMNS)], aims)

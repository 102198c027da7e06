"""The memory of this process, as Linux tells it."""

from __future__ import annotations

import gc
import resource
from pathlib import Path


def resident() -> int:
    """What this process holds now, in bytes."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def peak() -> int:
    """The most that this process ever held, in bytes; `ru_maxrss` would count its parent's, too."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024

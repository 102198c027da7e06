"""What Linux tells of processes: their memory, and the CPU that they have used."""

from __future__ import annotations

import gc
import os
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


def cpu_of(pid: int) -> float:
    """The seconds of CPU that a process has used so far, in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

"""What one client has done so far, counted as it happens."""

from __future__ import annotations


class Tally:
    """Numbers that only grow; their meaning is told by `Counters`, which shows them."""

    __slots__ = ("bytes_received", "bytes_sent", "calls", "events", "failovers", "resyncs", "retries")

    def __init__(self) -> None:
        self.calls = 0
        self.retries = 0
        self.failovers = 0
        self.bytes_sent = 0
        self.bytes_received = 0
        self.events = 0
        self.resyncs = 0

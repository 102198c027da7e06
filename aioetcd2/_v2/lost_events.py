"""What a watch raises where events are lost."""

from __future__ import annotations

from ..errors import ErrorCode, EventIndexClearedError


class MovedError(EventIndexClearedError):
    """The client has moved to another cluster, whose indexes have nothing to do with those of the first."""

    def __init__(self, cluster: str) -> None:
        super().__init__(
            ErrorCode.EVENT_INDEX_CLEARED, "The event in requested index is outdated and cleared", f"cluster {cluster}"
        )


def lost(cleared: EventIndexClearedError, key: str, index: int) -> EventIndexClearedError:
    """The error for the user of a watch: what the server said, and where to go on."""
    return EventIndexClearedError(
        cleared.code,
        cleared.message,
        cleared.cause,
        index,
        cleared.status,
        endpoint=cleared.endpoint,
        request=f"watch {key or '/'}",
        hint=f"events are lost; read the key again and go on with after_index={index}, or watch with resync=True",
    )

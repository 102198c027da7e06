"""What a watch raises where events are lost."""

from __future__ import annotations

from ..errors import ErrorCode, EventIndexClearedError


def outdated(cause: str) -> EventIndexClearedError:
    """What etcd says where its history does not go back far enough; also where it goes back to another past."""
    return EventIndexClearedError(
        ErrorCode.EVENT_INDEX_CLEARED, "The event in requested index is outdated and cleared", cause
    )


def lost_events(cleared: EventIndexClearedError, key: str, index: int) -> EventIndexClearedError:
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

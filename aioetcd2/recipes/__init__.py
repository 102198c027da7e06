"""Recipes on etcd's keys: locks that know when they are lost, and what is built in the same way.

They use `client.keys` alone.
"""

from ..errors import LeadershipLostError, LockHeldError, LockLostError
from ._places import Holder
from .held import Held
from .lock import Lock

__all__ = [
    "Held",
    "Holder",
    "LeadershipLostError",
    "Lock",
    "LockHeldError",
    "LockLostError",
]

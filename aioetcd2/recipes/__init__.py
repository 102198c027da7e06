"""Recipes on etcd's keys: locks that know when they are lost, and what is built in the same way.

They use `client.keys` alone.
"""

from ..errors import LeadershipLostError, LockHeldError, LockLostError
from ._places import Holder
from .election import Election, Leader, Term
from .held import Held
from .lock import Lock
from .registration import Registration
from .semaphore import Semaphore

__all__ = [
    "Election",
    "Held",
    "Holder",
    "Leader",
    "LeadershipLostError",
    "Lock",
    "LockHeldError",
    "LockLostError",
    "Registration",
    "Semaphore",
    "Term",
]

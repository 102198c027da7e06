"""Recipes on etcd's keys: what is often built on them, and easily built wrong.

They use `client.keys` alone.
"""

from ..errors import LeadershipLostError, LockHeldError, LockLostError, TreeBehindError, TreeStaleError
from ._copy import Change
from ._places import Holder
from .election import Election, Leader, Term
from .held import Held
from .lock import Lock
from .queue import Item, Queue
from .registration import Registration
from .semaphore import Semaphore
from .tree import Tree

__all__ = [
    "Change",
    "Election",
    "Held",
    "Holder",
    "Item",
    "Leader",
    "LeadershipLostError",
    "Lock",
    "LockHeldError",
    "LockLostError",
    "Queue",
    "Registration",
    "Semaphore",
    "Term",
    "Tree",
    "TreeBehindError",
    "TreeStaleError",
]

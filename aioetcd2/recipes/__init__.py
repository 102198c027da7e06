"""Recipes on etcd's keys: locks that know when they are lost, a copy of a subtree, and what is built in the same way.

They use `client.keys` alone.
"""

from ..errors import LeadershipLostError, LockHeldError, LockLostError, TreeBehindError, TreeStaleError
from ._copy import Change
from ._places import Holder
from .election import Election, Leader, Term
from .held import Held
from .lock import Lock
from .queue import Item, Queue
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
    "Semaphore",
    "Term",
    "Tree",
    "TreeBehindError",
    "TreeStaleError",
]

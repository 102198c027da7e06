"""Recipes on etcd's keys: what is often built on them, and easily built wrong.

They use `client.keys` alone.
"""

from ..errors import TreeBehindError, TreeStaleError
from ._copy import Change
from .tree import Tree

__all__ = [
    "Change",
    "Tree",
    "TreeBehindError",
    "TreeStaleError",
]

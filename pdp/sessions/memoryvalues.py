"""What the results in a tree of sessions held, in memory: the latest of each tree, and of all trees so many."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Final

from pdp.model import ValueClass
from pdp.sessions.values import HeldValues

# Of each tree: values that policies can trust, and those that only explain.
MOST_TRUSTED: Final = 4096
MOST_TAINTED: Final = 512


@dataclass(slots=True)
class _Tree:
    """The values of one tree, the latest last."""

    trusted: dict[bytes, ValueClass] = field(default_factory=dict)
    tainted: dict[bytes, None] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return len(self.trusted) + len(self.tainted)

    def class_of(self, digest: bytes) -> ValueClass | None:
        return self.trusted.get(digest) or (ValueClass.TAINTED if digest in self.tainted else None)

    def keep(self, digest: bytes, found: ValueClass) -> None:
        known = self.class_of(digest)
        if known is not None and known.rank < found.rank:
            return
        self.trusted.pop(digest, None)
        self.tainted.pop(digest, None)
        if found is ValueClass.TAINTED:
            self.tainted[digest] = None
        else:
            self.trusted[digest] = found
        for kept, most in ((self.trusted, MOST_TRUSTED), (self.tainted, MOST_TAINTED)):
            if len(kept) > most:
                del kept[next(iter(kept))]


class MemoryValues:
    """The `ResultValues` of a history in memory, under its lock. `require_open` raises when the history is closed.

    Of more than `most` values in all, the tree goes as a whole that was reported on longest ago.
    """

    def __init__(self, lock: Lock, require_open: Callable[[], None], *, most: int) -> None:
        self._lock = lock
        self._require_open = require_open
        self._most = most
        self._trees: dict[str, _Tree] = {}
        self._size = 0

    def keep(self, values: HeldValues) -> None:
        """Keep the digests of values; the oldest beyond the most of the tree go."""
        with self._lock:
            self._require_open()
            tree = self._taken(values.tree_id)
            for digest, found in values.classes():
                tree.keep(digest, found)
            if tree.size:
                self._trees[values.tree_id] = tree
                self._size += tree.size
            while len(self._trees) > 1 and self._size > self._most:
                self._taken(next(iter(self._trees)))

    def classes(self, tree_id: str, digests: Collection[bytes]) -> Mapping[bytes, ValueClass]:
        """Return the class of each digest that the tree has."""
        with self._lock:
            self._require_open()
            tree = self._trees.get(tree_id) or _Tree()
            found = ((digest, tree.class_of(digest)) for digest in digests)
            return {digest: one for digest, one in found if one is not None}

    def count(self, tree_id: str) -> int:
        """Return how many values a tree has."""
        with self._lock:
            self._require_open()
            tree = self._trees.get(tree_id)
            return tree.size if tree else 0

    def trees(self, *, after: str, limit: int) -> tuple[str, ...]:
        """Return the ids of trees that have values, sorted."""
        with self._lock:
            self._require_open()
            return tuple(sorted(one for one in self._trees if one > after)[:limit])

    def forget(self, tree_ids: Collection[str]) -> None:
        """Remove all values of some trees."""
        with self._lock:
            self._require_open()
            for one in tree_ids:
                self._taken(one)

    def clear(self) -> None:
        """Remove all values, with the lock held."""
        self._trees.clear()
        self._size = 0

    def _taken(self, tree_id: str) -> _Tree:
        tree = self._trees.pop(tree_id, None) or _Tree()
        self._size -= tree.size
        return tree

"""What the results in a tree of sessions held, in the database of the session history: the latest of each tree."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final

from pdp.model import ValueClass
from pdp.sessions.memoryvalues import MOST_TAINTED, MOST_TRUSTED
from pdp.sessions.sql import Statements
from pdp.sessions.values import HeldValues

_CLASSES: Final = {one.rank: one for one in ValueClass}

Context = Callable[[], AbstractContextManager[None]]


class SQLValues:
    """The `ResultValues` in a database.

    `reading` is held for each read with `reader`; `writing` and `removing` are transactions of `connection`.
    """

    def __init__(
        self,
        connection: Statements,
        reader: Statements,
        *,
        reading: Context,
        writing: Context,
        removing: Context,
    ) -> None:
        self._connection = connection
        self._reader = reader
        self._reading = reading
        self._writing = writing
        self._removing = removing

    def keep(self, values: HeldValues) -> None:
        """Keep values; the oldest beyond the most of the tree go."""
        found = tuple(values.classes())
        if not found:
            return
        with self._writing():
            tree, number = self._connection.execute(_TREE, (values.tree_id, len(found))).get
            rows = [(tree, digest, one.rank, number - place) for place, (digest, one) in enumerate(reversed(found))]
            self._connection.executemany(_KEEP, rows)
            self._connection.execute(_DROP_TRUSTED, (tree, tree, MOST_TRUSTED))
            self._connection.execute(_DROP_TAINTED, (tree, tree, MOST_TAINTED))

    def classes(self, tree_id: str, digests: Collection[bytes]) -> Mapping[bytes, ValueClass]:
        """Return the class of each digest that the tree has."""
        wanted = tuple(digests)
        if not wanted:
            return {}
        query = _CLASSES_OF.format(", ".join("?" * len(wanted)))
        with self._reading():
            rows: list[tuple[Any, ...]] = self._reader.execute(query, (tree_id, *wanted)).fetchall()
        return {bytes(digest): _CLASSES[rank] for digest, rank in rows}

    def count(self, tree_id: str) -> int:
        """Return how many values a tree has."""
        with self._reading():
            count: int = self._reader.execute(_COUNT, (tree_id,)).get
        return count

    def trees(self, *, after: str, limit: int) -> tuple[str, ...]:
        """Return the ids of trees that have values, in their order."""
        with self._reading():
            rows: list[tuple[Any, ...]] = self._reader.execute(_TREES, (after, limit)).fetchall()
        return tuple(str(tree_id) for (tree_id,) in rows)

    def forget(self, tree_ids: Collection[str]) -> None:
        """Remove all values of some trees, each in a step of its own, between which others write."""
        for tree_id in tree_ids:
            with self._removing():
                self._connection.execute(_FORGET, (tree_id,))
                self._connection.execute(_FORGET_TREE, (tree_id,))


# `kept` counts all values that the tree ever had: the number of the latest one.
_TREE: Final = """
INSERT INTO trees (id, kept) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET kept = trees.kept + excluded.kept
RETURNING number, kept
"""
# The better class stays, and a value of a worse one makes it no younger.
_KEEP: Final = """
INSERT INTO held_values AS known VALUES (?, ?, ?, ?)
ON CONFLICT (tree, digest) DO UPDATE SET class = excluded.class, number = excluded.number
WHERE excluded.class <= known.class
"""
_DROP: Final = """
DELETE FROM held_values WHERE tree = ? AND (class = 2) = {0} AND number <= (
  SELECT number FROM held_values WHERE tree = ? AND (class = 2) = {0} ORDER BY number DESC LIMIT 1 OFFSET ?
)
"""
_DROP_TRUSTED: Final = _DROP.format("FALSE")
_DROP_TAINTED: Final = _DROP.format("TRUE")
_CLASSES_OF: Final = """
SELECT digest, class FROM held_values WHERE tree = (SELECT number FROM trees WHERE id = ?) AND digest IN ({})
"""
_COUNT: Final = "SELECT count(*) FROM held_values WHERE tree = (SELECT number FROM trees WHERE id = ?)"
_TREES: Final = "SELECT id FROM trees WHERE id > ? ORDER BY id LIMIT ?"
_FORGET: Final = "DELETE FROM held_values WHERE tree = (SELECT number FROM trees WHERE id = ?)"
_FORGET_TREE: Final = "DELETE FROM trees WHERE id = ?"

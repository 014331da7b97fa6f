"""Conditions of a query: SQL, with the values separate. Texts are compared by their numbers in `names`."""

from __future__ import annotations

from typing import Any, Self

from pdp.audit.rows import value_digest
from pdp.audit.values import DECISION, Filter, Window

# The named session and all below it.
_TREE = """r.session IN (
  WITH RECURSIVE tree (session) AS (
    SELECT id FROM names WHERE text = ?
    UNION SELECT child.session FROM records child JOIN tree ON child.parent = tree.session
  ) SELECT session FROM tree)"""


class Where:
    """Conditions on a row `r` of `records`, joined by AND. With a `tenant` they match only its records."""

    def __init__(self, *, tenant: str | None = None) -> None:
        self._conditions: list[str] = []
        self._bindings: list[Any] = []
        if tenant is not None:
            self.name("r.tenant", tenant)

    @classmethod
    def of(cls, which: Filter) -> Self:
        """Return the conditions of a filter."""
        where = cls(tenant=which.tenant)
        if which.session_id and which.delegated:
            where.condition(_TREE, which.session_id)
        elif which.session_id:
            where.name("r.session", which.session_id)
        server, _, tool = which.tool.partition("/")
        # Somebody's records are fewer than a tool's, and in order of time: `+` keeps SQLite from the index of tools.
        plus = "+" if which.session_id or which.user or which.agent or which.caller_id else ""
        for column, text in (
            ("r.user", which.user),
            ("r.agent", which.agent),
            ("r.caller", which.caller_id),
            (f"{plus}r.server", which.server),
            (f"{plus}r.server", server),
            (f"{plus}r.tool", tool),
            ("r.resource", which.resource),
            ("r.basis", which.basis),
        ):
            if text:
                where.name(column, text)
        if which.kind:
            where.name("r.kind", which.kind)
        if which.outcome:
            # The index on `allowed` separates denied from allowed only; `+` keeps SQLite from using it.
            where.name("+r.kind", DECISION).condition("+r.allowed = ?", int(which.outcome == "allow"))
        for name, value in which.arguments:
            where.argument(name, value)
        return where.within(which.window)

    @property
    def clause(self) -> str:
        """Return the conditions as SQL, empty or from `WHERE` on."""
        return "WHERE " + " AND ".join(self._conditions) if self._conditions else ""

    @property
    def bindings(self) -> tuple[Any, ...]:
        """Return the values, in the order of the conditions."""
        return tuple(self._bindings)

    def condition(self, sql: str, *values: Any) -> Self:  # noqa: ANN401 - any value of SQLite
        """Add a condition."""
        self._conditions.append(sql)
        self._bindings += values
        return self

    def text(self, column: str, text: str) -> Self:
        """Add that a column holds a text."""
        return self.condition(f"{column} = ?", text)

    def name(self, column: str, text: str) -> Self:
        """Add that a column holds a text by its number; an unknown text matches no row."""
        return self.condition(f"{column} = (SELECT id FROM names WHERE text = ?)", text)

    def argument(self, name: str, value: str) -> Self:
        """Add that the record holds an argument of this name with this value, or with a list that has it."""
        return self.condition(
            "r.id IN (SELECT record FROM arguments WHERE name = (SELECT id FROM names WHERE text = ?) AND value = ?)",
            name,
            value_digest(value),
        )

    def within(self, window: Window) -> Self:
        """Add that the record is within a window."""
        if window.since_at is not None:
            self.condition("r.at >= ?", round(window.since_at * 1_000_000))
        if window.until_at is not None:
            self.condition("r.at < ?", round(window.until_at * 1_000_000))
        return self

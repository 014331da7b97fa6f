"""What SQL for several engines needs of a connection; that of SQLite has it as it is.

The SQL beside this module is understood by SQLite and by PostgreSQL. What they write differently comes with the engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from pdp.errors import StoreUnavailableError

Value = str | bytes | float | None
Bindings = Sequence[Any] | Mapping[str, Any]


class Rows(Protocol):
    """What a statement has returned."""

    @property
    def get(self) -> Any:  # noqa: ANN401 - whatever the statement selects
        """Return the only row, or its value when it has only one; None without a row."""
        ...

    def fetchone(self) -> Any:  # noqa: ANN401 - the same
        """Return the next row, or None."""
        ...

    def fetchall(self) -> list[Any]:
        """Return all further rows."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class Statements(Protocol):
    """A connection that runs one statement at a time; `?` stands for a value, or `:name` for a named one."""

    def execute(self, statements: str, bindings: Bindings | None = None) -> Rows:
        """Run a statement."""
        ...

    def executemany(self, statements: str, sequenceofbindings: Iterable[Bindings]) -> object:
        """Run a statement for each of many values."""
        ...

    def changes(self) -> int:
        """Return how many rows the last statement has changed."""
        ...


def required(found: Any, *tables: str) -> Any:  # noqa: ANN401 - whatever was selected
    """Return what `get` returned of tables that always have a row; `StoreUnavailableError` when one has none."""
    if found is None or (isinstance(found, tuple) and None in found):
        named = " or ".join(f"`{table}`" for table in tables)
        raise StoreUnavailableError(
            f"the database lacks what is always in its table {named}: its tables are being restored, or are damaged"
        )
    return found

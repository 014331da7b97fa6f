"""Compare what brokers used with what the server issued: a use of which there is no issue was forged.

Both records are read once as streams. What must be compared is put into a temporary file, so memory does not grow with
them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import apsw

from pdp.audit.rows import encodable
from pdp.errors import ConfigurationError
from pdp.foundation.sqlite import committing
from pdp.observer import EventKind
from pdp.record.fields import facts_of, text_of
from pdp.record.reader import read_records
from pdp.record.secretuses import SecretUse, read_uses
from pdp.record.segments import segments_by_chain

NOT_ISSUED: Final = "never issued"
DIFFERENT: Final = "issued for another call"
TWICE: Final = "used more than once"

# What both records say of a token.
_CLAIMS: Final = "decision_id, session_id, user, agent, tenant, action"
# The fields of a use, in the order of their columns.
_COLUMNS: Final = ("token_id", *_CLAIMS.split(", "), "connection", "version", "mode", "upstream", "presenter", "time")
_TABLES: Final = f"""
CREATE TABLE issued (token_id TEXT PRIMARY KEY, {_CLAIMS}, audience, time) WITHOUT ROWID;
CREATE TABLE used ({", ".join(_COLUMNS)});
"""
# A request that is repeated gets the same token again.
_ISSUED: Final = "INSERT OR IGNORE INTO issued VALUES (?,?,?,?,?,?,?,?,?)"
_USED: Final = "INSERT INTO used VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)"
_FOUND: Final = f"""
SELECT u.*, CASE
    WHEN i.token_id IS NULL THEN '{NOT_ISSUED}'
    WHEN (u.decision_id, u.session_id, u.user, u.agent, u.tenant, u.action)
      IS NOT (i.decision_id, i.session_id, i.user, i.agent, i.tenant, i.action) THEN '{DIFFERENT}'
    WHEN u.rowid > (SELECT min(rowid) FROM used WHERE token_id = u.token_id) THEN '{TWICE}'
  END problem
FROM used u LEFT JOIN issued i ON i.token_id = u.token_id
WHERE problem IS NOT NULL AND u.time >= ? ORDER BY u.time, u.rowid
"""
_NEVER_USED: Final = """
SELECT audience, count(*), sum(token_id NOT IN (SELECT token_id FROM used))
FROM issued WHERE time >= ? GROUP BY audience
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmatched:
    """A use of a secret that does not fit to an issue, and why."""

    problem: str
    use: SecretUse


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """How many call tokens the server issued for an audience, and how many of these no broker used."""

    audience: str
    issued: int
    never_used: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """The uses that do not fit, by time, with how many `more` there are, and all issues by audience.

    `uses` were compared. `begins` is the time of the first record of the server: uses before it cannot fit.
    """

    uses: int
    unmatched: tuple[Unmatched, ...]
    more: int
    issued: tuple[Issued, ...]
    begins: str


def reconcile(server: Path, brokers: Sequence[Path], *, since: str = "", most: int) -> Reconciliation:
    """Compare the records of brokers with that of their server, from a time on.

    At most so many uses that do not fit are returned. Raise `ConfigurationError` for a folder without a record, and
    `OSError`.
    """
    for folder in (*brokers, server):
        if not segments_by_chain(folder):
            raise ConfigurationError(f"there is no record in `{folder}`")
    # A file of the engine's own, which is gone with the connection.
    with closing(apsw.Connection("")) as database:
        database.execute(_TABLES)
        database.execute("BEGIN")
        with committing(database):
            # First what was used: what is issued meanwhile does no harm.
            for folder in brokers:
                database.executemany(_USED, map(_row, filter(_by_token, read_uses(folder))))
            database.execute("CREATE INDEX by_token ON used (token_id)")
            begins = _take_issues(database, server)
        found = map(_unmatched, database.execute(_FOUND, (since,)))
        return Reconciliation(
            unmatched=tuple(islice(found, most)),
            more=sum(1 for _ in found),
            uses=int(database.execute("SELECT count(*) FROM used WHERE time >= ?", (since,)).get),
            issued=tuple(
                Issued(audience=audience, issued=issued, never_used=never_used)
                for audience, issued, never_used in database.execute(_NEVER_USED, (since,))
            ),
            begins=begins,
        )


def _take_issues(database: apsw.Connection, server: Path) -> str:
    """Read the record of a server; return the time of its first record."""
    begins = ""

    def issues() -> Iterator[tuple[str, ...]]:
        nonlocal begins
        for located in read_records(server):
            record = located.record
            begins = begins or text_of(record, "time")
            if record.get("kind") == EventKind.CALL_TOKEN_ISSUED:
                facts = facts_of(record)
                of_token = (text_of(facts, "token_id"), text_of(facts, "decision_id"))
                people = (text_of(record, name) for name in ("session_id", "user", "agent", "tenant"))
                others = (text_of(facts, "action"), text_of(facts, "audience"), text_of(record, "time"))
                yield tuple(map(encodable, (*of_token, *people, *others)))

    database.executemany(_ISSUED, issues())
    return begins


def _by_token(use: SecretUse) -> bool:
    """Say whether a use was for a call: what lists and begins has no token, and the rules of the broker allow it."""
    return bool(use.token_id or use.decision_id)


def _row(use: SecretUse) -> tuple[str | int, ...]:
    values = (getattr(use, name) for name in _COLUMNS)
    return tuple(encodable(value) if isinstance(value, str) else value for value in values)


def _unmatched(row: tuple[Any, ...]) -> Unmatched:
    *fields, problem = row
    return Unmatched(problem=problem, use=SecretUse(**dict(zip(_COLUMNS, fields, strict=True))))

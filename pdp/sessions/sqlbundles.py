"""Keep in SQL which bundle is active, the content of the last ones, and which were active before."""

from __future__ import annotations

import json
from typing import Any, Final

from pdp.sessions.sql import Statements, required
from pdp.sessions.sqlrows import activation_of
from pdp.sessions.succession import VERSIONS_REMEMBERED
from pdp.sessions.values import ActiveBundle, BundlePast


class SQLBundles:
    """The bundles of a store, on its connection for writes, in the transactions of the store.

    The content of the `most` that were active last is kept.
    """

    def __init__(self, connection: Statements, *, most: int) -> None:
        self._connection = connection
        self._most = most

    def active(self) -> tuple[ActiveBundle | None, float]:
        """Return the active bundle, None before the first one, and the high-water mark, unix seconds."""
        version, *how, mark = required(self._connection.execute(_ACTIVE).get, "meta")
        return (activation_of(version, *how) if version else None), mark

    def keep(self, bundle: ActiveBundle, content: bytes, revision: int) -> None:
        """Make a bundle the active one, by a revision, and keep its content."""
        how = (bundle.activated_at, bundle.activated_by, bundle.reason, int(bundle.chosen), bundle.number)
        values = (bundle.version, *how, bundle.signed_by)
        counted = json.dumps(bundle.counted)
        self._connection.execute(_ACTIVATE, (*values, counted, bundle.number, bundle.number))
        self._connection.execute(_KEEP_BUNDLE, (*values, content, revision))
        self._connection.execute(_DROP_BUNDLES, (self._most,))
        self._connection.execute(_REMEMBER, (bundle.version, revision))
        self._connection.execute(_FORGET_VERSIONS, (VERSIONS_REMEMBERED,))

    def content(self, version: str) -> bytes | None:
        """Return the kept content of a bundle, or None."""
        content: bytes | None = self._connection.execute(_CONTENT, (version,)).get
        return content

    def kept(self) -> tuple[ActiveBundle, ...]:
        """Return the latest activation of each bundle whose content is kept, newest first."""
        rows: list[tuple[Any, ...]] = self._connection.execute(_KEPT).fetchall()
        return tuple(activation_of(*row) for row in rows)

    def past(self, version: str) -> BundlePast:
        """Return what is remembered of earlier activations."""
        was_active, highest = required(self._connection.execute(_PAST, (version,)).get, "meta")
        return BundlePast(was_active=bool(was_active), highest_number=highest)


_ACTIVE: Final = (
    "SELECT bundle_version, bundle_activated_at, bundle_activated_by,"
    " bundle_reason, bundle_chosen, bundle_number, bundle_signed_by, bundle_counted, high_water_at FROM meta"
)
_ACTIVATE: Final = """
UPDATE meta
SET bundle_version = ?, bundle_activated_at = ?, bundle_activated_by = ?, bundle_reason = ?, bundle_chosen = ?,
    bundle_number = ?, bundle_signed_by = ?, bundle_counted = ?,
    highest_number = CASE WHEN highest_number < ? THEN ? ELSE highest_number END
"""
_KEEP_BUNDLE: Final = """
INSERT INTO bundles (version, activated_at, activated_by, reason, chosen, number, signed_by, content, revision)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (version) DO UPDATE SET
  activated_at = excluded.activated_at, activated_by = excluded.activated_by, reason = excluded.reason,
  chosen = excluded.chosen, number = excluded.number, signed_by = excluded.signed_by, content = excluded.content,
  revision = excluded.revision
"""
_DROP_BUNDLES: Final = (
    "DELETE FROM bundles WHERE version NOT IN (SELECT version FROM bundles ORDER BY revision DESC LIMIT ?)"
)
_REMEMBER: Final = """
INSERT INTO past_bundles (version, revision) VALUES (?, ?)
ON CONFLICT (version) DO UPDATE SET revision = excluded.revision
"""
_FORGET_VERSIONS: Final = """
DELETE FROM past_bundles
WHERE revision < (SELECT min(revision) FROM (SELECT revision FROM past_bundles ORDER BY revision DESC LIMIT ?))
"""
_CONTENT: Final = "SELECT content FROM bundles WHERE version = ?"
_KEPT: Final = """
SELECT version, activated_at, activated_by, reason, chosen, number, signed_by FROM bundles ORDER BY revision DESC
"""
_PAST: Final = "SELECT EXISTS (SELECT 1 FROM past_bundles WHERE version = ?), highest_number FROM meta"

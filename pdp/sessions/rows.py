"""Write sessions as rows and read them back without loss."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from sys import intern
from typing import Any, Final

from pdp.clock import Deadline
from pdp.errors import StoreUnavailableError
from pdp.model import NO_TERMS, Scope, Session, SessionState

# By reflection, so that a new field of `Session` cannot be forgotten here.
_FIELDS: Final = tuple(field.name for field in fields(Session))
_DEADLINE_FIELDS: Final = tuple(field.name for field in fields(Deadline))
# Texts that many sessions share: each is one object for all sessions in memory.
_COMMON: Final = (
    *("user", "agent", "purpose", "tenant", "environment", "opened_by", "parent_id", "entities_json"),
    *("user_attributes_json", "terms_json", "approved_by", "ended_by", "reason"),
)

# The stored name of `user_attributes_json`, which never changes: servers of two versions may share a store.
_STORED_ATTRIBUTES: Final = "attributes_json"


def row_of(session: Session) -> dict[str, str | bytes | float | int]:
    """Return a session's columns: those used in queries, and the whole session as text.

    Its scope is stored separately: the text holds only the scope's id.
    """
    return {
        "id": session.id,
        "handle_digest": session.handle_digest,
        "state": session.state.value,
        "tenant": session.tenant,
        "user": session.user,
        "agent": session.agent,
        "opened_by": session.opened_by,
        "requested_at": session.requested_at,
        "epoch": session.epoch,
        "parent_id": session.parent_id,
        "depth": session.depth,
        "session_json": _text_of(session),
        "scope_id": session.scope.id if session.scope else "",
        "ends_at": session.deadline.wall_at,
    }


def session_of(text: str, scope_of: Callable[[str], Scope]) -> Session:
    """Return the session that a text holds. `StoreUnavailableError` when the text is damaged."""
    try:
        values: dict[str, Any] = json.loads(text)
        if _STORED_ATTRIBUTES in values:
            values["user_attributes_json"] = values.pop(_STORED_ATTRIBUTES)
        values["handle_digest"] = bytes.fromhex(values["handle_digest"])
        values["sealed_key"] = bytes.fromhex(values.get("sealed_key", ""))
        values["state"] = SessionState(values["state"])
        values["deadline"]["boot_id"] = intern(values["deadline"]["boot_id"])
        values["deadline"] = Deadline(**values["deadline"])
        values["scope"] = None if values["scope"] is None else scope_of(values["scope"])
        values |= {name: intern(values[name]) for name in _COMMON if name in values}
        values |= {name: tuple(map(intern, value)) for name, value in values.items() if isinstance(value, list)}
        return Session(**values)
    except (ValueError, KeyError, TypeError, AttributeError):
        # `from None`: the inner message quotes what is stored.
        raise StoreUnavailableError("a stored session is damaged") from None


def tools_text(scope: Scope) -> str:
    """Return the tools of a scope as text; equal tools have equal texts."""
    return json.dumps(dict(scope.tools), sort_keys=True, separators=(",", ":"))


def scope_from(scope_id: str, text: str) -> Scope:
    """Return the scope whose tools a text holds. `StoreUnavailableError` when the text is damaged."""
    try:
        tools = json.loads(text)
    except ValueError:
        raise StoreUnavailableError("a stored scope is damaged") from None
    if not isinstance(tools, Mapping):
        raise StoreUnavailableError("a stored scope is damaged")
    return Scope(id=scope_id, tools=tools)


def _text_of(session: Session) -> str:
    values: dict[str, Any] = {name: getattr(session, name) for name in _FIELDS if name != "sealed_key"}
    values[_STORED_ATTRIBUTES] = values.pop("user_attributes_json")
    if session.terms_json == NO_TERMS:
        # A server of an older version can read the session.
        del values["terms_json"]
    # The same.
    if not session.user_groups:
        del values["user_groups"]
    values |= {"sealed_key": session.sealed_key.hex()} if session.sealed_key else {}
    values["handle_digest"] = session.handle_digest.hex()
    values["state"] = session.state.value
    values["deadline"] = {name: getattr(session.deadline, name) for name in _DEADLINE_FIELDS}
    values["scope"] = None if session.scope is None else session.scope.id
    values["label_origins"] = dict(session.label_origins)
    return json.dumps(values, separators=(",", ":"))

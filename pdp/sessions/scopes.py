"""Share scopes: one object for each scope in a process, however many sessions refer to it."""

from __future__ import annotations

from dataclasses import replace
from threading import Lock
from types import MappingProxyType
from weakref import WeakValueDictionary

from pdp.errors import ConflictError
from pdp.model import Scope, Session


class ScopePool:
    """One immutable `Scope` object for each id, while it is in use. Safe for threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._scopes: WeakValueDictionary[str, Scope] = WeakValueDictionary()

    def find(self, scope_id: str) -> Scope | None:
        """Return the scope with this id, or None when nothing in the process uses it."""
        with self._lock:
            return self._scopes.get(scope_id)

    def share(self, scope: Scope) -> Scope:
        """Return the one object for this scope. Raise `ConflictError` when its id has other tools."""
        with self._lock:
            shared = self._scopes.get(scope.id)
            if shared is None:
                # Copied, because many sessions rely on it and the caller can change its mapping.
                shared = Scope(id=scope.id, tools=MappingProxyType(dict(scope.tools)))
                self._scopes[scope.id] = shared
        if shared.tools != scope.tools:
            raise ConflictError(f"scope `{scope.id}` is stored with other tools")
        return shared

    def adopt(self, session: Session) -> Session:
        """Return the session with its scope shared."""
        if session.scope is None:
            return session
        shared = self.share(session.scope)
        return session if shared is session.scope else replace(session, scope=shared)

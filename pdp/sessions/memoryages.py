"""The sessions in memory by age: all, and those of each user and agent, so that a list looks at no others."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

from pdp.model import Session
from pdp.sessions.values import SessionFilter

Age = tuple[float, str]
_Key = tuple[str, str, str]

_ALL: _Key = ("", "", "")


class Ages:
    """Ids by the time of the request, then by the id. Not safe for threads."""

    def __init__(self) -> None:
        self._of: dict[_Key, list[Age]] = {}

    def add(self, session: Session) -> None:
        """Add a new session. Neither its age nor its user, agent and tenant ever change."""
        for key in _keys(session):
            insort(self._of.setdefault(key, []), age(session))

    def remove(self, session: Session) -> None:
        """Remove a session that was added."""
        for key in _keys(session):
            ages = self._of[key]
            del ages[bisect_left(ages, age(session))]
            if not ages:
                del self._of[key]

    def clear(self) -> None:
        """Remove all."""
        self._of.clear()

    def newest_first(self, which: SessionFilter, before: Age | None) -> Iterator[str]:
        """Yield the ids of all sessions that a filter can match, and of others, from `before` on."""
        ages = self._of.get(_key_of(which), [])
        end = len(ages) if before is None else bisect_left(ages, before)
        return (ages[place][1] for place in range(end - 1, -1, -1))


def age(session: Session) -> Age:
    """Return the position of a session in lists."""
    return session.requested_at, session.id


def _keys(session: Session) -> tuple[_Key, ...]:
    return _ALL, ("user", session.tenant, session.user), ("agent", session.tenant, session.agent)


def _key_of(which: SessionFilter) -> _Key:
    if which.tenant and which.user:
        return "user", which.tenant, which.user
    return ("agent", which.tenant, which.agent) if which.tenant and which.agent else _ALL

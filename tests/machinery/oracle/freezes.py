"""What stops a tenant, or all of them, until two others want it lifted."""

from __future__ import annotations


class Freezes:
    """All freezes, by a tenant or `all`: who set it, who was the first to want it lifted, and when."""

    def __init__(self) -> None:
        self._set: dict[str, tuple[str, str, float]] = {}

    def hold(self, tenant: str) -> bool:
        """Say whether nothing may be called, asked for or approved in a tenant."""
        return not self._set.keys().isdisjoint(("all", tenant))

    def set_by(self, tenant: str) -> str:
        """Return who stopped a tenant, or `all`; empty if nobody has."""
        return self._set[tenant][0] if tenant in self._set else ""

    def add(self, tenant: str, by: str) -> None:
        """Stop a tenant, or `all`."""
        self._set[tenant] = (by, "", 0.0)

    def lift(self, tenant: str, by: str, now: float) -> bool:
        """Lift a freeze for a person, if another one has wanted it in the last hour; say whether they may want it."""
        who, first, at = self._set[tenant]
        if by == who:
            return False
        if not first or now - at > 3600:
            self._set[tenant] = (who, by, now)
        elif by != first:
            del self._set[tenant]
        return True

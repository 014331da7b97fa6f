"""Freezes as values: what stops all calls of a tenant, and whose word lifts it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from pdp.errors import FrozenError, NotFoundError, PermissionDeniedError

# The tenant of a freeze of all tenants; no other tenant has an empty name.
ALL_TENANTS = ""
# A second person must lift a freeze this soon after the first has confirmed it, in seconds.
LIFT_SECONDS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """A stop of all calls of a tenant, or of all tenants when `tenant` is empty; `set_at` is unix seconds.

    `confirmed_by` is the first of the two who lift it, and `confirmed_at` when that was; empty and 0.0 before.
    """

    id: str
    tenant: str
    set_at: float
    set_by: str
    reason: str
    confirmed_at: float = 0.0
    confirmed_by: str = ""

    @property
    def what(self) -> str:
        """Return what is frozen, for messages."""
        return f"tenant `{self.tenant}` is" if self.tenant else "all tenants are"


# Returns the successor of a freeze, or None to remove it.
FreezeChange = Callable[[Freeze], Freeze | None]


def freeze_of(tenant: str, freezes: Iterable[Freeze]) -> Freeze | None:
    """Return the freeze that stops a tenant: that of all tenants before its own."""
    return min((one for one in freezes if one.tenant in (ALL_TENANTS, tenant)), key=_tenant, default=None)


def require_unfrozen(tenant: str, freezes: Iterable[Freeze]) -> None:
    """Raise `FrozenError` when a freeze stops a tenant."""
    if (freeze := freeze_of(tenant, freezes)) is not None:
        raise FrozenError(f"{freeze.what} frozen (`{freeze.id}`): nothing is opened or approved until that is lifted")


def freeze_with_id(freeze_id: str, freezes: Iterable[Freeze]) -> Freeze:
    """Return the freeze that has an id. Raise `NotFoundError` when there is none."""
    for freeze in freezes:
        if freeze.id == freeze_id:
            return freeze
    raise NotFoundError(f"no such freeze: `{freeze_id}`")


def as_of(freeze: Freeze, at: float) -> Freeze:
    """Return a freeze without a confirmation that is too old to count at a time in unix seconds."""
    counts = freeze.confirmed_by and 0 <= at - freeze.confirmed_at <= LIFT_SECONDS
    return freeze if counts else replace(freeze, confirmed_at=0.0, confirmed_by="")


def lift(*, by: str, at: float) -> FreezeChange:
    """Return the change by which one person lifts a freeze: the first only confirms, and the second removes it.

    It raises `PermissionDeniedError` for the person who froze.
    """

    def change(freeze: Freeze) -> Freeze | None:
        if by == freeze.set_by:
            raise PermissionDeniedError(f"`{by}` has set this freeze: two others lift it")
        present = as_of(freeze, at)
        if not present.confirmed_by:
            return replace(freeze, confirmed_by=by, confirmed_at=at)
        return present if by == present.confirmed_by else None

    return change


def _tenant(freeze: Freeze) -> str:
    return freeze.tenant

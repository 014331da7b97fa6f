"""The grants of a bundle: what an approver can give, and which policies name each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pdp.errors import InvalidRequestError
from pdp.foundation.nearest import hint
from pdp.policy.directory import Directory
from pdp.policy.policysource import PolicySource

_GRANT = "Grant"

# The ids of the policies that name each grant; empty where only the directory names it.
Grants = Mapping[str, tuple[str, ...]]


def grants_of(policies: Iterable[PolicySource], directory: Directory) -> Grants:
    """Return the grants that policies or a directory name, sorted, each with the policies' ids."""
    named: dict[str, list[str]] = {
        name: [] for one in directory.entities.values() for kind, name in one.refers_to if kind == _GRANT
    }
    for policy in policies:
        for kind, name in policy.entities:
            if kind == _GRANT:
                named.setdefault(name, []).append(policy.id)
    return {name: tuple(sorted(named[name])) for name in sorted(named)}


def require_known(given: Sequence[str], known: Grants) -> None:
    """Raise `InvalidRequestError` naming the first unknown grant, and the nearest known one.

    An unknown grant would have no effect, while the record would say that it was given.
    """
    for place, grant in enumerate(given):
        if grant not in known:
            raise InvalidRequestError(f"grants[{place}]", f"no policy asks for `{grant}`{hint(grant, known)}")

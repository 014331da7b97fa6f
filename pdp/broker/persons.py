"""Who a person is that connects an account: the server says whose a bearer token is, and what it knows of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from pdp.client import Client
from pdp.client.pdpsettings import PDPSettings
from pdp.errors import PermissionDeniedError, UnauthenticatedError
from pdp.model import Role

# Whose credential proves a program, whatever it is called.
_PROGRAMS: Final = frozenset({Role.PEP.value, Role.BROKER.value, Role.REVOKER.value})
_OF_A_PROGRAM: Final = "spiffe"
_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A person, by the id that sessions have for their user; with their roles, and the tenants they belong to.

    `waits` says whether they still wait for an answer.
    """

    id: str
    roles: Collection[str]
    tenants: Collection[str]
    waits: Callable[[], bool] = field(default=lambda: True, compare=False)

    def require_tenant(self, tenant: str) -> None:
        """Raise `PermissionDeniedError` for a tenant to which the person does not belong."""
        if tenant not in self.tenants:
            raise PermissionDeniedError(f"not one of your tenants: `{tenant}`")

    def has(self, *roles: Role) -> bool:
        """Say whether the person has one of these roles."""
        return any(role.value in self.roles for role in roles)


# Says whose a bearer token is. Raises `UnauthenticatedError`, `PermissionDeniedError` or `UnavailableError`.
Persons: TypeAlias = Callable[[str], Person]


@contextmanager
def persons_of(pdp: PDPSettings) -> Iterator[Persons]:
    """Provide what asks a server. Only it verifies tokens: with its keys, its deny-list and its callers."""
    token: ContextVar[str] = ContextVar("token")
    options = {**pdp.options, "token_file": None, "tls_certificate": None, "tls_key": None}
    with Client(pdp.address, token=token.get, management_timeout=_SECONDS, **options) as client:

        def person_of(text: str) -> Person:
            if not text:
                raise UnauthenticatedError("a bearer token is needed", what="a bearer token", reason="there is none")
            # Another call in this thread sets another one.
            token.set(text)
            known = client.get_caller()
            if known.credential == _OF_A_PROGRAM or _PROGRAMS & {*known.roles}:
                raise PermissionDeniedError("only people connect accounts, and this is a program")
            return Person(id=known.caller_id, roles=frozenset(known.roles), tenants=tuple(known.tenants))

        yield person_of

"""Ask a PDP in this process: open a session for each asker, and decide."""

from __future__ import annotations

from collections.abc import Sequence

from pdp.app.embedded import Embedded
from pdp.bench.questions import Asker
from pdp.errors import ConfigurationError, PDPError
from pdp.model import AT_EACH_CALL, Caller, Role
from pdp.registry.words import SessionRequest

PEP = Caller(id="pep", kind="embedded", roles=frozenset({Role.PEP}))
APPROVER = Caller(id="approver", kind="embedded", roles=frozenset({Role.APPROVER}), authenticated_at=AT_EACH_CALL)


def open_sessions(pdp: Embedded, askers: Sequence[Asker], tool_patterns: Sequence[str]) -> list[str]:
    """Return the handle of an approved session for each asker.

    Raise `ConfigurationError` when a session cannot be opened or approved.
    """
    return [_open(pdp, asker, tuple(tool_patterns)) for asker in askers]


def _open(pdp: Embedded, asker: Asker, tool_patterns: tuple[str, ...]) -> str:
    wanted = SessionRequest(user=asker.user, agent=asker.agent, purpose="benchmark", tool_patterns=tool_patterns)
    try:
        view, handle = pdp.registrar.request(wanted, PEP)
        pdp.registrar.approve(view.session.id, request_digest=view.request_digest, grants=(), caller=APPROVER)
    except PDPError as error:
        raise ConfigurationError(
            f"no session for user `{asker.user}` with agent `{asker.agent}`: {error}; "
            "write `user` and `agent` into the calls, as the policies know them"
        ) from None
    return handle

"""A real PDP in this process for tests that look at one rule: written, opened, with sessions and calls in one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pdp.app.embedded import Embedded, open_embedded
from pdp.decision.cache import DecisionCache
from pdp.model import AT_EACH_CALL, Call, Caller, CallRequest, Decision, Role, Session
from pdp.registry.words import SessionRequest
from pdp.testing.bundles import compile_once_here
from pdp.testing.clock import FakeClock

GATEWAY = Caller(id="gateway", kind="token", roles=frozenset({Role.PEP}))
APPROVER = Caller(id="ann", kind="token", roles=frozenset({Role.APPROVER}), authenticated_at=AT_EACH_CALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An open PDP with the clock and the cache that it uses, and the folder of its policies."""

    embedded: Embedded
    folder: Path
    clock: FakeClock = field(default_factory=FakeClock)
    cache: DecisionCache = field(default_factory=DecisionCache)

    def request(self, *patterns: str, **wanted: Any) -> tuple[str, str]:
        """Request a session for alice and coder; return its id and its handle."""
        facts: dict[str, Any] = {"user": "alice", "agent": "coder", "purpose": "p", "tool_patterns": patterns}
        view, handle = self.embedded.registrar.request(SessionRequest(**{**facts, **wanted}), GATEWAY)
        return view.session.id, handle

    def approve(self, session_id: str, *grants: str) -> None:
        """Approve what is shown now."""
        view = self.embedded.registrar.proposal(session_id, grants=grants, caller=APPROVER)
        self.embedded.registrar.approve(session_id, request_digest=view.request_digest, grants=grants, caller=APPROVER)

    def session(self, *patterns: str, grants: tuple[str, ...] = (), **wanted: Any) -> tuple[str, str]:
        """Open an approved session; return its id and its handle."""
        session_id, handle = self.request(*patterns, **wanted)
        self.approve(session_id, *grants)
        return session_id, handle

    def stored(self, session_id: str) -> Session:
        """Return a session as it is stored."""
        return self.embedded.sessions.get(session_id)[0]

    def ask(self, handle: str, action: str, arguments: bytes = b"", facts: bytes = b"") -> Decision:
        """Ask about a call."""
        server, _, tool = action.partition("/")
        call = Call(session_handle=handle, server=server, tool=tool, arguments_json=arguments, facts_json=facts)
        return self.embedded.authorizer.authorize(CallRequest(call=call), GATEWAY)

    def reload(self, changed: Mapping[str, bytes]) -> None:
        """Write some files of the bundle anew and load it."""
        write(self.folder, changed)
        self.embedded.keeper.reload(by="test")


@contextmanager
def opened(
    folder: Path, files: Mapping[str, bytes], cache: DecisionCache | None = None, **more: Any
) -> Iterator[Opened]:
    """Write a bundle, open a PDP on it, and close it at the end."""
    write(folder, files)
    clock, remembered = FakeClock(), cache or DecisionCache()
    settings = {"clock": clock, "cache": remembered, "compile_files": compile_once_here, **more}
    embedded = open_embedded(folder, **settings)
    try:
        yield Opened(embedded=embedded, folder=folder, clock=clock, cache=remembered)
    finally:
        embedded.close()


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files of a bundle into its folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

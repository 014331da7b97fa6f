"""Freezes raced with what they refuse: the transaction that opens or approves decides, and no look before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from pdp.app.embedded import Embedded, open_embedded
from pdp.errors import FrozenError, PermissionDeniedError, UnavailableError
from pdp.model import AT_EACH_CALL, Basis, Call, Caller, CallRequest, Role
from pdp.registry.words import SessionRequest
from pdp.sessions.memory import MemorySessionStore
from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.sessions.store import SessionStore
from pdp.testing.bundles import bundle_files, compile_here, tool
from pdp.testing.clock import FakeClock
from pdp.testing.inprocess import write_folder
from tests.machinery.servers.running import Notes
from tests.machinery.servers.waitingcalls import waiting

PEP = Caller(id="pep", kind="token", roles=frozenset({Role.PEP}))
ANN, BOB, CYD = (
    Caller(id=name, kind="token", roles=frozenset({Role.APPROVER}), authenticated_at=AT_EACH_CALL)
    for name in ("ann", "bob", "cyd")
)
WANTED = SessionRequest(user="alice", agent="coder", purpose="p", tool_patterns=("git/*",))
FILES = bundle_files(
    policies={"git": '@id("git/all") permit (principal, action, resource);'},
    tools={"git": [tool("log")]},
    overlays={"git": "risk: mutating"},
    directory="{users: {alice: {}}, agents: {coder: {ceiling: ['git/*']}}}",
)


class Unseen:
    """A store in which nobody sees a freeze before they write."""

    def __init__(self, real: SessionStore) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return (lambda: ()) if name == "freezes" else getattr(self._real, name)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SessionStore]:
    """Provide an empty store of each kind."""
    made = MemorySessionStore() if request.param == "memory" else SQLiteSessionStore(tmp_path / "sessions.sqlite")
    with closing(made) as opened:
        yield opened


@pytest.fixture
def begin(store: SessionStore, tmp_path: Path) -> Callable[..., Embedded]:
    """Return what opens a PDP on the store, or on another one."""
    write_folder(tmp_path / "policies", FILES)

    def made(sessions: SessionStore = store, **more: Any) -> Embedded:
        return open_embedded(
            tmp_path / "policies", sessions=sessions, clock=FakeClock(), compile_files=compile_here, **more
        )

    return made


def test_the_write_decides(store: SessionStore, begin: Callable[..., Embedded]) -> None:
    """A freeze that comes after the first look still refuses a request, an approval, and the approval of a call."""
    sessions: Any = Unseen(store)
    pdp = begin(sessions)
    opened, _ = pdp.registrar.request(WANTED, PEP)
    active, _ = pdp.registrar.request(WANTED, PEP)
    pdp.registrar.approve(active.session.id, request_digest=active.request_digest, grants=(), caller=ANN)
    call = waiting(pdp, FakeClock(), active.session.id, by="pep")
    shown = pdp.approvals.get(call.id, caller=ANN).request_digest
    pdp.freezer.freeze("default", reason="acts strangely", caller=ANN)

    with pytest.raises(FrozenError):
        pdp.registrar.request(WANTED, PEP)
    with pytest.raises(FrozenError):
        pdp.registrar.approve(opened.session.id, request_digest=opened.request_digest, grants=(), caller=ANN)
    with pytest.raises(FrozenError):
        pdp.approvals.approve(call.id, request_digest=shown, caller=ANN)
    assert "open" == pdp.approvals.get(call.id, caller=ANN).view.state.value


def test_no_call_is_allowed_after_the_acknowledgement(store: SessionStore, begin: Callable[..., Embedded]) -> None:
    """Of calls that are asked about all the while, and remembered, each that begins after the freeze is denied."""
    pdp, frozen, busy = begin(), Event(), Event()
    opened, handle = pdp.registrar.request(WANTED, PEP)
    pdp.registrar.approve(opened.session.id, request_digest=opened.request_digest, grants=(), caller=ANN)
    call = CallRequest(call=Call(session_handle=handle, server="git", tool="log", arguments_json=b"{}"))

    def ask() -> list[tuple[bool, Basis]]:
        answers: list[tuple[bool, Basis]] = []
        while len(answers) < 20 or not answers[-20][0]:
            answers.append((frozen.is_set(), pdp.authorizer.authorize(call, PEP).ruling.basis))
            busy.set()
        return answers

    with ThreadPoolExecutor(2) as threads:
        asking = [threads.submit(ask) for _ in range(2)]
        busy.wait()
        try:
            pdp.freezer.freeze("default", reason="acts strangely", caller=ANN)
        finally:
            frozen.set()
        answers = [answer for one in asking for answer in one.result()]

    assert {Basis.FROZEN} == {basis for after, basis in answers if after}
    assert {Basis.PERMIT} <= {basis for after, basis in answers if not after}
    assert store.freezes()


def test_lifting_is_recorded_or_refused(begin: Callable[..., Embedded]) -> None:
    """While the record takes no entries a tenant can be frozen, and no freeze lifted; a gateway lifts none at all."""
    told, permits = Notes(), [False]
    pdp = begin(observer=told, record_permits=lambda: permits[0])
    freeze = pdp.freezer.freeze("default", reason="acts strangely", caller=ANN)
    gateway = Caller(id="both", kind="token", roles=frozenset({Role.PEP, Role.ADMIN}))

    with pytest.raises(UnavailableError, match="record"):
        pdp.freezer.lift(freeze.id, caller=BOB)
    permits[0] = True
    with pytest.raises(PermissionDeniedError):
        pdp.freezer.lift(freeze.id, caller=gateway)
    pdp.freezer.lift(freeze.id, caller=BOB)

    assert pdp.freezer.lift(freeze.id, caller=CYD) is None
    assert ["freeze.set", "freeze.lift_confirmed", "freeze.lifted"] == [
        one.kind.value for one in told.events if one.kind.value.startswith("freeze.")
    ]

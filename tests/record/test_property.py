"""For any sequence of calls and changes: as many records as decisions, and each one says who."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pdp.app.embedded import Embedded, open_embedded
from pdp.errors import PDPError
from pdp.model import AT_EACH_CALL, Call, Caller, CallRequest, Decision, Role
from pdp.record import DecisionLog, Rotation, SigningKey, read_records
from pdp.record.keys import PublicKeys
from pdp.record.verify import verify
from pdp.registry.words import Selector, SessionRequest
from pdp.testing.bundles import bundle_files, compile_here, tool
from pdp.testing.clock import FakeClock
from pdp.testing.inprocess import write_folder

GATEWAY = Caller(id="gateway", kind="token", roles=frozenset({Role.PEP}))
FOREIGN = Caller(id="foreign", kind="token", roles=frozenset({Role.PEP}), tenant="elsewhere")
LEAD = Caller(id="lead", kind="token", roles=frozenset({Role.APPROVER}), authenticated_at=AT_EACH_CALL)
SIGNER = SigningKey.generate()
FILES = bundle_files(
    policies={
        "notes": """
@id("notes/all") permit (principal, action, resource);
@id("notes/secret") forbid (principal, action == Action::"notes/write", resource)
when { context.input.name == "secret" || context.input has count && context.input.count * 4 > 4 };
"""
    },
    tools={
        "notes": [tool("read"), tool("write", {"name": {"type": "string"}, "count": {"type": "integer"}}, ["name"])],
        "other": [tool("read")],
    },
    directory="users: {alice: {}}\nagents: {coder: {ceiling: [notes/*]}}",
    labels=[f"label-{number}" for number in range(256)],
)
TOOLS = [("notes", "read"), ("notes", "write"), ("notes", "none"), ("other", "read"), ("notes", "wr\nite")]
ARGUMENTS = [b"", b'{"name": "a"}', b'{"name": "secret"}', b'{"name": "a", "count": 9223372036854775807}', b"[", b"{}"]
CALLS = st.tuples(
    st.integers(0, 3), st.sampled_from(TOOLS), st.sampled_from(ARGUMENTS), st.sampled_from((GATEWAY, FOREIGN))
)
STEPS = st.one_of(
    st.tuples(st.just("call"), CALLS),
    st.tuples(st.just("call"), CALLS),
    st.tuples(st.just("batch"), st.lists(CALLS, min_size=1, max_size=4)),
    st.tuples(st.just("refused"), CALLS),
    st.tuples(st.sampled_from(("open", "approve", "revoke", "end", "narrow")), st.integers(0, 3)),
    st.tuples(st.just("wait"), st.sampled_from((1, 300, 3600))),
    st.tuples(st.just("tick"), st.none()),
)


class World:
    """A PDP and its record, with the decisions that were answered and the changes that were made."""

    def __init__(self, embedded: Embedded, log: DecisionLog, clock: FakeClock) -> None:
        self._pdp, self._log, self._clock = embedded, log, clock
        self._sessions: list[tuple[str, str, str]] = [("ses_unknown", "pdps_unknown", "")]
        self.answered: list[Decision] = []
        self.changed: list[tuple[str, str]] = []

    def act(self, step: str, what: object) -> None:
        """Take a step; what is refused is no decision and no change."""
        with contextlib.suppress(PDPError):
            getattr(self, f"_{step}")(what)

    def _call(self, what: tuple[int, tuple[str, str], bytes, Caller]) -> None:
        self.answered.append(self._pdp.authorizer.authorize(CallRequest(call=self._asked(what)), what[3]))

    def _batch(self, what: list[tuple[int, tuple[str, str], bytes, Caller]]) -> None:
        asked = [CallRequest(call=self._asked(one)) for one in what]
        self.answered += self._pdp.authorizer.batch(asked, what[0][3])

    def _refused(self, what: tuple[int, tuple[str, str], bytes, Caller]) -> None:
        place, (server, name), _, caller = what
        call = Call(session_handle=self._session(place)[1], server=server, tool=name, facts_json=b'{"unknown": 1}')
        self._pdp.authorizer.authorize(CallRequest(call=call), caller)
        raise AssertionError("facts that the bundle does not know were taken")

    def _asked(self, what: tuple[int, tuple[str, str], bytes, Caller]) -> Call:
        place, (server, name), arguments, _ = what
        return Call(session_handle=self._session(place)[1], server=server, tool=name, arguments_json=arguments)

    def _open(self, _: int) -> None:
        wanted = SessionRequest(
            user="alice", agent="coder", purpose="notes", tool_patterns=("notes/*",), duration=600.0
        )
        view, handle = self._pdp.registrar.request(wanted, GATEWAY)
        self._sessions.append((view.session.id, handle, view.request_digest))
        self.changed.append(("session.requested", view.session.id))

    def _approve(self, place: int) -> None:
        session, _, shown = self._session(place)
        self._pdp.registrar.approve(session, request_digest=shown, grants=(), caller=LEAD)
        self.changed.append(("session.approved", session))

    def _revoke(self, place: int) -> None:
        session = self._session(place)[0]
        revoked = self._pdp.registrar.revoke(Selector(kind="session", value=session), reason="enough", caller=LEAD)
        self.changed += [("session.revoked", one) for one in revoked]

    def _end(self, place: int) -> None:
        session, handle, _ = self._session(place)
        self._pdp.registrar.end(handle, caller=GATEWAY)
        self.changed.append(("session.ended", session))

    def _narrow(self, place: int) -> None:
        session = self._session(place)[0]
        label = f"label-{len(self.changed)}"
        self._pdp.registrar.narrow(session, tool_patterns=(), expires_at=None, labels=(label,), caller=LEAD)
        self.changed.append(("session.narrowed", session))

    def _wait(self, seconds: int) -> None:
        self._clock.advance(float(seconds))

    def _tick(self, _: None) -> None:
        self._log.tick()

    def _session(self, place: int) -> tuple[str, str, str]:
        return self._sessions[-1 - place % len(self._sessions)]


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the policy folder."""
    folder = tmp_path_factory.mktemp("policies")
    write_folder(folder, FILES)
    return folder


@contextlib.contextmanager
def a_world(policies: Path, folder: Path) -> Iterator[World]:
    """Yield a PDP with a record of small segments, closed at the end."""
    clock = FakeClock()
    log = DecisionLog(folder, key=b"k" * 32, signer=SIGNER, clock=clock, rotation=Rotation(bytes=4096))
    embedded = open_embedded(policies, observer=log, clock=clock, compile_files=compile_here)
    try:
        yield World(embedded, log, clock)
    finally:
        embedded.close()
        log.close()


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(steps=st.lists(STEPS, min_size=5, max_size=40))
def test_there_is_a_record_for_each_decision(policies: Path, steps: list[tuple[str, object]]) -> None:
    """The record holds every decision as it was answered, in order, and every change, and no more."""
    with TemporaryDirectory() as name:
        with a_world(policies, Path(name)) as world:
            for step, what in [("open", 0), ("approve", 0), *steps]:
                world.act(step, what)
        records = [record for _, _, record in read_records(Path(name))]
        findings = verify(Path(name), PublicKeys.of(SIGNER)).findings

    recorded = [one for one in records if one["kind"] == "decision"]
    assert [(one["id"], one["outcome"], one["basis"]) for one in recorded] == [
        (one.id, one.ruling.outcome.value, one.ruling.basis.value) for one in world.answered
    ]
    changes = [(one["kind"], one["session_id"]) for one in records if one["kind"].startswith("session.")]
    untold = ("session.expired", "session.decided")
    assert [change for change in changes if change[0] not in untold] == world.changed
    # The policies permit every request and approval here, so each is followed by what it allows.
    assert [after for one, after in pairwise(changes) if one[0] == "session.decided"] == [
        one for one in changes if one[0] in ("session.requested", "session.approved")
    ]
    assert findings == ()
    for one in recorded:
        # A handle that is not known says nothing but who asked.
        known = one["basis"] != "session_not_found"
        assert (one["user"], one["agent"], bool(one["session_id"])) == (
            ("alice", "coder", True) if known else ("", "", False)
        )
        assert one["caller_id"] in ("gateway", "foreign")

"""Calls that a person can allow: what an approval binds, when it is used, and what nobody is asked about."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from pdp.clock import Instant
from pdp.decision.stepup import UNASKED
from pdp.errors import OverloadedError, PermissionDeniedError, StoreUnavailableError
from pdp.model import (
    Basis,
    CacheResult,
    Call,
    Caller,
    CallRequest,
    Decision,
    Outcome,
    Role,
    Ruling,
    Session,
    TraceParent,
    Visibility,
)
from pdp.observer import Event, EventKind
from pdp.registry.words import Selector
from pdp.sessions import access
from pdp.sessions.access import AccessRequest, AccessState, BoundCall, Unaskable, Use
from pdp.sessions.history import MemorySessionHistory
from pdp.sessions.historycontract import AccessRequests
from pdp.sessions.lifecycle import labelled
from pdp.sessions.memoryaccess import MemoryAccessRequests
from pdp.telemetry import names
from pdp.testing.bundles import bundle_files, tool, with_terms
from pdp.testing.evidence import Evidence
from tests.machinery.oracle.opened import APPROVER, GATEWAY, Opened, opened

ARGUMENTS = {
    "to": {"type": "array", "items": {"type": "string"}},
    "subject": {"type": "string"},
    "amount": {"type": "number"},
    "more": {"type": "object"},
}
POLICY = """
@id("mail/all")
@obligation("notice: {text: Mail.}")
permit (principal, action, resource);
@id("mail/untrusted")
@step_up("May it write after it has read?")
@step_up_run("3")
@advice("Or leave it.")
forbid (principal, action in [Action::"mail/send", Action::"mail/wipe", Action::"mail/draft"], resource)
when { context.session.labels.contains("untrusted") };
@id("mail/secret")
@step_up("May it write after it has seen a secret?")
forbid (principal, action == Action::"mail/send", resource)
when { context.session.labels.contains("secret") };
@id("mail/never")
forbid (principal, action, resource)
when { context has session && context.session.labels.contains("never") };
"""
OVERLAY = """
tools:
  read: {adds_labels: [untrusted], risk: read_only}
  peek: {adds_labels: [secret], risk: read_only}
  send: {targets: [to], text: [subject], adds_labels: [sent], risk: mutating}
  draft: {risk: mutating, groups: [critical], targets: [to]}
  wipe: {targets: [to], risk: destructive}
"""
FILES = bundle_files(
    policies={"mail": POLICY},
    tools={"mail": [*(tool(name, ARGUMENTS) for name in ("read", "peek", "send", "wipe", "draft"))]},
    overlays={"mail": OVERLAY},
    directory="{users: {alice: {}, bob: {}}, agents: {coder: {ceiling: ['mail/*']}}}",
    manifest="groups: {critical: {meaning: a person sees each}}\n",
    labels=["untrusted", "secret", "never", "sent"],
    schema=with_terms("max_calls?: Long"),
)
SEND = b'{"to": ["bob@example.com"], "subject": "hello", "amount": 1}'


class Access(MemoryAccessRequests):
    """Access requests that do something before each use, or fail."""

    before: Callable[[], None] = staticmethod(lambda: None)

    def use(self, call: BoundCall, retry_digest: bytes, now: Instant, decision_id: str = "") -> Use | None:
        """Use, after what the test wants."""
        self.before()
        return super().use(call, retry_digest, now, decision_id)


class History(MemorySessionHistory):
    """A history with such requests."""

    def __init__(self) -> None:
        super().__init__()
        self._access = self.people = Access(self._lock, self._require_open, most=1000)
        self.failure: Exception | None = None

    def access(self) -> AccessRequests:
        """Return the requests, or fail."""
        if self.failure is not None:
            raise self.failure
        return super().access()


@pytest.fixture
def history() -> History:
    """Return the history of the PDP."""
    return History()


@pytest.fixture
def evidence(tmp_path: Path) -> Iterator[Evidence]:
    """Return what the PDP shows of its decisions."""
    found = Evidence(tmp_path / "evidence")
    yield found
    found.close()


@pytest.fixture
def pdp(tmp_path: Path, history: History, evidence: Evidence) -> Iterator[Opened]:
    """Return a PDP in which a person is asked about what follows an untrusted read."""
    folder = tmp_path / "policies"
    with opened(folder, FILES, history=history, observer=evidence, trace_ids=evidence.trace_ids) as one:
        yield one


def tainted(pdp: Opened, *labels: str, **wanted: Any) -> tuple[str, str]:
    """Open a session that has read what is untrusted; return its id and its handle."""
    return pdp.session("mail/*", labels=labels or ("untrusted",), **wanted)


def ask(
    pdp: Opened,
    handle: str,
    arguments: bytes = SEND,
    name: str = "send",
    request_id: str = "",
    caller: Caller = GATEWAY,
) -> Decision:
    """Ask about a call."""
    call = Call(session_handle=handle, server="mail", tool=name, arguments_json=arguments)
    return pdp.embedded.authorizer.authorize(CallRequest(call=call, request_id=request_id), caller)


def basis(decision: Decision) -> str:
    """Return what a decision rests on."""
    return decision.ruling.basis.value


def approve(pdp: Opened, decision: Decision, uses: int = 1) -> AccessRequest:
    """Approve what a decision waits for."""
    session = pdp.stored(decision.session_id)
    change = partial(access.approve, now=pdp.clock.now(), by="ann", session_end=session.deadline, uses=uses)
    return pdp.embedded.history.access().answer(decision.access_request_id, change)


def deny(pdp: Opened, decision: Decision) -> AccessRequest:
    """Say no to what a decision waits for."""
    change = partial(access.deny, now=pdp.clock.now(), by="ann", reason="no")
    return pdp.embedded.history.access().answer(decision.access_request_id, change)


def stored(pdp: Opened, decision: Decision) -> AccessRequest:
    """Return the request of a decision as it is stored."""
    found = pdp.embedded.history.access().get(decision.access_request_id)
    assert found is not None
    return found


def test_a_person_is_asked(pdp: Opened) -> None:
    """The deny names the request, its end, the forbids and what the person is asked; nothing is written otherwise."""
    session_id, handle = tainted(pdp)
    epoch = pdp.stored(session_id).epoch
    decision = ask(pdp, handle)
    request = stored(pdp, decision)

    assert ("approval_required", ("mail/untrusted",)) == (basis(decision), decision.ruling.policies)
    assert ("Or leave it.",) == decision.ruling.advice
    assert ((), ()) == (decision.ruling.policies_lifted, decision.ruling.obligations)
    assert CacheResult.BYPASS is decision.cache_result
    assert pdp.clock.now().wall_at + access.REQUEST_SECONDS == decision.access_ends_at == request.deadline.wall_at
    assert (AccessState.OPEN, decision.id, "gateway", "alice") == (
        *(request.state, request.decision_id, request.asked_by, request.user),
    )
    assert ["May it write after it has read?"] == [one.question for one in request.call.asks]
    assert ("unseen",) == request.provenance
    assert json.loads(SEND) == json.loads(
        pdp.embedded.history.access().arguments(request.id, pdp.clock.now()) or b"null"
    )
    assert epoch == pdp.stored(session_id).epoch


def test_an_approved_call_is_allowed_once(pdp: Opened) -> None:
    """As the policies without these forbids say, obligations and labels included; then it is asked about anew."""
    session_id, handle = tainted(pdp)
    waiting = ask(pdp, handle)
    again = ask(pdp, handle)
    approve(pdp, waiting)
    allowed, later = ask(pdp, handle), ask(pdp, handle)

    assert waiting.access_request_id == again.access_request_id == allowed.access_request_id
    assert ("permit", ("mail/all",), ("mail/untrusted",)) == (
        *(basis(allowed), allowed.ruling.policies, allowed.ruling.policies_lifted),
    )
    assert ["notice"] == [one.id for one in allowed.ruling.obligations]
    assert (("sent",), 0.0, ()) == (allowed.labels_added, allowed.access_ends_at, allowed.ruling.advice)
    assert ("sent", "untrusted") == pdp.stored(session_id).labels
    assert "approval_required" == basis(later)
    assert later.access_request_id != waiting.access_request_id
    assert len({one.id for one in (waiting, again, allowed, later)}) == 4


@pytest.mark.parametrize(
    "same",
    [
        b'{"amount":1,"subject":"hello","to":["bob@example.com"]}',
        b'{"subject": "h\\u0065llo",\n "to": ["bob@example.com"], "amount": 1}',
    ],
)
def test_the_same_arguments_are_the_same_call(pdp: Opened, same: bytes) -> None:
    """In another order of the keys, with other blanks, and with other escapes."""
    _, handle = tainted(pdp)
    approve(pdp, ask(pdp, handle))

    assert "permit" == basis(ask(pdp, handle, same))


@pytest.mark.parametrize(
    "other",
    [
        b'{"to": ["bob@example.com"], "subject": "hello", "amount": 1.0}',
        b'{"to": ["bob@example.com"], "subject": "hello", "amount": 1e0}',
        b'{"to": ["bob@example.com"], "subject": "hello", "amount": 2}',
        b'{"to": ["bob@example.com"], "subject": "hello ", "amount": 1}',
        b'{"to": ["bob@example.com"], "subject": "Hello", "amount": 1}',
        b'{"to": ["Bob@example.com"], "subject": "hello", "amount": 1}',
        b'{"to": ["bob@example.com", "bob@example.com"], "subject": "hello", "amount": 1}',
        b'{"to": [], "subject": "hello", "amount": 1}',
        b'{"to": ["bob@example.com"], "subject": "hello"}',
        b'{"to": ["bob@example.com"], "subject": "hello", "amount": 1, "more": {}}',
        b"{}",
    ],
)
def test_other_arguments_are_another_call(pdp: Opened, other: bytes) -> None:
    """Not one byte more, and no number of another type."""
    _, handle = tainted(pdp)
    approve(pdp, ask(pdp, handle))

    assert "approval_required" == basis(ask(pdp, handle, other))
    assert "permit" == basis(ask(pdp, handle))


def test_an_approval_is_of_one_session_tool_and_user(pdp: Opened) -> None:
    """Another one is asked about anew."""
    _, handle = tainted(pdp)
    _, same_user = tainted(pdp)
    _, other_user = tainted(pdp, user="bob")
    approve(pdp, ask(pdp, handle))
    others = [ask(pdp, same_user), ask(pdp, other_user), ask(pdp, handle, name="wipe")]

    assert ["approval_required"] * 3 == list(map(basis, others))
    assert 3 == len({one.access_request_id for one in others})


def revoke_approval(pdp: Opened, decision: Decision) -> None:
    """Take the yes back."""
    change = partial(access.revoke, now=pdp.clock.now(), by="ann", reason="a slip")
    pdp.embedded.history.access().answer(decision.access_request_id, change)


def expire(pdp: Opened, _: Decision) -> None:
    """Let the time of the approval pass."""
    pdp.clock.advance(access.APPROVAL_SECONDS)


def another_bundle(pdp: Opened, _: Decision) -> None:
    """Load a bundle in which something else differs."""
    pdp.reload({"directory.yaml": FILES["directory.yaml"].replace(b"bob: {}", b"bob: {}, carol: {}")})


def another_text(pdp: Opened, _: Decision) -> None:
    """Load a bundle in which the question differs."""
    pdp.reload({"mail.cedar": POLICY.replace("has read?", "has read it?").encode()})


def narrow(pdp: Opened, decision: Decision) -> None:
    """Take the tool from the session."""
    pdp.embedded.registrar.narrow(
        decision.session_id, tool_patterns=("mail/read",), expires_at=None, labels=(), caller=APPROVER
    )


def revoke_session(pdp: Opened, decision: Decision) -> None:
    """Revoke the session."""
    pdp.embedded.registrar.revoke(Selector(kind="session", value=decision.session_id), reason="r", caller=APPROVER)


def change_definition(pdp: Opened, _: Decision) -> None:
    """Load a bundle in which the definition of the tool differs."""
    listed = json.loads(FILES["tools/mail.json"])
    for one in listed["tools"]:
        one["description"] += " carefully"
    pdp.reload({"tools/mail.json": json.dumps(listed).encode()})


@pytest.mark.parametrize(
    ("happens", "expected"),
    [
        (revoke_approval, "approval_required"),
        (expire, "approval_required"),
        (another_bundle, "approval_required"),
        (another_text, "approval_required"),
        (narrow, "out_of_scope"),
        (revoke_session, "session_revoked"),
        (change_definition, "tool_changed"),
    ],
)
def test_an_approval_dies(pdp: Opened, happens: Callable[[Opened, Decision], None], expected: str) -> None:
    """With its time, its bundle, its tool and its session, and when it is taken back."""
    _, handle = tainted(pdp)
    waiting = ask(pdp, handle)
    approve(pdp, waiting)
    happens(pdp, waiting)
    decision = ask(pdp, handle)

    assert expected == basis(decision)
    assert decision.access_request_id != waiting.access_request_id


def test_an_approval_survives_a_label_that_changes_nothing(pdp: Opened) -> None:
    """A label that another forbid of this kind reads is asked about: the request then lifts both."""
    session_id, handle = tainted(pdp)
    first = ask(pdp, handle)
    approve(pdp, first)
    pdp.embedded.sessions.change_tree(session_id, labelled(frozenset({"sent"}), by="x"), wall_at=1.0)
    allowed = ask(pdp, handle)
    second = ask(pdp, handle)
    approve(pdp, second)
    pdp.embedded.sessions.change_tree(session_id, labelled(frozenset({"secret"}), by="x"), wall_at=1.0)
    both = ask(pdp, handle)
    approve(pdp, both)
    last = ask(pdp, handle)

    assert ["permit", "approval_required", "permit"] == [basis(one) for one in (allowed, both, last)]
    assert both.access_request_id not in (first.access_request_id, second.access_request_id)
    assert ("mail/secret", "mail/untrusted") == both.ruling.policies == last.ruling.policies_lifted


def test_a_forbid_that_asks_nobody_wins(pdp: Opened) -> None:
    """Also over an approval that was given before."""
    session_id, handle = tainted(pdp)
    approve(pdp, ask(pdp, handle))
    pdp.embedded.sessions.change_tree(session_id, labelled(frozenset({"never"}), by="x"), wall_at=1.0)
    decision = ask(pdp, handle)

    assert ("forbid", ("mail/never", "mail/untrusted"), "") == (
        *(basis(decision), decision.ruling.policies, decision.access_request_id),
    )


def test_without_a_permit_nobody_is_asked(tmp_path: Path) -> None:
    """A person can lift a forbid, and cannot permit anything."""
    text = POLICY.replace(
        "permit (principal, action, resource);", 'permit (principal == User::"bob", action, resource);'
    )
    with opened(tmp_path, FILES | {"mail.cedar": text.encode()}) as pdp:
        _, handle = tainted(pdp)

        assert ("forbid", "") == (basis(found := ask(pdp, handle)), found.access_request_id)


def test_span_and_record_name_the_request_and_what_was_lifted(pdp: Opened, evidence: Evidence) -> None:
    """The request also where it waits; and no value of an argument, nor what the person is asked."""
    _, handle = tainted(pdp)
    waiting = ask(pdp, handle)
    approve(pdp, waiting)
    ask(pdp, handle)
    spans = [(one.get(names.ACCESS_REQUEST), one.get(names.POLICIES_LIFTED)) for one in evidence.decision_spans]
    records = [(one.get("access_request_id"), one.get("policies_lifted")) for one in evidence.decision_records]

    assert [(waiting.access_request_id, None), (waiting.access_request_id, ("mail/untrusted",))] == spans
    assert [(waiting.access_request_id, None), (waiting.access_request_id, ["mail/untrusted"])] == records
    shown = json.dumps([evidence.decision_spans, evidence.decision_records])
    assert [] == [text for text in ("bob@", "hello", "May it") if text in shown]


def test_an_explanation_names_what_a_person_could_lift(pdp: Opened) -> None:
    """Of the session and of those above; without a permit, and beside a hard deny, there is nothing to lift."""
    parent_id, parent = tainted(pdp, may_delegate=True)
    child_id, _ = pdp.request("mail/*", parent_session_handle=parent)
    pdp.embedded.sessions.change_tree(child_id, _only(child_id, "secret"), wall_at=1.0)
    call = Call(session_handle="", server="mail", tool="send", arguments_json=SEND)

    def summary() -> str:
        return pdp.embedded.explainer.explain(child_id, call, APPROVER).summary

    asking = summary()
    pdp.embedded.sessions.change_tree(child_id, _only(child_id, "never"), wall_at=1.0)
    denied = summary()
    pdp.embedded.registrar.revoke(Selector(kind="session", value=parent_id), reason="r", caller=APPROVER)

    assert asking == (
        "denied: a person must approve this call: `mail/secret` (mail.cedar:11) and `mail/untrusted` (mail.cedar:5) "
        f"forbid it and `mail/untrusted` (mail.cedar:5) forbids it in session `{parent_id}` above"
    )
    assert denied.startswith("denied: `mail/never` (mail.cedar:15), `mail/secret`")
    assert "the policies were not asked, and would deny it" in summary()


def test_a_delegated_session_asks_for_all_above_it(pdp: Opened) -> None:
    """The request is of its own session, and lifts the forbids of each; a hard deny above wins."""
    parent_id, parent = tainted(pdp, may_delegate=True)
    child_id, child = pdp.request("mail/*", parent_session_handle=parent)
    waiting = ask(pdp, child)
    asks = stored(pdp, waiting).call.asks
    approve(pdp, waiting)
    allowed = ask(pdp, child)
    in_parent = ask(pdp, parent)
    pdp.embedded.sessions.change_tree(parent_id, _only(parent_id, "secret"), wall_at=1.0)
    above = ask(pdp, child)
    pdp.embedded.sessions.change_tree(parent_id, _only(parent_id, "never"), wall_at=1.0)
    denied = ask(pdp, child)

    assert {parent_id, child_id} == {one.session_id for one in asks}
    assert ["approval_required", "permit", "approval_required", "approval_required", "ancestor_denied"] == [
        basis(one) for one in (waiting, allowed, in_parent, above, denied)
    ]
    assert child_id == stored(pdp, above).call.session_id
    assert {(parent_id, "mail/secret"), (parent_id, "mail/untrusted"), (child_id, "mail/untrusted")} == {
        one.forbid[:2] for one in stored(pdp, above).call.asks
    }
    assert Basis.FORBID is denied.ruling.ancestor_basis


def _only(session_id: str, label: str) -> Callable[[Session], Session | None]:
    change = labelled(frozenset({label}), by="x")
    return lambda session: change(session) if session.id == session_id else None


def test_a_retry_gets_the_same_allow(pdp: Opened, history: History) -> None:
    """With the same request id, for sixty seconds, and nothing is debited or used again; another caller does not."""
    session_id, handle = tainted(pdp, terms_json=b'{"max_calls": 5}')
    approve(pdp, ask(pdp, handle))
    first = ask(pdp, handle, request_id="r")
    retried = ask(pdp, handle, request_id="r")
    other = ask(pdp, handle, request_id="s")
    foreign = ask(pdp, handle, request_id="r", caller=Caller(id="other", kind="token", roles=frozenset({Role.PEP})))
    used = history.used(session_id)["max_calls"].used
    pdp.clock.advance(60.0)
    late = ask(pdp, handle, request_id="r")

    assert ["permit", "permit"] + ["approval_required"] * 3 == [
        basis(one) for one in (first, retried, other, foreign, late)
    ]
    assert (1, 1) == (used, stored(pdp, first).used)
    assert [(("max_calls", 1),), ()] == [first.debits, retried.debits]


def test_a_retry_is_the_same_decision_and_no_second_use(tmp_path: Path) -> None:
    """The answer has the id of the first try, and the record tells of one use, also where the call adds labels."""
    watcher = Refusing()
    with opened(tmp_path, FILES, observer=watcher) as pdp:
        session_id, handle = tainted(pdp)
        approve(pdp, ask(pdp, handle, request_id="r"))
        tries = [ask(pdp, handle, request_id="r") for _ in range(3)]
        added_by = dict(pdp.stored(session_id).label_origins)["sent"]
        pdp.clock.advance(60.0)
        late = ask(pdp, handle, request_id="r")

    assert ["permit"] * 3 + ["approval_required"] == [basis(one) for one in (*tries, late)]
    assert [added_by] * 3 == [one.id for one in tries]
    assert late.id != tries[0].id
    assert [EventKind.ACCESS_REQUESTED, EventKind.ACCESS_USED, EventKind.ACCESS_REQUESTED] == [
        one.kind for one in watcher.events if one.kind.name.startswith("ACCESS")
    ]


def test_a_call_that_waits_takes_of_no_budget(pdp: Opened, history: History) -> None:
    """And one for which too little is left uses no approval."""
    session_id, handle = tainted(pdp, terms_json=b'{"max_calls": 1}')
    waiting = ask(pdp, handle)
    approve(pdp, waiting)
    nothing = history.used(session_id)
    other = ask(pdp, handle, name="read")
    denied = ask(pdp, handle)

    assert ({}, "permit", "budget_exhausted") == (nothing, basis(other), basis(denied))
    assert (AccessState.APPROVED, 0) == (stored(pdp, waiting).state, stored(pdp, waiting).used)


@pytest.mark.parametrize("terms", [b"", b'{"max_calls": 9}'])
def test_a_session_that_changes_meanwhile_gives_the_use_back(pdp: Opened, history: History, terms: bytes) -> None:
    """The call is decided again, on what the session is then, and nothing was taken."""
    session_id, handle = tainted(pdp, terms_json=terms)
    waiting = ask(pdp, handle)
    approve(pdp, waiting)

    def label() -> None:
        history.people.before = lambda: None
        pdp.embedded.sessions.change_tree(session_id, labelled(frozenset({"never"}), by="x"), wall_at=1.0)

    history.people.before = label
    decision = ask(pdp, handle)

    assert "forbid" == basis(decision)
    assert (AccessState.APPROVED, 0) == (stored(pdp, waiting).state, stored(pdp, waiting).used)
    assert {0} >= {one.used for one in history.used(session_id).values()}


def test_an_approval_that_is_gone_at_its_use_is_asked_about_anew(pdp: Opened, history: History) -> None:
    """What was taken of budgets is taken back."""
    session_id, handle = tainted(pdp, terms_json=b'{"max_calls": 9}')
    waiting = ask(pdp, handle)
    approve(pdp, waiting)
    history.people.before = lambda: revoke_approval(pdp, waiting)
    decision = ask(pdp, handle)

    assert "approval_required" == basis(decision)
    assert decision.access_request_id != waiting.access_request_id
    assert 0 == history.used(session_id)["max_calls"].used


@pytest.mark.parametrize("error", [StoreUnavailableError("gone"), OverloadedError("busy")])
def test_a_store_that_fails_denies(pdp: Opened, history: History, error: Exception) -> None:
    """When asking, and when using; then what was taken of budgets is taken back."""
    session_id, handle = tainted(pdp, terms_json=b'{"max_calls": 9}')
    history.failure = error
    asked = ask(pdp, handle)
    history.failure = None
    waiting = ask(pdp, handle)
    approve(pdp, waiting)

    def fail() -> None:
        raise error

    history.people.before = fail
    used = ask(pdp, handle)

    assert ["ledger_unavailable"] * 2 == [basis(asked), basis(used)]
    assert AccessState.APPROVED is stored(pdp, waiting).state
    assert 0 == history.used(session_id)["max_calls"].used


def test_a_label_that_cannot_be_written_gives_the_use_back(pdp: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call is denied, and its answer names no request: no approval was used for it."""
    _, handle = tainted(pdp)
    waiting = ask(pdp, handle)
    approve(pdp, waiting)

    def fail(*_: object, **__: object) -> None:
        raise StoreUnavailableError("gone")

    monkeypatch.setattr(type(pdp.embedded.sessions), "settle", fail)
    denied = ask(pdp, handle)

    assert ("ledger_unavailable", "") == (basis(denied), denied.access_request_id)
    assert (AccessState.APPROVED, 0) == (stored(pdp, waiting).state, stored(pdp, waiting).used)


class Refusing:
    """An observer that refuses to record allowed calls while it is told to, and keeps the events."""

    def __init__(self) -> None:
        self.refuses = False
        self.events: list[Event] = []

    def decision(self, decision: Decision, parent: TraceParent) -> Decision:  # noqa: ARG002 - as observers have it
        """Turn an allow around."""
        if not (decision.allowed and self.refuses):
            return decision
        return replace(decision, ruling=Ruling(outcome=Outcome.DENY, basis=Basis.RECORD_UNAVAILABLE))

    def event(self, event: Event) -> None:
        """Keep it."""
        self.events.append(event)


def test_a_call_that_could_not_be_recorded_uses_no_approval(tmp_path: Path) -> None:
    """It was denied after all, and is allowed when it is made again; only that one is told as a use."""
    watcher = Refusing()
    with opened(tmp_path, FILES, observer=watcher) as pdp:
        _, handle = tainted(pdp)
        waiting = ask(pdp, handle)
        approve(pdp, waiting)
        watcher.refuses = True
        refused = ask(pdp, handle)
        kept = stored(pdp, waiting)
        watcher.refuses = False
        allowed = ask(pdp, handle)

    assert ["record_unavailable", "permit"] == [basis(refused), basis(allowed)]
    assert (AccessState.APPROVED, 0) == (kept.state, kept.used)
    assert [EventKind.ACCESS_REQUESTED, EventKind.ACCESS_USED] == [
        one.kind for one in watcher.events if one.kind.name.startswith("ACCESS")
    ]


def test_a_run_covers_calls_to_the_shown_targets(pdp: Opened) -> None:
    """Texts may differ, and neither targets, links nor names of arguments. A link that was shown is no target."""
    _, handle = tainted(pdp)
    subject = b"see example.com/a or mailto:eve@example.com"
    shown = b'{"to": ["bob@example.com", "ann@example.com"], "subject": "%b"}' % subject
    approve(pdp, ask(pdp, handle, shown), uses=3)
    covered = [
        b'{"to": ["Ann@example.com"], "subject": "hello"}',
        b'{"to": ["bob@example.com"], "subject": "again example.com/a"}',
    ]
    uncovered = [
        b'{"to": ["eve@example.com"], "subject": "hello"}',
        b'{"to": ["bob@example.com", "eve@example.com"], "subject": "hello"}',
        b'{"to": ["bob@example.com"], "subject": "see evil.com/b"}',
        b'{"to": ["b\xc3\xb6b\\u200b@example.com"], "subject": "hello"}',
        b'{"to": [], "subject": "hello"}',
        b'{"to": ["bob@example.com"]}',
        b'{"to": ["bob@example.com"], "subject": "hello", "amount": 1}',
    ]

    assert ["approval_required"] * 7 == [basis(ask(pdp, handle, one)) for one in uncovered]
    assert ["permit"] * 3 == [basis(ask(pdp, handle, one)) for one in (*covered, covered[0])]
    assert "approval_required" == basis(ask(pdp, handle, covered[0]))


@pytest.mark.parametrize(
    ("name", "labels", "run"),
    [
        ("send", ("untrusted",), 3),
        ("send", ("untrusted", "secret"), 0),
        ("draft", ("untrusted",), 0),
        ("wipe", ("untrusted",), 0),
    ],
)
def test_not_every_call_can_begin_a_run(pdp: Opened, name: str, labels: tuple[str, ...], run: int) -> None:
    """Every forbid must allow it, and the tool must not be critical."""
    _, handle = tainted(pdp, *labels)

    assert run == stored(pdp, ask(pdp, handle, name=name)).call.run


def test_a_no_counts(pdp: Opened) -> None:
    """For this call until the session is over, and the third one for all calls; the agent reads why."""
    _, handle = tainted(pdp)
    calls = [b'{"to": ["%d@example.com"]}' % number for number in range(4)]
    for arguments in calls[:3]:
        deny(pdp, ask(pdp, handle, arguments))
    again, other = ask(pdp, handle, calls[0]), ask(pdp, handle, calls[3])

    assert ["forbid"] * 2 == [basis(again), basis(other)]
    assert ("mail/untrusted",) == again.ruling.policies == other.ruling.policies
    assert (UNASKED[Unaskable.DENIED], "Or leave it.") == again.ruling.advice
    assert (UNASKED[Unaskable.TOO_MANY_NOES], "Or leave it.") == other.ruling.advice
    assert ("", 0.0) == (again.access_request_id, again.access_ends_at)


def test_an_agent_cannot_ask_without_end(pdp: Opened) -> None:
    """Eight open requests of a session, and a hundred of a gateway; its other calls go on."""
    sessions = [tainted(pdp)[1] for _ in range(13)]
    found = [ask(pdp, handle, b'{"to": ["%d@example.com"]}' % number) for handle in sessions for number in range(9)]
    open_ones = {one.access_request_id for one in found} - {""}

    assert access.MOST_OPEN_OF_CALLER == len(open_ones) == 8 * 12 + 4
    assert UNASKED[Unaskable.SESSION_ASKS_TOO_MUCH] == found[8].ruling.advice[0]
    assert UNASKED[Unaskable.CALLER_ASKS_TOO_MUCH] == found[-1].ruling.advice[0]
    assert "permit" == basis(ask(pdp, sessions[0], name="read"))


def test_what_people_refused_is_not_asked_again_by_a_delegated_session(pdp: Opened) -> None:
    """Nobody approves these sessions, so any number of them could wear a person out."""
    parent_id, parent = tainted(pdp, may_delegate=True)
    children = [pdp.request("mail/*", parent_session_handle=parent)[1] for _ in range(3)]
    calls = [b'{"to": ["%d@example.com"]}' % number for number in range(4)]
    refused = ask(pdp, children[0], calls[0])
    deny(pdp, refused)
    again = [ask(pdp, handle, calls[0]) for handle in (parent, *children)]
    for handle, arguments in zip(children[1:], calls[1:3], strict=True):
        deny(pdp, ask(pdp, handle, arguments))
    others = [
        ask(pdp, handle, calls[3])
        for handle in (parent, *children, pdp.request("mail/*", parent_session_handle=parent)[1])
    ]

    assert {UNASKED[Unaskable.DENIED]} == {one.ruling.advice[0] for one in again}
    assert {UNASKED[Unaskable.TOO_MANY_NOES]} == {one.ruling.advice[0] for one in others}
    assert pdp.stored(parent_id).deadline.wall_at == stored(pdp, refused).ends_at


def test_what_is_too_large_is_not_asked_about(pdp: Opened) -> None:
    """A person could not read it."""
    _, handle = tainted(pdp)
    most = access.MOST_ARGUMENT_BYTES - len('{"subject":""}')
    large, larger = (ask(pdp, handle, b'{"subject": "%s"}' % (b"x" * size)) for size in (most, most + 1))

    assert ["approval_required", "forbid"] == [basis(large), basis(larger)]
    assert UNASKED[Unaskable.TOO_LARGE] == larger.ruling.advice[0]


def test_each_call_of_a_batch_uses_an_approval_of_its_own(pdp: Opened) -> None:
    """The second one is asked about."""
    _, handle = tainted(pdp)
    approve(pdp, ask(pdp, handle))
    request = CallRequest(call=Call(session_handle=handle, server="mail", tool="send", arguments_json=SEND))

    assert ["permit", "approval_required"] == list(
        map(basis, pdp.embedded.authorizer.batch([request, request], GATEWAY))
    )


def test_a_tool_that_a_person_can_allow_is_listed(pdp: Opened) -> None:
    """It depends on the person; a tool that a hard forbid blocks is not."""
    seen = []
    for labels in (("untrusted",), ("untrusted", "never")):
        _, handle = tainted(pdp, *labels)
        listing = pdp.embedded.authorizer.list_tools(handle, GATEWAY)
        seen.append({one.tool: one.visibility for one in listing.tools})

    assert Visibility.DEPENDS is seen[0]["send"] is seen[0]["wipe"]
    assert Visibility.ALWAYS is seen[0]["read"]
    assert {Visibility.NEVER} == set(seen[1].values())


def test_a_step_of_a_session_is_asked_about_by_nobody(tmp_path: Path) -> None:
    """A forbid about all actions also forbids steps of sessions, and there no person lifts it."""
    text = (
        POLICY
        + '@id("mail/any") @step_up("May it?") forbid (principal, action, resource) when { resource is Session };'
    )
    changed = FILES | {"mail.cedar": text.encode()}
    with opened(tmp_path, changed) as pdp, pytest.raises(PermissionDeniedError, match="forbid"):
        pdp.request("mail/*")


def test_a_thousand_attempts_find_no_way_round(pdp: Opened) -> None:
    """Whatever an agent tries around a few approvals, only what was approved is allowed, as often as it was."""
    random = Random(20261127)  # noqa: S311 - for attempts, not for secrets
    handles = [tainted(pdp, duration=8 * 3600.0)[1] for _ in range(3)]
    texts = ["hello", "hello ", "h\u00e9llo", "he\u0301llo"]
    amounts = ["1", "1.0", "1.00", "1e0", "10e-1", "1.000000000000000000000000000001", "100000000000000000000001"]
    approved: Counter[tuple[str, str, str]] = Counter()
    tried: list[tuple[str, str, str, str]] = [("", "", "", "")]
    allowed = 0
    for _ in range(1000):
        handle, name, text, amount = random.choice(tried)
        if not handle or random.random() < 0.4:
            handle, name = random.choice(handles), random.choice(["send", "wipe"])
            text, amount = random.choice(texts), random.choice(amounts)
        parts = [f'"subject": {json.dumps(text, ensure_ascii=random.random() < 0.5)}', f'"amount": {amount}']
        random.shuffle(parts)
        # The same digits with the same exponent, spelled otherwise.
        key = (handle, name, f"{text} {amount.replace('10e-1', '1.0')}")
        decision = ask(pdp, handle, f"{{{random.choice([',', ' , ']).join(parts)}}}".encode(), name)
        if decision.allowed:
            approved[key] -= 1
            allowed += 1
            assert approved[key] >= 0, key
        elif decision.access_request_id and random.random() < 0.3:
            approve(pdp, decision)
            approved[key] += 1
            tried = [*tried[-5:], (handle, name, text, amount)]
        elif random.random() < 0.02:
            pdp.clock.advance(access.APPROVAL_SECONDS)
            approved.clear()

    assert allowed > 30

"""Reports of what came of calls: who may make them, until when, what they change, and what becomes of a second one."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pdp.decision.authorizer import NO_PARENT
from pdp.decision.observers import Observers
from pdp.errors import (
    AlreadyReportedError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    StoreUnavailableError,
    WrongStateError,
)
from pdp.limits import MOST_LABELS
from pdp.model import Basis, CacheResult, Call, Caller, CallRequest, CallStatus, Decision, Outcome, Role, Session
from pdp.observer import Event, EventKind
from pdp.registry.outcomes import REPORT_SECONDS, OutcomeReport, Outcomes, Reported
from pdp.registry.words import Selector
from pdp.sessions.history import MemorySessionHistory
from pdp.sessions.lifecycle import labelled
from pdp.sessions.memory import MemorySessionStore
from pdp.testing.bundles import bundle_files, tool
from tests.machinery.oracle.opened import APPROVER, GATEWAY, Opened, opened

FILES = bundle_files(
    policies={
        "mail": """
            @id("mail/all") permit (principal, action, resource);
            @id("mail/untrusted")
            forbid (principal, action == Action::"mail/send", resource)
            when { context.session.labels.contains("untrusted") };
        """
    },
    tools={"mail": [tool("read"), tool("send")]},
    directory="{users: {alice: {}}, agents: {coder: {ceiling: ['mail/*']}}}",
    manifest="labels: {untrusted: {meaning: has read mail}, seen: {meaning: none}, open: {meaning: o, widens: true}, "
    "shut: {meaning: s, reported: false}}",
)
SIBLING = Caller(id="sibling", kind="token", roles=frozenset({Role.PEP}))
STRANGER = Caller(id="gateway", kind="token", roles=frozenset({Role.PEP}), tenant="elsewhere")


class Store(MemorySessionStore):
    """A store that does something just before it settles."""

    def __init__(self) -> None:
        super().__init__()
        self.before: Callable[[], None] = lambda: None

    def settle(
        self, chain: Sequence[Session], labels: frozenset[str], *, by: str, wall_at: float
    ) -> tuple[Session, ...]:
        """Settle, after what the test wants."""
        self.before()
        return super().settle(chain, labels, by=by, wall_at=wall_at)


class Events(Observers):
    """What happened."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Event] = []

    def event(self, event: Event) -> None:
        """Keep an event."""
        self.seen.append(event)

    @property
    def reports(self) -> list[Event]:
        """Return the reports."""
        return [event for event in self.seen if event.kind is EventKind.CALL_REPORTED]


@pytest.fixture
def store() -> Store:
    """Return the store of the PDP."""
    return Store()


@pytest.fixture
def events() -> Events:
    """Return what the PDP tells."""
    return Events()


@pytest.fixture
def pdp(tmp_path: Path, store: Store, events: Events) -> Iterator[Opened]:
    """Return a PDP whose bundle declares labels."""
    with opened(tmp_path, FILES, sessions=store, observer=events) as one:
        yield one


def report(
    pdp: Opened,
    decision: Decision,
    *labels: str,
    status: CallStatus = CallStatus.SUCCEEDED,
    caller: Caller = GATEWAY,
    token: str = "",
) -> Reported:
    """Report what came of a call."""
    outcomes = pdp.embedded.outcomes
    said = OutcomeReport(outcome_token=token or outcomes.token(decision), status=status, labels=labels)
    return outcomes.report(said, caller)


def basis(decision: Decision) -> Basis:
    """Return what a decision rests on."""
    return decision.ruling.basis


def test_a_reported_label_counts_from_the_next_call_on(pdp: Opened, events: Events) -> None:
    """In the session and in those above it; the record says of which call it came."""
    parent_id, parent = pdp.session("mail/*", may_delegate=True)
    child_id, child = pdp.request("mail/read", parent_session_handle=parent)
    read = pdp.ask(child, "mail/read")
    before = pdp.ask(parent, "mail/send")
    reported = report(pdp, read, "untrusted")
    after = pdp.ask(parent, "mail/send")

    assert [Basis.PERMIT, Basis.FORBID] == [basis(before), basis(after)]
    assert (read.id, ("untrusted",)) == (reported.decision_id, reported.labels_added)
    assert {"untrusted": read.id} == pdp.stored(parent_id).label_origins
    (event,) = events.reports
    assert (child_id, "alice", "coder", "gateway") == (event.session_id, event.user, event.agent, event.caller_id)
    assert {"decision_id": read.id, "action": "mail/read", "status": "succeeded"} == event.facts
    assert {"labels_added": ("untrusted",), "ancestors": (parent_id,)} == event.lists


def test_a_report_without_labels_changes_nothing(pdp: Opened, events: Events) -> None:
    """It is recorded all the same."""
    session_id, handle = pdp.session("mail/*")
    before = pdp.stored(session_id)
    report(pdp, pdp.ask(handle, "mail/read"), status=CallStatus.FAILED)

    assert before == pdp.stored(session_id)
    assert ["failed"] == [event.facts["status"] for event in events.reports]


def test_the_same_report_again_is_answered(pdp: Opened) -> None:
    """In any order of its labels; nothing is added twice."""
    session_id, handle = pdp.session("mail/*")
    read = pdp.ask(handle, "mail/read")
    report(pdp, read, "untrusted", "seen")
    epoch = pdp.stored(session_id).epoch
    report(pdp, read, "seen", "untrusted", "seen")

    assert epoch == pdp.stored(session_id).epoch


@pytest.mark.parametrize(
    ("labels", "status"),
    [((), CallStatus.SUCCEEDED), (("seen", "untrusted"), CallStatus.FAILED), (("seen",), CallStatus.FAILED)],
)
def test_another_report_of_the_same_call_is_refused(pdp: Opened, labels: tuple[str, ...], status: CallStatus) -> None:
    """Whatever differs; and it adds nothing."""
    session_id, handle = pdp.session("mail/*")
    read = pdp.ask(handle, "mail/read")
    report(pdp, read, "seen")

    with pytest.raises(AlreadyReportedError):
        report(pdp, read, *labels, status=status)
    assert ("seen",) == pdp.stored(session_id).labels


def test_a_report_that_was_lost_half_way_is_finished(pdp: Opened, store: Store) -> None:
    """The report was kept, and its label was not written: the same report again writes it."""
    session_id, handle = pdp.session("mail/*")
    read = pdp.ask(handle, "mail/read")

    def fail() -> None:
        raise StoreUnavailableError("gone")

    store.before = fail
    with pytest.raises(StoreUnavailableError):
        report(pdp, read, "untrusted")
    store.before = lambda: None
    report(pdp, read, "untrusted")

    assert ("untrusted",) == pdp.stored(session_id).labels


def test_the_same_report_again_waits_until_all_know_its_labels(
    pdp: Opened, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first answer can have been lost while it waited."""
    _, handle = pdp.session("mail/*")
    decision = pdp.ask(handle, "mail/read")
    report(pdp, decision, "untrusted")

    def fail() -> None:
        raise StoreUnavailableError("a server may not know it")

    monkeypatch.setattr(store, "outwait", fail)
    with pytest.raises(StoreUnavailableError, match="a server may not know it"):
        report(pdp, decision, "untrusted")


def test_a_session_that_changes_meanwhile_gets_the_label(pdp: Opened, store: Store) -> None:
    """And keeps what it got otherwise."""
    session_id, handle = pdp.session("mail/*")
    read = pdp.ask(handle, "mail/read")

    def other() -> None:
        store.before = lambda: None
        store.change_tree(session_id, labelled(frozenset({"seen"}), by="dec_x"), wall_at=pdp.clock.now().wall_at)

    store.before = other
    report(pdp, read, "untrusted")

    assert ("seen", "untrusted") == pdp.stored(session_id).labels


def test_a_session_that_always_changes_is_a_conflict(pdp: Opened, store: Store) -> None:
    """The gateway may report again."""
    _, handle = pdp.session("mail/*")
    read = pdp.ask(handle, "mail/read")

    def fail() -> None:
        raise ConflictError("changed")

    store.before = fail
    with pytest.raises(ConflictError, match="changes too fast"):
        report(pdp, read, "untrusted")


def test_a_session_that_is_revoked_meanwhile_takes_no_report(pdp: Opened, store: Store) -> None:
    """Its result is not handed on."""
    session_id, handle = pdp.session("mail/*")
    read = pdp.ask(handle, "mail/read")

    def revoke() -> None:
        store.before = lambda: None
        pdp.embedded.registrar.revoke(Selector(kind="session", value=session_id), reason="r", caller=APPROVER)

    store.before = revoke
    with pytest.raises(WrongStateError, match="the session is revoked"):
        report(pdp, read, "untrusted")


@pytest.mark.parametrize("which", ["parent", "child"])
def test_a_chain_that_is_over_takes_no_report(pdp: Opened, which: str) -> None:
    """Whichever session of it has ended."""
    parent_id, parent = pdp.session("mail/*", may_delegate=True)
    child_id, child = pdp.request("mail/read", parent_session_handle=parent)
    read = pdp.ask(child, "mail/read")
    pdp.embedded.registrar.revoke(
        Selector(kind="session", value={"parent": parent_id, "child": child_id}[which]), reason="r", caller=APPROVER
    )

    with pytest.raises(WrongStateError, match="is revoked, not active"):
        report(pdp, read)


def test_a_clock_that_was_set_back_lets_calls_be_reported(pdp: Opened) -> None:
    """The store remembers a later time than that of the call."""
    _, handle = pdp.session("mail/*")
    pdp.clock.step_wall(-2 * REPORT_SECONDS)
    read = pdp.ask(handle, "mail/read")

    assert report(pdp, read).decision_id == read.id


@pytest.mark.parametrize("seconds", [0.0, -3600.0])
def test_a_token_is_the_same_at_once(pdp: Opened, seconds: float) -> None:
    """By the snapshot of its decision, also after the clock was set back; once the key of tokens is known."""
    outcomes, (_, handle) = pdp.embedded.outcomes, pdp.session("mail/*")
    first = pdp.ask(handle, "mail/read")
    at_first = outcomes.gives_tokens_at_once(pdp.embedded.keeper.current())
    outcomes.token(first)
    pdp.clock.step_wall(seconds)
    request = CallRequest(call=Call(session_handle=handle, server="mail", tool="read", arguments_json=b""))
    begun = list(pdp.embedded.authorizer.try_now([(request, GATEWAY, NO_PARENT)]))
    (decided,) = pdp.embedded.authorizer.decide_now(begun)

    assert decided is not None
    assert (False, True) == (at_first, outcomes.gives_tokens_at_once(decided.snapshot.bundle))
    at_once = outcomes.token_at_once(decided.decision, decided.snapshot.now.wall_at)
    assert outcomes.token(decided.decision) == at_once != ""


def test_what_has_no_token_at_once_is_not_decided_at_once(pdp: Opened) -> None:
    """Or it would be remembered, and its decision, which is made anew, would pass for a repetition."""
    _, handle = pdp.session("mail/*")
    request = CallRequest(call=Call(session_handle=handle, server="mail", tool="read", arguments_json=b""))
    authorizer, outcomes = pdp.embedded.authorizer, pdp.embedded.outcomes
    asked = [(request, GATEWAY, NO_PARENT)]

    assert list(authorizer.try_now(asked, reportable_at_once=outcomes.gives_tokens_at_once)) == []
    assert authorizer.authorize(request, GATEWAY).cache_result is CacheResult.MISS


@pytest.mark.parametrize(("seconds", "taken"), [(REPORT_SECONDS - 0.01, True), (REPORT_SECONDS, False)])
def test_a_report_has_a_quarter_of_an_hour(pdp: Opened, seconds: float, *, taken: bool) -> None:
    """Then the token is no longer good."""
    _, handle = pdp.session("mail/*")
    read = pdp.ask(handle, "mail/read")
    pdp.clock.advance(seconds)

    if taken:
        assert report(pdp, read).decision_id == read.id
    else:
        with pytest.raises(WrongStateError, match="more than 900 s ago"):
            report(pdp, read)


@pytest.mark.parametrize("caller", [SIBLING, STRANGER], ids=["sibling", "stranger"])
def test_only_the_caller_that_asked_reports(pdp: Opened, caller: Caller) -> None:
    """A gateway of the same tenant, or one of the same name in another, has no use of the token."""
    _, handle = pdp.session("mail/*")
    read = pdp.ask(handle, "mail/read")

    with pytest.raises(InvalidRequestError, match="`outcome_token`: was not given to this caller"):
        report(pdp, read, caller=caller)


def test_no_changed_token_is_good(pdp: Opened) -> None:
    """Not with one bit changed, nor cut, nor with anything behind it."""
    _, handle = pdp.session("mail/*")
    read = pdp.ask(handle, "mail/read")
    token = pdp.embedded.outcomes.token(read)
    content = urlsafe_b64decode(token.removeprefix("pdpo_"))
    changed = [
        content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]
        for place in range(len(content))
        for bit in range(8)
    ]
    changed += [content[:size] for size in range(len(content))]
    changed += [content + b"\n", content + b"0", b"\n" + content]
    wrong = ["pdpo_" + urlsafe_b64encode(one).decode() for one in changed]
    wrong += [token.removeprefix("pdpo_"), "pdpo_" + token, "pdpo_", "", "pdpo_é"]  # other spellings of nothing
    refused = 0
    for one in wrong:
        with pytest.raises(InvalidRequestError, match="outcome_token"):
            pdp.embedded.outcomes.report(OutcomeReport(outcome_token=one, status=CallStatus.FAILED), GATEWAY)
        refused += 1

    assert len(wrong) == refused > 1000


def test_a_token_of_another_deployment_is_no_good(pdp: Opened) -> None:
    """Its key is another one."""
    _, handle = pdp.session("mail/*")
    read = pdp.ask(handle, "mail/read")
    other = Outcomes(
        sessions=pdp.embedded.sessions,
        history=MemorySessionHistory(),
        bundle=pdp.embedded.keeper.current,
        clock=pdp.clock,
        observer=Observers(),
    )

    with pytest.raises(InvalidRequestError, match="outcome_token"):
        report(pdp, read, token=other.token(read))


@pytest.mark.parametrize(
    ("label", "problem"),
    [
        ("untrused", "unknown label: `untrused`; did you mean `untrusted`?"),
        ("open", "`open` widens"),
        ("shut", "`shut` does not come by a report"),
    ],
)
def test_only_declared_labels_that_take_away_are_reported(pdp: Opened, label: str, problem: str) -> None:
    """A gateway cannot give more authority by what it says of a result; and the right report may still come."""
    _, handle = pdp.session("mail/*")
    read = pdp.ask(handle, "mail/read")

    with pytest.raises(InvalidRequestError) as caught:
        report(pdp, read, "seen", label)
    assert ("labels[1]", True) == (caught.value.attribute, caught.value.problem.startswith(problem))
    assert ("seen",) == report(pdp, read, "seen").labels_added


def test_a_session_takes_no_more_labels_than_it_may_have(pdp: Opened, store: Store) -> None:
    """Every decision reads all of them."""
    session_id, handle = pdp.session("mail/*")
    full = labelled(frozenset(f"label-{number}" for number in range(MOST_LABELS)), by="test")
    store.change_tree(session_id, full, wall_at=pdp.clock.now().wall_at)

    with pytest.raises(InvalidRequestError, match="`labels`: more than 256 together"):
        report(pdp, pdp.ask(handle, "mail/read"), "untrusted")


def test_a_report_gives_no_label_that_an_ancestor_has_not_been_approved_for(pdp: Opened) -> None:
    """A child that has a label which widens now reports it for nobody above."""
    plain = FILES["bundle.yaml"].replace(b", widens: true", b"")
    pdp.reload({"bundle.yaml": plain})
    parent_id, parent = pdp.session("mail/*", may_delegate=True)
    _, child = pdp.request("mail/read", parent_session_handle=parent, labels=("open",))
    read = pdp.ask(child, "mail/read")
    pdp.reload({"bundle.yaml": FILES["bundle.yaml"]})

    with pytest.raises(InvalidRequestError, match="`open` widens"):
        report(pdp, read, "open")
    assert () == pdp.stored(parent_id).labels


def test_a_report_is_recorded_once(pdp: Opened, events: Events) -> None:
    """However often a gateway repeats it."""
    _, handle = pdp.session("mail/*")
    read = pdp.ask(handle, "mail/read")
    for _ in range(5):
        report(pdp, read, "untrusted")

    assert [("untrusted",)] == [event.lists["labels_added"] for event in events.reports]


def test_a_report_whose_record_was_lost_is_recorded_when_it_is_repeated(
    tmp_path: Path, store: Store, events: Events
) -> None:
    """The process ended after the label was written: the next one says what that report added."""
    history = MemorySessionHistory()
    with opened(tmp_path, FILES, sessions=store, history=history) as pdp:
        _, handle = pdp.session("mail/*")
        read = pdp.ask(handle, "mail/read")
        report(pdp, read, "untrusted")
        after = Outcomes(
            sessions=store, history=history, bundle=pdp.embedded.keeper.current, clock=pdp.clock, observer=events
        )
        said = OutcomeReport(outcome_token=after.token(read), status=CallStatus.SUCCEEDED, labels=("untrusted",))
        after.report(said, GATEWAY)

    assert [("untrusted",)] == [event.lists["labels_added"] for event in events.reports]


def test_a_refused_report_can_be_corrected(pdp: Opened, store: Store) -> None:
    """It was not kept."""
    session_id, handle = pdp.session("mail/*")
    full = labelled(frozenset(f"label-{number}" for number in range(MOST_LABELS)), by="test")
    store.change_tree(session_id, full, wall_at=pdp.clock.now().wall_at)
    read = pdp.ask(handle, "mail/read")
    with pytest.raises(InvalidRequestError, match="more than 256"):
        report(pdp, read, "untrusted")

    assert read.id == report(pdp, read).decision_id


def test_a_session_that_is_gone_is_not_found(pdp: Opened, store: Store) -> None:
    """Sessions that are over leave the store after a while."""
    _, handle = pdp.session("mail/*", duration=10.0)
    read = pdp.ask(handle, "mail/read")
    pdp.clock.advance(60.0)
    now = pdp.clock.now().wall_at
    store.purge(over_before=now, limit=9, wall_at=now)

    with pytest.raises(NotFoundError):
        report(pdp, read)


def test_a_deny_has_no_token(pdp: Opened) -> None:
    """Neither one of the policies, nor an allow that the record turned into one."""
    _, handle = pdp.session("mail/*", labels=("untrusted",))
    denied, allowed = pdp.ask(handle, "mail/send"), pdp.ask(handle, "mail/read")
    turned = replace(allowed, ruling=replace(allowed.ruling, outcome=Outcome.DENY, basis=Basis.RECORD_UNAVAILABLE))

    assert ["", ""] == [pdp.embedded.outcomes.token(one) for one in (denied, turned)]


def test_a_bundle_without_labels_wants_no_reports(tmp_path: Path) -> None:
    """Nobody would make use of them."""
    files = {
        **FILES,
        "bundle.yaml": b"name: plain\n",
        "mail.cedar": b'@id("mail/all") permit (principal, action, resource);',
    }
    with opened(tmp_path, files) as pdp:
        _, handle = pdp.session("mail/*")
        call = CallRequest(call=Call(session_handle=handle, server="mail", tool="read"))

        assert "" == pdp.embedded.outcomes.token(pdp.embedded.authorizer.authorize(call, GATEWAY))

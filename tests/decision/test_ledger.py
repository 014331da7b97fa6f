"""What an allowed call changes in its session: in which order, what others see of it, and what a failure means."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pdp.errors import ConflictError, OverloadedError, StoreUnavailableError, UnavailableError
from pdp.limits import MOST_LABELS
from pdp.model import Basis, CacheResult, Call, CallRequest, Decision, Session, TraceParent
from pdp.observer import Event
from pdp.registry.words import Selector
from pdp.sessions.lifecycle import labelled
from pdp.sessions.memory import MemorySessionStore
from pdp.sessions.values import SessionFilter
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
    tools={"mail": [tool("read"), tool("send"), tool("list")]},
    overlays={"mail": "tools: {read: {adds_labels: [untrusted, seen]}, list: {adds_labels: [seen]}}\n"},
    directory="{users: {alice: {}}, agents: {coder: {ceiling: ['mail/*']}}}",
    manifest="labels: {untrusted: {meaning: has read mail}, seen: {meaning: has looked}, other: {meaning: none}}",
)


class Store(MemorySessionStore):
    """A store that does something just before it settles; `before` is called once for each try."""

    def __init__(self) -> None:
        super().__init__()
        self.before: Callable[[], None] = lambda: None
        self.tries = 0

    def settle(
        self, chain: Sequence[Session], labels: frozenset[str], *, by: str, wall_at: float
    ) -> tuple[Session, ...]:
        """Settle, after what the test wants."""
        self.tries += 1
        self.before()
        return super().settle(chain, labels, by=by, wall_at=wall_at)


@pytest.fixture
def store() -> Store:
    """Return the store of the PDP."""
    return Store()


@pytest.fixture
def pdp(tmp_path: Path, store: Store) -> Iterator[Opened]:
    """Return a PDP with one tool that adds labels, and one that a label closes."""
    with opened(tmp_path, FILES, sessions=store) as one:
        yield one


def failing(error: Exception) -> Callable[[], None]:
    """Return what raises an error."""

    def fail() -> None:
        raise error

    return fail


def call(handle: str, name: str, request_id: str = "") -> CallRequest:
    """Return the request about a call."""
    return CallRequest(call=Call(session_handle=handle, server="mail", tool=name), request_id=request_id)


def basis(decision: Decision) -> str:
    """Return what a decision rests on."""
    return decision.ruling.basis.value


def test_a_label_names_the_decision_that_added_it(pdp: Opened) -> None:
    """Its first one; a later call adds nothing, and the answer says so."""
    session_id, handle = pdp.session("mail/*")
    listed, read, again = (pdp.ask(handle, f"mail/{name}") for name in ("list", "read", "read"))

    assert [("seen",), ("untrusted",), ()] == [one.labels_added for one in (listed, read, again)]
    assert {"seen": listed.id, "untrusted": read.id} == pdp.stored(session_id).label_origins
    assert [1 + 1, 3, 4] == [one.matter.session_epoch for one in (listed, read, again)]


def test_each_call_of_a_batch_sees_what_those_before_it_changed(pdp: Opened) -> None:
    """A batch is decided on one snapshot, and its own changes belong to it."""
    _, handle = pdp.session("mail/*")
    decisions = pdp.embedded.authorizer.batch([call(handle, name) for name in ("send", "read", "send")], GATEWAY)

    assert ["permit", "permit", "forbid"] == list(map(basis, decisions))


def test_a_batch_of_several_sessions_sees_what_their_ancestor_got(pdp: Opened) -> None:
    """A child reads; then its parent may not send any more, and a stranger may."""
    _, parent = pdp.session("mail/*", may_delegate=True)
    _, child = pdp.request("mail/read", parent_session_handle=parent)
    _, stranger = pdp.session("mail/*")
    asked = [call(parent, "send"), call(child, "read"), call(parent, "send"), call(stranger, "send")]

    assert ["permit", "permit", "forbid", "permit"] == list(map(basis, pdp.embedded.authorizer.batch(asked, GATEWAY)))


def test_a_session_that_changes_meanwhile_is_decided_again(pdp: Opened, store: Store) -> None:
    """On what it is then: here on the label that another call has added, and only one write is made."""
    session_id, handle = pdp.session("mail/*")

    def other_call() -> None:
        store.before = lambda: None
        add = labelled(frozenset({"untrusted", "seen"}), by="dec_other")
        store.change_tree(session_id, add, wall_at=pdp.clock.now().wall_at)

    store.before = other_call
    decision = pdp.ask(handle, "mail/read")

    assert ("permit", (), 3) == (basis(decision), decision.labels_added, decision.matter.session_epoch)
    assert {"untrusted": "dec_other", "seen": "dec_other"} == pdp.stored(session_id).label_origins


def test_a_revocation_meanwhile_wins(pdp: Opened, store: Store) -> None:
    """The call is decided again, and then the session is revoked."""
    session_id, handle = pdp.session("mail/*")

    def revoke() -> None:
        store.before = lambda: None
        pdp.embedded.registrar.revoke(Selector(kind="session", value=session_id), reason="r", caller=APPROVER)

    store.before = revoke

    assert "session_revoked" == basis(pdp.ask(handle, "mail/read"))
    assert () == pdp.stored(session_id).labels


def test_another_bundle_meanwhile_is_a_deny(pdp: Opened, store: Store) -> None:
    """What was decided by the former bundle is not written under the next one, which decides the next call."""
    session_id, handle = pdp.session("mail/*")

    def other_bundle() -> None:
        store.before = lambda: None
        pdp.reload({"mail.cedar": b'@id("mail/none") forbid (principal, action, resource);'})
        store.change_tree(session_id, labelled(frozenset({"other"}), by="x"), wall_at=pdp.clock.now().wall_at)

    store.before = other_bundle
    decision, later = pdp.ask(handle, "mail/read"), pdp.ask(handle, "mail/read")

    assert (Basis.LEDGER_UNAVAILABLE, Basis.FORBID) == (decision.ruling.basis, later.ruling.basis)
    assert ("other",) == pdp.stored(session_id).labels


def test_a_session_that_always_changes_is_a_deny(pdp: Opened, store: Store) -> None:
    """After four tries; nothing was added."""
    session_id, handle = pdp.session("mail/*")
    store.before = failing(ConflictError("changed"))
    decision = pdp.ask(handle, "mail/read")

    assert (Basis.LEDGER_UNAVAILABLE, 4) == (decision.ruling.basis, store.tries)
    assert () == pdp.stored(session_id).labels


@pytest.mark.parametrize(
    "error", [StoreUnavailableError("the disk is full"), OverloadedError("busy"), UnavailableError("no")]
)
def test_what_cannot_be_written_is_a_deny(pdp: Opened, store: Store, error: Exception) -> None:
    """Never an error of the call, and never an allow; the policies that permitted it are not named."""
    _, handle = pdp.session("mail/*")
    store.before = failing(error)
    decision = pdp.ask(handle, "mail/read")

    assert (Basis.LEDGER_UNAVAILABLE, str(error), ()) == (
        decision.ruling.basis,
        decision.ruling.detail,
        decision.ruling.policies,
    )
    assert "ledger" == decision.phases[-1][0]


def test_a_failure_concerns_one_call_of_a_batch(pdp: Opened, store: Store) -> None:
    """The others are decided; one that adds nothing needs no ledger."""
    _, handle = pdp.session("mail/*")
    store.before = failing(StoreUnavailableError("no"))
    decisions = pdp.embedded.authorizer.batch([call(handle, name) for name in ("send", "read", "send")], GATEWAY)

    assert ["permit", "ledger_unavailable", "permit"] == list(map(basis, decisions))


def test_a_failed_look_again_is_a_deny(pdp: Opened, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session has changed, and the store no longer answers."""
    _, handle = pdp.session("mail/*")

    def change_and_fail() -> None:
        monkeypatch.setattr(store, "view", lambda *_, **__: failing(StoreUnavailableError("gone"))())
        raise ConflictError("changed")

    store.before = change_and_fail

    assert Basis.LEDGER_UNAVAILABLE is pdp.ask(handle, "mail/read").ruling.basis


def test_a_retry_after_a_failure_is_another_decision(pdp: Opened, store: Store) -> None:
    """The same request id, another outcome: another decision id. A retry after the allow has the id of the allow."""
    _, handle = pdp.session("mail/*")
    store.before = failing(StoreUnavailableError("no"))
    denied = pdp.embedded.authorizer.authorize(call(handle, "read", "r-1"), GATEWAY)
    store.before = lambda: None
    allowed, repeated = (pdp.embedded.authorizer.authorize(call(handle, "read", "r-1"), GATEWAY) for _ in range(2))

    assert [False, True, True] == [one.allowed for one in (denied, allowed, repeated)]
    assert denied.id != allowed.id == repeated.id
    assert [("seen", "untrusted"), ()] == [allowed.labels_added, repeated.labels_added]


def test_a_failure_is_not_remembered(pdp: Opened, store: Store) -> None:
    """The cache holds what the policies said; the next call finds it, and then its label is written."""
    _, handle = pdp.session("mail/*")
    store.before = failing(StoreUnavailableError("no"))
    pdp.ask(handle, "mail/read")
    store.before = lambda: None
    decision = pdp.ask(handle, "mail/read")

    assert (CacheResult.HIT, ("seen", "untrusted")) == (decision.cache_result, decision.labels_added)


def test_a_call_that_changes_nothing_writes_nothing(pdp: Opened, store: Store) -> None:
    """Neither an allow without labels, nor a deny, nor an allow whose labels are there."""
    _, handle = pdp.session("mail/*")
    pdp.ask(handle, "mail/read")
    before = store.tries
    for name in ("read", "send", "list", "nothing"):
        pdp.ask(handle, f"mail/{name}")

    assert before == store.tries


def test_a_call_whose_labels_are_there_waits_until_all_know_them(
    pdp: Opened, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another call has added them, and may not be answered yet; what adds no label waits for nobody."""
    _, handle = pdp.session("mail/*")
    pdp.ask(handle, "mail/list")
    monkeypatch.setattr(store, "outwait", failing(StoreUnavailableError("a server may not know it")))
    again, other = pdp.ask(handle, "mail/list"), pdp.ask(handle, "mail/send")

    assert (Basis.LEDGER_UNAVAILABLE, "a server may not know it") == (again.ruling.basis, again.ruling.detail)
    assert "permit" == basis(other)


@pytest.mark.parametrize("full", ["session", "parent"])
def test_a_session_takes_no_more_labels_than_it_may_have(pdp: Opened, store: Store, full: str) -> None:
    """One more would be a deny, since every decision reads all of them; whichever session of the chain is full."""
    parent_id, parent = pdp.session("mail/*", may_delegate=True)
    child_id, child = pdp.request("mail/*", parent_session_handle=parent)
    filled = {"session": child_id, "parent": parent_id}[full]
    now = pdp.clock.now().wall_at
    (label,) = [labelled(frozenset(f"label-{number}" for number in range(MOST_LABELS - 1)), by="test")]
    store.change_where(SessionFilter(), lambda one: label(one) if one.id == filled else None, wall_at=now)
    read, listed = pdp.ask(child, "mail/read"), pdp.ask(child, "mail/list")

    assert (Basis.LEDGER_UNAVAILABLE, Basis.PERMIT) == (read.ruling.basis, listed.ruling.basis)
    assert "a session would have more than 256 labels" == read.ruling.detail
    assert MOST_LABELS == len(pdp.stored(filled).labels)


def test_added_labels_are_sorted(tmp_path: Path) -> None:
    """In the answer and in the session."""
    names = [f"label-{number}" for number in range(9)]
    overlay = f"tools: {{read: {{adds_labels: [{', '.join(reversed(names))}]}}}}\n"
    manifest = "labels: {" + ", ".join(f"{name}: {{meaning: none}}" for name in names) + "}"
    policies = b'@id("mail/all") permit (principal, action, resource);'
    files = {**FILES, "tools/mail.yaml": overlay.encode(), "bundle.yaml": manifest.encode(), "mail.cedar": policies}
    with opened(tmp_path, files) as pdp:
        session_id, handle = pdp.session("mail/*")

        assert tuple(names) == pdp.ask(handle, "mail/read").labels_added == pdp.stored(session_id).labels


def test_a_label_stays_when_the_decision_cannot_be_recorded(tmp_path: Path, store: Store) -> None:
    """It was written before, and then the answer became a deny: a session only ever gets too many labels."""

    class Full:
        def decision(self, decision: Decision, _: TraceParent) -> Decision:
            ruling = replace(decision.ruling, outcome=decision.ruling.outcome.DENY, basis=Basis.RECORD_UNAVAILABLE)
            return replace(decision, ruling=ruling)

        def event(self, _: Event) -> None:
            pass

    with opened(tmp_path, FILES, sessions=store, observer=Full()) as pdp:
        session_id, handle = pdp.session("mail/*")
        decision = pdp.ask(handle, "mail/read")

        assert Basis.RECORD_UNAVAILABLE is decision.ruling.basis
        assert ("seen", "untrusted") == pdp.stored(session_id).labels


def test_a_child_knows_where_its_labels_came_from(pdp: Opened) -> None:
    """It carries those of its parent, with their decisions."""
    _, parent = pdp.session("mail/*", may_delegate=True)
    read = pdp.ask(parent, "mail/read")
    child_id, _ = pdp.request("mail/read", parent_session_handle=parent)

    assert {"seen": read.id, "untrusted": read.id} == pdp.stored(child_id).label_origins

"""What policies see of earlier calls: how many were allowed in a session and below it, and which are done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Barrier

import pytest

from pdp.decision.ledger import Ledger
from pdp.errors import OverloadedError, StoreUnavailableError
from pdp.model import (
    Basis,
    CacheResult,
    Call,
    CallRequest,
    CallStatus,
    Decision,
    Outcome,
    Ruling,
    TraceParent,
    Visibility,
)
from pdp.observer import Event
from pdp.registry.outcomes import OutcomeReport
from pdp.sessions.history import MemorySessionHistory
from pdp.sessions.memory import MemorySessionStore
from pdp.sessions.values import Charge, Charged, Counts
from pdp.testing.bundles import bundle_files, tool, with_terms
from tests.machinery.oracle.opened import GATEWAY, Opened, opened

POLICIES = """
@id("git/all")
permit (principal, action in [Action::"read_only", Action::"mutating", Action::"destructive"], resource);

@id("git/three")
forbid (principal, action == Action::"git/commit", resource)
when { context.counts["git/commit"] >= 3 };

@id("git/tested")
forbid (principal, action == Action::"git/push", resource)
unless { context.done.contains("git/test") };

@id("git/shown")
forbid (principal, action == Action::"git/show", resource)
unless { context.done.contains("git/test") };

@id("git/often")
forbid (principal, action == Action::"git/clean", resource)
when { context.counts.mutating > 3 || context.counts["git/clean"] > 0 };

@id("git/once")
forbid (principal, action == Action::"git/drop", resource)
when { context.done.containsAny(["git/drop", "critical"]) };
"""
OVERLAY = """tools:
  log: {risk: read_only}
  test: {risk: read_only}
  show: {risk: read_only}
  commit: {risk: mutating}
  push: {risk: mutating, groups: [critical]}
  clean: {risk: destructive, adds_labels: [cleaned]}
"""
FILES = bundle_files(
    policies={"git": POLICIES},
    tools={"git": [tool(name) for name in ("log", "test", "show", "commit", "push", "clean", "drop")]},
    overlays={"git": OVERLAY},
    directory="{users: {alice: {}}, agents: {coder: {ceiling: ['git/*']}}}",
    manifest="labels: {cleaned: {meaning: cleaned, widens: true}}\ngroups: {critical: {meaning: some}}",
    schema=with_terms("max_calls?: Long"),
)
OTHER = {**FILES, "git.cedar": b'@id("git/all") permit (principal, action, resource);'}


class History(MemorySessionHistory):
    """A history that does something between a read of counts and the charge, or fails."""

    def __init__(self) -> None:
        super().__init__()
        self.between: Callable[[], None] = lambda: None
        self.failure: Exception | None = None
        self.calls: list[str] = []

    def counts(self, *which: object, **more: object) -> Counts:
        """Return the counts, and then do what the test wants."""
        self.calls.append("counts")
        if self.failure is not None:
            raise self.failure
        found = super().counts(*which, **more)  # type: ignore[arg-type] # passed on as it is
        self.between()
        return found

    def charge(self, charge: Charge) -> Charged:
        """Charge."""
        self.calls.append("charge")
        return super().charge(charge)


@pytest.fixture
def history() -> History:
    """Return the history of the PDP."""
    return History()


@pytest.fixture
def pdp(tmp_path: Path, history: History) -> Iterator[Opened]:
    """Return a PDP whose bundle has been active for a second."""
    with opened(tmp_path, FILES, history=history) as one:
        one.clock.advance(1)
        yield one


def basis(decision: Decision) -> str:
    """Return what a decision rests on."""
    return decision.ruling.basis.value


def bases(pdp: Opened, handle: str, *names: str) -> list[str]:
    """Call one tool after another; return what each answer rests on."""
    return [basis(pdp.ask(handle, f"git/{name}")) for name in names]


def fail(pdp: Opened, decision: Decision, status: CallStatus = CallStatus.FAILED) -> None:
    """Report what came of a call."""
    token = pdp.embedded.outcomes.token(decision)
    pdp.embedded.outcomes.report(OutcomeReport(outcome_token=token, status=status), GATEWAY)


def call(handle: str, name: str, request_id: str = "") -> CallRequest:
    """Return the request about a call."""
    return CallRequest(call=Call(session_handle=handle, server="git", tool=name), request_id=request_id)


def test_policies_see_how_often_a_tool_was_called(pdp: Opened) -> None:
    """Each call sees those before it, the answer is not remembered, and a denied call does not count."""
    _, handle = pdp.session("git/*")
    decisions = [pdp.ask(handle, "git/commit") for _ in range(5)]

    assert ["permit"] * 3 + ["forbid"] * 2 == list(map(basis, decisions))
    assert {CacheResult.BYPASS} == {one.cache_result for one in decisions}
    counted = [one.ruling.counted for one in decisions]
    assert [0, 1, 2, 3, 3] == [dict(one.counts)["git/commit"] for one in counted if one is not None]


def test_groups_are_counted(pdp: Opened) -> None:
    """A risk group, and a group of the bundle: each call counts in all of its groups."""
    _, handle = pdp.session("git/*")

    assert ["permit"] * 3 == bases(pdp, handle, "test", "commit", "commit")
    assert ["permit", "permit", "forbid"] == bases(pdp, handle, "push", "push", "clean")
    assert ["forbid"] == bases(pdp, handle, "drop")


def test_each_call_of_a_batch_sees_those_before_it(pdp: Opened) -> None:
    """In order."""
    _, handle = pdp.session("git/*")
    calls = [call(handle, name) for name in ("push", "test", "push", "commit", "commit", "commit", "commit")]
    decisions = pdp.embedded.authorizer.batch(calls, GATEWAY)

    assert ["forbid", *["permit"] * 5, "forbid"] == list(map(basis, decisions))


def test_what_does_not_count_writes_and_reads_nothing(pdp: Opened, history: History) -> None:
    """Nor does a bundle that counts nothing; and what is only counted is remembered as before."""
    _, handle = pdp.session("git/*")
    pdp.ask(handle, "git/log")
    assert [] == history.calls

    found = [pdp.ask(handle, "git/test").cache_result for _ in range(2)]
    assert [CacheResult.MISS, CacheResult.HIT] == found
    assert ["charge", "charge"] == history.calls

    pdp.reload(OTHER)
    history.calls.clear()
    assert ["permit"] * 2 == bases(pdp, handle, "test", "push")
    assert [] == history.calls


def test_a_failed_call_is_not_done_but_counts(pdp: Opened) -> None:
    """Once for each decision; another one that did not fail is done."""
    _, handle = pdp.session("git/*")
    first = pdp.ask(handle, "git/test")
    assert ["permit"] == bases(pdp, handle, "push")
    for _ in range(2):
        fail(pdp, first)
    assert ["forbid"] == bases(pdp, handle, "push")

    second = pdp.ask(handle, "git/test")
    fail(pdp, second, CallStatus.SUCCEEDED)
    assert ["permit"] == bases(pdp, handle, "push")
    for one in [pdp.ask(handle, "git/commit") for _ in range(3)]:
        fail(pdp, one)
    assert ["forbid"] == bases(pdp, handle, "commit")


def test_a_failure_is_one_of_the_names_that_the_call_was_counted_as(pdp: Opened) -> None:
    """Whatever group the tool is in when the report comes."""
    _, handle = pdp.session("git/*")
    bases(pdp, handle, "test")
    pushed, again = pdp.ask(handle, "git/push"), pdp.ask(handle, "git/push")
    pdp.reload({"tools/git.yaml": OVERLAY.replace("groups: [critical]", "groups: []").encode()})
    fail(pdp, pushed)

    assert ["forbid"] == bases(pdp, handle, "drop")
    fail(pdp, again)
    assert ["permit", "forbid"] == bases(pdp, handle, "drop", "drop")


def test_calls_count_in_all_sessions_above(pdp: Opened) -> None:
    """The session above sees those below it, and not the other way round; so do failures."""
    parent_id, parent = pdp.session("git/*", may_delegate=True)
    (_, one), (_, other) = (pdp.request("git/*", parent_session_handle=parent) for _ in range(2))
    assert ["permit"] * 2 == bases(pdp, one, "commit", "commit")
    assert ["permit"] == bases(pdp, other, "commit")

    denied = pdp.ask(other, "git/commit")
    assert ("ancestor_denied", parent_id, Basis.FORBID) == (
        basis(denied),
        denied.ruling.ancestor_id,
        denied.ruling.ancestor_basis,
    )
    assert ["forbid"] == bases(pdp, parent, "commit")

    tested = pdp.ask(one, "git/test")
    assert ["permit"] == bases(pdp, parent, "push")
    assert ["forbid"] == bases(pdp, other, "push")
    fail(pdp, tested)
    assert ["forbid"] * 2 == [*bases(pdp, parent, "push"), *bases(pdp, one, "push")]


def test_a_retry_counts_once_and_does_not_see_itself(pdp: Opened) -> None:
    """It gets the same answer for a minute; then it is another call."""
    _, handle = pdp.session("git/*")
    pdp.ask(handle, "git/commit"), pdp.ask(handle, "git/commit")
    first, again = (pdp.embedded.authorizer.authorize(call(handle, "commit", "r"), GATEWAY) for _ in range(2))
    assert ("permit", "permit", first.id) == (basis(first), basis(again), again.id)
    assert ["forbid"] == bases(pdp, handle, "commit")

    dropped = [pdp.embedded.authorizer.authorize(call(handle, "drop", "d"), GATEWAY) for _ in range(2)]
    assert ["permit", "permit"] == list(map(basis, dropped))
    pdp.clock.advance(60)
    late = pdp.embedded.authorizer.authorize(call(handle, "drop", "d"), GATEWAY)
    assert "forbid" == basis(late)


def test_a_call_that_was_overtaken_is_decided_again(pdp: Opened, history: History) -> None:
    """For each count that it has seen, also one that it does not change; the answer is that of the new counts.

    Nothing counts a call of `show`.
    """
    session_id, handle = pdp.session("git/*")

    def once(deed: Callable[[], object]) -> None:
        def act() -> None:
            history.between = lambda: None
            deed()

        history.between = act

    for name in ("show", "push"):
        once(partial(fail, pdp, pdp.ask(handle, "git/test")))
        assert ["forbid"] == bases(pdp, handle, name)

    bases(pdp, handle, "commit", "commit")
    snapshot = pdp.embedded.authorizer._snapshots.of_handle(handle, GATEWAY)
    allow = Ruling(outcome=Outcome.ALLOW, basis=Basis.PERMIT)
    ledger = Ledger(pdp.embedded.sessions, history)
    once(lambda: ledger.settle(snapshot, call(handle, "commit"), GATEWAY, allow, "dec_other"))
    assert ["forbid"] == bases(pdp, handle, "commit")
    assert 3 == history.counts([session_id], ["git/commit"]).of[session_id, "git/commit"].made


@pytest.mark.parametrize("failure", [StoreUnavailableError("gone"), OverloadedError("busy")])
def test_counts_that_cannot_be_read_are_a_deny(pdp: Opened, history: History, failure: Exception) -> None:
    """Of the calls that see them, and of no other."""
    _, handle = pdp.session("git/*")
    history.failure = failure

    assert ["ledger_unavailable", "permit"] == bases(pdp, handle, "commit", "test")


def test_a_session_that_is_older_than_what_counts_is_denied(pdp: Opened) -> None:
    """With advice; the calls that no policy counts go on, and so does a younger session."""
    pdp.reload(OTHER)
    old_id, old = pdp.session("git/*", may_delegate=True)
    bases(pdp, old, "test")
    pdp.reload(FILES)
    _, child = pdp.request("git/*", parent_session_handle=old)
    pdp.clock.advance(1)
    _, young = pdp.session("git/*")
    _, below = pdp.request("git/*", parent_session_handle=old)
    denied = pdp.ask(old, "git/commit")

    assert "budget_exhausted" == basis(denied)
    assert f"how often `git/commit` was called is not known: session `{old_id}` is older than what counts it" == (
        denied.ruling.detail
    )
    assert ("the session is older than a rule that counts its calls: ask for a new session",) == denied.ruling.advice
    assert ["permit"] == bases(pdp, old, "log")
    assert ["budget_exhausted", "ancestor_denied"] == [*bases(pdp, child, "commit"), *bases(pdp, below, "commit")]
    assert ["permit"] == bases(pdp, young, "commit")


def test_what_two_bundles_in_a_row_count_goes_on(pdp: Opened) -> None:
    """A change of other policies takes nothing from sessions; a bundle between that does not count it does."""
    _, handle = pdp.session("git/*")
    bases(pdp, handle, "commit", "commit")
    pdp.reload({"git.cedar": POLICIES.replace(">= 3", ">= 4").encode()})
    assert ["permit", "permit", "forbid"] == bases(pdp, handle, "commit", "commit", "commit")

    pdp.reload(OTHER)
    pdp.reload(FILES)
    assert ["budget_exhausted"] == bases(pdp, handle, "commit")


def test_a_history_that_was_lost_knows_no_counts(tmp_path: Path) -> None:
    """A session of before it is denied, though the bundle counted all of its calls."""
    store = MemorySessionStore()
    with opened(tmp_path, FILES, sessions=store) as pdp:
        pdp.clock.advance(1)
        _, handle = pdp.session("git/*")
        bases(pdp, handle, "commit")
        with opened(tmp_path, FILES, sessions=Unclosed(store), clock=pdp.clock) as again:
            assert ["budget_exhausted"] == bases(again, handle, "commit")
            pdp.clock.advance(1)
            assert ["permit"] == bases(again, again.session("git/*")[1], "commit")


class Unclosed:
    """A store that outlives the PDP that closes it."""

    def __init__(self, store: MemorySessionStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def close(self) -> None:
        """Leave it open."""


def test_listings_take_counts_for_unknown(pdp: Opened) -> None:
    """A tool whose calls depend on them is never listed as surely allowed."""
    _, handle = pdp.session("git/*")
    bases(pdp, handle, "commit", "commit", "commit")
    listed = pdp.embedded.authorizer.list_tools(handle, GATEWAY, with_readings=True)
    seen = {one.tool: one.visibility for one in listed.tools}

    depends = dict.fromkeys(("show", "commit", "push", "clean", "drop"), Visibility.DEPENDS)
    assert {**depends, "log": Visibility.ALWAYS, "test": Visibility.ALWAYS} == seen


def test_explanations_show_what_was_seen(pdp: Opened) -> None:
    """The counts of each session, and the same answer; a supposed session has called nothing."""
    session_id, handle = pdp.session("git/*")
    bases(pdp, handle, "commit", "commit", "commit")
    explained = pdp.embedded.explainer.explain(session_id, call("", "commit").call, GATEWAY)

    assert (Basis.FORBID, (("git/commit", 3),)) == (
        explained.ruling.basis,
        explained.sessions[0].counted.counts if explained.sessions[0].counted else None,
    )
    assert explained.summary.startswith("denied: `git/three`")


class Refusing:
    """An observer that refuses to record allowed calls of one tool."""

    refuses = "git/test"

    def decision(self, decision: Decision, parent: TraceParent) -> Decision:  # noqa: ARG002 - as observers have it
        """Turn an allow around."""
        if not decision.allowed or f"{decision.server}/{decision.matter.tool}" != self.refuses:
            return decision
        return replace(decision, ruling=Ruling(outcome=Outcome.DENY, basis=Basis.RECORD_UNAVAILABLE))

    def event(self, event: Event) -> None:
        """Take no notice."""


def test_a_call_that_could_not_be_recorded_is_not_done(tmp_path: Path) -> None:
    """It was denied after all, and does not count either."""
    watcher = Refusing()
    with opened(tmp_path, FILES, observer=watcher) as pdp:
        pdp.clock.advance(1)
        _, handle = pdp.session("git/*")
        assert ["record_unavailable", "forbid"] == bases(pdp, handle, "test", "push")
        watcher.refuses = "git/commit"
        assert ["record_unavailable"] * 3 == bases(pdp, handle, "commit", "commit", "commit")
        watcher.refuses = ""
        assert ["permit", "permit", "permit"] == bases(pdp, handle, "commit", "test", "push")


def test_many_threads_never_overshoot_and_always_go_ahead(pdp: Opened) -> None:
    """Sixteen threads on one session: as many as the policies allow, and no deny because of the others."""
    _, handle = pdp.session("git/*")
    barrier = Barrier(16)

    def ask(_: int) -> list[str]:
        barrier.wait()
        return bases(pdp, handle, "commit", "test", "drop", "commit")

    with ThreadPoolExecutor(max_workers=16) as threads:
        found = list(threads.map(ask, range(16)))

    assert {"permit", "forbid"} == {one for each in found for one in each}
    assert 3 == sum(each[0] == "permit" for each in found) + sum(each[3] == "permit" for each in found)
    assert 1 == sum(each[2] == "permit" for each in found)

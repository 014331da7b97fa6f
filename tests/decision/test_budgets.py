"""What a call takes of budgets: once, before the answer, from a session that is as the policies saw it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from pdp.errors import OverloadedError, StoreUnavailableError
from pdp.model import Basis, CacheResult, Call, CallRequest, Decision, Visibility
from pdp.registry.words import Selector
from pdp.sessions.history import MemorySessionHistory
from pdp.sessions.lifecycle import labelled
from pdp.sessions.memory import MemorySessionStore
from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.sessions.sqlitehistory import SQLiteSessionHistory
from pdp.sessions.values import Charge, Charged
from pdp.testing.bundles import bundle_files, tool, with_terms
from tests.machinery.oracle.opened import APPROVER, GATEWAY, Opened, opened

FILES = bundle_files(
    policies={"mail": '@id("mail/all") permit (principal, action, resource);'},
    tools={"mail": [tool("read"), tool("send"), tool("pay", {"cents": {"type": "integer"}}, ["cents"])]},
    overlays={"mail": "tools: {send: {adds_labels: [sent]}, pay: {sums: cents}}\n"},
    directory="{users: {alice: {}}, agents: {coder: {ceiling: ['mail/*']}}}",
    manifest="labels: {sent: {meaning: has sent}, other: {meaning: none}}",
    schema=with_terms("max_calls?: Long, max_calls_per_minute?: Long, max_sum?: Long"),
)
BUDGET = "max_calls"


class History(MemorySessionHistory):
    """A history that does something just after each charge, or fails."""

    def __init__(self) -> None:
        super().__init__()
        self.after: Callable[[], None] = lambda: None
        self.charges = 0
        self.failure: Exception | None = None

    def charge(self, charge: Charge) -> Charged:
        """Charge, and then do what the test wants."""
        if self.failure is not None:
            raise self.failure
        self.charges += 1
        charged = super().charge(charge)
        self.after()
        return charged


@pytest.fixture
def history() -> History:
    """Return the history of the PDP."""
    return History()


@pytest.fixture
def pdp(tmp_path: Path, history: History) -> Iterator[Opened]:
    """Return a PDP whose tools only budgets limit."""
    with opened(tmp_path, FILES, history=history) as one:
        yield one


def call(handle: str, name: str = "read", request_id: str = "", arguments: bytes = b"") -> CallRequest:
    """Return the request about a call."""
    asked = Call(session_handle=handle, server="mail", tool=name, arguments_json=arguments)
    return CallRequest(call=asked, request_id=request_id)


def basis(decision: Decision) -> str:
    """Return what a decision rests on."""
    return decision.ruling.basis.value


def limited(pdp: Opened, terms: bytes) -> tuple[str, str]:
    """Open a session with terms; return its id and its handle."""
    return pdp.session("mail/*", terms_json=terms)


def used(pdp: Opened, session_id: str, budget: str = BUDGET) -> int:
    """Return what is used up of a budget."""
    return pdp.embedded.history.used(session_id)[budget].used


def test_a_session_without_budgets_writes_nothing(pdp: Opened, history: History) -> None:
    """Whatever the others have."""
    session_id, handle = pdp.session("mail/*")
    pdp.ask(handle, "mail/read")

    assert (0, {}) == (history.charges, history.used(session_id))


def test_a_charge_changes_no_epoch_and_no_cache(pdp: Opened) -> None:
    """Budgets are no policies: what was remembered answers on, and no other worker reads the session anew."""
    session_id, handle = limited(pdp, b'{"max_calls":3}')
    decisions = [pdp.ask(handle, "mail/read") for _ in range(4)]

    assert [CacheResult.MISS, CacheResult.HIT, CacheResult.HIT, CacheResult.HIT] == [d.cache_result for d in decisions]
    assert [((BUDGET, 1),), ((BUDGET, 2),), ((BUDGET, 3),), ()] == [one.debits for one in decisions]
    assert {2} == {one.matter.session_epoch for one in decisions} == {pdp.stored(session_id).epoch}
    assert "budget_exhausted" == basis(decisions[3])
    assert f"too little is left of the budget `max_calls` of session `{session_id}`" == decisions[3].ruling.detail


def test_each_call_of_a_batch_is_charged(pdp: Opened) -> None:
    """In order."""
    _, handle = limited(pdp, b'{"max_calls":2}')
    decisions = pdp.embedded.authorizer.batch([call(handle) for _ in range(3)], GATEWAY)

    assert ["permit", "permit", "budget_exhausted"] == list(map(basis, decisions))


@pytest.mark.parametrize("labels", [True, False], ids=["with labels", "without labels"])
def test_a_budget_needs_no_label_in_the_bundle(tmp_path: Path, *, labels: bool) -> None:
    """It is charged also where no tool adds one; and a sum that cannot be counted is a deny at once."""
    overlay = FILES["tools/mail.yaml"] if labels else b"tools: {pay: {sums: cents}}"
    with opened(tmp_path, {**FILES, "tools/mail.yaml": overlay}) as pdp:
        _, handle = limited(pdp, b'{"max_calls": 1, "max_sum": 5}')
        negative = pdp.ask(handle, "mail/pay", b'{"cents": -1}')
        allowed, over = pdp.ask(handle, "mail/read"), pdp.ask(handle, "mail/read")

    assert ["budget_exhausted", "permit", "budget_exhausted"] == list(map(basis, (negative, allowed, over)))
    assert [(), (("max_calls", 1),), ()] == [one.debits for one in (negative, allowed, over)]


def test_an_answer_names_the_budgets_of_its_own_session(pdp: Opened) -> None:
    """What was taken of those above it is theirs to see."""
    parent_id, parent = pdp.session("mail/*", may_delegate=True, terms_json=b'{"max_calls": 7}')
    _, child = pdp.request("mail/*", parent_session_handle=parent, terms_json=b'{"max_calls": 2}')
    pdp.ask(parent, "mail/read")

    assert (("max_calls", 1),) == pdp.ask(child, "mail/read").debits
    assert 2 == used(pdp, parent_id)


def test_a_retry_is_charged_once(pdp: Opened) -> None:
    """The same caller, request id and call within a minute; the answer to it is the same, also when nothing is left."""
    session_id, handle = limited(pdp, b'{"max_calls":1}')
    first = pdp.embedded.authorizer.authorize(call(handle, request_id="r"), GATEWAY)
    pdp.clock.advance(59)
    again = pdp.embedded.authorizer.authorize(call(handle, request_id="r"), GATEWAY)

    assert ("permit", "permit", first.id) == (basis(first), basis(again), again.id)
    assert (((BUDGET, 1),), ()) == (first.debits, again.debits)
    pdp.clock.advance(1)
    late = pdp.embedded.authorizer.authorize(call(handle, request_id="r"), GATEWAY)
    assert ("budget_exhausted", 1) == (basis(late), used(pdp, session_id))


def test_another_worker_knows_a_retry(tmp_path: Path) -> None:
    """The receipt is in the file that they share, and not in the memory of one."""
    path = tmp_path / "history.db"
    store, one, other = MemorySessionStore(), SQLiteSessionHistory(path), SQLiteSessionHistory(path)
    with (
        opened(tmp_path / "a", FILES, sessions=store, history=one) as here,
        opened(tmp_path / "b", FILES, sessions=store, history=other, clock=here.clock) as there,
    ):
        session_id, handle = limited(here, b'{"max_calls":9}')
        here.embedded.authorizer.authorize(call(handle, request_id="r"), GATEWAY)
        again = there.embedded.authorizer.authorize(call(handle, request_id="r"), GATEWAY)

        assert ("permit", (), 1) == (basis(again), again.debits, used(there, session_id))


@pytest.mark.parametrize(
    ("asked", "caller"),
    [
        pytest.param({"request_id": "s"}, GATEWAY, id="request id"),
        pytest.param({"request_id": "r"}, replace(GATEWAY, id="gateway-2"), id="caller"),
        pytest.param({"request_id": ""}, GATEWAY, id="no request id"),
        pytest.param({"request_id": "s", "arguments": b"{}"}, GATEWAY, id="arguments"),
    ],
)
def test_another_call_is_no_retry(pdp: Opened, asked: dict[str, str], caller: object) -> None:
    """Each of these is charged on its own."""
    session_id, handle = limited(pdp, b'{"max_calls":9}')
    pdp.embedded.authorizer.authorize(call(handle, request_id="r"), GATEWAY)
    pdp.embedded.authorizer.authorize(call(handle, **asked), caller)  # type: ignore[arg-type]

    assert 2 == used(pdp, session_id)


def test_a_session_that_changes_meanwhile_is_decided_again(pdp: Opened, history: History) -> None:
    """On what it is then; what was taken before is taken back, and the call pays once."""
    session_id, handle = limited(pdp, b'{"max_calls":9}')

    def other_call() -> None:
        history.after = lambda: None
        pdp.embedded.sessions.change_tree(session_id, labelled(frozenset({"other"}), by="dec_x"), wall_at=0.0)

    history.after = other_call
    decision = pdp.ask(handle, "mail/read")

    assert ("permit", ((BUDGET, 1),), 3) == (basis(decision), decision.debits, decision.matter.session_epoch)
    assert (2, 1) == (history.charges, used(pdp, session_id))


@pytest.mark.parametrize("name", ["read", "send"])
def test_a_revocation_meanwhile_wins(pdp: Opened, history: History, name: str) -> None:
    """Of the session, or one above it, whether or not the call adds labels; nothing is taken."""
    parent_id, parent = pdp.session("mail/*", may_delegate=True, terms_json=b'{"max_calls":9}')
    child_id, child = pdp.request("mail/*", parent_session_handle=parent)

    def revoke() -> None:
        history.after = lambda: None
        pdp.embedded.registrar.revoke(Selector(kind="session", value=parent_id), reason="r", caller=APPROVER)

    history.after = revoke
    decision = pdp.ask(child, f"mail/{name}")

    assert "session_revoked" == basis(decision)
    assert (0, 0) == (used(pdp, parent_id), used(pdp, child_id))


def test_a_session_that_always_changes_is_a_deny(pdp: Opened, history: History) -> None:
    """After four tries; nothing is taken."""
    session_id, handle = limited(pdp, b'{"max_calls":9}')

    def change() -> None:
        label = f"x{history.charges}"
        pdp.embedded.sessions.change_tree(session_id, labelled(frozenset({label}), by="dec_x"), wall_at=0.0)

    history.after = change

    assert Basis.LEDGER_UNAVAILABLE is pdp.ask(handle, "mail/read").ruling.basis
    assert (4, 0) == (history.charges, used(pdp, session_id))


@pytest.mark.parametrize("error", [StoreUnavailableError("the disk is full"), OverloadedError("busy")])
def test_what_cannot_be_written_is_a_deny(pdp: Opened, history: History, error: Exception) -> None:
    """Never an error of the call, and never an allow; what needs no budget is answered."""
    _, handle = limited(pdp, b'{"max_calls":9}')
    _, free = pdp.session("mail/*")
    history.failure = error
    decision = pdp.ask(handle, "mail/read")

    assert (Basis.LEDGER_UNAVAILABLE, str(error)) == (decision.ruling.basis, decision.ruling.detail)
    assert "permit" == basis(pdp.ask(free, "mail/read"))


def test_labels_that_cannot_be_written_cost_nothing(tmp_path: Path) -> None:
    """The charge comes first, and is taken back."""

    class Full(MemorySessionStore):
        def settle(self, *_: object, **__: object) -> tuple[()]:
            raise StoreUnavailableError("the disk is full")

    with opened(tmp_path, FILES, sessions=Full()) as pdp:
        session_id, handle = limited(pdp, b'{"max_calls":9}')

        assert Basis.LEDGER_UNAVAILABLE is pdp.ask(handle, "mail/send").ruling.basis
        assert 0 == used(pdp, session_id)


@pytest.mark.parametrize("error", [StoreUnavailableError("no answer"), OverloadedError("no answer")], ids=type)
def test_sessions_that_cannot_be_read_again_are_a_deny(tmp_path: Path, error: Exception) -> None:
    """What is unknown is no allow; nothing is taken."""

    class Silent(MemorySessionStore):
        def __init__(self) -> None:
            super().__init__()
            self.left = 10**9

        def view(self, *given: Any, **named: Any):  # type: ignore[no-untyped-def]  # noqa: ANN202 - as the method
            self.left -= 1
            if self.left < 0:
                raise error
            return super().view(*given, **named)

    store = Silent()
    with opened(tmp_path, FILES, sessions=store) as pdp:
        session_id, handle = limited(pdp, b'{"max_calls":9}')
        store.left = 1
        decision = pdp.ask(handle, "mail/read")

        assert (Basis.LEDGER_UNAVAILABLE, "no answer") == (decision.ruling.basis, decision.ruling.detail)
        assert 0 == used(pdp, session_id)


@pytest.mark.parametrize("error", [StoreUnavailableError("busy"), OverloadedError("busy")], ids=type)
def test_what_cannot_be_taken_back_is_a_deny(tmp_path: Path, error: Exception) -> None:
    """It stays taken: that costs a call and grants none."""

    class Stuck(History):
        def take_back(self, _: Charge, __: float) -> None:
            raise error

    history = Stuck()
    with opened(tmp_path, FILES, history=history) as pdp:
        session_id, handle = limited(pdp, b'{"max_calls":9}')
        history.after = lambda: pdp.embedded.registrar.narrow(  # type: ignore[assignment]
            session_id, tool_patterns=(), expires_at=None, labels=("other",), caller=APPROVER
        )

        assert (Basis.LEDGER_UNAVAILABLE, "busy") == (
            (found := pdp.ask(handle, "mail/read").ruling).basis,
            found.detail,
        )
        assert 1 == used(pdp, session_id)


def test_a_deny_takes_nothing_of_any_budget(pdp: Opened) -> None:
    """Neither of those that had enough left, in the session and above it."""
    parent_id, parent = pdp.session("mail/*", may_delegate=True, terms_json=b'{"max_calls":9,"max_sum":100}')
    child_id, child = pdp.request("mail/*", parent_session_handle=parent)
    paid = [pdp.ask(child, "mail/pay", b'{"cents":%d}' % cents) for cents in (60, 41, 40)]

    assert ["permit", "budget_exhausted", "permit"] == list(map(basis, paid))
    assert [2, 2] == [used(pdp, one) for one in (child_id, parent_id)]
    assert [1_000_000] * 2 == [used(pdp, one, "max_sum") for one in (child_id, parent_id)]


@pytest.mark.parametrize("most", [1, 40])
def test_many_workers_and_threads_overshoot_no_budget(tmp_path: Path, most: int) -> None:
    """Two stores on the same files and sixteen threads: exactly as many calls are allowed as the budget says."""
    files = tmp_path / "sessions.db", tmp_path / "history.db"
    stores = [SQLiteSessionStore(files[0]) for _ in range(2)]
    histories = [SQLiteSessionHistory(files[1]) for _ in range(2)]
    with (
        opened(tmp_path / "a", FILES, sessions=stores[0], history=histories[0]) as here,
        opened(tmp_path / "b", FILES, sessions=stores[1], history=histories[1], clock=here.clock) as there,
    ):
        parent_id, parent = here.session("mail/*", may_delegate=True, terms_json=b'{"max_calls":%d}' % most)
        children = [here.request("mail/*", parent_session_handle=parent)[1] for _ in range(3)]
        handles, barrier = [parent, *children], Barrier(16)

        def ask(number: int) -> int:
            barrier.wait()
            worker = (here, there)[number % 2]
            return sum(worker.ask(handles[number % 4], "mail/read").allowed for _ in range(most // 10 + 2))

        with ThreadPoolExecutor(max_workers=16) as threads:
            allowed = sum(threads.map(ask, range(16)))

        assert most == allowed == used(there, parent_id)


def test_what_is_left_is_shown(pdp: Opened) -> None:
    """As texts; nothing for a session that is over, or in a list."""
    session_id, handle = limited(pdp, b'{"max_calls":3,"max_sum":5}')
    pdp.ask(handle, "mail/pay", b'{"cents":2}')
    shown = pdp.embedded.registrar.get(session_id, caller=APPROVER).budgets

    assert [("max_calls", "3", "2"), ("max_sum", "5.0000", "3.0000")] == [(b.name, b.most, b.left) for b in shown]
    pdp.embedded.registrar.end(handle, caller=GATEWAY)
    assert () == pdp.embedded.registrar.get(session_id, caller=APPROVER).budgets


def test_an_explanation_foresees_a_used_up_budget(pdp: Opened) -> None:
    """As the call would be answered now; for another time nothing is known, and the policies alone answer."""
    parent_id, parent = pdp.session("mail/*", may_delegate=True, terms_json=b'{"max_calls":1}')
    child_id, child = pdp.request("mail/*", parent_session_handle=parent)
    explain, asked = pdp.embedded.explainer.explain, call("").call
    before = explain(child_id, asked, GATEWAY)
    pdp.ask(parent, "mail/read")
    now, later = explain(child_id, asked, GATEWAY), explain(child_id, asked, GATEWAY, at=pdp.clock.now().wall_at + 1)

    assert (True, False, True) == tuple(one.ruling.allowed for one in (before, now, later))
    assert pdp.ask(child, "mail/read").ruling == now.ruling
    assert f"denied: too little is left of the budget `max_calls` of session `{parent_id}` above" == now.summary


def test_a_tool_that_a_budget_limits_is_listed_as_depending(pdp: Opened) -> None:
    """Not every call of it is allowed; a tool that takes nothing of it is listed as without it."""
    _, handle = limited(pdp, b'{"max_sum":5}')
    listed = pdp.embedded.authorizer.list_tools(handle, GATEWAY).tools

    seen = {one.tool: one.visibility for one in listed}
    assert {"pay": Visibility.DEPENDS, "read": Visibility.ALWAYS, "send": Visibility.ALWAYS} == seen

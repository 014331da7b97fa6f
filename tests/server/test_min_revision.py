"""`min_revision`: an answer about a call that knows a change, or no answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import pytest

from pdp.client import Answer, Client, ToolCall
from pdp.client.batching import batch_message
from pdp.client.gathering import Question
from pdp.server.revisions import optional_revision, revision_text
from pdp.testing.bundles import bundle_files, tool
from pdp.testing.inprocess import RunningServer, running_server
from pdp.v1.authorization_pb2 import AuthorizeRequest

FILES = bundle_files(
    policies={"git": '@id("git/all") permit (principal, action, resource);'},
    tools={"git": [tool("commit"), tool("log")]},
    overlays={"git": "risk: mutating"},
    directory="{users: {alice: {}}, agents: {coder: {ceiling: ['git/*']}}}",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """A server, its gateway, and a session that may call everything; the approval had `revision`."""

    server: RunningServer
    pep: Client
    handle: str
    session_id: str
    revision: str

    def call(self, min_revision: str = "", **more: Any) -> ToolCall:
        """Return a call that names a revision."""
        return ToolCall(session_handle=self.handle, server="git", tool="log", min_revision=min_revision, **more)

    def later(self) -> str:
        """Return a revision that is yet to come."""
        head = self.server.embedded.sessions.head()
        return revision_text(replace(head, revision=head.revision + 1))

    def of_another_history(self) -> str:
        """Return a revision with the number of the latest one, and another tag."""
        return revision_text(replace(self.server.embedded.sessions.head(), tag="another"))


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """Return a running server."""
    with running_server(FILES) as running:
        yield running


@pytest.fixture
def asking(server: RunningServer) -> Asking:
    """Return a new session."""
    pep, approver = server.client("pep"), server.client("approver")
    opened = pep.request_session(user="alice", agent="coder", purpose="p", tools=("git/*",))
    session_id = opened.session.session_id
    approver.approve_session(session_id, request_digest=opened.session.request_digest)
    return Asking(
        server=server, pep=pep, handle=opened.session_handle, session_id=session_id, revision=approver.revision
    )


def alone(asking: Asking, call: ToolCall) -> Answer:
    """Ask about one call."""
    return asking.pep.ask(call)


def in_a_batch(asking: Asking, call: ToolCall) -> Answer:
    """Ask about two calls together, of which the other one names no revision."""
    return asking.pep.batch([asking.call(), call])[1]


def on_a_stream(asking: Asking, call: ToolCall) -> Answer:
    """Ask on an open stream."""
    with asking.pep.stream() as stream:
        return stream.ask(call)


WAYS = pytest.mark.parametrize("ask", [alone, in_a_batch, on_a_stream])


@WAYS
def test_an_answer_knows_what_it_must(asking: Asking, ask: Callable[[Asking, ToolCall], Answer]) -> None:
    """The change that an earlier answer has named, and any before it."""
    approver = asking.server.client("approver")
    before = ask(asking, asking.call(asking.revision))
    approver.revoke_sessions(session_id=asking.session_id, reason="enough")
    named = {asking.revision, approver.revision}

    assert before.allowed
    assert 2 == len(named)
    assert ["session_revoked"] * 2 == [ask(asking, asking.call(one)).basis for one in sorted(named)]


@WAYS
@pytest.mark.parametrize("unknown", [Asking.later, Asking.of_another_history])
def test_without_the_change_there_is_no_answer(
    asking: Asking, ask: Callable[[Asking, ToolCall], Answer], unknown: Callable[[Asking], str]
) -> None:
    """A store that does not have it says so, whatever it would answer otherwise."""
    answer = ask(asking, asking.call(unknown(asking)))

    assert (False, "error", "UNKNOWN_REVISION") == (answer.allowed, answer.basis, answer.reason)
    assert "no such revision" in answer.error


def test_a_batch_reads_the_store_once_for_each_session_and_each_change(asking: Asking) -> None:
    """Not each session for each change: a hundred calls would read it ten thousand times."""
    store = asking.server.embedded.sessions
    more = [asking.pep.request_session(user="alice", agent="coder", purpose="p", tools=("git/*",)) for _ in range(2)]
    handles, latest = [asking.handle, *(one.session_handle for one in more)], store.head()
    calls = [
        ToolCall(session_handle=handle, server="git", tool="log", min_revision=revision_text(head))
        for handle, head in zip(handles, (replace(latest, revision=latest.revision - n) for n in range(3)), strict=True)
    ]
    with patch.object(store, "view", wraps=store.view) as view:
        answers = asking.pep.batch(calls)

    assert ["", "", ""] == [one.error for one in answers]
    assert 5 == view.call_count


@WAYS
def test_what_is_no_revision_is_refused(asking: Asking, ask: Callable[[Asking, ToolCall], Answer]) -> None:
    """By the name of the field."""
    answer = ask(asking, asking.call("1"))

    assert (False, "INVALID_FIELD") == (answer.allowed, answer.reason)
    assert "min_revision`: not a revision" in answer.error


def test_a_revision_is_no_part_of_the_call(asking: Asking) -> None:
    """The cache answers for any, and a retry may name another."""
    first = asking.pep.ask(asking.call(asking.revision, request_id="r"))
    again = asking.pep.ask(asking.call("", request_id="r"))

    assert ("miss", "hit") == (first.cache_result, again.cache_result)
    assert first.decision_id == again.decision_id


def test_calls_that_are_asked_about_together_keep_their_revisions() -> None:
    """Each its own."""
    questions = [
        Question(AuthorizeRequest(min_revision=one), credentials=(), trace=(), deadline=1.0, signal=None)
        for one in ("a", "", "b")
    ]

    assert ["a", "", "b"] == [one.min_revision for one in batch_message(questions).requests]


def test_every_change_of_authority_names_a_revision(asking: Asking) -> None:
    """Later changes other ones, and each can be insisted on."""
    approver, admin, author = (asking.server.client(role) for role in ("approver", "admin", "author"))
    named = [asking.revision]
    approver.narrow_session(asking.session_id, tools=("git/log",))
    named.append(approver.revision)
    freeze = admin.set_freeze(tenant="default", reason="x")
    named.append(admin.revision)
    approver.lift_freeze(freeze.freeze_id)
    named.append(approver.revision)
    asking.server.embedded.sessions.change_freeze(freeze.freeze_id, lambda _: None, wall_at=0.0)
    named.append(author.reload_bundle().revision)
    asking.pep.end_session(asking.handle)
    named.append(asking.pep.revision)
    numbers = [head.revision for one in named if (head := optional_revision("revision", one)) is not None]

    assert sorted(numbers) == numbers
    assert 6 == len(numbers)
    assert {"session_ended"} == {asking.pep.ask(asking.call(one)).basis for one in named}

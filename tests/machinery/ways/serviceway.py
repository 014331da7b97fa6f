"""The way of a case through the published client and the real server on loopback."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from pdp.client import Answer, AuthorizationStream, Client, PDPClientError, ToolCall
from pdp.client.asking import PreparedCall, judge, prepare
from pdp.client.batching import batch_answers, batch_message
from pdp.client.errors import CallStatusError, reason_of
from pdp.client.gathering import Question
from pdp.foundation.obligations import KNOWN
from pdp.testing.inprocess import RunningServer, running_server
from pdp.v1.session_pb2 import Session, SessionState
from tests.machinery.ways.notation import Case, Step, changed, files_of, plain, written
from tests.machinery.ways.ways import (
    CALLERS,
    UNKNOWN_HANDLE,
    RefusedError,
    Seen,
    Sessions,
    ends_at,
    kinds_of,
    listed,
    move_time,
    stated_digest,
)

# The client's word for a status, and the class of error that it stands for.
_CLASSES = {"invalid_argument": "InvalidRequestError", "unavailable": "UnavailableError"}
# A bundle that does not load has no class of its own on the other side of the wire.
_ALSO = {"WrongStateError": ("BundleError",)}


class ServiceWay:
    """Through the published client and the real server.

    Calls go as `asked` says for their place in the table: by `unary`, in a `batch` of one, in one of independent calls
    (`together`), or on one `stream`.
    """

    serves = True
    remembers = True

    def __init__(self, case: Case, server: RunningServer, asked: Mapping[str, str], opened: ExitStack) -> None:
        self.evidence = server.evidence
        self._bundle = case.bundle
        self._server = server
        self._asked = asked
        self._opened = opened
        self._streams: dict[str, AuthorizationStream] = {}
        self._sessions = Sessions()
        self.ids = self._sessions.ids
        self.questions = self._sessions.questions

    def take(self, step: Step) -> Mapping[str, Any]:
        """Take a step that is no call."""
        if move_time(self._server.clock, step):
            # A stream on which nothing has come for so long is ended, sooner or later.
            self._streams.clear()
            return {}
        deed: Callable[[Step, Client], Mapping[str, Any]] = getattr(self, f"_{step.verb}")
        try:
            return deed(step, self._server.client(step.caller))
        except PDPClientError as error:
            raise RefusedError(_kinds(error), str(error)) from error

    def call(self, step: Step, request_id: str) -> Seen:
        """Ask about a call."""
        server, _, tool = step.subject.partition("/")
        call = ToolCall(
            session_handle=self._sessions.handles.get(step.given["session"], UNKNOWN_HANDLE),
            server=server,
            tool=tool,
            arguments=step.arguments,
            definition_digest=stated_digest(self._bundle, step),
            facts=step.facts,
            request_id=request_id,
            tool_call_id=request_id,
        )
        answer = self._ask(call, step.caller, self._asked[step.place])
        if answer.error:
            # The client never raises for a call; the status stands in front of its text.
            raise RefusedError((_CLASSES[answer.error.partition(":")[0]],), answer.error)
        if "result" in step.given:
            self._server.client(step.caller).report_outcome(answer, result=plain(step.given["result"]))
        if step.given.get("fails"):
            self._server.client(step.caller).report_outcome(answer, succeeded=False)
        return self._seen(answer, step)

    def _ask(self, call: ToolCall, caller: str, how: str) -> Answer:
        client = self._server.client(caller, [*KNOWN, *self._bundle.get("obligations", ())])
        if how == "batch":
            return client.batch([call])[0]
        if how == "together":
            return asked_together(client, call)
        if how == "stream":
            if caller not in self._streams:
                self._streams[caller] = self._opened.enter_context(client.stream())
            return self._streams[caller].ask(call)
        return client.ask(call)

    def _request(self, step: Step, client: Client) -> Mapping[str, Any]:
        given = step.given
        opened = client.request_session(
            user=given["user"],
            agent=given["agent"],
            purpose=step.given.get("purpose", "to show a rule"),
            tools=given["tools"],
            duration=given.get("duration"),
            parent_session_handle=self._sessions.handles[given.get("parent", "")],
            environment=given.get("environment", ""),
            user_attributes=written(given.get("attributes")),
            labels=given.get("labels", ()),
            may_delegate=given.get("may_delegate", False),
            terms=written(given.get("terms")),
        )
        session = opened.session
        self._sessions.add(step.subject, session.session_id, opened.session_handle, session.request_digest)
        return {"becomes": _shown(session)["state"]}

    _delegate = _request

    def _approve(self, step: Step, client: Client) -> Mapping[str, Any]:
        session_id, shown = self._sessions.ids[step.subject], self._sessions.shown[step.subject]
        if step.given.get("shown") == "now":
            shown = client.get_session(session_id).request_digest
        grants = step.given.get("grants", ())
        if grants and shown == client.get_session(session_id).request_digest:
            shown = client.review_session(session_id, grants=grants).session.request_digest
        return _shown(client.approve_session(session_id, request_digest=shown, grants=grants))

    def _deny(self, step: Step, client: Client) -> Mapping[str, Any]:
        return _shown(client.deny_session(self._sessions.ids[step.subject], reason="no need"))

    def _end(self, step: Step, client: Client) -> Mapping[str, Any]:
        return _shown(client.end_session(self._sessions.handles[step.subject]))

    def _revoke(self, step: Step, client: Client) -> Mapping[str, Any]:
        ((kind, value),) = step.subject.items()
        selector: dict[str, Any] = {"session_id": self._sessions.ids[value]} if kind == "session" else {kind: value}
        revoked = client.revoke_sessions(reason="no longer trusted", **selector)
        return {"revokes": sorted(map(self._sessions.named, revoked))}

    def _narrow(self, step: Step, client: Client) -> Mapping[str, Any]:
        narrowed = client.narrow_session(
            self._sessions.ids[step.subject],
            tools=step.given.get("tools", ()),
            expires_at=ends_at(self._server.clock, step),
            labels=step.given.get("labels", ()),
        )
        return _shown(narrowed)

    def _look(self, step: Step, client: Client) -> Mapping[str, Any]:
        session = client.get_session(self._sessions.ids[step.subject])
        return {**_shown(session), "left": {one.name: one.left for one in session.budgets}}

    def _list(self, step: Step, client: Client) -> Mapping[str, Any]:
        return listed(client.list_tools(self._sessions.handles[step.subject]))

    def _reload(self, step: Step, client: Client) -> Mapping[str, Any]:
        bundle = changed(self._bundle, step.subject or {})
        self._server.write_policies(files_of(bundle))
        differs = client.reload_bundle().changed
        self._bundle = bundle
        return {"changed": differs}

    def _approve_call(self, step: Step, client: Client) -> Mapping[str, Any]:
        request_id, calls = self.questions[step.subject], step.given.get("calls", 1)
        # What is over has no digest.
        shown = client.get_access_request(request_id).request_digest or "sha256:" + "0" * 64
        client.approve_call(request_id, request_digest=shown, calls=calls)
        return {}

    def _deny_call(self, step: Step, client: Client) -> Mapping[str, Any]:
        client.deny_call(self.questions[step.subject], reason="no need")
        return {}

    def _revoke_call(self, step: Step, client: Client) -> Mapping[str, Any]:
        client.revoke_access(reason="no longer needed", access_request_id=self.questions[step.subject])
        return {}

    def _freeze(self, step: Step, client: Client) -> Mapping[str, Any]:
        everywhere = step.subject == "all"
        client.set_freeze(tenant="" if everywhere else step.subject, all_tenants=everywhere, reason="to look into it")
        return {}

    def _lift(self, step: Step, client: Client) -> Mapping[str, Any]:
        tenant = "" if step.subject == "all" else step.subject
        (freeze,) = (one for one in client.list_freezes() if one.tenant == tenant)
        return {"left": "nothing" if client.lift_freeze(freeze.freeze_id).lifted else "confirmed"}

    def _seen(self, answer: Answer, step: Step) -> Seen:
        return Seen(
            allowed=answer.allowed,
            basis=answer.basis,
            policies=answer.policies,
            session=self._sessions.named(answer.session_id),
            ancestor=self._sessions.named(answer.ancestor_session_id),
            ancestor_basis=answer.ancestor_basis,
            labels_added=answer.labels_added,
            obligations=tuple((one.id, one.parameters_json.decode("utf-8")) for one in answer.obligations),
            advice=self._advice(answer),
            # An allow does not say whose answer it rests on.
            question=None if answer.allowed else self._sessions.asked(answer.access_request_id, step),
            lifted=answer.policies_lifted,
            cache=answer.cache_result,
            user=answer.user,
            agent=answer.agent,
        )

    def _advice(self, answer: Answer) -> tuple[str, ...]:
        """Return what policies advise: our own line comes first, then what is wrong with arguments, or is asked."""
        if answer.basis == "invalid_arguments":
            return ()
        policies = "".join(self._bundle["policies"].values())
        asked = re.findall(r'@step_up\("([^"]*)"\)', policies) if answer.waits else ()
        return tuple(line for line in answer.advice[1:] if line not in asked)


def asked_together(client: Client, call: ToolCall) -> Answer:
    """Ask about a call in a message of independent calls, as the client does for several callers."""
    prepared = prepare(call)
    assert isinstance(prepared, PreparedCall)
    questions = (Question(prepared.request, credentials=(), trace=(), deadline=0.0, signal=None),)
    (answer,) = batch_answers(questions, client._calls.batch_authorize(batch_message(questions), "", ""))
    if isinstance(answer, CallStatusError):
        return prepared.refused(client._connection.describe(answer), reason_of(answer))
    return judge(prepared, answer.decision, client._known_obligations)


@contextmanager
def service_way(case: Case, asked: Mapping[str, str]) -> Iterator[ServiceWay]:
    """Open the way through a server; `asked` says for the place of each call how the client asks."""
    trusted = frozenset(case.trusts)
    with (
        running_server(files_of(case.bundle), callers=tuple(CALLERS.values()), trusted_attributes=trusted) as server,
        ExitStack() as opened,
    ):
        yield ServiceWay(case, server, asked, opened)


def _kinds(error: PDPClientError) -> tuple[str, ...]:
    names = kinds_of(error)
    return names + _ALSO.get(names[0], ())


def _shown(session: Session) -> Mapping[str, Any]:
    state = SessionState.Name(session.state).removeprefix("SESSION_STATE_").lower()
    return {"state": state, "tools": [f"{tool.server}/{tool.tool}" for tool in session.tools]}

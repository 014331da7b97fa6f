"""Every RPC as a value: its path, its request, and how its answer is read. Shared by both clients."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar
from uuid import uuid4

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from pdp.client.asking import json_object
from pdp.client.enumwords import session_state
from pdp.client.errors import InvalidRequestError, PDPClientError, SessionNotApprovedError
from pdp.client.fencing import OnFence, told
from pdp.client.reading import NOTHING_HELD, HeldDigests
from pdp.client.uploads import bundle_upload, evaluation_upload
from pdp.client.values import Answer, ListedTool
from pdp.model import Visibility
from pdp.v1 import authorization_pb2, caller_pb2, calltoken_pb2, explain_pb2, policy_pb2, reach_pb2, session_pb2
from pdp.v1.session_pb2 import Session

# A report names its decision, of which there is one.
_READING = ("Get", "List", "Plan", "Review", "Explain", "ReportOutcome", "CheckCallToken")

_ENDING = (
    "RevokeSessions",
    "DenySession",
    "NarrowSession",
    "EndSession",
    "DenyCall",
    "RevokeAccess",
    "SetFreeze",
    "ListFreezes",
    "ActivateBundle",
    "ReloadBundle",
    "WithdrawCallTokenKey",
)

_VISIBLE = re.compile(r"[\x21-\x7e]+")

Reply = TypeVar("Reply", bound=Message)
Result = TypeVar("Result")
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Method(Generic[Reply]):
    """One RPC: its path and the type of its answer."""

    path: str
    reply: type[Reply]

    @property
    def ends_authority(self) -> bool:
        """Say whether the RPC is served at the control address too."""
        return self.path.rpartition("/")[2] in _ENDING

    def unary(self, channel: Any) -> Any:  # noqa: ANN401 - gRPC has no types
        """Return the callable for the RPC on a channel of either transport."""
        return channel.unary_unary(
            self.path, request_serializer=_serialize, response_deserializer=self.reply.FromString
        )

    def upload(self, channel: Any) -> Any:  # noqa: ANN401 - gRPC has no types
        """Return the callable for the RPC with several messages."""
        return channel.stream_unary(
            self.path, request_serializer=_serialize, response_deserializer=self.reply.FromString
        )

    def feed(self, channel: Any) -> Any:  # noqa: ANN401 - gRPC has no types
        """Return the callable that asks once for many messages."""
        return channel.unary_stream(
            self.path, request_serializer=_serialize, response_deserializer=self.reply.FromString
        )

    def stream(self, channel: Any) -> Any:  # noqa: ANN401 - gRPC has no types
        """Return the callable that opens the RPC as a stream both ways."""
        return channel.stream_stream(
            self.path, request_serializer=_serialize, response_deserializer=self.reply.FromString
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Generic[Reply, Result]):
    """One management call: an RPC, its request, and the part of its reply that the caller wants.

    A request of several messages is an upload. `metadata` is sent beside the client's own.
    """

    method: Method[Reply]
    request: Message | tuple[Message, ...] = field(repr=False)
    read: Callable[[Reply], Result]
    metadata: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def on(self, channel: Any) -> Any:  # noqa: ANN401 - gRPC has no types
        """Return a callable that makes the call on a channel, any number of times."""
        if isinstance(self.request, Message):
            return partial(self.method.unary(channel), self.request)
        # A new iterator each time: gRPC reads it to its end.
        call, messages = self.method.upload(channel), self.request
        return lambda **options: call(iter(messages), **options)

    @property
    def repeatable(self) -> bool:
        """Say whether a repeated call changes nothing more: it reads, or is told by its request id."""
        reads = self.method.path.rpartition("/")[2].startswith(_READING)
        return reads or self.told_by_id or bool(getattr(self.request, "validate_only", False))

    @property
    def told_by_id(self) -> bool:
        """Say whether the server tells a repeated call by its request id, and answers it like the first."""
        return bool(getattr(self.request, "request_id", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[Item]):
    """A part of a long list, and the token of the next part; empty at the end."""

    items: Sequence[Item]
    next_token: str


AUTHORIZE = Method(path="/pdp.v1.AuthorizationService/Authorize", reply=authorization_pb2.AuthorizeResponse)
WATCH_SESSIONS = Method(path="/pdp.v1.SessionService/WatchSessions", reply=session_pb2.WatchSessionsResponse)
BATCH_AUTHORIZE = Method(
    path="/pdp.v1.AuthorizationService/BatchAuthorize", reply=authorization_pb2.BatchAuthorizeResponse
)
AUTHORIZE_STREAM = Method(
    path="/pdp.v1.AuthorizationService/AuthorizeStream", reply=authorization_pb2.AuthorizeStreamResponse
)

_VISIBILITIES = {
    authorization_pb2.VISIBILITY_DEPENDS: Visibility.DEPENDS,
    authorization_pb2.VISIBILITY_ALWAYS: Visibility.ALWAYS,
}


def get_caller() -> Operation[caller_pb2.GetCallerResponse, caller_pb2.Caller]:
    """Show the caller."""
    return Operation(
        method=Method(path="/pdp.v1.CallerService/GetCaller", reply=caller_pb2.GetCallerResponse),
        request=caller_pb2.GetCallerRequest(),
        read=lambda reply: reply.caller,
    )


def get_call_token_keys() -> Operation[calltoken_pb2.GetCallTokenKeysResponse, calltoken_pb2.GetCallTokenKeysResponse]:
    """Show the public keys of call tokens."""
    return Operation(
        method=_call_token_method("GetCallTokenKeys", calltoken_pb2.GetCallTokenKeysResponse),
        request=calltoken_pb2.GetCallTokenKeysRequest(),
        read=lambda reply: reply,
    )


def check_call_token(
    token: str, min_revision: str
) -> Operation[calltoken_pb2.CheckCallTokenResponse, calltoken_pb2.CheckCallTokenResponse]:
    """Ask whether a call token still counts."""
    return Operation(
        method=_call_token_method("CheckCallToken", calltoken_pb2.CheckCallTokenResponse),
        request=calltoken_pb2.CheckCallTokenRequest(token=token, min_revision=min_revision),
        read=lambda reply: reply,
    )


def withdraw_call_token_key(key_id: str, *, reason: str) -> Operation[calltoken_pb2.WithdrawCallTokenKeyResponse, bool]:
    """Withdraw a key of call tokens."""
    return Operation(
        method=_call_token_method("WithdrawCallTokenKey", calltoken_pb2.WithdrawCallTokenKeyResponse),
        request=calltoken_pb2.WithdrawCallTokenKeyRequest(key_id=key_id, reason=reason, request_id=new_request_id()),
        read=lambda reply: reply.known,
    )


def watch_sessions(since_revision: str, session_id: str, heartbeat: float | None) -> session_pb2.WatchSessionsRequest:
    """Return the question of a watch."""
    request = session_pb2.WatchSessionsRequest(since_revision=since_revision, session_id=session_id)
    if heartbeat is not None:
        request.heartbeat.CopyFrom(_duration(heartbeat))
    return request


def list_tools(
    session_handle: str, session_id: str = ""
) -> Operation[authorization_pb2.ListToolsResponse, tuple[str, tuple[ListedTool, ...]]]:
    """Ask which tools a session can call, and for its public id; a known `session_id` must be in the reply."""

    def read(reply: authorization_pb2.ListToolsResponse) -> tuple[str, tuple[ListedTool, ...]]:
        if session_id and reply.session_id != session_id:
            raise PDPClientError(f"the list of tools is for another session than `{session_id}`")
        return reply.session_id, tuple(_listed(tool) for tool in reply.tools)

    return Operation(
        method=Method(path="/pdp.v1.AuthorizationService/ListTools", reply=authorization_pb2.ListToolsResponse),
        request=authorization_pb2.ListToolsRequest(session_handle=session_handle),
        read=read,
    )


def report_outcome(
    answer: Answer, *, succeeded: bool, labels: Sequence[str], held: HeldDigests
) -> Operation[authorization_pb2.ReportOutcomeResponse, None]:
    """Report what came of the call that an answer allowed. Raise `PDPClientError` when it cannot be reported."""
    if not answer.outcome_token:
        why = "the active bundle makes no use of it" if answer.allowed else "it was denied"
        raise PDPClientError(f"what came of `{answer.server}/{answer.tool}` cannot be reported: {why}")
    return Operation(
        method=Method(path="/pdp.v1.AuthorizationService/ReportOutcome", reply=authorization_pb2.ReportOutcomeResponse),
        request=authorization_pb2.ReportOutcomeRequest(
            outcome_token=answer.outcome_token,
            status=authorization_pb2.CALL_STATUS_SUCCEEDED if succeeded else authorization_pb2.CALL_STATUS_FAILED,
            labels=_strings("labels", labels),
            values=authorization_pb2.ReportedValues(issued=held.issued, others=held.others)
            if held != NOTHING_HELD
            else None,
        ),
        read=lambda _: None,
    )


def request_session(
    *,
    user: str,
    agent: str,
    purpose: str,
    tools: Sequence[str],
    duration: float | None,
    parent_session_handle: str,
    environment: str,
    user_attributes: Mapping[str, Any] | bytes | None,
    labels: Sequence[str],
    may_delegate: bool,
    terms: Mapping[str, Any] | bytes | None,
) -> Operation[session_pb2.RequestSessionResponse, session_pb2.RequestSessionResponse]:
    """Ask for a session."""
    request = session_pb2.RequestSessionRequest(
        user=user,
        agent=agent,
        purpose=purpose,
        tool_patterns=_strings("tools", tools),
        parent_session_handle=parent_session_handle,
        environment=environment,
        user_attributes_json=json_object("user_attributes", user_attributes),
        labels=_strings("labels", labels),
        may_delegate=may_delegate,
        terms_json=json_object("terms", terms),
        request_id=new_request_id(),
    )
    if duration is not None:
        request.duration.CopyFrom(_duration(duration))
    return Operation(
        method=_session_method("RequestSession", session_pb2.RequestSessionResponse),
        request=request,
        read=_opened,
    )


def approve_session(
    session_id: str,
    *,
    request_digest: str,
    grants: Sequence[str],
    tools: Sequence[str],
    duration: float | None,
    terms: Mapping[str, Any] | bytes | None,
    id_token: str,
    on_fence: OnFence = None,
) -> Operation[session_pb2.ApproveSessionResponse, Session]:
    """Approve exactly what was shown."""
    return Operation(
        method=_session_method("ApproveSession", session_pb2.ApproveSessionResponse),
        request=session_pb2.ApproveSessionRequest(
            session_id=session_id,
            request_digest=request_digest,
            grants=_strings("grants", grants),
            narrowing=_narrowing(tools, duration, terms),
            request_id=new_request_id(),
        ),
        read=lambda reply: told(reply, on_fence).session,
        metadata=presence(id_token),
    )


def presence(id_token: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata with the ID token of a log-in, none for an empty one. Raise `InvalidRequestError`."""
    if not id_token:
        return ()
    if not _VISIBLE.fullmatch(id_token):
        raise InvalidRequestError("`id_token` holds characters other than visible ASCII")
    return (("pdp-id-token", id_token),)


def deny_session(session_id: str, *, reason: str) -> Operation[session_pb2.DenySessionResponse, Session]:
    """Deny a requested session."""
    return Operation(
        method=_session_method("DenySession", session_pb2.DenySessionResponse),
        request=session_pb2.DenySessionRequest(session_id=session_id, reason=reason, request_id=new_request_id()),
        read=lambda reply: reply.session,
    )


def end_session(session_handle: str, *, on_fence: OnFence = None) -> Operation[session_pb2.EndSessionResponse, Session]:
    """End a session."""
    return Operation(
        method=_session_method("EndSession", session_pb2.EndSessionResponse),
        request=session_pb2.EndSessionRequest(session_handle=session_handle, request_id=new_request_id()),
        read=lambda reply: told(reply, on_fence).session,
    )


def revoke_sessions(
    *, session_id: str, user: str, agent: str, tenant: str, of_tenant: str, reason: str, on_fence: OnFence = None
) -> Operation[session_pb2.RevokeSessionsResponse, tuple[str, ...]]:
    """Revoke the sessions that one selector names."""
    return Operation(
        method=_session_method("RevokeSessions", session_pb2.RevokeSessionsResponse),
        request=_revocation(session_id, user, agent, tenant, of_tenant, reason=reason),
        read=lambda reply: tuple(told(reply, on_fence).session_ids),
    )


def preview_revocation(
    *, session_id: str, user: str, agent: str, tenant: str, of_tenant: str
) -> Operation[session_pb2.RevokeSessionsResponse, session_pb2.RevokeSessionsResponse]:
    """Show what a revocation would revoke."""
    # INVARIANT: no reason is sent. A server that does not know `validate_only` then refuses, and revokes nothing.
    return Operation(
        method=_session_method("RevokeSessions", session_pb2.RevokeSessionsResponse),
        request=_revocation(session_id, user, agent, tenant, of_tenant, validate_only=True),
        read=_unchanged,
    )


def review_session(
    session_id: str,
    *,
    grants: Sequence[str],
    tools: Sequence[str],
    duration: float | None,
    terms: Mapping[str, Any] | bytes | None,
) -> Operation[session_pb2.ReviewSessionResponse, session_pb2.ReviewSessionResponse]:
    """Show one session as an approver judges it."""
    return Operation(
        method=_session_method("ReviewSession", session_pb2.ReviewSessionResponse),
        request=session_pb2.ReviewSessionRequest(
            session_id=session_id, grants=_strings("grants", grants), narrowing=_narrowing(tools, duration, terms)
        ),
        read=_unchanged,
    )


def get_reach(
    *,
    session_id: str,
    user: str,
    agent: str,
    asked_now: bool,
    terms: Mapping[str, Any] | bytes | None,
    used_days: int,
    page_size: int,
    page_token: str,
    former_version: str = "",
) -> Operation[reach_pb2.GetReachResponse, reach_pb2.GetReachResponse]:
    """Show a page of the tools that can be called."""
    return Operation(
        method=Method(path="/pdp.v1.ReachService/GetReach", reply=reach_pb2.GetReachResponse),
        request=reach_pb2.GetReachRequest(
            session_id=session_id,
            user=user,
            agent=agent,
            asked_now=asked_now,
            terms_json=json_object("terms", terms),
            used_days=used_days,
            page_size=page_size,
            page_token=page_token,
            former_version=former_version,
        ),
        read=_unchanged,
    )


def get_session(session_id: str, min_revision: str = "") -> Operation[session_pb2.GetSessionResponse, Session]:
    """Show one session."""
    return Operation(
        method=_session_method("GetSession", session_pb2.GetSessionResponse),
        request=session_pb2.GetSessionRequest(session_id=session_id, min_revision=min_revision),
        read=lambda reply: reply.session,
    )


def list_sessions(
    *, state: str, user: str, agent: str, tenant: str, summaries: bool, page_size: int, page_token: str
) -> Operation[session_pb2.ListSessionsResponse, Page[Session]]:
    """List one page of sessions."""
    name = f"SESSION_STATE_{state.upper()}" if state else "SESSION_STATE_UNSPECIFIED"
    if name not in session_pb2.SessionState.keys():  # noqa: SIM118 - the enum wrapper is no mapping
        raise InvalidRequestError(f"`state`: unknown session state: `{state}`")
    return Operation(
        method=_session_method("ListSessions", session_pb2.ListSessionsResponse),
        request=session_pb2.ListSessionsRequest(
            state=name,
            user=user,
            agent=agent,
            tenant=tenant,
            summaries=summaries,
            page_size=page_size,
            page_token=page_token,
        ),
        read=lambda reply: Page(items=reply.sessions, next_token=reply.next_page_token),
    )


def narrow_session(
    session_id: str,
    *,
    tools: Sequence[str],
    expires_at: float | None,
    labels: Sequence[str],
    on_fence: OnFence = None,
) -> Operation[session_pb2.NarrowSessionResponse, Session]:
    """Narrow an active session."""
    request = session_pb2.NarrowSessionRequest(
        session_id=session_id,
        tool_patterns=_strings("tools", tools),
        labels=_strings("labels", labels),
        request_id=new_request_id(),
    )
    if expires_at is not None:
        seconds, nanos = _seconds_and_nanos(expires_at)
        request.expire_time.CopyFrom(Timestamp(seconds=seconds, nanos=nanos))
    return Operation(
        method=_session_method("NarrowSession", session_pb2.NarrowSessionResponse),
        request=request,
        read=lambda reply: told(reply, on_fence).session,
    )


def get_bundle(
    version: str, *, with_sessions: bool = False, policy_ids: Sequence[str] = ()
) -> Operation[policy_pb2.GetBundleResponse, policy_pb2.GetBundleResponse]:
    """Show a bundle; without a version, the running one."""
    return Operation(
        method=_policy_method("GetBundle", policy_pb2.GetBundleResponse),
        request=policy_pb2.GetBundleRequest(version=version, with_sessions=with_sessions, policy_ids=policy_ids),
        read=_unchanged,
    )


def list_bundles() -> Operation[policy_pb2.ListBundlesResponse, tuple[policy_pb2.Bundle, ...]]:
    """List the bundles that are kept."""
    return Operation(
        method=_policy_method("ListBundles", policy_pb2.ListBundlesResponse),
        request=policy_pb2.ListBundlesRequest(),
        read=lambda reply: tuple(reply.bundles),
    )


def activate_bundle(
    version: str, *, reason: str
) -> Operation[policy_pb2.ActivateBundleResponse, policy_pb2.ActivateBundleResponse]:
    """Make a version the running bundle."""
    return Operation(
        method=_policy_method("ActivateBundle", policy_pb2.ActivateBundleResponse),
        request=policy_pb2.ActivateBundleRequest(version=version, reason=reason, request_id=new_request_id()),
        read=_unchanged,
    )


def reload_bundle() -> Operation[policy_pb2.ReloadBundleResponse, policy_pb2.ReloadBundleResponse]:
    """Load what the server's source of bundles holds now."""
    return Operation(
        method=_policy_method("ReloadBundle", policy_pb2.ReloadBundleResponse),
        request=policy_pb2.ReloadBundleRequest(request_id=new_request_id()),
        read=_unchanged,
    )


def check_bundle(
    files: Mapping[str, bytes] | None,
) -> Operation[policy_pb2.CheckBundleResponse, policy_pb2.CheckBundleResponse]:
    """Check a bundle without loading it."""
    return Operation(
        method=_policy_method("CheckBundle", policy_pb2.CheckBundleResponse),
        request=bundle_upload(files or {}),
        read=_unchanged,
    )


def evaluate(
    requests: Iterable[Mapping[str, Any] | str],
    *,
    policies: str | None,
    entities: Sequence[Mapping[str, Any]] | str,
    schema: str | Mapping[str, Any],
    template_links: Iterable[policy_pb2.TemplateLink],
    validate: bool,
    skip_request_validation: bool,
) -> Operation[policy_pb2.EvaluateResponse, policy_pb2.EvaluateResponse]:
    """Evaluate plain Cedar; without `policies`, those of the running bundle."""
    return Operation(
        method=_policy_method("Evaluate", policy_pb2.EvaluateResponse),
        request=evaluation_upload(
            policy_pb2.EvaluateRequest(
                policies=policies or "",
                running_bundle=policies is None,
                schema=schema if isinstance(schema, str) else "",
                schema_json="" if isinstance(schema, str) else json.dumps(schema),
                entities_json=_json_text(entities),
                template_links=template_links,
                validate=validate,
                requests_json=[_json_text(request) for request in requests],
                skip_request_validation=skip_request_validation,
            )
        ),
        read=_unchanged,
    )


def explain(
    server: str,
    tool: str,
    arguments: Mapping[str, Any] | bytes | None,
    *,
    session_id: str,
    user: str,
    agent: str,
    grants: Sequence[str],
    labels: Sequence[str],
    purpose: str,
    environment: str,
    user_attributes: Mapping[str, Any] | bytes | None,
    terms: Mapping[str, Any] | bytes | None,
    definition_digest: str,
    facts: Mapping[str, Any] | bytes | None,
    caller_id: str,
    at: float | None,
) -> Operation[explain_pb2.ExplainResponse, explain_pb2.ExplainResponse]:
    """Explain a call of an existing session, or of a hypothetical one."""
    supposed = explain_pb2.SupposedSession(
        user=user,
        agent=agent,
        grants=_strings("grants", grants),
        labels=_strings("labels", labels),
        purpose=purpose,
        environment=environment,
        user_attributes_json=json_object("user_attributes", user_attributes),
        terms_json=json_object("terms", terms),
    )
    if bool(session_id) == bool(supposed.ByteSize()):
        raise InvalidRequestError("pass either `session_id`, or `user` and `agent` of a supposed session")
    request = explain_pb2.ExplainRequest(
        session_id=session_id or None,
        supposed=None if session_id else supposed,
        server=server,
        tool=tool,
        arguments_json=json_object("arguments", arguments),
        definition_digest=definition_digest,
        facts_json=json_object("facts", facts),
        caller_id=caller_id,
    )
    if at is not None:
        seconds, nanos = _seconds_and_nanos(at)
        request.time.CopyFrom(Timestamp(seconds=seconds, nanos=nanos))
    return Operation(
        method=_policy_method("Explain", explain_pb2.ExplainResponse),
        request=request,
        read=_unchanged,
    )


def is_approved(session: Session) -> bool:
    """Say whether a session is active (True) or waits for approval (False).

    Raise `SessionNotApprovedError` when it will never be active.
    """
    if session.state == session_pb2.SESSION_STATE_ACTIVE:
        return True
    if session.state == session_pb2.SESSION_STATE_REQUESTED:
        return False
    raise SessionNotApprovedError(
        f"the state of session `{session.session_id}` is {session_state(session)}"
        + (f": {session.reason}" if session.reason else "")
    )


def still_waiting(session: Session, wait: float) -> SessionNotApprovedError:
    """Return the error for a session that was not approved within `wait` seconds."""
    return SessionNotApprovedError(f"session `{session.session_id}` was not approved within {wait:g} s")


def _narrowing(
    tools: Sequence[str], duration: float | None, terms: Mapping[str, Any] | bytes | None
) -> session_pb2.Narrowing | None:
    if not tools and duration is None and terms is None:
        return None
    return session_pb2.Narrowing(
        tool_patterns=_strings("tools", tools),
        duration=None if duration is None else _duration(duration),
        terms_json=json_object("terms", terms),
    )


def _revocation(
    session_id: str,
    user: str,
    agent: str,
    tenant: str,
    of_tenant: str,
    *,
    reason: str = "",
    validate_only: bool = False,
) -> session_pb2.RevokeSessionsRequest:
    selectors = {"session_id": session_id, "user": user, "agent": agent, "tenant": tenant}
    given = {name: value for name, value in selectors.items() if value}
    if len(given) != 1:
        raise InvalidRequestError(
            f"exactly one of `session_id`, `user`, `agent` and `tenant` is required, not {len(given)}"
        )
    request = session_pb2.RevokeSessionsRequest(
        reason=reason,
        validate_only=validate_only,
        of_tenant=of_tenant,
        request_id="" if validate_only else new_request_id(),
    )
    for name, value in given.items():
        setattr(request, name, value)
    return request


def _opened(reply: session_pb2.RequestSessionResponse) -> session_pb2.RequestSessionResponse:
    if not reply.session_handle or not reply.session.session_id:
        raise PDPClientError("the server returned no session")
    return reply


def new_request_id() -> str:
    """Return an id under which one change is asked for, as often as it takes."""
    return uuid4().hex


def _unchanged(reply: Reply) -> Reply:
    return reply


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _call_token_method(name: str, reply: type[Reply]) -> Method[Reply]:
    return Method(path=f"/pdp.v1.CallTokenService/{name}", reply=reply)


def _session_method(name: str, reply: type[Reply]) -> Method[Reply]:
    return Method(path=f"/pdp.v1.SessionService/{name}", reply=reply)


def _policy_method(name: str, reply: type[Reply]) -> Method[Reply]:
    return Method(path=f"/pdp.v1.PolicyService/{name}", reply=reply)


def _listed(tool: authorization_pb2.ToolVisibility) -> ListedTool:
    # INVARIANT: an absent or unknown value is never visible.
    visibility = _VISIBILITIES.get(tool.visibility, Visibility.NEVER)
    return ListedTool(
        server=tool.server, tool=tool.tool, visibility=visibility, definition_digest=tool.definition_digest
    )


def _strings(field: str, values: Sequence[str]) -> list[str]:
    # One string is a sequence of its characters: `tools="*"` or `"git/log"` would silently change its meaning.
    if isinstance(values, str):
        raise InvalidRequestError(f"`{field}` must be a list of texts, not one text: `{values}`")
    return list(values)


def _duration(seconds: float) -> Duration:
    whole, nanos = _seconds_and_nanos(seconds)
    return Duration(seconds=whole, nanos=nanos)


def _seconds_and_nanos(value: float) -> tuple[int, int]:
    return divmod(round(value * 1_000_000_000), 1_000_000_000)


def _json_text(value: Mapping[str, Any] | Sequence[Mapping[str, Any]] | str) -> str:
    return value if isinstance(value, str) else json.dumps(value)

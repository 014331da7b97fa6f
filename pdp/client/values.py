"""A gateway's questions and answers, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pdp.model import Basis, Outcome, Visibility

ERROR_BASIS = "error"  # The basis of a deny that the client made itself.


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTokenRequest:
    """A call token to ask for with a call: for one audience, and for one presenter.

    A thumbprint is a SHA-256 in base64url, of the certificate's DER or of the key by RFC 7638. Without one, only a
    process on the tool server's machine can present the token.
    """

    audience: str
    certificate_thumbprint: str = ""
    key_thumbprint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallToken:
    """A call token, good until `expires_at` in unix seconds, or in `refusal` why there is none."""

    audience: str
    token: str = field(default="", repr=False)
    expires_at: float = 0.0
    refusal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One tool call to ask about.

    `arguments` is the agent's JSON object: a mapping, or its bytes, which are sent unchanged.
    `definition_digest` is the tool's digest as the gateway sees it now; empty when it is not stated.
    `facts` is what the gateway vouches for, in the fields that the bundle declares.
    A known `session_id` must come back in the answer.
    `request_id` makes a repeated question safe; when empty, a fresh one is made.
    `call_tokens` are those that an allow is to bring, at most two.
    `min_revision`, from the answer to a change or from a message of `watch_sessions`, is what the answer must know.
    """

    server: str
    tool: str
    arguments: Mapping[str, Any] | bytes | None = field(default=None, repr=False)
    session_handle: str = field(default="", repr=False)
    session_id: str = ""
    definition_digest: str = ""
    facts: Mapping[str, Any] | bytes | None = field(default=None, repr=False)
    request_id: str = ""
    tool_call_id: str = ""
    call_tokens: tuple[CallTokenRequest, ...] = ()
    min_revision: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Obligation:
    """An action that the gateway must take for an allowed call; `parameters_json` is a JSON object."""

    id: str
    parameters_json: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultReading:
    """How the server wants the result of an allowed call read for its report; a secret of the session.

    `key` is that of the digests, `trusted` says that strangers do not write the result, `issues` are the paths to its
    fields that issue ids, `kinds` those that targets are compared in beside the kind of a value's shape, and
    `arguments_json` is what the call was asked about with.
    """

    key: bytes = field(repr=False)
    trusted: bool
    issues: tuple[str, ...]
    kinds: tuple[str, ...]
    arguments_json: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Whether one tool call can go ahead, and why. An answer is true exactly when the call is allowed.

    `basis` is a name of `pdp.model.Basis` such as `permit` or `out_of_scope`, or `error` when there is no reliable
    decision: then `error` says why in one line, and `reason`, for programs, is the server's own such as
    `STORE_UNAVAILABLE`, if it gave one. `advice` tells the agent what to do about a deny.
    The other fields are the server's, and empty where it stated nothing. `duration_us` is its own time, `labels_added`
    are the labels that the call added to its session or to one above it. With an `outcome_token`, the server wants to
    know what came of the call: `Client.report_outcome`. With a `result_reading` it wants to know what the result holds;
    both are secrets. With the basis `approval_required`, `access_request_id` names what a person is asked, until
    `access_expires_at` in unix seconds, at `access_link` if the server knows a console; `policies_lifted`, of an
    allow, are the forbids that a person had lifted.
    `call_tokens` are those that were asked for, of an allow, in order; each is a secret.
    `obligations` must all be met, by the guard of a session or by the gateway (`fulfil`). An answer with one that is
    not in `known_obligations` is a deny, so that a caller that does not look at them allows nothing; then
    `obligations` is empty, and `unmet_obligations` holds those that are not known.
    """

    outcome: Outcome
    basis: str
    server: str
    tool: str
    request_id: str
    policies: tuple[str, ...] = ()
    policies_left_out: int = 0
    decision_id: str = ""
    error: str = ""
    reason: str = ""
    session_id: str = ""
    user: str = ""
    agent: str = ""
    bundle_version: str = ""
    cache_result: str = ""
    ancestor_session_id: str = ""
    ancestor_basis: str = ""
    duration_us: float = 0.0
    trace_id: str = ""
    span_id: str = ""
    labels_added: tuple[str, ...] = ()
    policies_lifted: tuple[str, ...] = ()
    outcome_token: str = field(default="", repr=False)
    result_reading: ResultReading | None = field(default=None, repr=False)
    obligations: tuple[Obligation, ...] = ()
    unmet_obligations: tuple[Obligation, ...] = ()
    advice: tuple[str, ...] = ()
    access_request_id: str = ""
    access_expires_at: float = 0.0
    access_link: str = ""
    call_tokens: tuple[CallToken, ...] = field(default=(), repr=False)

    @property
    def allowed(self) -> bool:
        """Say whether the call can go ahead."""
        return self.outcome is Outcome.ALLOW

    @property
    def waits(self) -> bool:
        """Say whether a person is asked about the call, and may still approve it."""
        return self.basis == Basis.APPROVAL_REQUIRED.value and bool(self.access_request_id)

    @property
    def undecided(self) -> bool:
        """Say whether there is no reliable decision. With obligations that are not met here, there is one."""
        return self.basis == ERROR_BASIS and not self.unmet_obligations

    def __bool__(self) -> bool:
        # Without this, `if client.authorize(...)` would take every deny for an allow.
        return self.allowed


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedTool:
    """One tool of the catalogue as a session sees it. Being listed gives no authority."""

    server: str
    tool: str
    visibility: Visibility
    definition_digest: str


class _AboutAnswer(Exception):  # noqa: N818 - the classes below have names of their own
    """What is raised about an answer. Copied, or in another process, it is as it was, without secrets of the answer."""

    answer: Answer

    def __reduce__(self) -> tuple[Any, ...]:
        answer = replace(self.answer, outcome_token="", result_reading=None, call_tokens=())
        return _restored, (type(self), self.args, {**vars(self), "answer": answer})


def _restored(kind: type[_AboutAnswer], args: tuple[Any, ...], state: dict[str, Any]) -> _AboutAnswer:
    error = kind.__new__(kind, *args)
    vars(error).update(state)
    return error


class ToolResultWithheld(_AboutAnswer):
    """A call was allowed and made, and its result must not be handed on: show the agent `why`. `answer` allowed it.

    The text of the exception also has `detail`, what went wrong elsewhere.
    """

    def __init__(self, answer: Answer, why: str, *, detail: str = "") -> None:
        made = f"the call of `{answer.server}/{answer.tool}` was made, and its result is withheld"
        super().__init__(": ".join([made, why, *([detail] if detail else [])]))
        self.answer = answer
        self.why = why


class ToolCallStopped(_AboutAnswer):
    """A call that was allowed was stopped under way: tell the agent `why`. `answer` allowed it.

    The tool may have done all of it, or a part.
    """

    def __init__(self, answer: Answer, why: str) -> None:
        super().__init__(f"the call of `{answer.server}/{answer.tool}` was stopped: {why}")
        self.answer = answer
        self.why = why


class ToolCallDenied(_AboutAnswer):
    """A guarded function was not called: show the agent the deny, and go on. `answer` says why."""

    def __init__(self, answer: Answer) -> None:
        why = answer.error or f"{answer.basis} {' '.join(answer.policies)}".strip()
        super().__init__("; ".join([f"denied: `{answer.server}/{answer.tool}`: {why}", *answer.advice]))
        self.answer = answer

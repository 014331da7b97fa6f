"""What a span shows, and where it hangs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest

from pdp.foundation.jsontext import keyed_digest
from pdp.model import Basis, Caller, Decision, Matter, Outcome, Role, Ruling, TraceParent
from pdp.observer import Event, EventKind
from pdp.telemetry.encoder import Item, span_of
from pdp.telemetry.limits import AttributeLimits
from pdp.telemetry.observer import Telemetry
from pdp.telemetry.wire import Span
from pdp.testing.decisions import a_decision

KEY = b"k" * 32
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
NO_PARENT = TraceParent()


class Traced:
    """Telemetry and what it shows."""

    def __init__(self, digest_key: bytes = KEY) -> None:
        self.items: list[Item] = []
        self.telemetry = Telemetry(spans=self.items.append)
        self._digest_key = digest_key

    @property
    def spans(self) -> list[Span]:
        """Return all spans so far."""
        return [span_of(item, self._digest_key, AttributeLimits()) for item in self.items]

    def span(self, decision: Decision, traceparent: str = "", tracestate: str = "") -> Span:
        """Return the one span of a decision."""
        self.items.clear()
        self.telemetry.decision(decision, TraceParent(traceparent=traceparent, tracestate=tracestate))
        (span,) = self.spans
        return span

    def refusal(self, **facts: str) -> Span:
        """Return the one span of a refused request."""
        self.telemetry.event(
            Event(kind=EventKind.REQUEST_REFUSED, at=1_800_000_000.0, caller_id="gateway-1", facts=facts)
        )
        (span,) = self.spans
        return span


def _shown(span: Span) -> dict[str, Any]:
    return dict(span.attributes)


def test_the_whole_attribute_set() -> None:
    """A span of a decision in which everything happened has exactly these attributes."""
    decision = a_decision(
        outcome=Outcome.DENY,
        basis=Basis.ANCESTOR_DENIED,
        errors=("guardrails/broken",),
        ancestor_id="ses_cccccccccccccccccccccccccc",
        ancestor_basis=Basis.POLICY_ERROR,
        detail="a policy could not be evaluated",
    )

    span = Traced().span(decision)

    assert span.name == "pdp.authorize"
    assert _shown(span) == {
        "session.id": "ses_bbbbbbbbbbbbbbbbbbbbbbbbbb",
        "enduser.id": "alice",
        "gen_ai.agent.id": "coder",
        "gen_ai.tool.name": "create_issue",
        "gen_ai.tool.call.id": "call-1",
        "pdp.decision.id": "dec_aaaaaaaaaaaaaaaaaaaaaaaaaa",
        "pdp.outcome": "deny",
        "pdp.basis": "ancestor_denied",
        "pdp.policies": ("github/coders_open_issues",),
        "pdp.errors": ("guardrails/broken",),
        "pdp.server": "github",
        "pdp.resource.type": "Repository",
        "pdp.resource.id": "acme/site",
        "pdp.bundle.version": "sha256:" + "b" * 64,
        "pdp.session.epoch": 3,
        "pdp.session.ancestors": ("ses_cccccccccccccccccccccccccc",),
        "pdp.ancestor.id": "ses_cccccccccccccccccccccccccc",
        "pdp.ancestor.basis": "policy_error",
        "pdp.tenant": "default",
        "pdp.environment": "production",
        "pdp.caller.id": "gateway-1",
        "pdp.cache": "miss",
        "pdp.request.id": "req-1",
        "pdp.phase.gate_us": 4.5,
        "pdp.phase.policy_us": 80.0,
    }


def test_only_allowed_fields_are_shown() -> None:
    """Of all texts in a decision, a span shows those of the list and no other."""
    parts = (Decision, Matter, Ruling)
    texts = {field.name: f"canary-{field.name}" for one in parts for field in fields(one) if field.type == "str"}
    caller = Caller(id="canary-caller-id", kind="canary-caller-kind", roles=frozenset(), tenant="canary-caller-tenant")

    shown = str(_shown(Traced().span(a_decision(**texts, caller=caller))))

    hidden = {name for name in (*texts, "caller-kind", "caller-tenant") if f"'canary-{name}'" not in shown}
    assert hidden == {
        "arguments_digest",  # could be guessed
        "definition_digest",  # the log has it
        "catalogue_digest",  # the record has it
        "opened_by",  # the log has it
        "detail",  # for the log
        "trace_id",  # the span's own
        "span_id",  # the span's own
        "caller-kind",
        "caller-tenant",
    }


def test_an_unknown_handle_shows_the_caller_alone() -> None:
    """Attributes without a value are left out."""
    decision = a_decision(
        outcome=Outcome.DENY,
        basis=Basis.SESSION_NOT_FOUND,
        policies=(),
        resource_type="",
        resource_id="",
        session_id="",
        session_epoch=0,
        ancestor_ids=(),
        user="",
        agent="",
        tenant="",
        environment="",
        request_id="",
        tool_call_id="",
        phases=(),
    )

    assert set(_shown(Traced().span(decision))) == {
        "gen_ai.tool.name",
        "pdp.decision.id",
        "pdp.outcome",
        "pdp.basis",
        "pdp.server",
        "pdp.bundle.version",
        "pdp.caller.id",
        "pdp.cache",
    }


def test_a_span_covers_the_time_of_the_decision() -> None:
    """A span ends when it was decided and starts as much earlier as the decision took."""
    span = Traced().span(a_decision(decided_at=1_800_000_000.25, duration_us=84.5))

    assert (span.start, span.end) == (1_800_000_000_249_915_500, 1_800_000_000_250_000_000)


def test_a_span_never_begins_before_time() -> None:
    """A clock that stands near its beginning gives a span all the same."""
    span = Traced().span(a_decision(decided_at=0.5, duration_us=2e6))

    assert (span.start, span.end) == (0, 500_000_000)


@pytest.mark.parametrize("basis", [Basis.FORBID, Basis.DEFAULT_DENY, Basis.POLICY_ERROR])
def test_a_deny_is_no_error(basis: Basis) -> None:
    """The status of a denied call's span is unset."""
    span = Traced().span(a_decision(outcome=Outcome.DENY, basis=basis, errors=("guardrails/broken",)))

    assert not span.failed


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("create_issue", "create_issue"),
        ("a\nb\x00c\x1b[31m", "abc[31m"),
        ("a\u202eb\u2066c\u200b", "abc"),
        ("a\ud800b", "ab"),
        ("größe", "größe"),
        ("x" * 129, "x" * 128),
        ("x" * 100_000, "x" * 128),
    ],
)
@pytest.mark.parametrize(
    ("field", "attribute"),
    [
        ("tool", "gen_ai.tool.name"),
        ("server", "pdp.server"),
        ("tool_call_id", "gen_ai.tool.call.id"),
        ("request_id", "pdp.request.id"),
        ("resource_id", "pdp.resource.id"),
    ],
)
def test_foreign_text_is_bounded(field: str, attribute: str, written: str, shown: str) -> None:
    """What others wrote is cut, and characters that are not printed are dropped."""
    assert _shown(Traced().span(a_decision(**{field: written})))[attribute] == shown


def test_a_hidden_resource_shows_a_keyed_digest() -> None:
    """A resource id that must not be logged appears as a digest that cannot be guessed."""
    shown = _shown(Traced().span(a_decision(log_resource=False)))

    assert "pdp.resource.id" not in shown
    assert shown["pdp.resource.digest"] == keyed_digest(KEY, "acme/site")


def test_a_hidden_resource_without_a_key_shows_nothing() -> None:
    """Without a key there is no digest that cannot be guessed."""
    shown = _shown(Traced(digest_key=b"").span(a_decision(log_resource=False)))

    assert {name for name in shown if name.startswith("pdp.resource")} == {"pdp.resource.type"}


@pytest.mark.parametrize(
    "traceparent",
    [
        f"00-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-00",
        f"00-{TRACE}-{PARENT}-03",
        f"00-{TRACE}-{PARENT}-ff",
        f"cc-{TRACE}-{PARENT}-01",
        f"cc-{TRACE}-{PARENT}-01-what-comes-later",
    ],
)
def test_a_span_is_the_callers_child(traceparent: str) -> None:
    """Whatever the caller's flags say, the span is made, below the caller's span."""
    span = Traced().span(a_decision(), traceparent)

    assert (span.trace_id, span.parent_id, span.links) == (TRACE, PARENT, ())


@pytest.mark.parametrize("roles", [(), (Role.AUTHOR,), (Role.APPROVER, Role.ADMIN)])
def test_the_span_of_who_is_no_pep_is_linked(roles: tuple[Role, ...]) -> None:
    """Only a PEP's span becomes a parent: nobody else can put our spans into a trace of their choice."""
    caller = Caller(id="someone", kind="token", roles=frozenset(roles))

    span = Traced().span(a_decision(caller=caller), f"00-{TRACE}-{PARENT}-01", "vendor=1")

    assert (span.parent_id, span.trace_state, span.links) == ("", "", ((TRACE, PARENT),))
    assert span.trace_id != TRACE


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "00",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE}-{PARENT}-01\n",
        f" 00-{TRACE}-{PARENT}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        "00-" + "\u0661" * 32 + f"-{PARENT}-01",
        f"cc-{TRACE}-{PARENT}-01-{'x' * 500}",
    ],
)
def test_a_malformed_traceparent_starts_a_new_trace(traceparent: str) -> None:
    """A `traceparent` that is not exactly W3C's is as good as none."""
    span = Traced().span(a_decision(), traceparent)

    assert (span.parent_id, span.links) == ("", ())
    assert span.trace_id != TRACE
    assert Telemetry.off().decision(a_decision(), TraceParent(traceparent=traceparent)).trace_id == ""


@pytest.mark.parametrize(
    ("tracestate", "carried"),
    [
        ("", ""),
        ("vendor=a b,tenant@system=1", "vendor=a b,tenant@system=1"),
        ("vendor=1 , other=2", "vendor=1,other=2"),
        ("vendor=1\nforged line", ""),
        ("Vendor=1", ""),
        ("a=1,a=2", ""),
        (",".join(f"k{i}=1" for i in range(33)), ""),
        (f"vendor={'x' * 255},other={'x' * 255}", ""),
    ],
)
def test_tracestate(tracestate: str, carried: str, caplog: pytest.LogCaptureFixture) -> None:
    """A good `tracestate` is carried on, a bad one is dropped without a word of it in the process's log."""
    with caplog.at_level(logging.DEBUG):
        span = Traced().span(a_decision(), f"00-{TRACE}-{PARENT}-01", tracestate)

    assert span.trace_state == carried
    # Other libraries may tell of what is left of other tests.
    assert not [record.name for record in caplog.records if record.name.startswith(("pdp", "opentelemetry"))]


def test_the_decision_gets_the_ids_and_nothing_else() -> None:
    """The returned decision differs from the given one in the ids of trace and span alone."""
    traced, decision = Traced(), a_decision()

    returned = traced.telemetry.decision(decision, TraceParent(traceparent=f"00-{TRACE}-{PARENT}-01"))

    (span,) = traced.spans
    assert returned == replace(decision, trace_id=TRACE, span_id=span.span_id)


def test_a_decision_that_knows_its_place_keeps_it() -> None:
    """Ids that were given before the decision was made are those of its span."""
    traced = Traced()
    trace_id, span_id = traced.telemetry.trace_ids(NO_PARENT, a_decision().caller)

    span = traced.span(a_decision(trace_id=trace_id, span_id=span_id))

    assert (span.trace_id, span.span_id) == (trace_id, span_id)


def test_a_trace_without_a_span_gets_both() -> None:
    """A decision that names a trace and no span is given a place of its own: half a place is none."""
    span = Traced().span(a_decision(trace_id=TRACE))

    assert span.trace_id != TRACE
    assert len(span.span_id) == 16


def test_what_waits_is_small() -> None:
    """A tool's name or a header of any length is cut before it waits, so that a full queue has a bound in bytes."""
    traced, decision = Traced(), a_decision(tool="x" * 200_000, recurs=True)
    parents = [
        TraceParent(traceparent="00-" + "x" * 8000),
        TraceParent(traceparent=f"00-{TRACE}-{PARENT}-01", tracestate="v=" + "1" * 8000),
    ]

    answered = [traced.telemetry.decision(decision, parent) for parent in parents]

    assert [200_000] * 2 == [len(one.matter.tool) for one in answered]
    waiting = [(shown, parent) for shown, parent in traced.items if isinstance(shown, Decision)]
    assert [(128, False)] * 2 == [(len(shown.matter.tool), shown.recurs) for shown, _ in waiting]
    assert [TraceParent(), TraceParent(traceparent=f"00-{TRACE}-{PARENT}-01")] == [parent for _, parent in waiting]


def test_what_waits_of_a_refusal_is_small() -> None:
    """The header of a stranger is cut before it waits, and is no place in a trace."""
    traced = Traced()

    span = traced.refusal(rpc="a/b", status="UNAUTHENTICATED", tracelink=f"cc-{TRACE}-{PARENT}-01-{'x' * 8000}")

    ((event, _),) = traced.items
    assert isinstance(event, Event)
    assert (513, ()) == (len(event.facts["tracelink"]), span.links)


def test_off_passes_the_callers_trace_on() -> None:
    """Without telemetry the decision still carries the caller's trace id, and no span id."""
    returned = Telemetry.off().decision(a_decision(), TraceParent(traceparent=f"00-{TRACE}-{PARENT}-00"))

    assert returned == a_decision(trace_id=TRACE, span_id="")


def test_off_without_a_trace_does_nothing() -> None:
    """Without telemetry and without a caller's trace the decision is handed on as it is."""
    decision = a_decision()

    assert Telemetry.off().decision(decision, NO_PARENT) is decision


def test_a_refused_request_has_a_span() -> None:
    """A request without an answer has a span with RPC, status and field."""
    span = Traced().refusal(
        rpc="pdp.v1.AuthorizationService/Authorize",
        status="INVALID_ARGUMENT",
        field="call.server",
        traceparent=f"00-{TRACE}-{PARENT}-00",
    )

    assert (span.name, span.trace_id, span.parent_id) == ("pdp.request.refused", TRACE, PARENT)
    assert _shown(span) == {
        "rpc.system.name": "grpc",
        "rpc.method": "pdp.v1.AuthorizationService/Authorize",
        "rpc.response.status_code": "INVALID_ARGUMENT",
        "pdp.request.field": "call.server",
        "pdp.caller.id": "gateway-1",
    }


def test_a_refused_request_of_a_stranger_is_linked() -> None:
    """What a caller states who is no PEP is linked and does not become a parent."""
    span = Traced().refusal(rpc="a/b", status="UNAUTHENTICATED", tracelink=f"00-{TRACE}-{PARENT}-01")

    assert (span.parent_id, span.links) == ("", ((TRACE, PARENT),))
    assert span.trace_id != TRACE


@pytest.mark.parametrize(
    ("status", "failed"),
    [
        ("INVALID_ARGUMENT", False),
        ("PERMISSION_DENIED", False),
        ("RESOURCE_EXHAUSTED", False),
        ("UNAVAILABLE", True),
        ("INTERNAL", True),
    ],
)
def test_the_servers_own_faults_are_errors(status: str, failed: bool) -> None:  # noqa: FBT001 - a column of the table
    """A refusal is an error in the trace when it is the server's doing, by the conventions for RPC servers."""
    assert Traced().refusal(rpc="pdp.v1.AuthorizationService/Authorize", status=status).failed is failed


def test_what_the_policies_say_about_a_session_has_a_span() -> None:
    """The span names the step, the outcome and the policies, and hangs where a gateway says."""
    traced = Traced()
    facts = {
        "action": "pdp/request_session",
        "outcome": "deny",
        "basis": "forbid",
        "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-00",
    }

    lists = {"policies": ("sessions/a", "sessions/b"), "labels": ("x" * 128,) * 256}
    event = Event(
        kind=EventKind.SESSION_DECIDED,
        at=1_800_000_000.0,
        caller_id="gateway-1",
        facts=facts,
        lists=lists,
        attributes={"team": "x" * 10_000},
    )

    traced.telemetry.event(event)

    (span,) = traced.spans
    assert ("pdp.session.decide", "a" * 32, "b" * 16, False) == (span.name, span.trace_id, span.parent_id, span.failed)
    assert _shown(span) == {
        "pdp.session.action": "request_session",
        "pdp.outcome": "deny",
        "pdp.basis": "forbid",
        "pdp.policies": ("sessions/a", "sessions/b"),
        "pdp.caller.id": "gateway-1",
    }
    ((kept, _),) = traced.items
    assert isinstance(kept, Event)
    assert ({"policies"}, {}) == (set(kept.lists), kept.attributes)


@pytest.mark.parametrize(
    "act", [lambda t: t.event(Event(kind=EventKind.SESSION_REVOKED, at=1.0)), lambda t: t.record_failed()]
)
def test_other_events_have_no_span(act: Callable[[Telemetry], None]) -> None:
    """Only decisions, those about sessions too, and refused requests have spans."""
    traced = Traced()

    act(traced.telemetry)

    assert traced.items == []

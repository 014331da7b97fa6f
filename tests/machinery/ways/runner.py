"""Hold a case against one way: every step, every answer, and the trace and the record that each call leaves behind."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pdp.telemetry import names
from tests.machinery.ways.notation import Case, Step, plain
from tests.machinery.ways.ways import CALLERS, ProductWay, RefusedError, Seen, Way

# The policies were asked, so the call was mapped to a resource.
ASKED = frozenset({"permit", "forbid", "default_deny", "policy_error", "approval_required"})

_ALWAYS = frozenset(
    {
        names.DECISION_ID,
        names.OUTCOME,
        names.BASIS,
        names.SERVER,
        names.TOOL,
        names.TOOL_CALL_ID,
        names.REQUEST_ID,
        names.BUNDLE_VERSION,
        names.CALLER_ID,
        names.CACHE,
        "pdp.phase.gate_us",
        "pdp.phase.policy_us",
    }
)
_OF_A_SESSION = frozenset({names.SESSION_ID, names.USER, names.AGENT, names.TENANT, names.SESSION_EPOCH})
# These hold sessions, which a case calls by its own names.
_SESSIONS = frozenset({names.SESSION_ID, names.ANCESTORS, names.ANCESTOR_ID})
_SESSION_ID = re.compile(r"ses_[a-z2-7]{26}")


class Told:
    """What a case has told so far about its sessions."""

    def __init__(self) -> None:
        self.requests: dict[str, Step] = {}

    def take(self, step: Step) -> None:
        """Remember who asked for a session, and for whom."""
        if step.verb in ("request", "delegate"):
            self.requests[step.subject] = step

    def ancestors(self, session: str) -> tuple[str, ...]:
        """Return the sessions above one, nearest first."""
        parent = self.requests[session].given.get("parent", "")
        return (parent, *self.ancestors(parent)) if parent else ()


def run(case: Case, way: Way) -> None:
    """Run a case through the oracle, or any other way that only answers."""
    for number, step in enumerate(case.steps):
        seen = _attempt(step, way, _request_id(step, number))
        if isinstance(seen, Seen):
            _check_answer(step, seen, expected_cache=seen.cache)


def run_product(case: Case, way: ProductWay) -> None:
    """Run a case through the product: each call leaves one span and one record, which say the same as the answer."""
    told = Told()
    calls = refused = 0
    for number, step in enumerate(case.steps):
        seen = _attempt(step, way, _request_id(step, number))
        told.take(step)
        calls += isinstance(seen, Seen)
        refused += seen is None
        counts = (len(way.evidence.decision_spans), len(way.evidence.decision_records))
        assert counts == (calls, calls), f"{step.place}: {counts} spans and records after {calls} calls"
        if way.serves:
            refusals = [record for record in way.evidence.records if record["kind"] == "request.refused"]
            assert len(refusals) == refused, f"{step.place}: a refusal without a record"
        if isinstance(seen, Seen):
            _check_answer(step, seen, expected_cache=expected_cache(step, remembers=way.remembers))
            _check_span(step, seen, way, told)
            _check_record(step, seen, way)


def _request_id(step: Step, number: int) -> str:
    # Each call is another one, unless the case says that it is a retry.
    return str(step.given.get("request_id", f"call-{number}"))


def expected_cache(step: Step, *, remembers: bool) -> str:
    """Return what the cache must say: what the case states, `none` when it states nothing.

    Without a cache nothing else differs than that a hit reads `miss`.
    """
    stated = str(step.given.get("cache", "none"))
    return "miss" if stated == "hit" and not remembers else stated


def _attempt(step: Step, way: Way, request_id: str) -> Seen | Mapping[str, Any] | None:
    """Take a step; None when it was refused, as the case demands."""
    found = _outcome(step, way, request_id)
    if isinstance(found, RefusedError):
        assert step.refused in found.kinds, f"{step.place}: {found}"
        return None
    assert not step.refused, f"{step.place}: not refused"
    if not isinstance(found, Seen):
        assert step.results == {name: found[name] for name in step.results}, step.place
    return found


def _outcome(step: Step, way: Way, request_id: str) -> Seen | Mapping[str, Any] | RefusedError:
    try:
        return way.call(step, request_id) if step.verb == "call" else way.take(step)
    except RefusedError as error:
        return error


def _check_answer(step: Step, seen: Seen, *, expected_cache: str | None) -> None:
    given = step.given
    expected = Seen(
        allowed="allow" in given,
        basis=given.get("allow", given.get("deny")),
        policies=tuple(given.get("policies", ())),
        session=_expected_session(step),
        ancestor=given.get("ancestor", ""),
        ancestor_basis=given.get("ancestor_basis", ""),
        labels_added=tuple(given.get("adds", ())),
        obligations=tuple(sorted(_obligation(one) for one in given.get("obligations", ()))),
        advice=tuple(given.get("advice", ())),
        question=None if seen.question is None else given.get("question", ""),
        lifted=tuple(given.get("lifts", ())),
        cache=expected_cache,
        debits=None if seen.debits is None else given.get("debits", {}),
        # Checked against the request that opened the session, in span and record.
        user=seen.user,
        agent=seen.agent,
        partly=seen.partly,
    )
    assert expected == seen, step.place
    for name, value in given.get("span", {}).items():
        # What a span must not show is known all the same.
        if name in seen.partly and value is not None:
            assert _tuple(value) == seen.partly[name], f"{step.place}: `{name}`"


def _check_span(step: Step, seen: Seen, way: ProductWay, told: Told) -> None:
    span = way.evidence.decision_spans[-1]
    named = {name: _with_names(value, way) if name in _SESSIONS else value for name, value in span.items()}
    request = told.requests[seen.session] if seen.session else None
    expected = {
        names.OUTCOME: "allow" if seen.allowed else "deny",
        names.BASIS: seen.basis,
        names.POLICIES: seen.policies or None,
        names.OBLIGATIONS: tuple(dict.fromkeys(name for name, _ in seen.obligations)) or None,
        names.CACHE: seen.cache,
        names.SERVER: step.subject.partition("/")[0],
        names.TOOL: step.subject.partition("/")[2],
        names.CALLER_ID: step.caller,
        names.SESSION_ID: seen.session or None,
        names.USER: request.given["user"] if request else None,
        names.AGENT: request.given["agent"] if request else None,
        # A call in no session is for the auditor of the tenant that asked.
        names.TENANT: CALLERS[request.caller if request else step.caller].tenant,
        names.ENVIRONMENT: request.given.get("environment") if request else None,
        names.ANCESTORS: (told.ancestors(seen.session) or None) if request else None,
        names.ANCESTOR_ID: seen.ancestor or None,
        names.ANCESTOR_BASIS: seen.ancestor_basis or None,
        names.LABELS_ADDED: seen.labels_added or None,
        names.ACCESS_REQUEST: way.questions.get(step.given.get("question", "")),
        names.POLICIES_LIFTED: seen.lifted or None,
        names.DEBITS: tuple(step.given.get("debits", ())) or None,
    }
    assert expected == {name: named.get(name) for name in expected}, step.place
    assert (seen.user or "", seen.agent or "") == (span.get(names.USER, ""), span.get(names.AGENT, "")), step.place
    stated = step.given.get("span", {})
    for name, value in stated.items():
        assert name in span if value == "present" else named.get(name) == _tuple(value), f"{step.place}: `{name}`"
    assert set(span) == expected_names(expected, stated, seen), step.place


def expected_names(expected: Mapping[str, Any], stated: Mapping[str, Any], seen: Seen) -> set[str]:
    """Return exactly the attributes that a span must have."""
    charged = expected.get(names.DEBITS) or "budget_exhausted" in (seen.basis, seen.ancestor_basis)
    found = set(_ALWAYS) | (_OF_A_SESSION if seen.session else set())
    found |= {name for name, value in expected.items() if value is not None}
    found |= {"pdp.phase.ledger_us"} if seen.labels_added or charged or expected.get(names.ACCESS_REQUEST) else set()
    if seen.basis in ASKED or seen.ancestor_basis in ASKED:
        found |= {names.RESOURCE_TYPE, names.RESOURCE_ID}
    found |= {name for name, value in stated.items() if value is not None}
    return found - {name for name, value in stated.items() if value is None}


def _check_record(step: Step, seen: Seen, way: ProductWay) -> None:
    record, span = way.evidence.decision_records[-1], way.evidence.decision_spans[-1]
    expected = {
        "id": span[names.DECISION_ID],
        "outcome": span[names.OUTCOME],
        "basis": span[names.BASIS],
        "policies": list(span.get(names.POLICIES, ())),
        "errors": list(span.get(names.ERRORS, ())),
        "session_id": span.get(names.SESSION_ID, ""),
        "session_epoch": span.get(names.SESSION_EPOCH, 0),
        "ancestors": list(span.get(names.ANCESTORS, ())),
        "ancestor_id": span.get(names.ANCESTOR_ID, ""),
        "ancestor_basis": span.get(names.ANCESTOR_BASIS, ""),
        "user": seen.user,
        "agent": seen.agent,
        "tenant": span.get(names.TENANT, ""),
        "environment": span.get(names.ENVIRONMENT, ""),
        "caller_id": step.caller,
        "server": span[names.SERVER],
        "tool": span[names.TOOL],
        "resource_type": span.get(names.RESOURCE_TYPE, ""),
        "bundle_version": span[names.BUNDLE_VERSION],
        "cache": span[names.CACHE],
        "request_id": span[names.REQUEST_ID],
    }
    assert expected == {name: record[name] for name in expected}, step.place
    assert tuple(record.get("labels_added", ())) == seen.labels_added, step.place
    assert record.get("access_request_id") == span.get(names.ACCESS_REQUEST), step.place
    assert tuple(record.get("policies_lifted", ())) == seen.lifted, step.place
    if "sees" in step.given:
        # Of a call that a session above denies, what that one sees.
        assert record.get("ancestor_counts", record.get("counts")) == step.given["sees"], step.place
    assert record.get("debits", {}) == step.given.get("debits", {}), step.place
    asked = [{"id": name, "parameters": json.loads(parameters)} for name, parameters in seen.obligations]
    assert asked == record["obligations"], step.place
    assert record.get("resource_id", "") == span.get(names.RESOURCE_ID, ""), step.place
    assert record.get("resource_digest", "") == span.get(names.RESOURCE_DIGEST, ""), step.place


def _obligation(said: Mapping[str, Any]) -> tuple[str, str]:
    ((name, parameters),) = said.items()
    return name, json.dumps(plain(parameters), separators=(",", ":"), sort_keys=True, ensure_ascii=False)


def _expected_session(step: Step) -> str:
    return "" if step.given.get("deny") == "session_not_found" else str(step.given["session"])


def _with_names(value: Any, way: ProductWay) -> Any:
    by_id = {session_id: name for name, session_id in way.ids.items()}
    if isinstance(value, tuple):
        return tuple(by_id.get(one, one) for one in value)
    return by_id.get(value, value)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value

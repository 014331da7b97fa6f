"""Choose what the span and the log record of a decision show: ids and our own words, never arguments or attributes.

The attributes come in parts, by what they depend on. A part that repeats is encoded once; see `encoder.py`.
"""

from __future__ import annotations

from pdp.foundation.jsontext import keyed_digest
from pdp.limits import MOST_POLICIES
from pdp.model import Decision
from pdp.observer import Event
from pdp.telemetry import names

Attributes = dict[str, str | int | float | tuple[str, ...]]

# Text from outside the PDP is cut to this length.
TEXT_CHARACTERS = 128
# The lists of an event that its span shows.
SHOWN_LISTS = frozenset({"policies", "errors"})


def decision_attributes(decision: Decision, digest_key: bytes) -> Attributes:
    """Return the attributes of a decision's span.

    Without a `digest_key` they hold no digest, because its content could be guessed.
    """
    return {
        **session_part(decision),
        **tool_part(decision),
        **ruling_part(decision),
        **call_part(decision, digest_key),
    }


def record_attributes(decision: Decision, digest_key: bytes) -> Attributes:
    """Return the attributes of a decision's log record: those of its span, and more."""
    return {
        **decision_attributes(decision, digest_key),
        **record_part(decision),
        **digest_part(decision, digest_key),
    }


def session_part(decision: Decision) -> Attributes:
    """Return the attributes that are the same for all calls of a caller in a session."""
    matter = decision.matter
    return _shown(
        {
            names.SESSION_ID: matter.session_id,
            names.USER: matter.user,
            names.AGENT: matter.agent,
            names.SESSION_EPOCH: matter.session_epoch,
            names.ANCESTORS: matter.ancestor_ids,
            names.TENANT: matter.tenant,
            names.ENVIRONMENT: matter.environment,
            names.CALLER_ID: decision.caller.id,
        }
    )


def tool_part(decision: Decision) -> Attributes:
    """Return the attributes that are the same for all calls of a tool under a bundle."""
    matter = decision.matter
    return _shown(
        {
            names.TOOL: bounded(matter.tool),
            names.SERVER: bounded(matter.server),
            names.BUNDLE_VERSION: matter.bundle_version,
        }
    )


def ruling_part(decision: Decision) -> Attributes:
    """Return the attributes that say what the ruling is."""
    ruling = decision.ruling
    return _shown(
        {
            names.OUTCOME: ruling.outcome.value,
            names.BASIS: ruling.basis.value,
            names.POLICIES: ruling.policies[:MOST_POLICIES],
            names.POLICIES_LEFT_OUT: len(ruling.policies[MOST_POLICIES:]),
            names.OBLIGATIONS: tuple(dict.fromkeys(one.id for one in ruling.obligations)),
            names.ERRORS: ruling.errors[:MOST_POLICIES],
            names.ERRORS_LEFT_OUT: len(ruling.errors[MOST_POLICIES:]),
            names.RESOURCE_TYPE: ruling.resource_type,
            names.ANCESTOR_ID: ruling.ancestor_id,
            names.ANCESTOR_BASIS: ruling.ancestor_basis.value if ruling.ancestor_basis else "",
            names.CACHE: decision.cache_result.value,
        }
    )


def call_part(decision: Decision, digest_key: bytes) -> Attributes:
    """Return the attributes that differ from call to call."""
    ruling = decision.ruling
    hidden = bool(ruling.resource_id) and not ruling.log_resource
    attributes = _shown(
        {
            names.DECISION_ID: decision.id,
            names.RESOURCE_ID: "" if hidden else bounded(ruling.resource_id),
            names.RESOURCE_DIGEST: keyed_digest(digest_key, ruling.resource_id) if hidden and digest_key else "",
            names.TOOL_CALL_ID: bounded(decision.tool_call_id),
            names.REQUEST_ID: bounded(decision.request_id),
            names.LABELS_ADDED: decision.labels_added,
            names.DEBITS: tuple([name for name, _ in decision.debits]),
            names.POLICIES_LIFTED: ruling.policies_lifted,
            names.ACCESS_REQUEST: decision.access_request_id,
        }
    )
    for phase, microseconds in decision.phases:
        attributes[phase_name(phase)] = microseconds
    return attributes


def record_part(decision: Decision) -> Attributes:
    """Return the repeating attributes that only the log record has."""
    return _shown(
        {
            names.OPENED_BY: decision.matter.opened_by,
            names.DEFINITION_DIGEST: bounded(decision.definition_digest),
            names.DETAIL: decision.ruling.detail,
        }
    )


def digest_part(decision: Decision, digest_key: bytes) -> Attributes:
    """Return the digest of the arguments, which cannot be guessed without the key."""
    return {names.ARGUMENTS_DIGEST: keyed_digest(digest_key, decision.matter.arguments_digest)} if digest_key else {}


def refusal_attributes(event: Event) -> Attributes:
    """Return the attributes of a refused request's span."""
    return _shown(
        {
            names.RPC_SYSTEM: "grpc",
            names.RPC_METHOD: bounded(event.facts.get("rpc", "")),
            names.RPC_STATUS: bounded(event.facts.get("status", "")),
            names.REQUEST_FIELD: bounded(event.facts.get("field", "")),
            names.CALLER_ID: event.caller_id,
            names.SESSION_ID: event.session_id,
            names.USER: event.user,
            names.AGENT: event.agent,
            names.TENANT: event.tenant,
        }
    )


def session_decision_attributes(event: Event) -> Attributes:
    """Return the attributes of the span of a decision about a session."""
    facts = event.facts
    return _shown(
        {
            names.SESSION_ACTION: facts.get("action", "").removeprefix("pdp/"),
            names.DECISION_ID: facts.get("decision_id", ""),
            names.OUTCOME: facts.get("outcome", ""),
            names.BASIS: facts.get("basis", ""),
            names.POLICIES: event.lists.get("policies", ())[:MOST_POLICIES],
            names.POLICIES_LEFT_OUT: int(facts.get("policies_left_out", "0")),
            names.ERRORS: event.lists.get("errors", ())[:MOST_POLICIES],
            names.ERRORS_LEFT_OUT: int(facts.get("errors_left_out", "0")),
            names.BUNDLE_VERSION: facts.get("bundle_version", ""),
            names.CALLER_ID: event.caller_id,
            names.SESSION_ID: event.session_id,
            names.USER: event.user,
            names.AGENT: event.agent,
            names.TENANT: event.tenant,
        }
    )


def phase_name(phase: str) -> str:
    """Return the attribute's name for a phase of a decision."""
    return f"{names.PHASE_PREFIX}{phase}{names.PHASE_SUFFIX}"


def bounded(text: str) -> str:
    """Cut a text from outside, and drop control, bidi and other invisible characters."""
    text = text[:TEXT_CHARACTERS]
    return text if text.isprintable() else "".join(filter(str.isprintable, text))


def _shown(found: Attributes) -> Attributes:
    return {name: value for name, value in found.items() if value}

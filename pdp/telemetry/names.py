"""Every name that the PDP's telemetry uses: spans, log records, their attributes, metrics and metrics' labels.

Names without `pdp.` are OpenTelemetry's. They are copied because its package of unstable names drops a name that
changes, and dashboards should not follow that change unannounced. `README.md` beside this file holds the same names
as a table; a test compares them.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

# The instrumentation scope of all of them
SCOPE = "pdp"

# Spans and log records
SPAN_DECISION = "pdp.authorize"
SPAN_REFUSED = "pdp.request.refused"
SPAN_SESSION = "pdp.session.decide"
EVENT_DECISION = "pdp.decision"

# Attributes, by OpenTelemetry's semantic conventions
SESSION_ID = "session.id"
USER = "enduser.id"
AGENT = "gen_ai.agent.id"
TOOL = "gen_ai.tool.name"
TOOL_CALL_ID = "gen_ai.tool.call.id"
RPC_SYSTEM = "rpc.system.name"
RPC_METHOD = "rpc.method"
RPC_STATUS = "rpc.response.status_code"

# Attributes, ours
DECISION_ID = "pdp.decision.id"
OUTCOME = "pdp.outcome"
BASIS = "pdp.basis"
POLICIES = "pdp.policies"
POLICIES_LEFT_OUT = "pdp.policies_left_out"
OBLIGATIONS = "pdp.obligations"
ERRORS = "pdp.errors"
ERRORS_LEFT_OUT = "pdp.errors_left_out"
SERVER = "pdp.server"
RESOURCE_TYPE = "pdp.resource.type"
RESOURCE_ID = "pdp.resource.id"
RESOURCE_DIGEST = "pdp.resource.digest"
BUNDLE_VERSION = "pdp.bundle.version"
SESSION_EPOCH = "pdp.session.epoch"
ANCESTORS = "pdp.session.ancestors"
ANCESTOR_ID = "pdp.ancestor.id"
ANCESTOR_BASIS = "pdp.ancestor.basis"
TENANT = "pdp.tenant"
ENVIRONMENT = "pdp.environment"
CALLER_ID = "pdp.caller.id"
CACHE = "pdp.cache"
REQUEST_ID = "pdp.request.id"
LABELS_ADDED = "pdp.labels_added"
DEBITS = "pdp.debits"
POLICIES_LIFTED = "pdp.policies_lifted"
ACCESS_REQUEST = "pdp.access_request.id"
REQUEST_FIELD = "pdp.request.field"
SESSION_ACTION = "pdp.session.action"
PHASE_PREFIX = "pdp.phase."
PHASE_SUFFIX = "_us"

# Attributes that only log records have
OPENED_BY = "pdp.session.opened_by"
DEFINITION_DIGEST = "pdp.tool.definition_digest"
ARGUMENTS_DIGEST = "pdp.arguments.digest"
DETAIL = "pdp.detail"

# An attribute of the resource: the number of the worker
WORKER = "pdp.worker"

# Labels that only metrics have; the others share their name with an attribute above
POLICY = "pdp.policy"
STATE = "pdp.session.state"
SESSION_EVENT = "pdp.session.event"
ERROR_TYPE = "error.type"
RECEIVER = "pdp.receiver"
FENCED_BY = "pdp.fence.by"

# The value of a label that has too many different values
OTHER = "_OTHER"

DECIDED, LOGGED, REFUSED_REQUEST, SENDER = "decision", "log record", "refused request", "resource"
SESSION_DECIDED = "session decision"
_BOTH = (DECIDED, LOGGED)
_EACH = (DECIDED, LOGGED, SESSION_DECIDED)
_ALL = (DECIDED, LOGGED, SESSION_DECIDED, REFUSED_REQUEST)


class Attribute(NamedTuple):
    """An attribute: its name, what has it (spans of each kind, log records, resource), and its meaning."""

    name: str
    on: tuple[str, ...]
    says: str


# Every attribute of spans and log records; one without a value is left out
ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute(SESSION_ID, _ALL, "public id of the session"),
    Attribute(USER, _ALL, "the user whose authority is used"),
    Attribute(AGENT, _ALL, "the agent that performs the call"),
    Attribute(SESSION_EPOCH, _BOTH, "how often the session has changed"),
    Attribute(ANCESTORS, _BOTH, "public ids of the sessions above, the nearest first"),
    Attribute(TENANT, _ALL, "the tenant of the session, or of the caller"),
    Attribute(ENVIRONMENT, _BOTH, "the environment of the session"),
    Attribute(CALLER_ID, _ALL, "who asked"),
    Attribute(TOOL, _BOTH, "the tool, as the agent wrote it, cut to 128 printable characters"),
    Attribute(SERVER, _BOTH, "the tool server, cut like the tool"),
    Attribute(BUNDLE_VERSION, _EACH, "the bundle that decided"),
    Attribute(OUTCOME, _EACH, "`allow` or `deny`"),
    Attribute(BASIS, _EACH, "what the outcome rests on"),
    Attribute(POLICIES, _EACH, "ids of the policies that produced the outcome, at most 64"),
    Attribute(POLICIES_LEFT_OUT, _EACH, "how many more of them there are"),
    Attribute(OBLIGATIONS, _BOTH, "ids of the obligations of an allow, each once"),
    Attribute(ERRORS, _EACH, "ids of the policies that could not be evaluated, at most 64"),
    Attribute(ERRORS_LEFT_OUT, _EACH, "how many more of them there are"),
    Attribute(RESOURCE_TYPE, _BOTH, "type of the resource that the call was mapped to"),
    Attribute(ANCESTOR_ID, _BOTH, "the session above that denied"),
    Attribute(ANCESTOR_BASIS, _BOTH, "the basis of that deny"),
    Attribute(CACHE, _BOTH, "`hit`, `miss`, `bypass` or `none`"),
    Attribute(DECISION_ID, _EACH, "id of the decision"),
    Attribute(RESOURCE_ID, _BOTH, "id of the resource, where its mapping allows to show it"),
    Attribute(RESOURCE_DIGEST, _BOTH, "its keyed digest, where not"),
    Attribute(TOOL_CALL_ID, _BOTH, "the agent's id of the call"),
    Attribute(REQUEST_ID, _BOTH, "the caller's id of the request"),
    Attribute(LABELS_ADDED, _BOTH, "labels that the call added to its session or to one above it"),
    Attribute(DEBITS, _BOTH, "names of the budgets of the session that the call took of"),
    Attribute(POLICIES_LIFTED, _BOTH, "ids of the forbids that a person had lifted for the call"),
    Attribute(
        ACCESS_REQUEST, _BOTH, "id of the request to a person that the call waits for, or whose approval it used"
    ),
    Attribute(f"{PHASE_PREFIX}gate{PHASE_SUFFIX}", _BOTH, "microseconds that snapshot and live checks took"),
    Attribute(f"{PHASE_PREFIX}policy{PHASE_SUFFIX}", _BOTH, "microseconds that look-up and policies took"),
    Attribute(f"{PHASE_PREFIX}ledger{PHASE_SUFFIX}", _BOTH, "microseconds that a change of its session took, if any"),
    Attribute(OPENED_BY, (LOGGED,), "the caller who requested the session"),
    Attribute(DEFINITION_DIGEST, (LOGGED,), "digest of the tool's definition, as the caller saw it"),
    Attribute(DETAIL, (LOGGED,), "one line in our words"),
    Attribute(ARGUMENTS_DIGEST, (LOGGED,), "keyed digest of the arguments"),
    Attribute(
        SESSION_ACTION, (SESSION_DECIDED,), "`request_session`, `approve_session`, `delegate_session` or `approve_call`"
    ),
    Attribute(RPC_SYSTEM, (REFUSED_REQUEST,), "always `grpc`"),
    Attribute(RPC_METHOD, (REFUSED_REQUEST,), "service and method"),
    Attribute(RPC_STATUS, (REFUSED_REQUEST,), "the status that was answered"),
    Attribute(REQUEST_FIELD, (REFUSED_REQUEST,), "the field that was wrong"),
    Attribute(WORKER, (SENDER,), "number of the worker, where there are several"),
)

Kind = Literal["counter", "updowncounter", "gauge", "histogram"]


class Metric(NamedTuple):
    """A metric: its name, kind, unit, meaning and labels."""

    name: str
    kind: Kind
    unit: str
    description: str
    labels: tuple[str, ...] = ()


DECISIONS = Metric("pdp.decisions", "counter", "{decision}", "Decisions by outcome and basis.", (OUTCOME, BASIS))
DURATION = Metric(
    "pdp.decision.duration", "histogram", "s", "Time that a decision takes, without transport.", (OUTCOME,)
)
CACHE_LOOKUPS = Metric("pdp.cache.lookups", "counter", "{lookup}", "Look-ups in the decision cache.", (CACHE,))
POLICY_ERRORS = Metric("pdp.policy.errors", "counter", "{error}", "Policies that could not be evaluated.", (POLICY,))
SESSIONS = Metric("pdp.sessions", "gauge", "{session}", "Sessions by state.", (STATE,))
FREEZES = Metric("pdp.freezes", "gauge", "{freeze}", "Freezes that stop the calls of a tenant, or of all.")
SESSION_EVENTS = Metric("pdp.session.events", "counter", "{event}", "What happened to sessions.", (SESSION_EVENT,))
BUNDLE = Metric("pdp.bundle.info", "gauge", "{bundle}", "The bundle in force; always 1.", (BUNDLE_VERSION,))
BUNDLE_ACTIVATIONS = Metric("pdp.bundle.activations", "counter", "{activation}", "Bundles that were put into force.")
BUNDLE_FAILURES = Metric("pdp.bundle.reload.failures", "counter", "{failure}", "Bundles that could not be loaded.")
REFUSED = Metric(
    "pdp.requests.refused", "counter", "{request}", "Requests without an answer.", (RPC_METHOD, RPC_STATUS)
)
RECORD_FAILURES = Metric(
    "pdp.record.failures", "counter", "{record}", "Records that could not be written in time, or at all."
)
RECORD_HEAD_FAILURES = Metric(
    "pdp.record.head.failures",
    "counter",
    "{failure}",
    "Failed attempts to note in the database how far the record reaches, or to copy it.",
)
RECORD_LOST = Metric("pdp.record.lost", "counter", "{record}", "Records that will never be written.")
RECORD_WAITING = Metric("pdp.record.waiting", "gauge", "{record}", "Records that wait to be written.")
RECORD_UNSIGNED = Metric("pdp.record.unsigned", "gauge", "{record}", "Records that no checkpoint covers yet.")
MESSAGES_SENT = Metric(
    "pdp.messages.sent",
    "counter",
    "{message}",
    "Messages that a receiver took; with `error.type`, attempts that failed.",
    (RECEIVER, ERROR_TYPE),
)
MESSAGES_WAITING = Metric(
    "pdp.messages.waiting", "gauge", "{message}", "Messages that wait for a receiver.", (RECEIVER,)
)
MESSAGES_DEAD = Metric("pdp.messages.dead", "gauge", "{message}", "Messages that were given up.", (RECEIVER,))
# Only where servers on several machines share a database.
LEASE_AGE = Metric(
    "pdp.lease.age", "gauge", "s", "Time since the machine's last lease began; memory answers until it is over."
)
FENCE_DURATION = Metric(
    "pdp.fence.duration",
    "histogram",
    "s",
    "Time for which a change waited until every server knew it, or until the leases of others were over.",
    (FENCED_BY,),
)

# The flow of spans and log records, by the semantic conventions for OpenTelemetry's own SDKs
SPANS_PROCESSED = Metric(
    "otel.sdk.processor.span.processed",
    "counter",
    "{span}",
    "Spans that left the queue; with `error.type`, those that were dropped.",
    (ERROR_TYPE,),
)
SPANS_EXPORTED = Metric(
    "otel.sdk.exporter.span.exported",
    "counter",
    "{span}",
    "Spans that the receiver took; with `error.type`, those that it did not.",
    (ERROR_TYPE,),
)
SPAN_QUEUE = Metric("otel.sdk.processor.span.queue.size", "updowncounter", "{span}", "Spans that wait to be sent.")
SPAN_CAPACITY = Metric(
    "otel.sdk.processor.span.queue.capacity", "updowncounter", "{span}", "Spans that can wait to be sent."
)
LOGS_PROCESSED = Metric(
    "otel.sdk.processor.log.processed",
    "counter",
    "{log_record}",
    "Log records that left the queue; with `error.type`, those that were dropped.",
    (ERROR_TYPE,),
)
LOGS_EXPORTED = Metric(
    "otel.sdk.exporter.log.exported",
    "counter",
    "{log_record}",
    "Log records that the receiver took; with `error.type`, those that it did not.",
    (ERROR_TYPE,),
)
LOG_QUEUE = Metric(
    "otel.sdk.processor.log.queue.size", "updowncounter", "{log_record}", "Log records that wait to be sent."
)
LOG_CAPACITY = Metric(
    "otel.sdk.processor.log.queue.capacity", "updowncounter", "{log_record}", "Log records that can wait to be sent."
)

METRICS: tuple[Metric, ...] = (
    DECISIONS,
    DURATION,
    CACHE_LOOKUPS,
    POLICY_ERRORS,
    SESSIONS,
    FREEZES,
    SESSION_EVENTS,
    BUNDLE,
    BUNDLE_ACTIVATIONS,
    BUNDLE_FAILURES,
    REFUSED,
    RECORD_FAILURES,
    RECORD_HEAD_FAILURES,
    RECORD_LOST,
    RECORD_WAITING,
    RECORD_UNSIGNED,
    MESSAGES_SENT,
    MESSAGES_WAITING,
    MESSAGES_DEAD,
    LEASE_AGE,
    FENCE_DURATION,
    SPANS_PROCESSED,
    SPANS_EXPORTED,
    SPAN_QUEUE,
    SPAN_CAPACITY,
    LOGS_PROCESSED,
    LOGS_EXPORTED,
    LOG_QUEUE,
    LOG_CAPACITY,
)

"""Every name that the PDP's telemetry uses: spans, their attributes, metrics and metrics' labels.

Names without `pdp.` are OpenTelemetry's. They are copied, because its package of names that are not yet stable
drops a name when it changes; dashboards should not follow such a change by surprise.
"""

from __future__ import annotations

# Spans
SPAN_DECISION = "pdp.authorize"
SPAN_REFUSED = "pdp.request.refused"

# Attributes of spans, by OpenTelemetry's semantic conventions
SESSION_ID = "session.id"
USER = "enduser.id"
AGENT = "gen_ai.agent.id"
TOOL = "gen_ai.tool.name"
TOOL_CALL_ID = "gen_ai.tool.call.id"
RPC_SYSTEM = "rpc.system.name"
RPC_METHOD = "rpc.method"
RPC_STATUS = "rpc.response.status_code"

# Attributes of spans, ours
DECISION_ID = "pdp.decision.id"
OUTCOME = "pdp.outcome"
BASIS = "pdp.basis"
POLICIES = "pdp.policies"
ERRORS = "pdp.errors"
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
REQUEST_FIELD = "pdp.request.field"
PHASE_PREFIX = "pdp.phase."
PHASE_SUFFIX = "_us"

# Labels that only metrics have; the others share their name with an attribute above
POLICY = "pdp.policy"
STATE = "pdp.session.state"
SESSION_EVENT = "pdp.session.event"

# Metrics
DECISIONS = "pdp.decisions"
DURATION = "pdp.decision.duration"
CACHE_LOOKUPS = "pdp.cache.lookups"
POLICY_ERRORS = "pdp.policy.errors"
SESSIONS = "pdp.sessions"
SESSION_EVENTS = "pdp.session.events"
BUNDLE = "pdp.bundle.info"
BUNDLE_ACTIVATIONS = "pdp.bundle.activations"
BUNDLE_FAILURES = "pdp.bundle.reload.failures"
REFUSED = "pdp.requests.refused"
RECORD_FAILURES = "pdp.record.failures"

# The value of a label when there are too many different ones
OTHER = "_OTHER"

"""What is mutated, and by which tests mutants have to be noticed."""

from __future__ import annotations

MODULES = (
    "pdp.decision.gate",
    "pdp.foundation.lrucache",
    "pdp.decision.cache",
    "pdp.decision.ledger",
    "pdp.decision.ruling",
    "pdp.sessions.lifecycle",
    "pdp.sessions.succession",
    "pdp.policy.reading",
    "pdp.policy.moments",
    "pdp.record.entry",
    "pdp.record.envelope",
    "pdp.telemetry.attributes",
)

# Of all mutants; `survivors.py` explains the others.
LEAST_KILLED = 0.95

# Each module is looked at by itself here, so that a rule does not depend on what goes through the whole server.
TESTS = (
    "tests/decision/test_gate.py",
    "tests/decision/test_budgets.py",
    "tests/decision/test_counts.py",
    "tests/decision/test_ledger.py",
    "tests/decision/test_stepup.py",
    "tests/decision/test_seen_targets.py",
    "tests/decision/test_cache.py",
    "tests/decision/test_ruling.py",
    "tests/sessions/test_lifecycle.py",
    "tests/sessions/test_memory.py",
    "tests/policy/test_moments.py",
    "tests/policy/test_what_is_read.py",
    "tests/policy/test_reading_by_itself.py",
    "tests/record/test_log.py",
    "tests/record/test_entry.py",
    "tests/record/test_session_events.py",
    "tests/telemetry/test_spans.py",
    "tests/telemetry/test_attributes.py",
)

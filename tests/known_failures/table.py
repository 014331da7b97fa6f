"""What went wrong in other systems, in the words of the table in SAFETY, and the tests that prove it cannot here."""

from __future__ import annotations

from collections.abc import Mapping

TESTS: Mapping[str, tuple[str, ...]] = {
    "cache keys collided: delimiters, nested lists": (
        "tests/decision/test_keys.py::test_what_differs_has_another_key",
        "tests/decision/test_keys.py::test_a_comma_in_a_string_is_no_second_string",
        "tests/decision/test_keys.py::test_one_is_not_true_and_not_a_string",
        "tests/decision/test_keys.py::test_a_slash_belongs_to_one_side",
        "tests/decision/test_keys.py::test_a_key_is_made_of_plain_parts",
    ),
    "an input was left out of the key": (
        "tests/decision/test_keys.py::test_every_field_is_accounted_for",
        "tests/decision/test_keys.py::test_every_fact_of_the_context_is_accounted_for",
        "tests/decision/test_keys.py::test_a_changed_call_has_another_key",
        "tests/decision/test_keys.py::test_a_changed_session_has_another_key",
        "tests/decision/test_keys.py::test_another_caller_and_another_bundle_have_another_key",
        "tests/decision/test_keys.py::test_each_part_of_a_key_by_what_is_read_makes_another",
        "tests/decision/test_keys.py::test_a_changed_fact_of_the_session_is_seen_at_once",
        "tests/decision/test_keys.py::test_a_changed_bundle_is_seen_at_once",
        "tests/decision/test_keys.py::test_a_changed_call_or_caller_is_seen_at_once",
    ),
    "a cached value was changed by a caller": (
        "tests/decision/test_cache_safety.py::test_many_threads_on_one_entry",
        "tests/decision/test_cache_safety.py::test_a_ruling_cannot_be_changed",
    ),
    "an entry outlived its lifetime": (
        "tests/decision/test_cache_safety.py::test_a_hot_entry_dies_after_max_ttl",
        "tests/decision/test_cache_safety.py::test_a_hot_call_is_denied_when_the_session_is_over",
        "tests/decision/test_cache_safety.py::test_an_entry_ends_with_its_session",
        "tests/decision/test_cache_safety.py::test_what_is_remembered_about_the_time_ends_where_it_changes",
    ),
    "a cached refusal was served as an allow; `invalidate()` existed and nobody called it": (
        "tests/decision/test_cache_safety.py::test_a_remembered_deny_stays_a_deny",
        "tests/decision/test_cache_safety.py::test_a_slow_writer_brings_nothing_back",
        "tests/known_failures/test_elsewhere.py::test_no_outcome_is_an_allow_by_default",
    ),
    "a verification cache accepted a changed token": (
        "tests/identity/test_web_tokens.py::test_a_changed_token_is_not_the_one_that_was_accepted",
        "tests/identity/test_authentication.py::test_other_credentials_are_refused",
    ),
    "expiry was not applied on one path": (
        "tests/decision/test_cache_safety.py::test_every_method_at_the_end_of_a_session",
        "tests/decision/test_cache_safety.py::test_every_method_at_the_end_of_a_request",
        "tests/decision/test_cache_safety.py::test_revoking_at_the_end",
        "tests/server/test_states.py::test_every_rpc_in_every_state",
    ),
    "cross-tenant revoke or read": (
        "tests/decision/test_cache_safety.py::test_a_foreign_session_looks_like_none",
        "tests/decision/test_cache_safety.py::test_a_foreign_tenant_lists_and_revokes_nothing",
        "tests/decision/test_cache_safety.py::test_another_gateway_of_the_tenant_sees_no_session",
    ),
    "an agent id, a group or an action's group was missing among the entities, and a forbid silently did not match": (
        "tests/decision/test_strictness.py::test_a_forbid_holds_across_actions_in_every_order",
        "tests/decision/test_strictness.py::test_a_forbid_holds_whichever_action_a_bundle_meets_first",
        "tests/decision/test_strictness.py::test_a_thing_that_the_user_refers_to_stands_below_its_server",
    ),
    "an argument was hidden from a forbid by its value": (
        "tests/decision/test_strictness.py::test_an_amount_cannot_be_hidden",
    ),
    "an erroring forbid was skipped": (
        "tests/decision/test_strictness.py::test_there_are_forty",
        "tests/decision/test_strictness.py::test_a_policy_that_errs_denies",
        "tests/decision/test_strictness.py::test_a_forbid_that_errs_beside_one_that_matches",
    ),
    "deny by error was not recorded": (
        "tests/record/test_property.py::test_there_is_a_record_for_each_decision",
        "tests/server/test_written.py::test_trouble_that_an_agent_writes",
        "tests/server/test_written.py::test_trouble_that_a_caller_writes",
    ),
    "policy or arguments crashed or stalled the engine": (
        "tests/decision/test_strictness.py::test_deep_and_wide_arguments_are_denied",
        "tests/decision/test_strictness.py::test_deep_and_wide_bundles_are_refused",
        "tests/policy/child/test_child.py::test_a_job_that_does_not_end_is_ended",
        "tests/policy/child/test_child.py::test_a_crash_is_an_error_and_the_next_job_works",
        "tests/policy/test_safety.py::test_what_passes_the_scan_fits_on_the_stack",
    ),
    "method name tricks": (
        "tests/server/test_rpcs.py::test_odd_paths_are_not_served",
        "tests/server/test_metadata.py::test_metadata_that_stands_twice_opens_no_path",
    ),
    "header and body disagreed": (
        "tests/server/test_metadata.py::test_the_body_decides_and_headers_do_not",
        "tests/serving/test_boundary.py::test_an_answer_repeats_the_question",
        "tests/client/test_client_fails_closed.py::test_a_spoilt_decision_is_a_deny",
        "tests/client/test_client_fails_closed.py::test_a_batch_in_wrong_order_is_denied",
    ),
    "a tool changed after it was approved": (
        "tests/known_failures/test_elsewhere.py::test_one_changed_byte_of_a_definition_denies",
        "tests/client/test_client_definitions.py::test_every_change_of_what_a_model_acts_on_counts",
    ),
    "audience not checked when unset": (
        "tests/composition/test_config.py::test_contradictions_are_refused",
        "tests/known_failures/test_elsewhere.py::test_an_issuer_without_an_audience_does_not_start",
    ),
    "a caller switched tracing off": (
        "tests/telemetry/test_spans.py::test_a_span_is_the_callers_child",
        "tests/record/test_property.py::test_there_is_a_record_for_each_decision",
    ),
    "secrets in audit logs": (
        "tests/record/test_canary.py::test_nothing_is_found_where_it_may_not_be",
        "tests/record/test_canary.py::test_no_handle_and_no_token_is_found",
        "tests/record/test_log.py::test_only_allowed_fields_are_written",
    ),
    "log injection": (
        "tests/record/test_log.py::test_any_decision_is_one_line",
        "tests/server/test_fields.py::test_a_wrong_field_is_named",
        "tests/telemetry/test_spans.py::test_foreign_text_is_bounded",
        "tests/server/test_metadata.py::test_what_others_write_makes_no_line_of_the_log",
    ),
    "`failure_mode_allow` and friends": (
        "tests/known_failures/test_elsewhere.py::test_no_name_promises_an_allow_without_a_decision",
    ),
    "acknowledged writes lost": (
        "tests/proofs/test_kill.py::test_what_was_acknowledged_survives_kills",
        "tests/sessions/test_sqlite.py::test_what_was_acknowledged_survives_a_kill",
    ),
    "SQLite 3.7.0–3.51.2 can corrupt a WAL database with several writing connections": (  # noqa: RUF001 - as it stands there
        "tests/sessions/test_sqlite.py::test_an_engine_that_can_corrupt_is_refused",
        "tests/sessions/test_sqlite.py::test_a_sound_engine_is_accepted",
    ),
}

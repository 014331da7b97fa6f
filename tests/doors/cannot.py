"""Which cases an adapter cannot have, each with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_TEXTS = ("text_that_is_no_call_does_not_run", "a_key_twice_runs_as_it_was_asked_about")
_HALF = "half_a_character_does_not_run"
_FINDS_ITS = "a_tool_finds_the_call_token_of_its_call"
_ELSEWHERE = "the framework runs the tools, where nothing of the adapter is: such a door is refused"
_REFUSED = "the framework itself refuses such an answer of a model"

# The adapters by the names of their modules; each runs all other cases.
CANNOT: Final[Mapping[str, Mapping[str, str]]] = {
    "core": dict.fromkeys(_TEXTS, "arguments come as values"),
    "langchain": dict.fromkeys(_TEXTS, "the framework reads the arguments before any call of a tool"),
    "pydantic_ai": {_HALF: _REFUSED},
    "openai_agents": {_HALF: _REFUSED, _FINDS_ITS: _ELSEWHERE},
    "claude_agent": {
        **dict.fromkeys(_TEXTS, "the framework reads the arguments before any hook"),
        _HALF: "the answers of a model are UTF-8",
        "what_is_no_number_does_not_run": "the answers of a model are JSON",
        "fields_of_a_result_are_redacted": "the error of a tool cannot be replaced, so such calls are denied",
        "the_error_of_a_tool_with_redacted_results_is_not_told": "such calls are denied",
        "the_error_of_a_tool_that_is_too_large_is_withheld": "it ends the conversation, which has a test of its own",
        "a_number_runs_as_it_was_asked_about": "it rounds before it asks: what runs is asked about",
        _FINDS_ITS: _ELSEWHERE,
        "calls_of_many_runs_are_not_mixed_up": "each run is a program of its own, which is too large for fifty",
    },
    "google_adk": dict.fromkeys(_TEXTS, "the framework takes the arguments as values from its models"),
    "strands": {
        **dict.fromkeys(_TEXTS, "the framework reads the arguments before any hook"),
        _FINDS_ITS: "the framework runs the tools, between steps of the adapter: such a door is refused",
    },
    "agentgateway": {
        **dict.fromkeys(_TEXTS, "the gateway reads the arguments before it asks"),
        _HALF: "no message of MCP can hold it",
        "what_is_no_number_does_not_run": "no message of MCP can hold it",
        "arguments_that_change_meanwhile_run_as_they_were": "what is asked about is a message, which nobody holds",
        "a_decision_has_the_frameworks_id_of_the_call": "MCP has no id of a call that a retry keeps",
        "an_unknown_obligation_is_a_deny": "nobody can tell it that a server meets one; its own test has the deny",
        "a_call_has_a_span_between_the_agent_and_the_decision": "it makes the span itself, and has a test of its own",
        "a_fault_of_the_door_itself_is_a_deny": "it has a test of its own, with its own parts",
        _FINDS_ITS: "the token goes to a server, and has a test of its own",
        "a_run_without_a_session_is_denied": "the agent is told to bring a handle, which has a test of its own",
        "a_call_that_waits_for_a_person_runs_once_when_approved": "the text names a command; it has a test of its own",
        "a_call_may_wait_for_the_person": "the gateway waits for seconds, which no person answers in",
        "a_model_that_only_repeats_a_denied_call_is_stopped": "a gateway ends no run of its agents",
    },
    "fastmcp": {
        **dict.fromkeys(_TEXTS, "the server of MCP reads the arguments before any middleware"),
        _HALF: "no message of MCP can hold it",
        "what_is_no_number_does_not_run": "its client sends `null` instead, which is what is asked about and runs",
        "a_decision_has_the_frameworks_id_of_the_call": "MCP has no id of a call that a retry keeps",
        "a_model_that_only_repeats_a_denied_call_is_stopped": "a server ends no run of its client",
    },
}
